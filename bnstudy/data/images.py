"""Images: the loaders, and what is done to every data set after them.

A loader returns raw images in [0, 1]. The split is stratified by class and depends on
`split_seed` alone, never on the seed of a run.
"""

import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from bnstudy.config import DataConfig
from bnstudy.data import Dataset, files
from bnstudy.data.samplers import generator
from bnstudy.errors import UserError

DIGITS = {"train": 1197, "val": 200, "test": 400}
FOLDER_SHARES = {"val": 0.1, "test": 0.2}  # of a folder without parts of its own
GREY, COLOR = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
DECODER = 1  # raise it when `_decode` changes: decoded images of older versions are not read then


def digits(cfg: DataConfig, cache_dir: Path | None = None) -> Dataset:
    """The 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn."""
    table = np.loadtxt(digits_file(), delimiter=",")  # 64 grey levels and the digit in a row
    images, labels = table[:, :-1], table[:, -1]
    x = torch.from_numpy(images).to(torch.float32).reshape(-1, 1, 8, 8) / 16  # grey levels 0..16
    y = torch.from_numpy(labels).to(torch.int64)
    parts = split(y, {"val": DIGITS["val"], "test": DIGITS["test"]}, cfg.split_seed)
    return _dataset({part: (x[chosen], y[chosen]) for part, chosen in parts.items()}, 10)


def digits_file() -> Path:
    """The file that scikit-learn reads its digits from.

    Found without importing scikit-learn, which takes longer than to train a small network.
    """
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise UserError("data=digits is read from scikit-learn's files, and it is not installed")
    return Path(found.origin).with_name("datasets") / "data" / "digits.csv.gz"


def packed(cfg: DataConfig, cache_dir: Path | None = None) -> Dataset:
    """MNIST, Fashion-MNIST and CIFAR-10 as torchvision reads them, with their own test parts."""
    official = {}
    for part, train in (("train", True), ("test", False)):
        source = files.open_packed(cfg, train=train)
        pixels = torch.as_tensor(source.data)
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
        official[part] = (pixels, torch.as_tensor(source.targets).to(torch.int64))
    return _carve_validation(official, 10, cfg.split_seed)


def image_folder(cfg: DataConfig, cache_dir: Path | None = None) -> Dataset:
    """A folder of class folders of images, with or without train/ and test/ above them.

    Without them the images are split 70 : 10 : 20, stratified. All images become grey if all are,
    else RGB; `image_size` resizes the short side and crops the middle square. Decoded once: the
    pixels are kept in `cache_dir` under the data's fingerprint.
    """
    root = files.root_of(cfg)
    listing = files.list_images(root)
    kept = cache_dir and cache_dir / f"images-{cfg.fingerprint}-{cfg.image_size}-{DECODER}.pt"
    pixels = _read_kept(kept) if kept and cfg.fingerprint else None
    if pixels is None:
        pixels = _decode_all(root, listing, cfg.image_size)
        if kept and cfg.fingerprint:
            files.write_aside(kept, lambda path: torch.save(pixels, path))
    labels = {part: torch.tensor([y for _, y in items]) for part, items in listing.parts.items()}
    info = {"classes": list(listing.classes)}
    if "test" in labels:
        pairs = {part: (pixels[part], labels[part]) for part in labels}
        return _carve_validation(pairs, len(listing.classes), cfg.split_seed, info)
    x, y = pixels["all"], labels["all"]
    sizes = {part: round(share * len(y)) for part, share in FOLDER_SHARES.items()}
    if not all(sizes.values()):
        raise UserError(f"data.root={root} has {len(y)} images; a split needs at least 10")
    parts = {k: (_unit(x[i]), y[i]) for k, i in split(y, sizes, cfg.split_seed).items()}
    return _dataset(parts, len(listing.classes), info)


