"""Images: the loaders. Each returns a pool of raw images in [0, 1].

Parts are stratified by class. A data set without a test part of its own has one that is drawn from
(split_seed, "test").
"""

import hashlib
import importlib.util
import lzma
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from bnstudy.config import DataConfig
from bnstudy.data import files
from bnstudy.data.draws import Pool, stratified
from bnstudy.data.samplers import generator
from bnstudy.errors import UserError

DIGITS = {"val": 200, "test": 400}  # of 1,797
MNIST_SMALL = Path(__file__).with_name("mnist_small.npy.xz")  # made by scripts/mnist_small.py
MNIST_POOL = 8000  # its first images, from MNIST's training part
FOLDER_SHARES = {"val": 0.1, "test": 0.2}  # of a folder without parts of its own
GREY, COLOR = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DECODER = 1  # raise it when `_decode` changes: decoded images of older versions are not read then


def digits(cfg: DataConfig, cache_dir: Path | None = None) -> Pool:
    """The 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn."""
    table = np.loadtxt(digits_file(), delimiter=",")  # 64 grey levels and the digit in a row
    images, labels = table[:, :-1], table[:, -1]
    x = torch.from_numpy(images).to(torch.float32).reshape(-1, 1, 8, 8) / 16  # grey levels 0..16
    y = torch.from_numpy(labels).to(torch.int64)
    return _without_test(x, y, DIGITS, 10, cfg.split_seed)


def digits_file() -> Path:
    """The file that scikit-learn reads its digits from.

    Found without importing scikit-learn, which takes longer than to train a small network.
    """
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise UserError("data=digits is read from scikit-learn's files, and it is not installed")
    return Path(found.origin).with_name("datasets") / "data" / "digits.csv.gz"


def mnist_small(cfg: DataConfig, cache_dir: Path | None = None) -> Pool:
    """10,500 of MNIST's images that come with the package; 2,500 of its test part are the test."""
    with lzma.open(MNIST_SMALL) as file:
        rows = torch.from_numpy(np.load(file))  # a label and 28 x 28 grey levels each
    pixels, labels = rows[:, 1:].view(-1, 1, 28, 28), rows[:, 0].to(torch.int64)
    cut = {"train": slice(MNIST_POOL), "test": slice(MNIST_POOL, None)}
    return _with_test({part: (pixels[own], labels[own]) for part, own in cut.items()}, 10)


def packed(cfg: DataConfig, cache_dir: Path | None = None) -> Pool:
    """MNIST, Fashion-MNIST and CIFAR-10 as torchvision reads them, with their own test parts."""
    official = {}
    for part, train in (("train", True), ("test", False)):
        source = files.open_packed(cfg, train=train)
        pixels = torch.as_tensor(source.data)
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
        official[part] = (pixels, torch.as_tensor(source.targets).to(torch.int64))
    return _with_test(official, 10)


def image_folder(cfg: DataConfig, cache_dir: Path | None = None) -> Pool:
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
            files.write_aside(kept, lambda path: torch.save((pixels, _hash(pixels)), path))
    labels = {part: torch.tensor([y for _, y in items]) for part, items in listing.parts.items()}
    info = {"classes": list(listing.classes)}
    if "test" in labels:
        pairs = {part: (pixels[part], labels[part]) for part in labels}
        return _with_test(pairs, len(listing.classes), info)
    x, y = pixels["all"], labels["all"]
    sizes = {part: round(share * len(y)) for part, share in FOLDER_SHARES.items()}
    if not all(sizes.values()):
        raise UserError(f"data.root={root} has {len(y)} images; a split needs at least 10")
    return _without_test(_unit(x), y, sizes, len(listing.classes), cfg.split_seed, info)


def cifar10_jpeg(cfg: DataConfig, cache_dir: Path | None = None) -> Pool:
    """CIFAR-10 re-encoded as JPEG: ROOT/train/<class>/*.jpg and ROOT/test/<class>/*.jpg.

    Slightly degraded, and therefore not called CIFAR-10. Raises UserError for other classes or
    another number of images.
    """
    root = files.root_of(cfg)
    listing = files.list_images(root)
    sizes = {part: len(items) for part, items in listing.parts.items()}
    if listing.classes != CIFAR10 or sizes != {"train": 50_000, "test": 10_000}:
        raise UserError(
            f"data.root={root} is not CIFAR-10: expected are train/ with 50,000 and test/ with "
            f"10,000 images in the folders {', '.join(CIFAR10)}; found are "
            + ", ".join(f"{part}/ with {size:,}" for part, size in sizes.items())
            + f" in {', '.join(listing.classes[:12])}. Other folders: data=image_folder"
        )
    return image_folder(cfg, cache_dir)


def _with_test(
    official: dict[str, tuple[torch.Tensor, torch.Tensor]],
    num_classes: int,
    info: dict[str, Any] | None = None,
) -> Pool:
    """Official training and test part; validation is a tenth of the former, 5,000 at most."""
    (x, y), (test_x, test_y) = official["train"], official["test"]
    size = min(5_000, len(y) // 10)
    if not size:
        raise UserError(f"the training part has {len(y)} examples; a split needs at least 10")
    validation = partial(stratified, y, size)
    return Pool(
        _unit(x), y, _unit(test_x), test_y, num_classes, validation, info or {}, exchangeable=True
    )


def _without_test(
    x: torch.Tensor,
    y: torch.Tensor,
    sizes: dict[str, int],
    num_classes: int,
    split_seed: int,
    info: dict[str, Any] | None = None,
) -> Pool:
    """A test part of so many examples, drawn from (split_seed, "test"); the others are the pool."""
    test = torch.zeros(len(y), dtype=torch.bool)
    test[stratified(y, sizes["test"], generator(split_seed, "test"))] = True
    validation = partial(stratified, y[~test], sizes["val"])
    parts = x[~test], y[~test], x[test], y[test]
    return Pool(*parts, num_classes, validation, info or {}, exchangeable=True)


def _unit(pixels: torch.Tensor) -> torch.Tensor:
    """Bytes 0..255 as float32 in [0, 1]."""
    return pixels.contiguous().to(torch.float32).div_(255)


def _read_kept(path: Path) -> dict[str, torch.Tensor] | None:
    """Decoded images of an earlier time, or None when they are absent or damaged."""
    try:
        pixels, told = torch.load(path, weights_only=True)
        return pixels if _hash(pixels) == told else None  # torch does not look for flipped bits
    except (
        AttributeError,
        OSError,
        RuntimeError,
        EOFError,
        TypeError,
        ValueError,
        UnpicklingError,
    ):  # torn or foreign: make it anew
        return None


def _hash(pixels: dict[str, torch.Tensor]) -> str:
    """Of the decoded images of all parts."""
    found = hashlib.sha256()
    for part in sorted(pixels):
        found.update(f"{part} {tuple(pixels[part].shape)}".encode())
        found.update(pixels[part].contiguous().numpy().data)
    return found.hexdigest()


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
