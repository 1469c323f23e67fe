"""Images row by row and pixel by pixel (Cooijmans et al. 2017, table 1).

Two claims are kept apart. Speed, the source's: after equal updates batch norm has the lower
training loss. Regularization: the gap from training to test error is smaller. Primary claim: speed,
on permuted pixels. Written before the first run of this version of the study's grid.
"""

from collections.abc import Mapping

import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import curve, effects
from bnstudy.studies.kit import (
    DATA,
    EMA,
    NORM,
    TRAINING,
    TRAINING_LOSS,
    Published,
    claims_about,
    comparable,
    extended,
    in_order,
    learned,
    select,
    sequence,
    values,
)
from bnstudy.studies.words import TITLES

ORDER = "data.sequence"
SHORT = {"permuted": "permuted", "pixels": "in order", "rows": "by rows"}
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


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Training loss by way of reading, and what no norm has more of it and of test error."""
    main = orders(table)[0]
    loss = _by_reading(table, {"train_loss": "population"}, "training loss (nats)", percent=False)
    gaps = [
        _differences("no norm minus batch", f"{what}, paired", _gaps(table, name, published),
                     claim=f"{main}: {name}")
        for what, name, published in (("training loss (nats)", "speed", None),
                                      ("test error (pp)", "no norm", PUBLISHED))
    ]  # fmt: skip
    return [loss, *gaps]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """Errors, batch norm by statistics, regularization, batch against layer norm."""
    batch = select(table, {NORM: "batch"})
    modes = {f"test_error{figures.MODES[m].suffix}": m for m in ("population", "precise", "batch")}
    found = [
        _by_reading(table, {"train_error": "population"}, "training error (%)"),
        _by_reading(table, {"test_error": "population"}, "test error (%)"),
        _by_reading(batch, modes, "test error (%)"),
        _differences("no norm minus batch", "test minus training error (pp)",
                     _gaps(table, "regularization")),
        _differences("batch minus layer norm", "test error (pp), paired",
                     _gaps(table, "layer norm")),
    ]  # fmt: skip
    return [drawn for drawn in found if drawn.curves]


def _differences(
    title: str, ylabel: str, curves: list[figures.Curve], claim: str = ""
) -> figures.Panel:
    return figures.Panel(title, curves, ylabel=ylabel, kind="dots", zero=True, claim=claim)


def _by_reading(
    table: pd.DataFrame, columns: Mapping[str, str], ylabel: str, percent: bool = True
) -> figures.Panel:
    """Columns by way of reading, a curve for each norm; columns: column -> mode."""
    rows = extended(table, {"reading": table[ORDER].map(SHORT)})
    rows = rows.sort_values(ORDER, key=lambda o: o.map(list(NAMES).index), kind="stable")
    curves = [
        curve(select(rows, {NORM: norm}), "reading", column, norm=norm, mode=mode, percent=percent,
              label=figures.MODES[mode].label if len(columns) > 1 else "")
        for norm in in_order(table[NORM])
        for column, mode in columns.items()
    ]  # fmt: skip
    steps = " and ".join(
        dict.fromkeys(str(_steps(select(table, {ORDER: o}))) for o in orders(table))
    )
    data = table[DATA].iloc[0]
    title = f"{TITLES.get(data, data)}, {steps} steps"
    return figures.Panel(title, curves, "", ylabel, x="names", ceiling=100 if percent else None)


def _gaps(
    table: pd.DataFrame, name: str, published: Published | None = None
) -> list[figures.Curve]:
    """A claim's differences, a row for each way of reading."""
    named = {f"{order}: {name}": SHORT[order] for order in orders(table)}
    return effects(claims(table), named, published, "MNIST")


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
