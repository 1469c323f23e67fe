"""Images row by row and pixel by pixel (Cooijmans et al. 2017, table 1).

Primary claim: on permuted pixels batch norm has a lower test error than no norm. Written before the
first run of the study's grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences, summarize
from bnstudy.studies.drawing import finish
from bnstudy.studies.kit import (
    DATA,
    NORM,
    Published,
    claims_about,
    comparable,
    in_order,
    select,
    titled,
    trained,
    values,
)

ORDER = "data.sequence"
NAMES = {"permuted": "pixels permuted", "pixels": "pixels in order", "rows": "rows"}
SOURCE = "Cooijmans et al. 2017, table 1"
PUBLISHED = Published(
    "published", SOURCE,
    "test accuracy in % on MNIST, T = 784, 100 units, about 110,000 updates of 100 examples",
    {"pixels": {"none": 98.9, "batch": 99.0}, "permuted": {"none": 90.2, "batch": 95.4}},
)  # fmt: skip


def orders(table: pd.DataFrame) -> list[str]:
    """The ways of reading, in a fixed order."""
    return [name for name in NAMES if name in set(table[ORDER])]


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """Test error, training error, batch norm by statistics, published."""
    return 1, 4


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Errors by way of reading."""
    test, train, modes, published = np.ravel(axes)
    places = {order: i for i, order in enumerate(orders(table))}
    labels = [f"{NAMES[o]}\nT = {_steps(select(table, {ORDER: o}))}" for o in places]
    names = in_order(table[NORM])
    for ax, column, title in ((test, "test_error", "test error"),
                              (train, "train_error", "training error")):  # fmt: skip
        for i, name in enumerate(names):
            shift = 0.15 * (i - (len(names) - 1) / 2)
            style = figures.style_of(name)
            _points(ax, column, select(table, {NORM: name}), places, style, shift)
        finish(ax, f"{titled(table[DATA].iloc[0], 'LSTM')}: {title}", room=0.3)
        ax.set_ylabel(f"{title} (%)")
    batch = select(table, {NORM: "batch"})
    readings = {"exponential average": "test_error", "PreciseBN": "test_error_precise",
                "batch statistics": "test_error_batch"}  # fmt: skip
    for i, (label, column) in enumerate(readings.items()):
        style = figures.Style(*figures.SERIES[i], label)
        _points(modes, column, batch, places, style, 0.15 * (i - 1))
    finish(modes, "batch norm, read with", room=0.3)
    for i, order in enumerate(("permuted", "pixels")):
        for j, (name, accuracy) in enumerate(PUBLISHED[order].items()):
            style = figures.style_of(name)
            published.plot(i + 0.15 * (j - 0.5), 100 - accuracy, linestyle="none",
                           color=style.color, marker=style.marker,
                           label=None if i else style.label)  # fmt: skip
    finish(published, "published: MNIST, 110,000 updates", room=0.3)
    for ax in (modes, published):
        ax.set_ylabel("test error (%)")
    for ax in (test, train, modes):
        ax.set_xticks(range(len(places)), labels, fontsize=6.5)
        ax.set_xlim(-0.5, len(places) - 0.5)
    published.set_xticks([0, 1], ["permuted\nT = 784", "in order\nT = 784"], fontsize=6.5)
    published.set_xlim(-0.5, 1.5)


def _points(
    ax, column: str, rows: pd.DataFrame, places: dict[str, int], style: figures.Style, shift: float
) -> None:
    """Means with interval bars at the places of the ways of reading."""
    found = summarize(rows, ORDER, column).sort_values(ORDER, key=lambda o: o.map(places))
    bars = 100 * np.abs(found[["low", "high"]].to_numpy().T - found["mean"].to_numpy())
    ax.errorbar(found[ORDER].map(places) + shift, 100 * found["mean"], yerr=bars, linestyle="none",
                color=style.color, marker=style.marker, label=style.label, capsize=2)  # fmt: skip


def _steps(rows: pd.DataFrame) -> int:
    side = rows["data.image_size"].iloc[0]
    return int(side if rows[ORDER].iloc[0] == "rows" else side**2)


def claims(table: pd.DataFrame) -> list[Claim]:
    """Batch norm against no norm and against layer norm, for each way of reading."""
    found: list[Claim] = []
    for order in orders(table):
        here = select(table, {ORDER: order})
        error = {n: values(here, "test_error", {NORM: n}) for n in ("none", "batch", "layer")}
        ready = [trained(select(here, {NORM: "batch"}), "batch norm"), comparable(here)]
        claim = claims_about(NAMES[order], order, preconditions=ready)
        accuracy = PUBLISHED.values.get(order)
        cited = {}
        if accuracy:
            cited = PUBLISHED.cite("{} pp at T = 784", accuracy["batch"] - accuracy["none"])
        found.append(
            claim(
                "no norm", "no norm has a higher test error than batch norm",
                paired_differences(error["none"], error["batch"]),
                primary=not found, source=SOURCE, **cited,
            )
        )  # fmt: skip
        if error["layer"]:
            found.append(
                claim(
                    "layer norm", "batch norm has a higher test error than layer norm",
                    paired_differences(error["batch"], error["layer"]),
                    expected="supported or inconclusive", source="Ba et al. 2016",
                )
            )  # fmt: skip
    return found