def split(labels: torch.Tensor, sizes: dict[str, int], split_seed: int) -> dict[str, torch.Tensor]:
    """Indices of the named parts and of `train`, which is the rest; stratified by class.

    Each part holds its share of every class up to rounding: examples are shuffled within their
    class and the classes are interleaved evenly, then cut.
    """
    stream = generator(split_seed, "split")
    place = _place_in_class(labels, stream)
    counts = torch.bincount(labels)
    offset = torch.rand(len(counts), generator=stream, dtype=torch.float64)
    order = torch.argsort((place + offset[labels]) / counts[labels], stable=True)
    cuts = order.split([*sizes.values(), len(labels) - sum(sizes.values())])
    return {part: cut.sort().values for part, cut in zip([*sizes, "train"], cuts, strict=True)}


def subset(data: Dataset, cfg: DataConfig) -> Dataset:
    """`train_size` training examples, as many of each class as of the others.

    Classes differ by one example at most while none is used up. A smaller subset is contained in
    a larger one of the same `split_seed`; all examples in their order are the training part.
    """
    n = len(data.train_y)
    if cfg.train_size is None:
        return data
    if cfg.train_size > n:
        raise UserError(
            f"data.train_size={cfg.train_size} is larger than the training part of "
            f"data={cfg.name}, which has {n} examples"
        )
    stream = generator(cfg.split_seed, "train_size")
    place = _place_in_class(data.train_y, stream)
    lot = torch.rand(n, generator=stream, dtype=torch.float64)  # who comes first in each round
    chosen = torch.argsort(place + lot, stable=True)[: cfg.train_size].sort().values
    return replace(data, train_x=data.train_x[chosen], train_y=data.train_y[chosen])


def distort(data: Dataset, cfg: DataConfig) -> Dataset:
    """Images times exp(contrast * z), then plus noise of s.d. `pixel_noise`; each drawn once.

    With `noise_every_step` training images are left to the training loop. Both are in units of the
    grey range and not clipped. The log-normal factor makes some images of a batch much louder than
    others.
    """
    if cfg.contrast:
        stream = generator(cfg.split_seed, "contrast")
        data = data.with_parts(
            lambda _, x, y: (
                x * torch.exp(cfg.contrast * torch.randn(len(x), 1, 1, 1, generator=stream)),
                y,
            )
        )
    if cfg.pixel_noise:
        stream = generator(cfg.split_seed, "pixel_noise")

        def noisy(part: str, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            noise = cfg.pixel_noise * torch.randn(x.shape, generator=stream)
            return (x if part == "train" and cfg.noise_every_step else x + noise), y

        data = data.with_parts(noisy)
    return data


def normalize(data: Dataset, available: int, noise: float = 0.0) -> Dataset:
    """Each channel minus its mean, over its standard deviation, both of the training part.

    Standard deviation with divisor n. A channel that is constant over the training part is only
    centred. `available` is the size of the training part before the subset, for the
    record; `noise` the s.d. of what training adds, in units of the grey range.
    """
    # numpy, not torch: its sums do not depend on the number of threads
    pixels = data.train_x.numpy()
    mean = pixels.mean(axis=(0, 2, 3), dtype=np.float64)
    squares = np.zeros_like(mean)
    for start in range(0, len(pixels), 1024):  # in pieces: float64 of all would not fit
        deviation = pixels[start : start + 1024] - mean[:, None, None]
        squares += np.square(deviation).sum(axis=(0, 2, 3))
    std = np.sqrt(squares / (pixels.size / len(mean)))
    # below float32's resolution of the mean the deviation is rounding, not signal
    std[std <= np.finfo(np.float32).eps * np.abs(mean)] = 1.0
    shift, scale = (torch.from_numpy(v.astype(np.float32))[:, None, None] for v in (mean, std))
    info = {
        **data.info,
        "sizes": {part: len(y) for part, _, y in data.parts()},
        "available": available,
        "mean": mean.tolist(),
        "std": std.tolist(),
    }
    data = data.with_parts(lambda _, x, y: ((x - shift).div_(scale), y))
    return replace(data, info=info, noise=noise / scale if noise else None)


def _place_in_class(labels: torch.Tensor, stream: torch.Generator) -> torch.Tensor:
    """For each example its place, from 0, in a random order of its own class."""
    shuffled = torch.randperm(len(labels), generator=stream)
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]
    counts = torch.bincount(labels)
    first = counts.cumsum(0) - counts
    place = torch.empty_like(labels)
    place[by_class] = torch.arange(len(labels)) - first[labels[by_class]]
    return place


