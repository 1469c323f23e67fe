"""Statistics of two and four examples at an unchanged gradient batch (Ioffe 2017, section 4.2).

Primary claim: at groups of two Batch Renormalization has a lower test error than batch
normalization, with the MLP. Written before the first run of configs/study/micro_batch.yaml.
"""

import numpy as np
import pandas as pd

from bnstudy import figures, stats
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies import (
    arms,
    comparable,
    course,
    decomposition,
    extended,
    panels,
    select,
    titled,
    trained,
    values,
    values_behind,
)

SIZE = "norm.group_size"
WITH_GROUPS = ("batch", "renorm")
XLABEL = "examples behind a statistic"
SOURCE = "Ioffe 2017, section 4.2"
PUBLISHED = {
    "what": "published accuracies in %: Inception-v3 on ImageNet, micro-batches of 4 (Ioffe 2017); "
    "a plain network on CIFAR-100 in micro-batches of 2, 5 seeds (eigenfoo/batch-renorm)",
    "Ioffe 2017": {"batch": 74.2, "renorm": 76.5, "whole batch": 78.3},
    "replication, CIFAR-100": {"batch": 17.6, "renorm": 25.7},
}


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """With the arm's name, and the whole batch's size where statistics are of all of it."""
    return extended(table, arm=arms(table), size=table[SIZE].fillna(table["train.batch_size"]))


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """A row for each data set and model: error, decomposition, r and d, values behind."""
    return len(panels(table)), 4


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Test error by group size; what makes it up; r and d over training; m."""
    table = prepared(table)
    for row, (data, model) in zip(axes, panels(table), strict=True):
        here = select(table, data__name=data, model__name=model)
        summary = stats.summarize(here, ["arm", "size"], "test_error")
        figures.curves(row[0], summary, "size", "arm", percent=True, xlabel=XLABEL,
                       ylabel="test error (%)")  # fmt: skip
        row[0].set_title(titled(data, model))
        row[0].legend(fontsize=6)
        row[0].margins(y=0.4)
        batch = select(here, arm="batch")
        decomposition(row[1], batch, "size", XLABEL)
        curves = {}
        for size, rows in select(here, arm="renorm").groupby("size"):
            curves[f"|log2 r|, groups of {size:.0f}"] = course(rows, "log_r")
            curves[f"|d|, groups of {size:.0f}"] = course(rows, "d")
        figures.series(row[2], curves, log2=None, xlabel="evaluation", ylabel="mean, before bounds")
        row[2].legend(fontsize=6, ncol=2, loc="upper right")
        row[2].set_ylim(0, 1.4 * row[2].get_ylim()[1])  # room for the legend
        row[2].set_title("Batch Renormalization: r and d")
        values_behind(row[3], batch, "size", XLABEL)


def claims(table: pd.DataFrame) -> list[Claim]:
    """Renorm against batch at the smallest group, and what it does not recover."""
    table = prepared(table)
    small, whole = table["size"].min(), table["size"].max()
    pairs = panels(table)
    main = next((p for p in pairs if p[1] == "mlp"), pairs[0])
    found = []
    for data, model in [main, *(p for p in pairs if p != main)]:
        here = select(table, data__name=data, model__name=model)
        cell = lambda arm, size, rows=here: values(  # noqa: E731
            rows, "test_error", arm=arm, size=size
        )
        where, key = titled(data, model), f"{data} {model}"
        ready = [trained(here, "batch norm, whole batch", arm="batch", size=whole),
                 comparable(here)]  # fmt: skip
        found += [
            Claim(
                name=f"{key}: renorm", kind="greater", primary=(data, model) == main,
                text=f"{where}: at groups of {small:.0f} batch norm's test error exceeds Batch "
                "Renormalization's",
                values=paired_differences(cell("batch", small), cell("renorm", small)),
                source=SOURCE, preconditions=ready,
                published="+2.3 pp at 4 on ImageNet, +8.1 pp at 2 on CIFAR-100 (published)",
                published_effect=2.3,
            ),
            Claim(
                name=f"{key}: not all", kind="greater",
                text=f"{where}: Batch Renormalization at groups of {small:.0f} stays above batch "
                "norm with the whole batch",
                values=paired_differences(cell("renorm", small), cell("batch", whole)),
                source=SOURCE, preconditions=ready,
                published="+1.8 pp at 4 on ImageNet (published)", published_effect=1.8,
            ),
        ]  # fmt: skip
        others = [a for a in ("group", "ws_group", "layer", "online") if (here["arm"] == a).any()]
        for arm in others:
            found.append(
                Claim(
                    name=f"{key}: {arm}", kind="greater",
                    text=f"{where}: batch norm at groups of {small:.0f} has a higher test error "
                    f"than {figures.style_of(arm).label} norm",
                    values=paired_differences(cell("batch", small), cell(arm, whole)),
                    source="Wu & He 2018, table 2", preconditions=ready,
                )
            )  # fmt: skip
    return found
