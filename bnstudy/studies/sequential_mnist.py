"""Images row by row and pixel by pixel (Cooijmans et al. 2017, table 1).

Primary claim: on permuted pixels batch norm has a lower test error than no norm. Written before the
first run of the study's grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences, summarize
from bnstudy.studies import comparable, select, titled, trained, values

ORDER = "data.sequence"
NAMES = {"permuted": "pixels permuted", "pixels": "pixels in order", "rows": "rows"}
SOURCE = "Cooijmans et al. 2017, table 1"
PUBLISHED = {
    "what": "published: test accuracy in % on MNIST, T = 784, 100 units, about 110,000 updates of "
    "100 examples (Cooijmans et al. 2017, table 1)",
    "in order": {"none": 98.9, "batch": 99.0},
    "permuted": {"none": 90.2, "batch": 95.4},
}


def orders(table: pd.DataFrame) -> list[str]:
    """The ways of reading, in a fixed order."""
    return [name for name in NAMES if name in set(table[ORDER])]


def norms(table: pd.DataFrame) -> list[str]:
    """The norms, in the order of the legends."""
    return [name for name in figures.STYLES if name in set(table["norm.name"])]


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """Test error, training error, batch norm by statistics, published."""
    return 1, 4


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Errors by way of reading."""
    test, train, modes, published = np.ravel(axes)
    where = {order: i for i, order in enumerate(orders(table))}
    labels = [f"{NAMES[o]}\nT = {_steps(select(table, data__sequence=o))}" for o in where]

    def points(ax, column: str, rows: pd.DataFrame, label: str, color: str, marker, shift: float):
        found = summarize(rows, ORDER, column).sort_values(ORDER, key=lambda o: o.map(where))
        x = found[ORDER].map(where) + shift
        bars = 100 * np.abs(found[["low", "high"]].to_numpy().T - found["mean"].to_numpy())
        ax.errorbar(x, 100 * found["mean"], yerr=bars, linestyle="none", color=color,
                    marker=marker, label=label, capsize=2)  # fmt: skip

    names = norms(table)
    for ax, column, title in ((test, "test_error", "test error"),
                              (train, "train_error", "training error")):  # fmt: skip
        for i, name in enumerate(names):
            look = figures.style_of(name)
            points(ax, column, select(table, norm__name=name), look.label, look.color,
                   look.marker, 0.15 * (i - (len(names) - 1) / 2))  # fmt: skip
        ax.set_title(f"{titled(table['data.name'].iloc[0], 'LSTM')}: {title}")
        ax.set_ylabel(f"{title} (%)")
    batch = select(table, norm__name="batch")
    readings = {"exponential average": "test_error", "PreciseBN": "test_error_precise",
                "batch statistics": "test_error_batch"}  # fmt: skip
    for i, (label, column) in enumerate(readings.items()):
        color, marker = figures.SERIES[i]
        points(modes, column, batch, label, color, marker, 0.15 * (i - 1))
    modes.set_title("batch norm, read with")
    modes.set_ylabel("test error (%)")
    for ax in (test, train, modes):
        ax.set_xticks(range(len(where)), labels, fontsize=6.5)
        ax.set_xlim(-0.5, len(where) - 0.5)
        ax.legend(fontsize=6.5)
        ax.margins(y=0.3)
    for i, order in enumerate(("permuted", "in order")):
        for j, (name, accuracy) in enumerate(PUBLISHED[order].items()):
            look = figures.style_of(name)
            published.plot(i + 0.15 * (j - 0.5), 100 - accuracy, linestyle="none", color=look.color,
                           marker=look.marker, label=None if i else look.label)  # fmt: skip
    published.set_xticks([0, 1], ["permuted\nT = 784", "in order\nT = 784"], fontsize=6.5)
    published.set_xlim(-0.5, 1.5)
    published.set_ylabel("test error (%)")
    published.legend(fontsize=6.5)
    published.margins(y=0.3)
    published.set_title("published: MNIST, 110,000 updates")


def _steps(rows: pd.DataFrame) -> int:
    side = rows["data.image_size"].iloc[0]
    return int(side if rows[ORDER].iloc[0] == "rows" else side**2)


def claims(table: pd.DataFrame) -> list[Claim]:
    """Batch norm against no norm and against layer norm, for each way of reading."""
    found = []
    for order in orders(table):
        here = select(table, data__sequence=order)
        error = lambda name, rows=here: values(rows, "test_error", norm__name=name)  # noqa: E731
        ready = [trained(here, "batch norm", norm__name="batch"), comparable(here)]
        published = {"permuted": 5.2, "pixels": 0.1}.get(order)
        found.append(
            Claim(
                name=f"{order}: no norm", kind="greater", primary=not found,
                values=paired_differences(error("none"), error("batch")),
                text=f"{NAMES[order]}: no norm has a higher test error than batch norm",
                published=f"{published:+g} pp at T = 784 (published)" if published else "",
                published_effect=published, source=SOURCE, preconditions=ready,
            )
        )  # fmt: skip
        if "layer" in set(here["norm.name"]):
            found.append(
                Claim(
                    name=f"{order}: layer norm", kind="greater",
                    values=paired_differences(error("batch"), error("layer")),
                    text=f"{NAMES[order]}: batch norm has a higher test error than layer norm",
                    expected="supported or inconclusive", source="Ba et al. 2016",
                    preconditions=ready,
                )
            )  # fmt: skip
    return found
