"""What restoring networks do to single photographs, and what is lost of their grey levels."""

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bnstudy.data.photographs import LEVELS, Photographs
from bnstudy.norms import Calibrator

BLOCK = 16  # pixels a side
CONTRASTS = (0.25, 0.5, 0.75, 1.0)  # of test images, about the middle of the grey range
MEANS = (-0.25, 0.0, 0.25)  # added to test images of half the contrast, which stay in the range
_known: dict[Any, dict[str, float]] = {}  # baselines by the config of the data


def photographs(view: Any) -> dict[str, Tensor]:
    """PSNR and SSIM of each test photograph: `psnr/camera`, `ssim/camera` after the last step.

    At every evaluation the mean PSNR of each folder of test photographs where there are several:
    `psnr_of/Set12`.
    """
    names = view.data.names["test"]
    folders = {name: name.rpartition("/")[0] for name in names}
    several = len(set(folders.values())) > 1
    if not (view.last or several):
        return {}
    with view.stack.training(False):
        scores = dict(zip(names, view.each("test"), strict=True))
    found: dict[str, Tensor] = {}
    for folder in sorted(set(folders.values())) if several else ():
        own = [scores[name]["psnr"] for name in names if folders[name] == folder]
        found[f"psnr_of/{folder}"] = torch.stack(own).mean(0)
    if view.last:
        for name, own in scores.items():
            found |= {f"{what}/{name}": own[what] for what in ("psnr", "ssim")}
    return found


def baselines(view: Any) -> dict[str, Tensor]:
    """Mean PSNR of the test photographs as they are degraded and by non-local means.

    `input_psnr` and `nlm_psnr`: scikit-image's, given the true s.d. of the noise (Buades et al.
    2005); the same for every network. Without noise there are no non-local means.
    """
    size = view.stack.size
    return {name: torch.full((size,), value) for name, value in _baselines(view.data).items()}


def _baselines(data: Photographs) -> dict[str, float]:
    """By the config, which names the photographs: they are the same for many stacks."""
    if data.config in _known:
        return _known[data.config]
    from skimage.metrics import peak_signal_noise_ratio as psnr

    found: dict[str, list[float]] = {}
    for degraded, target in data.whole("test"):
        clean, noisy = (t.cpu().double().numpy() for t in (target[0, 0], degraded[0]))
        made = {"input_psnr": noisy}
        if data.config.degradation in ("noise", "blind_noise"):
            made["nlm_psnr"] = non_local_means(noisy, data.config.sigma / (LEVELS - 1))
        for name, image in made.items():
            found.setdefault(name, []).append(psnr(clean, image.clip(0, 1), data_range=1))
    _known[data.config] = {name: fmean(values) for name, values in found.items()}
    return _known[data.config]


def non_local_means(noisy: np.ndarray, sigma: float) -> np.ndarray:
    """An image (C, H, W) by scikit-image's non-local means: 5 x 5 patches within 6 pixels.

    The strength, 0.8 sigma, is what scikit-image's example takes for this fast form.
    """
    from skimage.restoration import denoise_nl_means

    grey = len(noisy) == 1  # scikit-image drops an only channel
    smooth = denoise_nl_means(
        noisy[0] if grey else noisy, patch_size=5, patch_distance=6, h=0.8 * sigma, sigma=sigma,
        channel_axis=None if grey else 0,
    )  # fmt: skip
    return smooth[None] if grey else smooth


def whole_statistics(view: Any) -> dict[str, Tensor]:
    """Test PSNR with population statistics of whole training photographs, `whole_psnr`.

    Pooled as PreciseBN pools those of patches, each photograph degraded as test ones are. They pass
    one at a time, so that deeper layers see each normalized by itself, not by a mixed batch.
    """
    if not view.has_batch_norm:
        return {}
    stack, device = view.stack, view.stack.flat.device
    with stack.training(False):
        with stack.with_buffers({}), Calibrator(stack.net) as calibrator:
            for degraded, _ in view.data.whole("train"):
                x = degraded.to(device)[:, None]
                stack.observe(calibrator, x.expand(-1, stack.size, *x.shape[2:]))
        with stack.with_buffers(calibrator.statistics()):
            return {"whole_psnr": view.measures("test")["psnr"]}


def blotches(view: Any) -> dict[str, Tensor]:
    """Errors that are even over an area, in grey levels of 255: what artefacts look like.

    Root mean square over blocks of 16 x 16 pixels of a block's mean error, mean over the test
    photographs: `blotches` by the exponential average, and where there is one `blotches_precise`
    by PreciseBN and `blotches_image` by the image's own statistics.
    """

    def measured() -> Tensor:
        return torch.stack([_even(o, y) for o, y in view.outputs("test")]).mean(0)

    with view.stack.training(False):
        found = {"blotches": measured()}
        if view.has_batch_norm:
            with view.batch_statistics(1):
                found["blotches_image"] = measured()
            with view.stack.with_buffers(view.precise_statistics()):
                found["blotches_precise"] = measured()
    return found


def _even(output: Tensor, y: Tensor) -> Tensor:
    """Of each network on one photograph: output (1, S, C, H, W), y (1, S, 2, C, H, W)."""
    error = (output - y[:, :, 0])[0]
    return (LEVELS - 1) * F.avg_pool2d(error, BLOCK).square().mean((1, 2, 3)).sqrt()


def intensity(view: Any) -> dict[str, Tensor]:
    """PSNR, and the error of an image's mean, on test photographs of other contrast and mean.

    `psnr_contrast/025` and `offset_contrast/025`: contrast 0.25 about the middle of the grey range,
    the noise as strong as before; `psnr_mean/025`: half the contrast, the mean 0.25 below (of the
    range; 075: above). The offset is |mean of the output - mean of the clean image| in grey levels
    of 255.
    """
    found: dict[str, Tensor] = {}
    for contrast in CONTRASTS:
        found |= _changed(view, f"contrast/{round(100 * contrast):03d}", contrast, 0.0)
    for mean in MEANS:
        found |= _changed(view, f"mean/{round(50 + 100 * mean):03d}", 0.5, mean)
    return found


def _changed(view: Any, name: str, contrast: float, mean: float) -> dict[str, Tensor]:
    change: Callable[[Tensor], Tensor] = lambda x: 0.5 + mean + contrast * (x - 0.5)  # noqa: E731
    changed = replace(view, data=view.data.with_clean("test", change))
    with view.stack.training(False):
        pieces = list(changed.outputs("test"))
    offsets = [(o - y[:, :, 0]).mean((0, 2, 3, 4)).abs() for o, y in pieces]
    psnr = dict(zip(view.stack.task.measures, view.stack.task.total(pieces)[1:], strict=True))
    offset = (LEVELS - 1) * torch.stack(offsets).mean(0)
    return {f"psnr_{name}": psnr["psnr"], f"offset_{name}": offset}
