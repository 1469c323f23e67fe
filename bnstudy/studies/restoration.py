"""PSNR of a denoiser by norm, batch size, patch size, with and without the global skip.

Primary claim: with batches of 4 patches the same network without a norm has a higher PSNR than
with batch norm (Lim et al. 2017 removed it for that). Then whether group norm, which does not mix
images, does too; what BN loses at batches of two and at small patches beyond what another arm
loses; and whether the global skip, which carries absolute intensity, hides a part of it. Written
before the first run of the seeds in configs/study/restoration.yaml.
"""

from typing import Any

import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import across, curve, differences
from bnstudy.studies.kit import (
    NORM,
    Panel,
    Published,
    comparable,
    extended,
    in_order,
    select,
)
from bnstudy.studies.pixels import (
    CHANGE,
    PATCH,
    PSNR,
    SIZE,
    SKIP,
    YLABEL,
    denoisers,
    denoises,
    gain,
)

MARGIN = 0.05  # dB: half of the least published gain
KEYS = {"size": SIZE, "patch": PATCH, "skip": SKIP}
PHOTOGRAPHS = 12  # most that a panel shows one by one
LABELS = {  # claim -> row of the headline
    "no norm": "against no norm",
    "group": "against group norm",
    "small batch": "more at batches of 2",
    "small patch": "more at small patches",
    "skip": "more without global skip",
}
SOURCE = "Lim et al. 2017 (EDSR), section 3.1"
PUBLISHED = Published(
    "unconfirmed", SOURCE,
    "PSNR in dB that x2 super-resolution gains without batch norm (SRResNet against the EDSR "
    "baseline): 0.1 to 0.4; of denoising Zhang et al. 2017 report the opposite sign",
    {"gain": 0.1},
)  # fmt: skip


def reference(rows: pd.DataFrame) -> dict[str, Any]:
    """The cell's settings that the others are compared with: the largest batch and patch."""
    return {SIZE: int(rows[SIZE].max()), PATCH: int(rows[PATCH].max()), SKIP: True}


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """PSNR by batch size, and what the claims compare."""
    panel = denoisers(table)[0]
    where = reference(panel.rows)
    rows = select(panel.rows, {key: where[key] for key in (PATCH, SKIP)})
    sizes = figures.Panel(
        panel.title, _arms(rows, SIZE), "batch size (patches)", YLABEL, floor=None
    )
    named = {LABELS[name]: claim.values for name, claim in _claims_of(panel).items()}
    styles = [figures.hue(i) for i in range(len(named))]
    title = "what batch norm loses"
    primary = f"{panel.key}: no norm"
    return [sizes, differences(title, named, styles, ylabel=CHANGE, claim=primary)]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """PSNR by patch size, by the global skip, and each photograph's, where they were measured."""
    panel = denoisers(table)[0]
    where = reference(panel.rows)
    by_patch = select(panel.rows, {key: where[key] for key in (SIZE, SKIP)})
    by_skip = select(panel.rows, {key: where[key] for key in (SIZE, PATCH)})
    words = by_skip[SKIP].map({True: "with skip", False: "without skip"})
    rows = extended(by_skip, {"skip": words}).sort_values(SKIP, ascending=False, kind="stable")
    found = [
        figures.Panel(
            "patch size", _arms(by_patch, PATCH), "patch size (pixels)", YLABEL, floor=None
        ),
        figures.Panel("global skip", _arms(rows, "skip"), "", YLABEL, x="names", floor=None),
    ]
    names = {c: c.removeprefix("psnr/") for c in map(str, panel.rows) if c.startswith("psnr/")}
    if 0 < len(names) <= PHOTOGRAPHS:
        own = select(panel.rows, where)
        curves = [
            across(rows, {name: column for column, name in names.items()}, norm=norm, percent=False)
            for norm in in_order(own[NORM])
            if len(rows := select(own, {NORM: norm}))
        ]
        found.append(figures.Panel("each photograph", curves, "", YLABEL, x="names", floor=None))
    return found


def _arms(rows: pd.DataFrame, x: str) -> list[figures.Curve]:
    """PSNR over a setting, a curve for each norm; batch norm also by the image's statistics."""
    curves = []
    for norm in in_order(rows[NORM]):
        own = select(rows, {NORM: norm})
        curves.append(curve(own, x, "test_psnr", norm=norm, percent=False))
        if norm == "batch":
            curves.append(
                curve(own, x, "test_psnr_image", norm=norm, mode="batch", percent=False,
                      label="batch, the image's own", dots=False)
            )  # fmt: skip
    return curves


def claims(table: pd.DataFrame) -> list[Claim]:
    """What batch norm loses against the other arms, and where; see above."""
    return [claim for panel in denoisers(table) for claim in _claims_of(panel).values()]


def _claims_of(panel: Panel) -> dict[str, Claim]:
    """Name without the panel -> claim."""
    where = reference(panel.rows)
    size, patch = where[SIZE], where[PATCH]
    small, part = int(panel.rows[SIZE].min()), int(panel.rows[PATCH].min())
    ready = [denoises(panel.rows, where), comparable(panel.rows)]
    make = panel.claims(source=SOURCE, preconditions=ready, unit="dB", estimand=PSNR)

    def loss(norm: str, **other: Any) -> dict[int, float]:
        """What batch norm loses against a norm in another cell than the reference, by seed."""
        place = {**where, **{KEYS[key]: value for key, value in other.items()}}
        return gain(panel, {**place, NORM: norm}, {**place, NORM: "batch"})

    def more(norm: str, **other: Any) -> dict[int, float]:
        """How much more it loses there than in the reference."""
        return paired_differences(loss(norm, **other), loss(norm))

    found = {
        "no norm": make(
            "no norm", f"with batches of {size} the network without a norm has a higher PSNR",
            loss("none"), primary=panel.main, threshold=MARGIN,
            **PUBLISHED.cite("0.1 to 0.4 dB in super-resolution"),
        ),
        "group": make(
            "group", "so has the network with group norm, which does not mix images", loss("group"),
            threshold=MARGIN, after=f"{panel.key}: no norm" if panel.main else "",
        ),
    }  # fmt: skip
    if small < size:
        found["small batch"] = make(
            "small batch", f"from batches of {size} to {small} batch norm loses more than group "
            "norm does",
            more("group", size=small), source="Wu & He 2018, figure 1",
        )  # fmt: skip
    if part < patch:
        found["small patch"] = make(
            "small patch", f"from patches of {patch} to {part} pixels batch norm loses more than "
            "the network without a norm does",
            more("none", patch=part),
        )  # fmt: skip
    if not panel.rows[SKIP].all():
        found["skip"] = make(
            "skip", "without the global skip batch norm loses more against no norm than with it",
            more("none", skip=False), source="Zhang et al. 2017 (DnCNN), section III-C",
        )  # fmt: skip
    return found
