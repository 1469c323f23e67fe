"""Corrupted test images by the source of statistics (Wu & Johnson 2021, domain shift).

Primary claim: under noise, the source's largest gain, statistics of test batches of 256 lower batch
norm's test error, mean over five severities. Blur, JPEG and group norm against adapted batch norm
have claims of their own: a mean over corruptions would be that of the largest. Written before the
first run of this version of the study's grid.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import across, differences, reported
from bnstudy.studies.kit import (
    BATCH,
    EMA,
    NORM,
    TEST,
    Panel,
    Published,
    comparable,
    extended,
    in_order,
    panels,
    select,
    trained,
    values,
)

CLAIMED = ("noise", "blur", "jpeg")
SHOWN = ("contrast", "brightness", *CLAIMED)
SEVERITIES = (1, 2, 3, 4, 5)
CLEAN_COST = 2.0  # pp that batch statistics may cost on clean data
SOURCE = "Wu & Johnson 2021, domain shift"
PUBLISHED = Published(
    "published", "Wu & Johnson 2021, domain-shift table", "error in %, ResNet-50, ImageNet-C",
    {
        "corruption": ["contrast", "noise", "jpeg", "clean"],
        "training statistics": [40.8, 64.4, 40.4, 23.4],
        "statistics of the shifted data": [33.1, 52.5, 36.7, np.nan],
    },
)  # fmt: skip


def sizes(table: pd.DataFrame, name: str, severity: int) -> dict[int, str]:
    """Test batch -> column of the error by its own statistics, smallest first."""
    before = f"{name}_{severity}_error_batch"
    return dict(sorted((int(c.removeprefix(before)), c) for c in table if c.startswith(before)))


def adapted(table: pd.DataFrame, name: str, severity: int) -> str:
    """The column of the largest test batches."""
    return list(sizes(table, name, severity).values())[-1]


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Noise by severity and source of statistics; what test statistics gain, by corruption."""
    main, *_ = panels(table, model="resnet")
    published = gains_published()
    others = [
        reported(PUBLISHED, f"{_word(name)}, ImageNet", published[name], style=figures.hue(i))
        for i, name in enumerate(CLAIMED) if name in published
    ]  # fmt: skip
    return [
        _severities(main, CLAIMED[0], ("batch", "group")),
        differences(
            "training minus test-batch statistics",
            {_word(name): gain(main.rows, name) for name in CLAIMED},
            [figures.hue(i) for i in range(len(CLAIMED))], beside=others,
            claim=f"{main.key}: {CLAIMED[0]}",
        ),
    ]  # fmt: skip


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """Every corruption by severity; test batch size; calibration; clean cost; group norm."""
    found, every = [], panels(table, model="resnet")
    for panel in every:
        norms = in_order(panel.rows[NORM])
        found += [_severities(panel, name, norms) for name in SHOWN]
        found += [_batches(panel), _calibration(panel)]
    return [*found, _cost(every), *_against_group(every)]


def _word(name: str) -> str:
    """A corruption as figures spell it."""
    return name.upper() if name == "jpeg" else name


def _severities(panel: Panel, name: str, norms: Sequence[str]) -> figures.Panel:
    """Test error under a corruption: norms with what training left, batch norm adapted."""
    batch = select(panel.rows, {NORM: "batch"})
    curves = [
        across(select(panel.rows, {NORM: norm}), {s: f"{name}_{s}_error" for s in SEVERITIES},
               norm=norm)
        for norm in norms if norm in set(panel.rows[NORM])
    ]  # fmt: skip
    largest = {s: adapted(batch, name, s) for s in SEVERITIES}
    curves.append(
        across(batch, largest, norm="batch", mode="large_batch", label="batch, test statistics")
    )
    return figures.Panel(f"{panel.title}: {_word(name)}", curves,
                         "severity of the corruption", x="linear", ceiling=100)  # fmt: skip


def _batches(panel: Panel) -> figures.Panel:
    """Batch norm's error at severity 3 by the size of test batches."""
    batch = select(panel.rows, {NORM: "batch"})
    curves = [
        across(batch, sizes(batch, name, 3), label=_word(name), style=figures.hue(i))
        for i, name in enumerate(CLAIMED)
    ]
    return figures.Panel(f"{panel.title}: severity 3", curves, "test batch (examples)",
                         ceiling=100)  # fmt: skip


def _calibration(panel: Panel) -> figures.Panel:
    """Batch norm's expected calibration error, mean over the claimed corruptions."""
    batch = select(panel.rows, {NORM: "batch"})
    curves = []
    for mode, column in (
        ("population", lambda n, s: f"{n}_{s}_ece"),
        ("large_batch", lambda n, s: adapted(batch, n, s).replace("_error_", "_ece_")),
    ):
        means = {str(s): batch[[column(n, s) for n in CLAIMED]].mean(axis=1) for s in SEVERITIES}
        rows = extended(batch[["seed"]], means)
        label = "training statistics" if mode == "population" else "test statistics"
        curves.append(
            across(rows, {s: str(s) for s in SEVERITIES}, norm="batch", mode=mode, label=label)
        )
    return figures.Panel(f"{panel.title}: noise, blur, JPEG", curves,
                         "severity of the corruption", "calibration error (%)",
                         x="linear", ceiling=100)  # fmt: skip


