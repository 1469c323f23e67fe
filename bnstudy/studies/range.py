"""What a norm loses of absolute intensity: test photographs of other contrast and other mean.

Primary claim: without a global skip, at a quarter of the contrast, the network with batch norm
falls further behind the one without a norm than at full contrast (EDSR's argument: normalization
takes away range flexibility). Instance norm takes most of an image's mean and contrast; the first
ReLU and the borders let some of it pass. Written before the first run of the seeds in
configs/study/range.yaml.
"""

import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import across, differences
from bnstudy.studies.kit import NORM, Panel, Published, comparable, in_order, select
from bnstudy.studies.pixels import CHANGE, SKIP, YLABEL, denoisers, denoises, gain

LOW, FULL = "psnr_contrast/025", "psnr_contrast/100"
MARGIN = 0.1  # dB, in which contrast 0.25 changes BN's distance to no norm
LEVEL = 1.0  # grey level of 255: error of an image's mean that counts
OFFSET = "error of the image's mean (grey levels)"
PLACES = {"contrast": "contrast (%)", "mean": "mean (% of the range)"}
SOURCE = "Lim et al. 2017 (EDSR), section 3.1"
PUBLISHED = Published(
    "published", SOURCE,
    "normalization takes away range flexibility; no number to compare",
)  # fmt: skip


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Without the skip: the error of the mean by contrast, and what batch norm loses."""
    panel = denoisers(table)[0]
    found = {claim.name: claim for claim in _claims_of(panel)}
    shown = {
        "without skip, contrast 25 %": found[f"{panel.key}: low contrast"].values,
        "with skip, contrast 25 %": found[f"{panel.key}: low contrast, skip"].values,
    }
    lost = differences(
        "no norm minus batch, beyond full contrast", shown, [figures.hue(0), figures.hue(1)],
        ylabel=CHANGE, claim=f"{panel.key}: low contrast",
    )  # fmt: skip
    return [_over(panel, "offset", "contrast", skip=False), lost]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """PSNR and the error of the mean by contrast and by mean, with and without the skip."""
    panel = denoisers(table)[0]
    return [
        _over(panel, what, place, skip)
        for what in ("psnr", "offset")
        for place in PLACES
        for skip in (False, True)
        if (what, place, skip) != ("offset", "contrast", False)
    ]


def _over(panel: Panel, what: str, place: str, skip: bool) -> figures.Panel:
    """A measure over contrast or mean, a curve for each norm."""
    own = select(panel.rows, {SKIP: skip})
    start = f"{what}_{place}/"
    columns = {float(c.removeprefix(start)): c for c in map(str, own) if c.startswith(start)}
    curves = [
        across(select(own, {NORM: norm}), columns, norm=norm, percent=False)
        for norm in in_order(own[NORM])
    ]
    title = f"{panel.title}, {'with' if skip else 'without'} skip"
    label, floor = (YLABEL, None) if what == "psnr" else (OFFSET, 0.0)
    return figures.Panel(title, curves, PLACES[place], label, x="linear", floor=floor)


def claims(table: pd.DataFrame) -> list[Claim]:
    """What low contrast costs batch norm, and what instance norm does to the mean; see above."""
    return [claim for panel in denoisers(table) for claim in _claims_of(panel)]


def _claims_of(panel: Panel) -> list[Claim]:
    judged = panel.rows[panel.rows[NORM].isin(["batch", "none"])]
    ready = [denoises(judged, {SKIP: True}), comparable(panel.rows)]
    make = panel.claims(source=SOURCE, preconditions=ready, unit="dB")

    def falls(skip: bool) -> dict[int, float]:
        """How much further behind no norm batch norm is at low contrast than at full, by seed."""
        pair = {SKIP: skip, NORM: "none"}, {SKIP: skip, NORM: "batch"}
        return paired_differences(gain(panel, *pair, metric=LOW), gain(panel, *pair, metric=FULL))

    def off(norm: str, skip: bool) -> dict[int, float]:
        """How much more a norm is off an image's mean than no norm, at full contrast, by seed."""
        column = "offset_contrast/100"
        return gain(panel, {SKIP: skip, NORM: norm}, {SKIP: skip, NORM: "none"}, column)

    return [
        make(
            "low contrast",
            "without a global skip batch norm falls further behind no norm at a quarter of the "
            "contrast than at all of it",
            falls(False), threshold=MARGIN, primary=panel.main, estimand="PSNR, contrast 25 %",
        ),
        make(
            "low contrast, skip", "it does so with the global skip, too", falls(True),
            threshold=MARGIN, estimand="PSNR, contrast 25 %",
            after=f"{panel.key}: low contrast" if panel.main else "",
        ),
        make(
            "mean",
            "without a global skip batch norm is further off an image's mean than no norm",
            off("batch", False), threshold=LEVEL, unit="grey levels",
            estimand="error of the image's mean",
        ),
        make(
            "instance",
            "without a global skip instance norm is further off an image's mean than no norm",
            off("instance", False), threshold=LEVEL, unit="grey levels",
            source="Ulyanov et al. 2016", estimand="error of the image's mean",
        ),
    ]  # fmt: skip
