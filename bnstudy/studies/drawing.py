"""Curves of a study's figures: means, intervals and the dots of seeds, from a table of runs.

The only place where figures compute. Errors in tables are fractions and are drawn in percent
(`percent`); whatever is drawn is in the unit of its axis. Bars of single arms are Student-t
intervals, those of paired differences invert the sign-flip test, as verdicts do.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
import pandas as pd

from bnstudy import figures, stats
from bnstudy.errors import did_you_mean
from bnstudy.figures import Band, Curve, Panel, Style
from bnstudy.stats import Claim
from bnstudy.studies import kit
from bnstudy.studies.kit import Published

_level = ContextVar("level", default=0.95)


@contextlib.contextmanager
def at_level(level: float) -> Iterator[None]:
    """Within the block intervals of paired differences have this level: that of the verdicts."""
    token = _level.set(level)
    try:
        yield
    finally:
        _level.reset(token)


def networks(found: Sequence[kit.Panel]) -> dict[str, str]:
    """Key of each panel -> its title without the data set, unless two would be called alike."""
    brief = {panel.key: panel.title.partition(", ")[2] for panel in found}
    alike = len(set(brief.values())) < len(brief) or "" in brief.values()
    return {panel.key: panel.title for panel in found} if alike else brief


def curve(
    rows: pd.DataFrame,
    x: str,
    metric: str,
    *,
    norm: str = "",
    style: Style | None = None,
    label: str = "",
    mode: str = "population",
    percent: bool = True,
    dots: bool = True,
) -> Curve:
    """One arm over a column of settings: mean and interval for each x, a dot for each run.

    rows:    one row per run, one run of each seed and x; runs that lack the metric (NaN) leave a
             gap.
    x:       column of the settings, numbers or words.
    metric:  column of what is drawn, by its full name, such as test_error_precise.
    norm:    normalization whose style and label the curve has, unless they are given.
    style:   of what is no normalization: `figures.hue`, `figures.ramp`.
    mode:    key of MODES: chooses the line only, not the metric.
    percent: values are fractions and are drawn times 100.
    dots:    one for each run; False where they are shown elsewhere or would hide the curves.
    Raises ValueError for a missing column, for several runs of one seed and x, and without norm and
    style.
    """
    factor = 100.0 if percent else 1.0
    numeric = x in rows and pd.api.types.is_numeric_dtype(rows[x])
    # words keep the order of their first occurrence
    rows = rows.sort_values([x, "seed"] if numeric else "seed", kind="stable")
    found = stats.summarize(rows, x, metric).rename(columns={x: "x"})
    found[["mean", "low", "high"]] *= factor
    if "diverged_at" in rows:
        hit = rows["diverged_at"].notna().groupby(rows[x], dropna=False).sum()
        found["diverged"] = found["x"].map(hit)
    runs = pd.DataFrame({"x": rows[x], "seed": rows["seed"], "value": factor * rows[metric]})
    return _made(found.drop(columns="sd"), runs if dots else None, norm, style, label, mode)


def across(
    rows: pd.DataFrame,
    columns: Mapping[Any, str],
    *,
    norm: str = "",
    style: Style | None = None,
    label: str = "",
    mode: str = "population",
    percent: bool = True,
    dots: bool = True,
) -> Curve:
    """One arm over several columns of the table, such as errors at several test lengths.

    rows:    one row per run, one run of each seed.
    columns: x -> column; columns that the table lacks, or that no run has, are left out.
    The rest as in `curve`. Raises ValueError where none is left.
    """
    own = {x: c for x, c in columns.items() if c in rows and rows[c].notna().any()}
    if not own:
        near = did_you_mean(next(iter(columns.values()), ""), map(str, rows))
        raise ValueError(
            f"the table has no column {', '.join(columns.values()) or '(none)'}.{near}"
        )
    kept = [name for name in ("seed", "diverged_at") if name in rows]
    long = [rows[kept].assign(x=x, value=rows[column]) for x, column in own.items()]
    return curve(pd.concat(long, ignore_index=True), "x", "value", norm=norm, style=style,
                 label=label, mode=mode, percent=percent, dots=dots)  # fmt: skip


def course(
    rows: pd.DataFrame,
    name: str,
    *,
    norm: str = "",
    style: Style | None = None,
    label: str = "",
    mode: str = "population",
    percent: bool = True,
) -> Curve:
    """One arm over the columns name/01, name/02, ...: over checkpoints, time steps or lengths.

    Without dots, which would hide its many points. The rest as in `across`.
    """
    own = sorted(str(c) for c in rows if str(c).startswith(f"{name}/"))
    if not own:
        near = did_you_mean(name, {str(c).rpartition("/")[0] for c in rows if "/" in str(c)})
        raise ValueError(f"the table has no column {name}/01, {name}/02, ....{near}")
    columns = {float(c.rpartition("/")[2]): c for c in own}
    return across(rows, columns, norm=norm, style=style, label=label, mode=mode, percent=percent,
                  dots=False)  # fmt: skip


def cited(
    published: Published,
    name: str,
    over: str,
    *,
    norm: str = "",
    style: Style | None = None,
    label: str = "",
    mode: str = "population",
    factor: float = 1,
) -> Curve:
    """Others' numbers as a curve: `published[name]` times factor, over `published[over]`."""
    numbers = pd.DataFrame({"x": published[over], "mean": published[name]}).dropna()
    numbers["mean"] = numbers["mean"].astype(float) * factor
    if pd.api.types.is_numeric_dtype(numbers["x"]):
        numbers = numbers.sort_values("x")
    found = numbers.assign(low=np.nan, high=np.nan)
    made = _made(found, None, norm, style, label or ("" if norm else name), mode)
    return Curve(made.label, made.points, made.style, mode, None, published.kind)  # type: ignore[arg-type]


