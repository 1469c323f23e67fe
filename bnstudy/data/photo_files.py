"""Photographs on disk: which there are, which of them train and test, and reading them."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bnstudy.config import DataConfig
from bnstudy.data import files
from bnstudy.data.samplers import generator
from bnstudy.errors import UserError, count

# of the packages' photographs (attribution in patches.md): no photograph is in two parts
EMBEDDED: dict[str, dict[str, tuple[str, str]]] = {
    "train": {
        "astronaut": ("skimage", "data/astronaut.png"),
        "brick": ("skimage", "data/brick.png"),
        "china": ("sklearn", "datasets/images/china.jpg"),
        "coins": ("skimage", "data/coins.png"),
        "grass": ("skimage", "data/grass.png"),
        "moon": ("skimage", "data/moon.png"),
    },
    "val": {
        "gravel": ("skimage", "data/gravel.png"),
        "rocket": ("skimage", "data/rocket.jpg"),
    },
    "test": {
        "camera": ("skimage", "data/camera.png"),
        "chelsea": ("skimage", "data/chelsea.png"),
        "coffee": ("skimage", "data/coffee.png"),
        "flower": ("sklearn", "datasets/images/flower.jpg"),
    },
}
REDUCED = 2  # they are read at half their resolution, which also removes traces of JPEG
SHARES = {"val": 0.1, "test": 0.2}  # of a folder without parts of its own
CLASSIC = {"train": ("Train400",), "test": ("Set12", "BSD68")}  # of the DnCNN paper
PLAIN = {"train": ("train",), "val": ("val",), "test": ("test",)}
SMALLEST = 11  # pixels: SSIM's window
SHOWN = 3  # skipped files that a message names


@dataclass(frozen=True)
class Found:
    """Photographs by part, (name, grey levels (C, H, W)), and the files that are none."""

    parts: dict[str, list[tuple[str, torch.Tensor]]]
    skipped: dict[str, str]  # name -> why


def embedded() -> dict[str, dict[str, Path]]:
    """The packages' photographs by part and name."""
    return {part: files.packaged(own, "photos") for part, own in EMBEDDED.items()}


def listing(root: Path) -> list[str]:
    """All files below a folder, relative to it, sorted; hidden ones are no part of it."""
    return sorted(
        (Path(where) / name).relative_to(root).as_posix()
        for where, _, names in os.walk(root, followlinks=True)
        for name in names
        if not name.startswith(".")
    )


def fingerprint(cfg: DataConfig, cache_dir: Path | None = None) -> str:
    """The name of the photographs: a hash over names and bytes of the files that are read."""
    if cfg.root is None:
        paths = [path for own in embedded().values() for path in own.values()]
        return files.content_hash(paths)
    root = files.root_of(cfg)
    return files.fingerprint(root, [n for n in listing(root) if _is_image(n)], cache_dir)


def _is_image(name: str) -> bool:
    return name.lower().endswith(files.EXTENSIONS)


@lru_cache(maxsize=2)
def read(root: Path | None, color: bool, split_seed: int, fingerprint: str) -> Found:
    """The photographs of a folder, or those that come with other packages.

    Folders: Train400 beside Set12 or BSD68, or train/ beside test/ (and val/), images at any depth
    below; else all images, of which 10 % validate and 20 % test. Where no part validates, a tenth
    of the training photographs does. Both are drawn from (split_seed, purpose).

    Args:
        fingerprint: of the files; others are read again.

    Raises:
        UserError: no image is left, or too few for three parts.
    """
    if root is None:
        parts = {
            part: [(name, read_pixels(path, color, REDUCED)) for name, path in own.items()]
            for part, own in embedded().items()
        }
        return Found(parts, {})
    skipped: dict[str, str] = {}
    good: list[tuple[str, torch.Tensor]] = []
    names = listing(root)
    for name in files.track(names, "decoding photographs"):
        try:
            if not _is_image(name):
                raise ValueError(f"no image ({', '.join(files.EXTENSIONS)})")
            pixels = read_pixels(root / name, color)
            if min(pixels.shape[1:]) < SMALLEST:
                raise ValueError(f"smaller than {SMALLEST} pixels")
            good.append((name, pixels))
        # Pillow's ways to say damaged, and ours
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            skipped[name] = str(error).replace(str(root / name), "the file")
    if not good:
        first = f", {next(iter(skipped))} the first" if skipped else ""
        raise UserError(
            f"data.root={root} has no image that can be read ({count(len(skipped), 'file')} "
            f"skipped{first}). Read are: {', '.join(files.EXTENSIONS)}."
        )
    return Found(_parted(root, good, split_seed), skipped)


