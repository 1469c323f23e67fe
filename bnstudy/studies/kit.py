"""What the studies share: panels and cells of a table, claims about them, and preconditions.

A table has one row per run. `where` picks the runs of a cell: column -> value, None for a setting
that is not set. Errors in tables are fractions; claims speak of percentage points.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from bnstudy import figures, stats
from bnstudy.stats import Claim, paired_differences
from bnstudy.stats.failures import HALF, chance, failed
from bnstudy.stats.failures import failures as failures  # for the studies and their results
from bnstudy.studies.words import ORDER, titled

DATA, MODEL, NORM = "data.name", "model.name", "norm.name"
NAMED = 5  # failed seeds that a precondition names

# what a claim's number is: the measured quantity, and by which statistics
EMA = "test error, exponential average"
CORRECTED = "test error, exponential average without its initial values"
PRECISE = "test error, PreciseBN"
BATCH = "test error, batch statistics"
TEST = "test error"  # of networks without population statistics, or of both kinds
TRAINING = "training error"
TRAINING_LOSS = "training loss"
FAILURES = "failure rate"

Where = Mapping[str, Any]
Precondition = tuple[str, bool, str]  # what must hold, whether it does, detail


# --- tables --------------------------------------------------------------------------------------


def select(table: pd.DataFrame, where: Where) -> pd.DataFrame:
    """The rows with these values; None selects rows in which the column is not set."""
    for column, value in where.items():
        table = table[table[column].isna() if value is None else table[column] == value]
    return table


def extended(table: pd.DataFrame, columns: Mapping[str, Any]) -> pd.DataFrame:
    """The table with these columns, new or in the place of old ones.

    Not `assign`, which inserts into tables of hundreds of columns and warns of its slowness.
    """
    kept = table.drop(columns=[name for name in columns if name in table])
    return pd.concat([kept, pd.DataFrame(columns, index=table.index)], axis=1)


def filled(table: pd.DataFrame, neutral: Mapping[str, Any]) -> pd.DataFrame:
    """The table with these settings at their neutral values where it has none.

    A setting at its neutral value is not part of an address and therefore not of a table.
    """
    columns = {}
    for name, value in neutral.items():
        column = table[name] if name in table else pd.Series(value, index=table.index)
        columns[name] = column if value is None else column.fillna(value).infer_objects()
    return extended(table, columns)


def values(
    table: pd.DataFrame, metric: str, where: Where | None = None, factor: float = 100
) -> dict[int, float]:
    """Seed -> metric of one cell, in percent (percentage points when differenced) by default."""
    found = stats.per_seed(select(table, where or {}), metric)
    return {seed: factor * value for seed, value in found.items()}


def arms(table: pd.DataFrame) -> pd.Series:
    """The name under which figures know each run's normalization."""
    names = table[NORM].replace({"filter_response": "frn"})
    for column, name in (("norm.r_max", "renorm"), ("norm.weight_standardization", "ws_group")):
        if column in table:
            names = names.mask(table[column].notna() & table[column].astype(bool), name)
    return names


def in_order(names: Iterable[str]) -> list[str]:
    """The known normalizations among these names, each once, in the order of the legends."""
    present = set(names)
    return [name for name in figures.STYLES if name in present]


# --- panels --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Panel:
    """The runs of one data set and model; the study's primary claim is about the `main` one."""

    data: str
    model: str
    rows: pd.DataFrame
    main: bool

    @property
    def key(self) -> str:
        """Data set and model as they begin the names of claims."""
        return f"{self.data} {self.model}"

    @property
    def title(self) -> str:
        """Data set and model as figures and sentences call them."""
        return titled(self.data, self.model)

    def cell(
        self, metric: str, where: Where | None = None, factor: float = 100
    ) -> dict[int, float]:
        """Seed -> metric of one cell, as `values`."""
        return values(self.rows, metric, where, factor)

    def difference(
        self, first: Where, second: Where, metric: str = "test_error"
    ) -> dict[int, float]:
        """Metric of the first cell minus that of the second, paired by seed, in pp."""
        return paired_differences(self.cell(metric, first), self.cell(metric, second))

    def failure_difference(self, first: Where, second: Where) -> dict[int, float]:
        """Failed in the first cell minus failed in the second, paired by seed: -100, 0, 100 pp."""
        rows = extended(self.rows, {"failed": failed(self.rows).astype(float)})
        return paired_differences(values(rows, "failed", first), values(rows, "failed", second))

    def ready(self, what: str, where: Where | None = None) -> list[Precondition]:
        """The usual preconditions: a reference cell has trained, and all runs are comparable."""
        return [trained(select(self.rows, where or {}), what), comparable(self.rows)]

    def claims(self, key: str = "", **common: Any) -> Callable[..., Claim]:
        """A maker of claims about this panel, as `claims_about`."""
        return claims_about(self.title, key or self.key, **common)


def panels(table: pd.DataFrame, model: str = "", data: str = "") -> list[Panel]:
    """The panels of a table, by model and then by data set, the main one first.

    Main is the first panel of this model (and data set) when there is one, else the first.
    """
    rank = {name: i for i, name in enumerate(ORDER)}
    pairs = sorted(
        table[[DATA, MODEL]].drop_duplicates().itertuples(index=False, name=None),
        key=lambda p: [(rank.get(name, len(rank)), name) for name in (p[1], p[0])],
    )
    wanted = (p for p in pairs if data in ("", p[0]) and model in ("", p[1]))
    main = next(wanted, pairs[0])
    return [
        Panel(*pair, select(table, {DATA: pair[0], MODEL: pair[1]}), pair == main)
        for pair in sorted(pairs, key=lambda p: p != main)
    ]