def _cost(every: Sequence[Panel]) -> figures.Panel:
    """What test-batch statistics cost on clean data, beside the margin of the claim."""
    rows = {panel.title: clean_cost(select(panel.rows, {NORM: "batch"})) for panel in every}
    return differences(
        "clean data: test-batch minus training statistics", rows,
        claim=f"{every[0].key}: clean",
        bands=[figures.Band(CLEAN_COST, CLEAN_COST, f"margin {CLEAN_COST:g} pp")],
    )  # fmt: skip


def _against_group(every: Sequence[Panel]) -> list[figures.Panel]:
    """Group norm against batch norm, plain and adapted, mean over the claimed corruptions."""
    compared = [panel for panel in every if "group" in set(panel.rows[NORM])]
    plain, after = {}, {}
    for panel in compared:
        batch, group = (select(panel.rows, {NORM: norm}) for norm in ("batch", "group"))
        others = shifted(group, CLAIMED)
        plain[panel.title] = paired_differences(shifted(batch, CLAIMED), others)
        after[panel.title] = paired_differences(others, shifted(batch, CLAIMED, adapt=True))
    shown = (
        ("noise, blur, JPEG: batch minus group norm", plain, "group"),
        ("group norm minus batch norm with test statistics", after, "group against adapted"),
    )
    return [
        differences(title, rows, claim=f"{compared[0].key}: {claim}")
        for title, rows, claim in shown if rows
    ]  # fmt: skip


def gain(rows: pd.DataFrame, name: str) -> dict[int, float]:
    """What statistics of test batches take off batch norm's error, mean over severities, in pp."""
    batch = select(rows, {NORM: "batch"})
    return paired_differences(shifted(batch, (name,)), shifted(batch, (name,), adapt=True))


def clean_cost(batch: pd.DataFrame) -> dict[int, float]:
    """What statistics of test batches add to batch norm's error on clean data, in pp."""
    return paired_differences(values(batch, "test_error_large_batch"), values(batch, "test_error"))


def gains_published() -> dict[str, float]:
    """Corruption -> what statistics of the shifted data take off the published error, in pp."""
    gains = np.subtract(
        PUBLISHED["training statistics"], PUBLISHED["statistics of the shifted data"]
    )
    return dict(zip(PUBLISHED["corruption"], map(float, gains), strict=True))


def shifted(rows: pd.DataFrame, names: tuple[str, ...], adapt: bool = False) -> dict[int, float]:
    """Seed -> mean error over corruptions and severities, in %.

    By the statistics of training or, adapted, by those of the largest test batches.
    """
    columns = [
        adapted(rows, name, severity) if adapt else f"{name}_{severity}_error"
        for name in names
        for severity in SEVERITIES
    ]
    return values(extended(rows, {"mean": rows[columns].mean(axis=1)}), "mean")


def claims(table: pd.DataFrame) -> list[Claim]:
    """Recovery from each corruption; the clean cost; group norm against both readings."""
    return [claim for panel in panels(table, model="resnet") for claim in _claims_of(panel)]


def _claims_of(panel: Panel) -> list[Claim]:
    published = gains_published()
    batch, group = (select(panel.rows, {NORM: n}) for n in ("batch", "group"))
    claim = panel.claims(
        source=SOURCE, preconditions=[trained(batch, "batch norm"), comparable(panel.rows)]
    )
    found = [
        claim(
            name,
            f"test-batch statistics lower batch norm's error under {name}, mean over severities",
            gain(panel.rows, name),
            primary=panel.main and name == CLAIMED[0], estimand=f"{EMA} minus {BATCH}",
            **(
                PUBLISHED.cite("{} pp on ImageNet-C", published[name])
                if name in published else {}
            ),
        )
        for name in CLAIMED
    ]  # fmt: skip
    found.append(
        claim(
            "clean", f"on clean data they cost less than {CLEAN_COST:g} pp",
            clean_cost(batch), "not_worse", threshold=CLEAN_COST,
            estimand=f"{BATCH} minus exponential average",
        )
    )  # fmt: skip
    if not len(group):
        return found
    ready = [trained(batch, "batch norm"), trained(group, "group norm"), comparable(panel.rows)]
    plain, others = (shifted(rows, CLAIMED) for rows in (batch, group))
    own = shifted(batch, CLAIMED, adapt=True)
    more = {"estimand": TEST, "preconditions": ready, "source": "Schneider et al. 2020"}
    return [
        *found,
        claim(
            "group",
            "under noise, blur and JPEG group norm has a lower error than batch norm with training "
            "statistics",
            paired_differences(plain, others), **more,
        ),
        claim(
            "group against adapted",
            "it has a higher error than batch norm with test-batch statistics",
            paired_differences(others, own), **more,
        ),
    ]  # fmt: skip
