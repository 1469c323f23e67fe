"""Statistics of two and four examples at an unchanged gradient batch (Ioffe 2017, section 4.2).

Primary claim: at groups of two Batch Renormalization has a lower test error than batch
normalization, with a residual network. An MLP's batch norm fails at groups of two, where vectors
become signs: a demonstration, and its claims are about groups of four. Written before the first run
of this version of configs/study/micro_batch.yaml.
"""

import numpy as np
import pandas as pd

from bnstudy import figures, stats
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import course, decomposition, finish, values_behind
from bnstudy.studies.kit import (
    EMA,
    PRECISE,
    TRAINING,
    Panel,
    Published,
    arms,
    extended,
    filled,
    panels,
    select,
    sequence,
    smallest_judged,
)

SIZE = "norm.group_size"
MARGIN = 1.0  # pp: the smallest difference of interest, a fifth of Ioffe's at micro-batches of 4
XLABEL = "examples behind a statistic"
SOURCE = "Ioffe 2017, section 4.2"
PUBLISHED = Published(
    "published", "Ioffe 2017; eigenfoo/batch-renorm",
    "accuracies in %: Inception-v3 on ImageNet, micro-batches of 4 (Ioffe 2017); a plain network "
    "on CIFAR-100 in micro-batches of 2, 5 seeds (eigenfoo/batch-renorm)",
    {
        "Ioffe 2017": {"batch": 74.2, "renorm": 76.5, "whole batch": 78.3},
        "replication, CIFAR-100": {"batch": 17.6, "renorm": 25.7},
    },
)  # fmt: skip


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """With the arm's name, and the whole batch's size where statistics are of all of it."""
    size = filled(table, {SIZE: None})[SIZE].fillna(table["train.batch_size"]).astype(float)
    return extended(table, {"arm": arms(table), "size": size})


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """A row for each data set and model: error, decomposition, r and d, values behind."""
    return len(panels(table)), 4


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Test error by group size; what makes it up; r and d over training; m."""
    for row, panel in zip(axes, panels(prepared(table)), strict=True):
        error, parts, rd, behind = row
        summary = stats.summarize(panel.rows, ["arm", "size"], "test_error")
        figures.curves(error, summary, "size", "arm", percent=True, xlabel=XLABEL,
                       ylabel="test error (%)")  # fmt: skip
        finish(error, panel.title, fontsize=6, room=0.4)
        batch = select(panel.rows, {"arm": "batch"})
        decomposition(parts, batch, "size", XLABEL)
        curves = {}
        for size, rows in select(panel.rows, {"arm": "renorm"}).groupby("size"):
            curves[f"|log2 r|, groups of {size:.0f}"] = course(rows, "log_r")
            curves[f"|d|, groups of {size:.0f}"] = course(rows, "d")
        figures.series(rd, curves, log2=None, xlabel="evaluation", ylabel="mean, before bounds")
        rd.legend(fontsize=6, ncol=2, loc="upper right")
        rd.set_ylim(0, 1.4 * rd.get_ylim()[1])  # room for the legend
        rd.set_title("Batch Renormalization: r and d")
        values_behind(behind, batch, "size", XLABEL)


def claims(table: pd.DataFrame) -> list[Claim]:
    """Renorm against batch at the smallest group, where it comes from, and other norms."""
    table = prepared(table)
    return [claim for panel in panels(table, model="resnet") for claim in _claims_of(panel)]


def _claims_of(panel: Panel) -> list[Claim]:
    small, apart = smallest_judged(panel.rows["size"].unique(), panel.model)
    whole = panel.rows["size"].max()
    imagenet, replication = PUBLISHED["Ioffe 2017"], PUBLISHED["replication, CIFAR-100"]
    batch, renorm = ({"arm": arm, "size": small} for arm in ("batch", "renorm"))
    reference = {"arm": "batch", "size": whole}
    certain = panel.model == "mlp" and small == 2
    kind = "demonstration" if certain else "greater"  # of what batch norm loses at groups of two
    claim = panel.claims(
        source=SOURCE, preconditions=panel.ready("batch norm, whole batch", reference)
    )
    found = sequence(
        claim(
            "renorm",
            f"at groups of {small} batch norm's test error exceeds Batch Renormalization's",
            panel.difference(batch, renorm), kind, estimand=EMA,
            primary=panel.main and not certain,
            **PUBLISHED.cite(
                f"{{}} pp at 4 on ImageNet, {replication['renorm'] - replication['batch']:+.1f} pp "
                "at 2 on CIFAR-100",
                imagenet["renorm"] - imagenet["batch"],
            ),
        ),
        claim(
            "training", "so does its training error",
            panel.difference(batch, renorm, "train_error"), kind, estimand=TRAINING,
        ),
        claim(
            "not all",
            f"Batch Renormalization at groups of {small} stays above batch norm with the whole "
            "batch",
            panel.difference(renorm, reference), estimand=EMA,
            **PUBLISHED.cite(
                "{} pp at 4 on ImageNet", imagenet["whole batch"] - imagenet["renorm"]
            ),
        ),
    )  # fmt: skip
    if apart:
        found.append(
            claim(
                "signs", "at groups of 2 batch norm has a higher test error than with the whole "
                "batch",
                panel.difference({"arm": "batch", "size": 2}, reference), "demonstration",
                estimand=EMA, source="a vector normalized by two is a sign",
            )
        )  # fmt: skip
    present = set(panel.rows["arm"])
    found += [
        claim(
            arm,
            f"batch norm at groups of {small} has a higher test error than "
            f"{figures.style_of(arm).label} norm",
            panel.difference(batch, {"arm": arm, "size": whole}), kind, estimand=EMA,
            source="Wu & He 2018, table 2",
        )
        for arm in ("group", "ws_group", "layer", "online")
        if arm in present
    ]  # fmt: skip
    if "group" in present and not certain:
        precise = panel.cell("test_error_precise", batch)
        group = panel.cell("test_error", {"arm": "group", "size": whole})
        found.append(
            claim(
                "by PreciseBN",
                f"with PreciseBN it is within {MARGIN:g} pp of group norm",
                paired_differences(precise, group), "equivalent", threshold=MARGIN,
                estimand=PRECISE, source="Wu & Johnson 2021, figure 5",
            )
        )  # fmt: skip
    return found
