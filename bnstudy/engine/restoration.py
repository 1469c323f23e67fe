"""Restoration: what a network makes of a degraded image, against the clean one."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnstudy.config import TaskConfig
from bnstudy.engine.tasks import Score

RANGE = 1.0  # of grey levels: that of PSNR and SSIM


class Restoration:
    """Clean images from degraded ones.

    Outputs (N, S, C, H, W), grey levels in [0, 1]; targets (N, S, 2, C, H, W), the clean image and
    the degraded one beside it. The error is the part of the degradation that is left: the mean
    squared error in units of the degraded image's own, so that 1 is what returning the input gives.
    Of whole images error, PSNR and SSIM are means over the images, outputs clipped to [0, 1] first.
    """

    metrics = ("error", "psnr")
    measures = ("error", "psnr", "ssim")

    def __init__(self, config: TaskConfig) -> None:
        self.loss = config.loss

    def score(self, output: Tensor, y: Tensor) -> Score:
        """Mean squared or absolute difference, error and PSNR of a batch of patches."""
        clean, degraded = y.unbind(2)
        difference = output - clean
        squared = _per_network(difference.square())
        loss = squared if self.loss == "mse" else _per_network(difference.abs())
        with torch.no_grad():
            error = squared.detach() / _per_network((degraded - clean).square())
            return loss, error, -10 * squared.detach().log10()

    def total(self, pieces: Iterable[tuple[Tensor, Tensor]]) -> Score:
        """Means over whole images, each of which is a piece; PSNR and SSIM by scikit-image."""
        found = []
        for output, y in pieces:
            clipped = output.clamp(0, RANGE)
            loss, error, _ = self.score(clipped, y)
            quality = [fidelity(y[0, s, 0], clipped[0, s]) for s in range(output.shape[1])]
            psnr, ssim = torch.tensor(quality, device=loss.device).T
            found.append(torch.stack([self.score(output, y)[0], error, psnr, ssim]))
        return tuple(torch.stack(found).mean(0))

    def diverged(self, name: str, data: Any) -> float:
        """An error counts as that of the input, which is 1; anything else is not a number."""
        return 1.0 if "error" in name else math.nan


def _per_network(values: Tensor) -> Tensor:
    """Mean over all but the networks: (N, S, C, H, W) to (S,)."""
    return values.mean((0, 2, 3, 4))


def fidelity(clean: Tensor, restored: Tensor) -> tuple[float, float]:
    """PSNR in dB and SSIM of an image (C, H, W), by scikit-image at a data range of 1.

    SSIM with the Gaussian windows of Wang et al. 2004. An output that is not finite has neither.
    """
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    first, second = (t.detach().cpu().numpy().astype(np.float64) for t in (clean, restored))
    if not np.isfinite(second).all():
        return math.nan, math.nan
    with np.errstate(divide="ignore"):  # equal images: infinite PSNR
        psnr = peak_signal_noise_ratio(first, second, data_range=RANGE)
    ssim = structural_similarity(
        first, second, data_range=RANGE, channel_axis=0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    return float(psnr), float(ssim)
