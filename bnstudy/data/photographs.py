"""Photographs: patches drawn on the fly to learn from, whole images to be tested on, degraded.

Unlike a `Dataset` its images differ in size. An epoch has as many patches as would tile the
training photographs; each is cut at a random place of its photograph, turned or mirrored at random,
and degraded, all from the stream that it is asked with. Test and validation images are whole, and
their degradation is fixed by `data.split_seed`.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from bnstudy.config import DataConfig
from bnstudy.data import photo_files
from bnstudy.data.samplers import generator
from bnstudy.errors import UserError

LEVELS = 256  # grey levels
BLIND = 55.0  # largest s.d. of noise in blind training, in grey levels (Zhang et al. 2017, DnCNN-B)
ORIENTATIONS = 8  # of a square


@dataclass(frozen=True)
class Photographs:
    """A training, a validation and a test part of photographs.

    images: part -> grey levels (C, H, W), bytes or, of 16-bit images, float32 in [0, 1].
    names:  part -> of the photographs, in the same order.
    owner:  (patches of an epoch,) the training photograph that each is cut from.
    info:   `sizes` of the parts, `available` patches, `photographs` by part, `skipped` files.

    `num_classes` is the number of grey levels: what guesses among them is as good as the input.
    """

    config: DataConfig
    images: dict[str, list[Tensor]]
    names: dict[str, list[str]]
    owner: Tensor
    info: dict[str, Any] = field(default_factory=dict)

    kind = "photographs"
    num_classes = LEVELS

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a training patch."""
        return (len(self.images["train"][0]), *[self.config.patch_size] * 2)

    @property
    def outputs(self) -> tuple[int, ...]:
        """Shape of what a network returns for a patch."""
        return self.shape

    def size(self, part: str) -> int:
        """Patches of an epoch; photographs of another part."""
        return len(self.owner) if part == "train" else len(self.images[part])

    def patches(self, part: str) -> int:
        """How many patches would tile the photographs of a part; the last ones are not whole."""
        area = sum(image.shape[1] * image.shape[2] for image in self.images[part])
        return -(-area // self.config.patch_size**2)

    def of(self, network: int) -> "Photographs":
        """What one network of a stack sees: the same."""
        return self

    def to(self, device: torch.device | str) -> "Photographs":
        """The same on another device."""
        moved = {part: [i.to(device) for i in own] for part, own in self.images.items()}
        return replace(self, images=moved, owner=self.owner.to(device))

    def take(
        self, part: str, index: Tensor, noise: Sequence[torch.Generator] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Training patches for indices (n, S), a column for each network.

        Args:
            part: "train".
            index: of patches; each says only which photograph it is cut from.
            noise: the stream of each network, from which place, orientation and degradation are
                drawn; by default one and the same for each.

        Returns:
            Degraded patches (n, S, C, p, p) and targets (n, S, 2, C, p, p): clean, degraded.
        """
        if part != "train":
            raise ValueError(f"patches are taken of the training part, not of '{part}'")
        streams = noise or [generator(0, "patches") for _ in range(index.shape[1])]
        clean, degraded = [], []
        for owners, stream in zip(self.owner[index].T.tolist(), streams, strict=True):
            patches = self._cut(owners, stream)
            clean.append(patches)
            degraded.append(degrade(patches, self.config, stream, training=True))
        x, y = torch.stack(degraded, dim=1), torch.stack(clean, dim=1)
        return x, torch.stack([y, x], dim=2)

    def _cut(self, owners: Sequence[int], stream: torch.Generator) -> Tensor:
        """A patch of each of these training photographs, (n, C, p, p)."""
        side = self.config.patch_size
        found = []
        for owner, (u, v, w) in zip(
            owners, torch.rand(len(owners), 3, generator=stream).tolist(), strict=True
        ):
            image = self.images["train"][owner]
            height, width = image.shape[1:]
            top, left = int(u * (height - side + 1)), int(v * (width - side + 1))
            patch, turn = image[:, top : top + side, left : left + side], int(w * ORIENTATIONS)
            patch = patch.flip(2) if turn >= 4 else patch
            found.append(unit(torch.rot90(patch, turn % 4, (1, 2))))
        return torch.stack(found)

    def whole(self, part: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Each photograph of a part: degraded (1, C, H, W) and target (1, 2, C, H, W)."""
        for name, image in zip(self.names[part], self.images[part], strict=True):
            clean = unit(image)[None]
            stream = generator(self.config.split_seed, f"degradation {name}")
            degraded = degrade(clean, self.config, stream)
            yield degraded, torch.stack([clean, degraded], dim=1)

    def tiles(self, part: str) -> Tensor:
        """Degraded photographs of a part in patches side by side, (n, C, p, p).

        A rim that is narrower than a patch is left out.

        Raises:
            UserError: every photograph is smaller than a patch.
        """
        side = self.config.patch_size
        found = [
            degraded[0].unfold(1, side, side).unfold(2, side, side)
            .permute(1, 2, 0, 3, 4).flatten(0, 1)
            for degraded, _ in self.whole(part)
            if min(degraded.shape[2:]) >= side
        ]  # fmt: skip
        if not found:
            raise UserError(
                f"no photograph of the {part} part is as large as a patch, {side} pixels"
            )
        return torch.cat(found)

    def with_clean(self, part: str, change: Callable[[Tensor], Tensor]) -> "Photographs":
        """A copy whose photographs of a part, in [0, 1], are `change` of these."""
        changed = [change(unit(image)) for image in self.images[part]]
        return replace(self, images={**self.images, part: changed})


def unit(pixels: Tensor) -> Tensor:
    """Grey levels as float32 in [0, 1]."""
    return pixels / float(LEVELS - 1) if pixels.dtype == torch.uint8 else pixels


def degrade(
    clean: Tensor, config: DataConfig, stream: torch.Generator, training: bool = False
) -> Tensor:
    """Images (n, C, H, W) in [0, 1] with the degradation of a config, drawn from a stream.

    Noise is Gaussian, of s.d. sigma / 255, and not clipped; blind training draws the s.d. of each
    patch evenly from 0 to 55 / 255. `downscale` halves the resolution and brings it back, both
    bicubic (in the place of upscaling within the network). `jpeg` compresses at `quality`.
    """
    kind, levels = config.degradation, float(LEVELS - 1)
    if kind in ("noise", "blind_noise"):
        sigma = torch.full((len(clean), 1, 1, 1), config.sigma)
        if kind == "blind_noise" and training:
            sigma = BLIND * torch.rand(len(clean), 1, 1, 1, generator=stream)
        noise = sigma / levels * torch.randn(clean.shape, generator=stream)
        return clean + noise.to(clean.device)
    if kind == "downscale":
        height, width = clean.shape[2:]
        half = (-(-height // 2), -(-width // 2))
        small = F.interpolate(clean, half, mode="bicubic", antialias=True)
        return F.interpolate(small, (height, width), mode="bicubic").clamp(0, 1)
    if kind == "jpeg":
        found = [_compressed(image, config.quality) for image in clean.cpu()]
        return torch.stack(found).to(clean.device)
    return clean


def _compressed(image: Tensor, quality: int) -> Tensor:
    """An image (C, H, W) after JPEG."""
    pixels = (image * (LEVELS - 1)).round().to(torch.uint8).permute(1, 2, 0).numpy()
    held = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(held, "jpeg", quality=quality)
    with Image.open(held) as back:
        found = torch.from_numpy(np.array(back))
    return unit(found[None] if found.ndim == 2 else found.permute(2, 0, 1))


@lru_cache(maxsize=4)
def load(cfg: DataConfig) -> Photographs:
    """The photographs of a config, whose fingerprint is filled in.

    With `test_part="validation"` the validation photographs are the test part, too.

    Raises UserError where no training photograph is as large as a patch, or a part is empty.
    """
    root = Path(cfg.root).expanduser() if cfg.root else None
    found = photo_files.read(root, cfg.color, cfg.split_seed, cfg.fingerprint)
    images = {part: [i for _, i in own] for part, own in found.parts.items()}
    names = {part: [n for n, _ in own] for part, own in found.parts.items()}
    large = [min(image.shape[1:]) >= cfg.patch_size for image in images["train"]]
    skipped = dict(found.skipped)
    for name, image, enough in zip(names["train"], images["train"], large, strict=True):
        if not enough:
            size = f"{image.shape[2]} x {image.shape[1]}"
            skipped[name] = f"{size} pixels, smaller than data.patch_size={cfg.patch_size}"
    if not any(large):
        most = max(min(image.shape[1:]) for image in images["train"])
        raise UserError(
            f"data.patch_size={cfg.patch_size} is larger than every training photograph: use at "
            f"most {most}"
        )
    for of in (images, names):
        of["train"] = [item for item, enough in zip(of["train"], large, strict=True) if enough]
        if cfg.test_part == "validation":
            of["test"] = of["val"]
    photo_files.tell(skipped, cfg)
    tiles = [i.shape[1] * i.shape[2] // cfg.patch_size**2 for i in images["train"]]
    owner = torch.arange(len(tiles)).repeat_interleave(torch.tensor(tiles))
    info = {
        "sizes": {part: len(own) for part, own in images.items()},
        "available": len(owner),
        "photographs": names,
        "skipped": skipped,
    }
    return Photographs(cfg, images, names, owner, info)