def _carve_validation(
    official: dict[str, tuple[torch.Tensor, torch.Tensor]],
    num_classes: int,
    split_seed: int,
    info: dict[str, Any] | None = None,
) -> Dataset:
    """Official training and test part; validation is a tenth of the former, 5,000 at most."""
    (x, y), (test_x, test_y) = official["train"], official["test"]
    size = min(5_000, len(y) // 10)
    if not size:
        raise UserError(f"the training part has {len(y)} examples; a split needs at least 10")
    parts = {k: (_unit(x[i]), y[i]) for k, i in split(y, {"val": size}, split_seed).items()}
    return _dataset({**parts, "test": (_unit(test_x), test_y)}, num_classes, info)


def _unit(pixels: torch.Tensor) -> torch.Tensor:
    """Bytes 0..255 as float32 in [0, 1]."""
    return pixels.contiguous().to(torch.float32).div_(255)


def _dataset(
    parts: dict[str, tuple[torch.Tensor, torch.Tensor]],
    num_classes: int,
    info: dict[str, Any] | None = None,
) -> Dataset:
    return Dataset(*parts["train"], *parts["val"], *parts["test"], num_classes, info or {})


def _read_kept(path: Path) -> dict[str, torch.Tensor] | None:
    """Decoded images of an earlier time, or None when they are absent or damaged."""
    try:
        return torch.load(path, weights_only=True)
    except (
        OSError,
        RuntimeError,
        EOFError,
        UnpicklingError,
    ):  # torn or foreign: make it anew
        return None


def _decode_all(root: Path, listing: files.Listing, size: int | None) -> dict[str, torch.Tensor]:
    """Bytes of all images, (n, C, H, W) per part; decoded by threads (Pillow frees the lock)."""
    names = listing.names()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        try:
            decoded = []
            stream = pool.map(lambda name: _decode(root / name, size), names)
            for image in files.track(stream, "decoding images", len(names)):
                decoded.append(image)
                if image.shape[1:] != decoded[0].shape[1:]:
                    first, this = ("x".join(map(str, i.shape[:0:-1])) for i in (decoded[0], image))
                    raise UserError(
                        f"images under data.root={root} differ in size: {names[0]} is {first}, "
                        f"{names[len(decoded) - 1]} is {this} (width x height). Bring them to one "
                        f"size with data.image_size={min(*decoded[0].shape[1:], *image.shape[1:])}."
                    )
        finally:
            pool.shutdown(cancel_futures=True)  # after an error the rest need not be decoded
    channels = max(len(image) for image in decoded)
    pixels = np.empty((len(decoded), channels, *decoded[0].shape[1:]), np.uint8)
    for i, image in enumerate(decoded):
        pixels[i] = image  # a grey image among colored ones is repeated
    sizes = [len(items) for items in listing.parts.values()]
    return dict(zip(listing.parts, torch.from_numpy(pixels).split(sizes), strict=True))


def _decode(path: Path, size: int | None) -> np.ndarray:
    """One image as bytes (C, H, W) with C = 1 or 3; alpha is dropped."""
    try:
        with Image.open(path) as image:
            if image.mode not in GREY + COLOR:
                raise UserError(
                    f"{path} has pixels of mode '{image.mode}'; read are 8-bit images: "
                    f"{', '.join(GREY + COLOR)}"
                )
            image = image.convert("L" if image.mode in GREY else "RGB")
            if size is not None:
                image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
            pixels = np.asarray(image)
    except (
        OSError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as e:  # Pillow's ways to say damaged
        raise UserError(f"the image {path} cannot be read: {e}. Repair or remove it.") from e
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
