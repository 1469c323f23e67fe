"""Batches of few classes: what leaks through the statistics (Ioffe 2017, section 4.3).

Primary claim: trained with one class a batch, the error by population statistics exceeds that by
statistics of equally composed batches. Written before the first run of the study's grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures, stats
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies import arms, comparable, extended, panels, select, titled, trained, values

CLASSES = "train.classes_per_batch"
XLABEL = "classes in a batch"
SOURCE = "Ioffe 2017, section 4.3"
PUBLISHED = {
    "what": "published accuracies in %: Inception-v3 on ImageNet, batches of 16 labels x 2 images "
    "(Ioffe 2017)",
    "fair batches": 78.3,
    "batch, population": 67.0,
    "batch, equally composed": 76.5,
    "batch, halves": 77.4,
    "renorm": 78.5,
}


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """With the arm's name; batch norm on halves of the batch is `ghost`."""
    halves = table["norm.group_size"].notna() if "norm.group_size" in table else False
    return extended(
        table,
        arm=arms(table).mask(halves, "ghost"),
        leak=table["test_error"] - table["composition_error"],
    )


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """A row for each data set and model: error, leak, and the published numbers."""
    return len(panels(table)), 3


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Test error and leak by classes in a batch; published accuracies."""
    table = prepared(table)
    for row, (data, model) in zip(axes, panels(table), strict=True):
        here = select(table, data__name=data, model__name=model)
        summary = stats.summarize(here, ["arm", CLASSES], "test_error")
        figures.curves(row[0], summary, CLASSES, "arm", percent=True, xlabel=XLABEL,
                       ylabel="test error, population (%)")  # fmt: skip
        row[0].set_title(titled(data, model))
        row[0].legend(fontsize=6.5)
        leaking = here[here["leak"].notna()]
        summary = stats.summarize(leaking, ["arm", CLASSES], "leak")
        figures.curves(row[1], summary, CLASSES, "arm", percent=True, xlabel=XLABEL,
                       ylabel="population minus oracle (pp)")  # fmt: skip
        row[1].axhline(0, color="black", linewidth=0.7)
        row[1].set_title("leak: oracle = equally composed batches")
        names = [k for k in PUBLISHED if k != "what"]
        row[2].barh(range(len(names)), [PUBLISHED[k] for k in names], color="#0072B2")
        row[2].set_yticks(range(len(names)), names)
        row[2].set_xlim(60, 82)
        row[2].set_xlabel("accuracy (%)")
        row[2].set_title("published: ImageNet, 16 x 2")


def claims(table: pd.DataFrame) -> list[Claim]:
    """Leak of batch norm with the fewest classes; what halves and renorm do; raw error."""
    table = prepared(table)
    few, all_ = int(table[CLASSES].min()), int(table[CLASSES].max())
    found = []
    for number, (data, model) in enumerate(panels(table)):
        here = select(table, data__name=data, model__name=model)

        def cell(metric, arm, classes, rows=here):
            return values(rows, metric, arm=arm, **{CLASSES.replace(".", "__"): classes})

        where, key = titled(data, model), f"{data} {model}"
        fair = select(here, arm="batch", **{CLASSES.replace(".", "__"): all_})
        ready = [trained(fair, f"batch norm, {all_} classes a batch"), comparable(here)]
        leak = cell("leak", "batch", few)
        common = {"source": SOURCE, "preconditions": ready}
        found.append(
            Claim(
                name=f"{key}: leak", kind="greater", values=leak, primary=not number,
                text=f"{where}: with {few} class a batch, batch norm's error by population "
                "statistics exceeds that by statistics of equally composed batches",
                published="+9.5 pp on ImageNet, 16 x 2 (published)", published_effect=9.5, **common,
            )
        )  # fmt: skip
        for arm in ("ghost", "renorm"):
            if (here["arm"] == arm).any():
                found.append(
                    Claim(
                        name=f"{key}: {arm} leaks less", kind="greater",
                        values=paired_differences(leak, cell("leak", arm, few)),
                        text=f"{where}: {figures.style_of(arm).label} norm leaks less than batch "
                        "norm",
                        **common,
                    )
                )  # fmt: skip
        if (here["arm"] == "group").any():
            rise = lambda arm, cell=cell: paired_differences(  # noqa: E731
                cell("test_error", arm, few), cell("test_error", arm, all_)
            )
            found.append(
                Claim(
                    name=f"{key}: raw error", kind="greater",
                    values=paired_differences(rise("batch"), rise("group")),
                    text=f"{where}: few classes raise batch norm's error more than group norm's",
                    expected="either way: both forget", **common,
                )
            )  # fmt: skip
    return found
