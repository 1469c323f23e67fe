"""What is drawn, as a table and in words."""

import math
from collections.abc import Sequence

import pandas as pd

from bnstudy.figures.axes import label_of, plain
from bnstudy.figures.panel import COLUMNS, Curve, Panel
from bnstudy.figures.style import MODES
from bnstudy.numbers import decimals, fixed

TOLD = 8  # points of a curve that are told; of more, the ends and the extremes


def points(panels: Sequence[Panel]) -> pd.DataFrame:
    """What panels draw: a row per point, in their order, in the unit of the axis.

    Columns panel, curve, mode, source, x, mean, low, high, n; low, high and n may be unknown (NaN).
    """
    frames = []
    for panel in panels:
        for curve in panel.curves:
            own = curve.points.reindex(columns=[*COLUMNS, "n"])
            told = (panel.title, curve.label, curve.mode, curve.source)
            for i, text in enumerate(told):
                own.insert(i, ("panel", "curve", "mode", "source")[i], text)
            frames.append(own)
    if not frames:
        return pd.DataFrame(columns=["panel", "curve", "mode", "source", *COLUMNS, "n"])
    # a column without any number would decide the type of all, which pandas warns of
    return pd.concat([frame.astype(object) for frame in frames], ignore_index=True)


def alt(panels: Sequence[Panel]) -> str:
    """Alternative text: what each panel shows, in words and numbers."""
    return " ".join(_told(panel) for panel in panels)


def _told(panel: Panel) -> str:
    title = panel.title.replace("\n", " ")
    if panel.kind == "dots":
        parts = [f"{label_of(curve)}: {_points(curve, panel)[0]}" for curve in panel.curves]
        return f"{title}: {panel.ylabel}. {'; '.join(parts)}."
    over = f" against {panel.xlabel}" if panel.xlabel else ""
    parts = [f"{_named(curve)}: {', '.join(_points(curve, panel))}" for curve in panel.curves]
    return f"{title}: {panel.ylabel}{over}. {'; '.join(parts)}."


def _named(curve: Curve) -> str:
    """A curve's label, with the source of its statistics where that is not the usual one."""
    mode = MODES[curve.mode].label
    usual = curve.mode == "population" or mode in curve.label
    return label_of(curve) if usual else f"{label_of(curve)} ({mode})"


def _points(curve: Curve, panel: Panel) -> list[str]:
    """The points of a curve, as "34.7 [30.1, 39.3] at 2"."""
    rows = [row for row in curve.points.to_dict("records") if math.isfinite(row["mean"])]
    if not rows:
        return ["no number"]
    if len(rows) > TOLD:
        means = [row["mean"] for row in rows]
        picked = {0, len(rows) - 1, means.index(min(means)), means.index(max(means))}
        rows = [rows[i] for i in sorted(picked)]
    return [_point(row, panel) for row in rows]


def _point(row: dict, panel: Panel) -> str:
    bounded = _bounded(row)
    text = plain(float(f"{row['mean']:.4g}"))
    if bounded:
        places = decimals(row["low"], row["high"])
        text = fixed(row["mean"], places, signed=panel.zero)
        low, high = panel.bounds
        ends = max(row["low"], low), min(row["high"], high)
        text += f" [{', '.join(fixed(end, places) for end in ends)}]"
    if panel.kind == "dots":
        return text
    return f"{text} at {row['x'] if isinstance(row['x'], str) else plain(float(row['x']))}"


def _bounded(row: dict) -> bool:
    """Whether both ends of a point's interval are known."""
    return math.isfinite(row["low"]) and math.isfinite(row["high"])