# --- claims --------------------------------------------------------------------------------------


def claims_about(where: str, key: str = "", **common: Any) -> Callable[..., Claim]:
    """A maker of claims that share a subject, source and preconditions.

    `make(name, text, values, kind="greater", **own)` gives a Claim whose name begins with `key`,
    whose text begins with `where`, and whose other fields are `own`, else `common`.
    """

    def make(
        name: str, text: str, values: Mapping[int, float], kind: str = "greater", **own: Any
    ) -> Claim:
        return Claim(
            name=f"{key}: {name}" if key else name,
            text=f"{where}: {text}" if where else text,
            kind=kind,
            values=values,
            **{**common, **own},
        )

    return make


def every_run(
    rows: pd.DataFrame, text: str, holds: pd.Series, metric: str, unit: str = "%"
) -> Precondition:
    """The precondition that something holds in every run; names the seeds where it does not.

    holds:  by run, like rows; a run that lacks the metric should not hold.
    metric: the column that the detail gives of them, a fraction where the unit is %.
    """
    if not len(rows):
        return (text, False, "no run")
    shown = rows[metric] * (100 if unit == "%" else 1)
    if holds.all():
        return (text, True, f"{metric} at most {shown.max():.3g} {unit}")
    found = sorted(zip(rows.loc[~holds, "seed"], shown[~holds], strict=True))
    told = [f"seed {seed} {value:.3g} {unit}" for seed, value in found[:NAMED]]
    if len(found) > NAMED:
        told.append(f"and {len(found) - NAMED} more")
    return (text, False, f"{metric} of {len(found)} of {len(rows)} runs: {', '.join(told)}")


def learned(rows: pd.DataFrame, what: str, metric: str, part: float = HALF) -> Precondition:
    """The precondition that every run's error by this metric is at most a part of chance."""
    text = f"{what}: {metric} at most {100 * part:g} % of chance in every run"
    return every_run(rows, text, rows[metric] <= part * chance(rows), metric)


def trained(rows: pd.DataFrame, what: str) -> Precondition:
    """The precondition that every run has learned (see `failed`); names the seeds that have not."""
    return every_run(rows, f"{what} trains in every run", ~failed(rows), "train_error")


def fitted(rows: pd.DataFrame, what: str, limit: float) -> Precondition:
    """The precondition that every run's training loss is below a limit, in nats.

    For texts, of which most characters cannot be predicted: see `failed`.
    """
    text = f"{what}: training loss below {limit:.3g} nats in every run"
    return every_run(rows, text, rows["train_loss"] < limit, "train_loss", "nats")


def sequence(*claims: Claim) -> list[Claim]:
    """Exclusive or nested claims in a fixed order, each judged after the one before is decided.

    The sequence of a study begins with its primary claim; without it they stay as they are, to be
    adjusted for each other like other secondary claims.
    """
    if not claims[0].primary:
        return list(claims)
    before = ["", *(claim.name for claim in claims[:-1])]
    return [dataclasses.replace(c, after=b) for c, b in zip(claims, before, strict=True)]


def smallest_judged(sizes: Iterable[float], model: str) -> tuple[int, bool]:
    """The smallest number of examples behind a statistic that is judged, and whether 2 is apart.

    An MLP normalizes vectors, and a vector normalized over two examples is a sign: what it loses
    there is a demonstration, and the next size is judged where there is one below the largest.
    """
    first, *more = sorted(int(size) for size in sizes)
    apart = model == "mlp" and first == 2 and len(more) > 1
    return (more[0] if apart else first), apart


def comparable(rows: pd.DataFrame) -> Precondition:
    """The precondition that all runs share the kind of device and the version of torch."""
    kinds = rows[["device", "torch"]].drop_duplicates()
    return (
        "all runs on one kind of device and one torch",
        len(kinds) == 1,
        ", ".join(f"{d} torch {t}" for d, t in kinds.itertuples(index=False)),
    )


@dataclass(frozen=True)
class Published:
    """Numbers of others beside which a study shows its own, and where they come from.

    kind:   "published" (printed in the source), "digitised" (read off one of its figures) or
            "unconfirmed" (second hand).
    source: paper, table or figure; what: network, data, unit.
    values: name -> number, or numbers of equal length for a curve.
    Raises ValueError for another kind.
    """

    kind: str
    source: str
    what: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in ("published", "digitised", "unconfirmed"):
            raise ValueError(
                f"kind of published numbers: '{self.kind}'. "
                "Allowed: published, digitised, unconfirmed."
            )

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def at(self, name: str, **place: Any) -> float:
        """A curve's number at a place, `at("group", batch_size=2)`; NaN where there is none."""
        ((axis, value),) = place.items()
        return dict(zip(self.values[axis], self.values[name], strict=True)).get(value, math.nan)

    def curve(self, name: str, over: str, x: str = "x") -> pd.DataFrame:
        """A curve as figures draw it: columns x, mean and an interval that is not known."""
        return pd.DataFrame(
            {x: self.values[over], "mean": self.values[name], "low": np.nan, "high": np.nan}
        )

    def cite(self, text: str, effect: float | None = None) -> dict[str, Any]:
        """What a claim says of these numbers; `{}` in the text is the effect with its sign.

        Nothing where the effect is NaN: the source has no number for this place.
        """
        if effect is not None:
            if math.isnan(effect):
                return {}
            effect = round(effect, 6)  # the decimals of differences of printed numbers
            text = text.format(f"{effect:+g}")
        return {"published": f"{text} ({self.kind})", "published_effect": effect}

    def to_dict(self) -> dict[str, Any]:
        """For study.json."""
        return {"what": f"{self.kind}: {self.what}", "source": self.source, **self.values}