def _parted(
    root: Path, good: list[tuple[str, torch.Tensor]], split_seed: int
) -> dict[str, list[tuple[str, torch.Tensor]]]:
    """Photographs of a folder by part."""
    for layout in (CLASSIC, PLAIN):
        parts = {
            part: [item for item in good if item[0].partition("/")[0] in folders]
            for part, folders in layout.items()
        }
        if parts["train"] and parts["test"]:
            break
        if layout is PLAIN and (parts["train"] or parts["test"]):
            absent = "test" if parts["train"] else "train"
            raise UserError(
                f"data.root={root} has photographs in {'train' if parts['train'] else 'test'}/ and "
                f"none in {absent}/: add them, or point data.root at the folder to have it split"
            )
    else:
        order = torch.randperm(len(good), generator=generator(split_seed, "test")).tolist()
        tested = set(order[: round(SHARES["test"] * len(good))])
        parts = {
            "train": [item for i, item in enumerate(good) if i not in tested],
            "test": [item for i, item in enumerate(good) if i in tested],
        }
    if not parts.get("val"):
        own = parts["train"]
        stream = generator(split_seed, "validation")
        chosen = set(torch.randperm(len(own), generator=stream)[: max(len(own) // 10, 1)].tolist())
        parts["val"] = [item for i, item in enumerate(own) if i in chosen]
        parts["train"] = [item for i, item in enumerate(own) if i not in chosen]
    if not all(parts.values()):
        raise UserError(
            f"data.root={root} has {count(len(good), 'photograph')} that can be read: too few to "
            "train, validate and test on (at least 4)"
        )
    return parts


def read_pixels(path: Path, color: bool, reduced: int = 1) -> torch.Tensor:
    """The grey levels of a file, (C, H, W): bytes, or float32 in [0, 1] of 16-bit images.

    Alpha is dropped, palettes are looked up. Grey levels of colored images are their luminance
    (ITU-R 601). Raises ValueError for pixels whose range is not known, OSError for a damaged file.
    """
    with Image.open(path) as image:
        if image.mode.startswith("I"):  # 16 bits
            levels = np.asarray(image).astype(np.float32)
            if levels.max() > 65535 or levels.min() < 0:
                raise ValueError("grey levels beyond 16 bits")
            grey = torch.from_numpy(levels / 65535)[None]
            return grey.expand(3, -1, -1).contiguous() if color else grey
        if image.mode in ("F", "LAB", "HSV"):
            raise ValueError(f"pixels of mode '{image.mode}', whose range is not known")
        if image.mode in ("P", "PA"):
            image = image.convert("RGBA")
        image = image.convert("RGB" if color else "L")
        if reduced > 1:
            image = image.reduce(reduced)
        pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def tell(skipped: Mapping[str, str], cfg: DataConfig) -> None:
    """One line on stderr about the files that were passed over."""
    if not skipped:
        return
    shown = [f"{name} ({why})" for name, why in list(skipped.items())[:SHOWN]]
    more = [f"and {len(skipped) - SHOWN} more"] if len(skipped) > SHOWN else []
    what = "; ".join([*shown, *more])
    print(f"data.root={cfg.root}: {count(len(skipped), 'file')} skipped: {what}", file=sys.stderr)
