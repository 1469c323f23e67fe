"""Corrupted test images by the source of statistics (Wu & Johnson 2021, domain shift).

Primary claim: under noise, the source's largest gain, statistics of test batches of 256 lower batch
norm's test error, mean over five severities. Blur, JPEG and group norm against adapted batch norm
have claims of their own: a mean over corruptions would be that of the largest. Written before the
first run of this version of the study's grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import across, finish
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


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """Two rows for each data set and model."""
    return 2 * len(panels(table)), 4


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Error by severity for each corruption; batch size and prior; calibration; published."""
    for i, panel in enumerate(panels(table)):
        batch = select(panel.rows, {NORM: "batch"})
        norms = in_order(panel.rows[NORM])
        flat = axes[2 * i : 2 * i + 2].ravel()
        label = "batch, test statistics"
        styles = {norm: figures.style_of(norm) for norm in norms}
        styles[label] = figures.style_of("batch")._replace(label=label)
        for ax, name in zip(flat, SHOWN, strict=False):
            plain = {s: f"{name}_{s}_error" for s in SEVERITIES}
            curves = {norm: across(select(panel.rows, {NORM: norm}), plain) for norm in norms}
            curves[label] = across(batch, {s: adapted(batch, name, s) for s in SEVERITIES})
            figures.series(ax, curves, percent=True, log2=False, styles=styles, dashed=[label],
                           xlabel="severity", ylabel="test error (%)")  # fmt: skip
            ax.set_title(f"{panel.title}: {name}")
        flat[0].legend(fontsize=6)
        _batches(flat[5], batch)
        _calibration(flat[6], batch)
        _published(flat[7])


def _batches(ax, batch: pd.DataFrame) -> None:
    """Severity 3: error by test batch size, and with a prior at 16."""
    curves = {name: across(batch, sizes(batch, name, 3)) for name in CLAIMED}
    figures.series(ax, curves, percent=True, xlabel="test batch (examples)",
                   ylabel="test error (%)")  # fmt: skip
    for name, (color, _) in zip(CLAIMED, figures.SERIES, strict=False):
        mean = 100 * batch[f"{name}_3_error_prior16"].mean()
        ax.plot(16, mean, linestyle="none", marker="*", markersize=9, color=color)
    ax.plot([], [], linestyle="none", marker="*", color="grey", label="16, with prior of 16")
    finish(ax, "severity 3, by test batch", fontsize=6)


def _calibration(ax, batch: pd.DataFrame) -> None:
    """Expected calibration error, mean over the claimed corruptions."""
    curves = {}
    for label, column in (
        ("training statistics", lambda n, s: f"{n}_{s}_ece"),
        ("test statistics", lambda n, s: adapted(batch, n, s).replace("_error_", "_ece_")),
    ):
        means = {str(s): batch[[column(n, s) for n in CLAIMED]].mean(axis=1) for s in SEVERITIES}
        rows = extended(batch[["seed"]], means)
        curves[label] = across(rows, {s: str(s) for s in SEVERITIES})
    figures.series(ax, curves, percent=True, log2=False, xlabel="severity",
                   ylabel="calibration error (%)")  # fmt: skip
    finish(ax, "noise, blur, JPEG: calibration (ECE)", fontsize=6)


def _published(ax) -> None:
    places = np.arange(len(PUBLISHED["corruption"]))
    for shift, key, color in ((-0.2, "training statistics", "#D55E00"),
                              (0.2, "statistics of the shifted data", "#0072B2")):  # fmt: skip
        ax.bar(places + shift, PUBLISHED[key], 0.38, color=color, label=key)
    ax.set_xticks(places, PUBLISHED["corruption"])
    ax.set_ylabel("error (%)")
    finish(ax, "published: ResNet-50, ImageNet-C", fontsize=6, room=0.3)


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
    gains = np.subtract(
        PUBLISHED["training statistics"], PUBLISHED["statistics of the shifted data"]
    )
    published = dict(zip(PUBLISHED["corruption"], gains, strict=True))
    batch, group = (select(panel.rows, {NORM: n}) for n in ("batch", "group"))
    claim = panel.claims(
        source=SOURCE, preconditions=[trained(batch, "batch norm"), comparable(panel.rows)]
    )
    found = [
        claim(
            name,
            f"test-batch statistics lower batch norm's error under {name}, mean over severities",
            paired_differences(shifted(batch, (name,)), shifted(batch, (name,), adapt=True)),
            primary=panel.main and name == CLAIMED[0], estimand=f"{EMA} minus {BATCH}",
            **(
                PUBLISHED.cite("{} pp on ImageNet-C", float(published[name]))
                if name in published else {}
            ),
        )
        for name in CLAIMED
    ]  # fmt: skip
    found.append(
        claim(
            "clean", f"on clean data they cost less than {CLEAN_COST:g} pp",
            paired_differences(
                values(batch, "test_error_large_batch"), values(batch, "test_error")
            ),
            "not_worse", threshold=CLEAN_COST, estimand=f"{BATCH} minus exponential average",
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
