"""Which statistics a denoiser with batch norm is read with, and whether a frozen finish helps.

Primary claim: at batches of two patches, training the last fifth with frozen population statistics
raises the PSNR by the exponential average (the direction of Wang et al. 2022, RepSR, who freeze
late against artefacts). Then whether that removes blotches; whether PreciseBN does as much without
training; and whether statistics of whole photographs, larger than the patches of training, change
anything. Written before the first run of the seeds in configs/study/restoration_statistics.yaml.
"""

import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim
from bnstudy.studies.drawing import curve, differences
from bnstudy.studies.kit import Panel, Published, comparable, select
from bnstudy.studies.pixels import (
    CHANGE,
    PSNR,
    PSNR_IMAGE,
    PSNR_PRECISE,
    SIZE,
    YLABEL,
    denoisers,
    denoises,
    gain,
    minus,
)

FREEZE, FINISH = "norm.freeze_at", 0.8
MARGIN = 0.05  # dB, as in the study `restoration`
READINGS = {  # column -> label and line
    "test_psnr": ("exponential average", "population"),
    "test_psnr_precise": ("PreciseBN, patches", "precise"),
    "whole_psnr": ("PreciseBN, whole images", "large_batch"),
    "test_psnr_image": ("the image's own", "batch"),
}
SOURCE = "Wang et al. 2022 (RepSR), abstract"
PUBLISHED = Published(
    "unconfirmed", SOURCE,
    "x4 super-resolution: population statistics late in training remove BN's artefacts; no number "
    "to compare",
)  # fmt: skip


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """PSNR by the statistics that are read and by batch size, and what claims compare."""
    panel = denoisers(table)[0]
    found = {claim.name.removeprefix(f"{panel.key}: "): claim for claim in _claims_of(panel)}
    small, large = (int(f(panel.rows[SIZE])) for f in (min, max))
    shown = {
        f"frozen finish, batches of {small}": found["frozen"].values,
        f"PreciseBN, batches of {small}": found["precise"].values,
        f"whole images, not patches, batches of {large}": found["whole"].values,
    }
    dots = differences(
        "what statistics gain", shown,
        [figures.hue(i) for i in range(len(shown))], ylabel=CHANGE, claim=f"{panel.key}: frozen",
    )  # fmt: skip
    return [_readings(panel), dots]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """Blotches by batch size, with and without the frozen finish."""
    panel = denoisers(table)[0]
    curves = []
    for part, label in ((1.0, ""), (FINISH, "frozen finish")):
        rows = select(panel.rows, {FREEZE: part})
        mode = "frozen" if label else "population"
        curves.append(
            curve(rows, SIZE, "blotches", norm="batch", mode=mode, label=label, percent=False)
        )
        if not label:
            curves.append(
                curve(rows, SIZE, "blotches_precise", norm="batch", mode="precise", percent=False)
            )
    label = "error of areas (grey levels)"
    return [figures.Panel("blotches", curves, "batch size (patches)", label)]


def _readings(panel: Panel) -> figures.Panel:
    running, frozen = (select(panel.rows, {FREEZE: part}) for part in (1.0, FINISH))
    curves = [
        curve(running, SIZE, column, norm="batch", mode=mode, label=label, percent=False,
              dots=column == "test_psnr")
        for column, (label, mode) in READINGS.items()
    ]  # fmt: skip
    curves.append(
        curve(frozen, SIZE, "test_psnr", norm="batch", mode="frozen", label="frozen finish",
              percent=False)
    )  # fmt: skip
    return figures.Panel(panel.title, curves, "batch size (patches)", YLABEL, floor=None)


def claims(table: pd.DataFrame) -> list[Claim]:
    """Frozen finish, blotches, PreciseBN, whole images and the image's own statistics."""
    return [claim for panel in denoisers(table) for claim in _claims_of(panel)]


def _claims_of(panel: Panel) -> list[Claim]:
    small, large = int(panel.rows[SIZE].min()), int(panel.rows[SIZE].max())
    running, frozen = ({SIZE: small, FREEZE: part} for part in (1.0, FINISH))
    ready = [denoises(panel.rows, {SIZE: large, FREEZE: 1.0}), comparable(panel.rows)]
    make = panel.claims(source=SOURCE, preconditions=ready, unit="dB", estimand=PSNR)
    first = f"{panel.key}: frozen" if panel.main else ""
    return [
        make(
            "frozen",
            f"at batches of {small} patches a frozen last fifth raises the PSNR",
            gain(panel, frozen, running), threshold=MARGIN, primary=panel.main,
        ),
        make(
            "blotches", "it lowers the error that is even over areas of 16 x 16 pixels",
            gain(panel, running, frozen, "blotches"), unit="grey levels", after=first,
            estimand="blotches, exponential average",
        ),
        make(
            "precise",
            f"at batches of {small} PreciseBN has a higher PSNR than the exponential average",
            minus(panel, running, "test_psnr_precise", "test_psnr"), threshold=MARGIN,
            estimand=PSNR_PRECISE, source="Wu & Johnson 2021, section 3.1",
        ),
        make(
            "whole",
            "PreciseBN from whole photographs, one at a time, and from batches of patches have the "
            f"same PSNR, within {MARGIN:g} dB",
            minus(panel, {SIZE: large, FREEZE: 1.0}, "whole_psnr", "test_psnr_precise"),
            "equivalent", threshold=MARGIN, estimand=PSNR_PRECISE,
            source="Wu & Johnson 2021, section 3.1",
        ),
        make(
            "own",
            "the test image's own statistics have a lower PSNR than the exponential average",
            minus(panel, {SIZE: large, FREEZE: 1.0}, "test_psnr", "test_psnr_image"),
            threshold=MARGIN, estimand=PSNR_IMAGE, source="ESRGAN, Wang et al. 2018",
        ),
    ]  # fmt: skip
