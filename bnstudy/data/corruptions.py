"""Shifts of test images at five severities, after Hendrycks & Dietterich (2019).

Images are in the grey range [0, 1] (values outside, from noise, are kept except by JPEG). The
strengths are this package's own, for images of 8 to 32 pixels.
"""

import io
from collections.abc import Callable
from math import ceil

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from bnstudy.data.samplers import generator

SEVERITIES = (1, 2, 3, 4, 5)
STRENGTHS = {
    "contrast": (0.8, 0.6, 0.45, 0.3, 0.15),  # factor
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),  # added
    "noise": (0.1, 0.2, 0.3, 0.4, 0.5),  # s.d. of Gaussian noise
    "blur": (0.4, 0.6, 0.8, 1.0, 1.3),  # s.d. of the Gaussian in pixels of an 8 pixel wide image
    "jpeg": (50, 30, 20, 10, 5),  # quality
}


def corrupt(images: Tensor, name: str, severity: int, purpose: str = "corruption") -> Tensor:
    """The images under one shift: (n, C, H, W) to the same.

    Noise comes from the stream (severity, purpose): every network sees the same.

    Raises KeyError for an unknown name.
    """
    stream = generator(severity, purpose)
    return CORRUPTIONS[name](images, STRENGTHS[name][severity - 1], stream)


def corrupted_part(part: str, name: str, severity: int) -> Callable[[Tensor], Tensor]:
    """images -> the same under a shift; training and test images never have the same noise."""
    purpose = "corruption" if part == "test" else f"corruption of {part}"
    return lambda images: corrupt(images, name, severity, purpose)


def _contrast(x: Tensor, factor: float, stream: torch.Generator) -> Tensor:
    return x * factor


def _brightness(x: Tensor, added: float, stream: torch.Generator) -> Tensor:
    return x + added


def _noise(x: Tensor, sd: float, stream: torch.Generator) -> Tensor:
    return x + sd * torch.randn(x.shape, generator=stream)


def _blur(x: Tensor, sigma: float, stream: torch.Generator) -> Tensor:
    sigma = sigma * x.shape[-1] / 8
    reach = ceil(3 * sigma)
    at = torch.arange(-reach, reach + 1, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = kernel / kernel.sum()
    shape = x.shape
    x = x.reshape(-1, 1, *shape[-2:])
    x = F.pad(x, (reach, reach, reach, reach), mode="replicate")
    x = F.conv2d(F.conv2d(x, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return x.view(shape)


def _jpeg(x: Tensor, quality: int, stream: torch.Generator) -> Tensor:
    pixels = (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    decoded = []
    for image in pixels:
        grey = image.shape[-1] == 1
        buffer = io.BytesIO()
        Image.fromarray(image[..., 0] if grey else image).save(buffer, "JPEG", quality=quality)
        with Image.open(buffer) as again:
            found = np.asarray(again)
        decoded.append(found[..., None] if grey else found)
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).to(x.dtype) / 255


CORRUPTIONS: dict[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "contrast": _contrast,
    "brightness": _brightness,
    "noise": _noise,
    "blur": _blur,
    "jpeg": _jpeg,
}
