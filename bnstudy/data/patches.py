"""Patches of photographs: which of ten is it from? Photographs that other packages bring along."""

from pathlib import Path
from typing import TYPE_CHECKING

from bnstudy.data import files

if TYPE_CHECKING:
    import torch

    from bnstudy.config import DataConfig
    from bnstudy.data.draws import Pool

# photograph -> package and file, in the order of the classes; attribution in patches.md
PHOTOGRAPHS = {
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "astronaut": ("skimage", "data/astronaut.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "camera": ("skimage", "data/camera.png"),
    "brick": ("skimage", "data/brick.png"),
    "grass": ("skimage", "data/grass.png"),
    "gravel": ("skimage", "data/gravel.png"),
}
SIDE, STRIDE = 16, 8  # pixels: of a patch, and between patches of a region
REGION, GAP = 48, 16  # pixels: a square region holds 5 x 5 patches; between regions none is read
GRID = (4, 7)  # regions of a photograph, around its middle: what the smallest has room for
REGIONS = {"test": 7, "val": 3}  # of a photograph's 28
PER_REGION = ((REGION - SIDE) // STRIDE + 1) ** 2


def paths() -> list[Path]:
    """The photographs' files. Raises UserError where one is absent."""
    return list(files.packaged(PHOTOGRAPHS, "patches").values())


def fingerprint() -> str:
    """The name of the photographs: a hash of their bytes, which are another package's."""
    return files.content_hash(paths())


def load(cfg: "DataConfig", cache_dir: Path | None = None) -> "Pool":
    """Grey patches of 16 x 16 pixels; the class is the photograph.

    Patches of a region overlap, regions are 16 pixels apart: no pixel is shared by examples of two
    parts. Test regions are drawn from (split_seed, "test"); validation is whole regions, too.
    """
    import torch

    from bnstudy.data.draws import Pool
    from bnstudy.data.samplers import generator

    x = torch.stack(
        [_regions(_grey(path)) for path in paths()]
    )  # (photographs, regions, patches, 1, ...)
    photographs, regions = x.shape[:2]
    lot = generator(cfg.split_seed, "test")
    order = torch.stack([torch.randperm(regions, generator=lot) for _ in range(photographs)])
    classes = torch.arange(photographs)[:, None]
    test, pool = (x[classes, own] for own in order.tensor_split([REGIONS["test"]], dim=1))

    def validation(stream: "torch.Generator") -> "torch.Tensor":
        index = torch.arange(pool.shape[:3].numel()).view(pool.shape[:3])
        own = [i[torch.randperm(len(i), generator=stream)[: REGIONS["val"]]] for i in index]
        return torch.stack(own).flatten()

    def examples(part: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
        return part.flatten(0, 2), classes[..., None].expand(part.shape[:3]).flatten()

    parts = (*examples(pool), *examples(test))
    return Pool(*parts, photographs, validation, {"classes": list(PHOTOGRAPHS)})


def _grey(path: Path) -> "torch.Tensor":
    """A photograph's grey levels (H, W) in [0, 1]."""
    import numpy as np
    import torch
    from PIL import Image

    with Image.open(path) as image:
        return torch.from_numpy(np.asarray(image.convert("L")).astype(np.float32) / 255)


def _regions(grey: "torch.Tensor") -> "torch.Tensor":
    """The patches of a photograph by region, (regions, patches, 1, 16, 16)."""
    rows, columns = (n * (REGION + GAP) - GAP for n in GRID)
    top, left = (grey.shape[0] - rows) // 2, (grey.shape[1] - columns) // 2
    middle = grey[top : top + rows, left : left + columns]
    regions = middle.unfold(0, REGION, REGION + GAP).unfold(1, REGION, REGION + GAP)
    patches = regions.unfold(2, SIDE, STRIDE).unfold(3, SIDE, STRIDE)
    return patches.reshape(GRID[0] * GRID[1], PER_REGION, 1, SIDE, SIDE)
