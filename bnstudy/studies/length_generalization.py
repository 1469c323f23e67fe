"""Recurrent batch norm past the longest training sequence (Cooijmans et al. 2017, figure 3b).

Primary claim: from the training length to ten times it, batch norm clamped at T_max changes as much
as layer norm, within 0.02 bits. Written before the first run of this version of the study's grid.
"""

import dataclasses
from collections.abc import Mapping

import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import across, cited, differences, gaps
from bnstudy.studies.kit import (
    NORM,
    Published,
    claims_about,
    comparable,
    fitted,
    in_order,
    select,
    titled,
    values,
)

FACTOR = 10  # the primary claim's length, in training lengths
MARGIN = 0.02  # bits a character: under half of what batch norm gains on no norm in the source
TRAINED = 3.0  # nats: largest training loss of a run
XLABEL, YLABEL = "test length (characters)", "bits a character"
SOURCE = "Cooijmans et al. 2017, figure 3b"
Differences = Mapping[int, Mapping[int, float]]  # test length -> seed -> bits
WAYS = {
    "length": "clamped at T_max",
    "length_batch": "batch statistics",
    "length_shared": "shared over time",
    "length_truncated": "first quarter's",
}
PUBLISHED = Published(
    "digitised", SOURCE,
    "bits a character on Penn Treebank, trained at 100 characters; +-0.003",
    {
        "length": [50, 1000],
        "no norm": [1.449, 1.391],
        "batch, population": [1.398, 1.333],
        "batch, batch statistics": [1.420, 1.362],
    },
)  # fmt: skip


def lengths(table: pd.DataFrame, way: str = "length") -> dict[int, str]:
    """Test length -> column, for one way of reading."""
    own = [c for c in table if c.startswith(f"{way}/")]
    return {int(c.rpartition("/")[2]): c for c in sorted(own)}


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """The change with test length by norm, batch against layer norm, and other statistics."""
    once = _training(table)
    by = {norm: select(table, {NORM: norm}) for norm in in_order(table[NORM])}
    changes = {
        norm: {n: _more(rows, column, lengths(rows)[once]) for n, column in lengths(rows).items()}
        for norm, rows in by.items()
    }
    styles = {norm: figures.style_of(norm) for norm in changes}
    curves = [gaps(styles[n].label, values, style=styles[n]) for n, values in changes.items()]
    change = f"change from length {once} (bits)"
    return [
        figures.Panel(f"text, LSTM, trained at {once}", curves, XLABEL, change, zero=True),
        _against_layer(changes["batch"], changes["layer"], once, change),
        _costs(by["batch"]),
    ]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """Bits a character themselves, measured and published."""
    curves = [
        across(rows := select(table, {NORM: norm}), lengths(rows), norm=norm, percent=False)
        for norm in in_order(table[NORM])
    ]
    modes = {"no norm": ("none", "population"), "batch, population": ("batch", "population"),
             "batch, batch statistics": ("batch", "batch")}  # fmt: skip
    published = [
        cited(PUBLISHED, name, "length", norm=norm, mode=mode, label=name)
        for name, (norm, mode) in modes.items()
    ]
    return [
        figures.Panel(f"text, LSTM, trained at {_training(table)}", curves, XLABEL, YLABEL,
                      floor=None),
        figures.Panel("Penn Treebank, trained at 100", published, XLABEL, YLABEL, floor=None),
    ]  # fmt: skip


def _against_layer(batch: Differences, layer: Differences, once: int, ylabel: str) -> figures.Panel:
    """Batch norm's change minus layer norm's, a row for each longer test length."""
    longer = [length for length in batch if length > once]
    rows = {f"at length {n}": paired_differences(batch[n], layer[n]) for n in longer}
    margin = figures.Band(-MARGIN, MARGIN, f"within {MARGIN:g} bits")
    return differences("batch minus layer norm", rows, figures.ramp(len(rows)), ylabel=ylabel,
                       bands=[margin], claim="as layer norm")  # fmt: skip


