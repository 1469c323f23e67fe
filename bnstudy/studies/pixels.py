"""What the studies of images share: decibels, and the precondition that a network denoises."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from bnstudy.studies import kit
from bnstudy.studies.kit import NORM, Panel, Precondition, Where, in_order, select

PSNR = "PSNR, exponential average"
PSNR_PRECISE = "PSNR, PreciseBN"
PSNR_IMAGE = "PSNR, statistics of the image itself"
YLABEL = "PSNR (dB)"
CHANGE = "PSNR, paired difference (dB)"
SIZE, PATCH, SKIP = "train.batch_size", "data.patch_size", "model.residual"
NEUTRAL: dict[str, Any] = {PATCH: 40, SKIP: True}
DATA = "https://github.com/cszn/DnCNN"


def denoisers(table: pd.DataFrame) -> list[Panel]:
    """The panels, with the settings that are not in the table; the primary claim is DnCNN's."""
    return kit.panels(kit.filled(table, NEUTRAL), model="dncnn", data="photos")


def gain(panel: Panel, first: Where, second: Where, metric: str = "test_psnr") -> dict[int, float]:
    """Metric of the first cell minus that of the second by seed, in the metric's own unit."""
    pair = (panel.cell(metric, where, factor=1) for where in (first, second))
    return kit.paired_differences(*pair)


def minus(panel: Panel, where: Where, first: str, second: str) -> dict[int, float]:
    """Of one cell: a metric minus another by seed, in their own unit."""
    return kit.paired_differences(*(panel.cell(m, where, factor=1) for m in (first, second)))


def denoises(rows: pd.DataFrame, where: Mapping[str, Any]) -> Precondition:
    """The precondition that each norm's networks of a cell beat non-local means, in the mean.

    Of arms, not of runs: one network that ends a hundredth of a decibel below is no reason to
    judge nothing.
    """
    rows = select(rows, where)
    ahead = (rows["test_psnr"] - rows["nlm_psnr"]).groupby(rows[NORM]).mean()
    told = ", ".join(f"{norm}: {ahead[norm]:+.2f} dB" for norm in in_order(ahead.index))
    text = "on the test images every arm beats non-local means, mean over seeds"
    return (text, bool((ahead > 0).all()), told)
