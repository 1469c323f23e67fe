"""What the studies of images share: decibels, and the precondition that a network denoises."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from bnstudy.studies import kit
from bnstudy.studies.kit import Panel, Precondition, Where, extended, select

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
    """The precondition that every run of a cell beats scikit-image's non-local means."""
    rows = select(rows, where)
    short = rows["nlm_psnr"] - rows["test_psnr"]
    rows = extended(rows, {"non-local means minus PSNR": short})
    text = "every arm of the reference beats non-local means on the test images in every run"
    return kit.every_run(rows, text, short < 0, "non-local means minus PSNR", "dB")