def _costs(batch: pd.DataFrame) -> figures.Panel:
    """What batch norm's other statistics cost against clamping, over test length."""
    clamped = lengths(batch)
    curves = [
        gaps(
            label,
            {n: _more(batch, column, clamped[n]) for n, column in lengths(batch, way).items()},
            style=figures.hue(i),
        )
        for i, (way, label) in enumerate(WAYS.items())
        if way != "length"
    ]
    both = zip(PUBLISHED["batch, batch statistics"], PUBLISHED["batch, population"], strict=True)
    more = {"length": PUBLISHED["length"], "more": [round(b - p, 3) for b, p in both]}
    digitised = dataclasses.replace(PUBLISHED, values=more)
    # in the style of the curve that it is to be compared with
    curves.append(cited(digitised, "more", "length", style=curves[0].style, label="Penn Treebank"))
    return figures.Panel(
        "other statistics minus clamped", curves, XLABEL, "paired difference (bits)", zero=True
    )


def _more(rows: pd.DataFrame, column: str, other: str) -> dict[int, float]:
    """How much more of one column than of another runs have, by seed."""
    return paired_differences(*(values(rows, c, factor=1) for c in (column, other)))


def _training(table: pd.DataFrame) -> int:
    return int(table["data.length"].iloc[0])


def claims(table: pd.DataFrame) -> list[Claim]:
    """The change with length against layer norm's; other statistics against clamping."""
    once = _training(table)
    far = FACTOR * once
    batch, layer = select(table, {NORM: "batch"}), select(table, {NORM: "layer"})

    def bits(rows: pd.DataFrame, way: str, length: int) -> dict[int, float]:
        return values(rows, f"{way}/{length:04d}", factor=1)

    def cost(way: str, length: int) -> dict[int, float]:
        return paired_differences(bits(batch, way, length), bits(batch, "length", length))

    def gain(rows: pd.DataFrame) -> dict[int, float]:
        return paired_differences(bits(rows, "length", far), bits(rows, "length", once))

    same, learns = comparable(table), [fitted(batch, "batch norm", TRAINED)]
    claim = claims_about(
        titled("text", "LSTM"), unit="bits", source=SOURCE, preconditions=[*learns, same]
    )
    published = [PUBLISHED.at(f"batch, {n}", length=1000) for n in ("batch statistics",
                                                                    "population")]  # fmt: skip
    loss = "test loss, population statistics"
    return [
        claim(
            "as layer norm",
            f"from {once} to {far} characters batch norm, clamped at T_max, changes as much as "
            f"layer norm, within {MARGIN} bits",
            paired_differences(gain(batch), gain(layer)), "equivalent", threshold=MARGIN,
            primary=True, estimand=loss,
            preconditions=[*learns, fitted(layer, "layer norm", TRAINED), same],
        ),
        claim(
            "batch statistics",
            f"at {far} characters the test batch's statistics cost bits against the population's, "
            "clamped at T_max",
            cost("length_batch", far), estimand="test loss, batch statistics minus population",
            **PUBLISHED.cite("{} bits on Penn Treebank at 1,000", published[0] - published[1]),
        ),
        claim(
            "shared", f"at {far} characters one mean and variance for all steps cost bits",
            cost("length_shared", far), estimand=f"{loss}, shared minus per step",
        ),
        claim(
            "shared at the training length", f"so they do at {once} characters",
            cost("length_shared", once), estimand=f"{loss}, shared minus per step",
        ),
        claim(
            "truncated",
            f"at {far} characters statistics of the first quarter of T_max, repeated, are within "
            f"{MARGIN} bits of all",
            cost("length_truncated", far), "equivalent", threshold=MARGIN,
            estimand=f"{loss}, truncated minus per step",
        ),
    ]  # fmt: skip
