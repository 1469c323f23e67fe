"""Images row by row and pixel by pixel (Cooijmans et al. 2017, table 1).

Two claims are kept apart. Speed, the source's: after equal updates batch norm has the lower
training loss. Regularization: the gap from training to test error is smaller. Primary claim: speed,
on permuted pixels. Written before the first run of this version of the study's grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences, summarize
from bnstudy.studies.drawing import finish
from bnstudy.studies.kit import (
    DATA,
    EMA,
    NORM,
    TRAINING,
    TRAINING_LOSS,
    Published,
    claims_about,
    comparable,
    in_order,
    learned,
    select,
    sequence,
    titled,
    values,
)

ORDER = "data.sequence"
NAMES = {"permuted": "pixels permuted", "pixels": "pixels in order", "rows": "rows"}
LEARNED = 0.75  # of chance, training error at most: half of it is far for some hundred updates
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
    """Training loss, training error, test error, batch norm by statistics, published."""
    return 1, 5


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Losses and errors by way of reading."""
    *own, modes, published = np.ravel(axes)
    places = {order: i for i, order in enumerate(orders(table))}
    labels = [f"{NAMES[o]}\nT = {_steps(select(table, {ORDER: o}))}" for o in places]
    names = in_order(table[NORM])
    shown = (("train_loss", "training loss", "nats"), ("train_error", "training error", "%"),
             ("test_error", "test error", "%"))  # fmt: skip
    for ax, (column, title, unit) in zip(own, shown, strict=True):
        for i, name in enumerate(names):
            shift = 0.15 * (i - (len(names) - 1) / 2)
            style = figures.style_of(name)
            _points(ax, column, select(table, {NORM: name}), places, style, shift)
        finish(ax, f"{titled(table[DATA].iloc[0], 'LSTM')}: {title}", room=0.3)
        ax.set_ylabel(f"{title} ({unit})")
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
    for ax in (*own, modes):
        ax.set_xticks(range(len(places)), labels, fontsize=6.5)
        ax.set_xlim(-0.5, len(places) - 0.5)
    published.set_xticks([0, 1], ["permuted\nT = 784", "in order\nT = 784"], fontsize=6.5)
    published.set_xlim(-0.5, 1.5)


def _points(
    ax, column: str, rows: pd.DataFrame, places: dict[str, int], style: figures.Style, shift: float
) -> None:
    """Means with interval bars at the places of the ways of reading."""
    found = summarize(rows, ORDER, column).sort_values(ORDER, key=lambda o: o.map(places))
    factor = 100 if "error" in column else 1
    bars = factor * np.abs(found[["low", "high"]].to_numpy().T - found["mean"].to_numpy())
    ax.errorbar(found[ORDER].map(places) + shift, factor * found["mean"], yerr=bars,
                linestyle="none", color=style.color, marker=style.marker, label=style.label,
                capsize=2)  # fmt: skip


def _steps(rows: pd.DataFrame) -> int:
    side = rows["data.image_size"].iloc[0]
    return int(side if rows[ORDER].iloc[0] == "rows" else side**2)


def claims(table: pd.DataFrame) -> list[Claim]:
    """For each way of reading: speed, test error, regularization; batch against layer norm."""
    return [
        claim
        for i, order in enumerate(orders(table))
        for claim in _claims_of(select(table, {ORDER: order}), order, main=i == 0)
    ]


def _claims_of(rows: pd.DataFrame, order: str, main: bool) -> list[Claim]:
    batch = select(rows, {NORM: "batch"})
    ready = [learned(batch, "batch norm", "train_error", LEARNED), comparable(rows)]
    claim = claims_about(NAMES[order], order, preconditions=ready, source=SOURCE)

    def more(first: str, second: str, metric: str, factor: float = 100) -> dict[int, float]:
        """How much more of a metric one norm has than another."""
        cells = (values(rows, metric, {NORM: n}, factor) for n in (first, second))
        return paired_differences(*cells)

    def gap(norm: str) -> dict[int, float]:
        own = {NORM: norm}
        return paired_differences(*(values(rows, f"{p}_error", own) for p in ("test", "train")))

    accuracy, cited = PUBLISHED.values.get(order), {}
    if accuracy:
        cited = PUBLISHED.cite("{} pp at T = 784", accuracy["batch"] - accuracy["none"])
    found = sequence(
        claim(
            "speed", "after equal updates no norm has a higher training loss than batch norm",
            more("none", "batch", "train_loss", factor=1), primary=main, unit="nats",
            estimand=f"{TRAINING_LOSS} of the last epoch",
        ),
        claim(
            "no norm", "no norm has a higher test error than batch norm",
            more("none", "batch", "test_error"), estimand=EMA, **cited,
        ),
        claim(
            "regularization",
            "from training to test error no norm loses more than batch norm",
            paired_differences(gap("none"), gap("batch")), estimand=f"{EMA} minus {TRAINING}",
            expected="either way: batch norm's training error has the noise of its batches",
        ),
    )  # fmt: skip
    if (rows[NORM] == "layer").any():
        found.append(
            claim(
                "layer norm", "batch norm has a higher test error than layer norm",
                more("batch", "layer", "test_error"), estimand=EMA,
                expected="supported or inconclusive", source="Ba et al. 2016",
            )
        )  # fmt: skip
    return found