def gaps(
    label: str,
    values: Mapping[Any, Mapping[int, float]],
    *,
    style: Style | None = None,
    dots: bool = True,
) -> Curve:
    """Paired differences over x: their means, the intervals that verdicts have, seeds as dots.

    values: x -> seed -> difference, in the unit of the axis; a lost seed (NaN) makes its mean NaN.
    style:  the first of `figures.hue` by default.
    """
    rows, runs = [], []
    for x, own in values.items():
        differences = [own[seed] for seed in sorted(own)]  # flips are drawn in this order
        level = _level.get()
        found = stats.sign_flip_interval(differences, level) if differences else (math.nan,) * 3
        ends = (end if math.isfinite(end) else math.nan for end in found)  # too few for an interval
        rows.append((x, *ends, int(np.isfinite(differences).sum())))
        runs += [(x, seed, difference) for seed, difference in own.items()]
    return Curve(
        label,
        pd.DataFrame(rows, columns=["x", "mean", "low", "high", "n"]),
        style or figures.hue(0),
        runs=pd.DataFrame(runs, columns=["x", "seed", "value"]).dropna() if dots else None,
    )


def gap(label: str, values: Mapping[int, float], *, style: Style | None = None) -> Curve:
    """A paired difference as one dot (kind "dots"): seed -> difference; the rest as in `gaps`."""
    return gaps(label, {0: values}, style=style)


def reported(
    published: Published,
    label: str,
    value: float,
    *,
    norm: str = "",
    style: Style | None = None,
    mode: str = "population",
) -> Curve:
    """One number of others' as a dot, in the unit of the axis; the rest as in `cited`."""
    number = dataclasses.replace(published, values={"x": [0], "value": [value]})
    return cited(number, "value", "x", norm=norm, style=style, label=label, mode=mode)


def differences(
    title: str,
    rows: Mapping[str, Mapping[int, float]],
    styles: Sequence[Style] = (),
    *,
    ylabel: str = "test error, difference (pp)",
    beside: Sequence[Curve] = (),
    bands: Sequence[Band] = (),
    claim: str = "",
) -> Panel:
    """Paired differences as dots, one for each label, beside the line of no difference.

    rows:   label -> seed -> difference, from the top down.
    styles: one for each row; `figures.hue(0)` for all by default.
    beside: further dots below them, such as others' numbers.
    """
    looks = styles or [figures.hue(0)] * len(rows)
    dots = [gap(label, own, style=s) for (label, own), s in zip(rows.items(), looks, strict=True)]
    return Panel(title, [*dots, *beside], ylabel=ylabel, kind="dots", floor=None, zero=True,
                 bands=bands, claim=claim)  # fmt: skip


def _made(
    points: pd.DataFrame, runs: pd.DataFrame | None, norm: str, style: Style | None, label: str,
    mode: str,
) -> Curve:  # fmt: skip
    """A curve with the style and label of its norm where it is not given others."""
    if style is None and not norm:
        raise ValueError("a curve needs a norm or a style (figures.hue, figures.ramp)")
    look = style or figures.style_of(norm)
    text = label or look.label or norm
    if not label and mode != "population":
        text = f"{text}, {figures.MODES[mode].label}"
    return Curve(text, points, look, mode, None if runs is None else runs.dropna())


def effects(
    claims: Sequence[Claim],
    labels: Mapping[str, str],
    published: Published | None = None,
    where: str = "",
) -> list[Curve]:
    """The differences that claims judge as dots, and below each the number of its source.

    labels: name of a claim -> what stands beside it; names that no claim has are left out.
    published, where: of the sources' numbers, and what stands beside them; None: only ours.
    """
    found, by = [], {claim.name: claim for claim in claims}
    own = {name: label for name, label in labels.items() if name in by}
    for i, (name, label) in enumerate(own.items()):
        style, effect = figures.hue(i), by[name].published_effect
        found.append(gap(label, by[name].values, style=style))
        if published is not None and effect is not None:
            found.append(reported(published, where, effect, style=style))
    return found


def medians(rows: pd.DataFrame, columns: Mapping[Any, str], *, style: Style, label: str) -> Curve:
    """Medians over the runs, and quartiles in the place of an interval; x -> column.

    For values that a mean cannot use, such as the logarithm of a gradient that underflows.
    """
    low, median, high = rows[list(columns.values())].quantile([0.25, 0.5, 0.75]).to_numpy()
    points = pd.DataFrame({"x": list(columns), "mean": median, "low": low, "high": high})
    return Curve(label, points, style)
