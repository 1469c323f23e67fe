"""Recurrent batch norm past the longest training sequence (Cooijmans et al. 2017, figure 3b).

Primary claim: from the training length to ten times it, batch norm clamped at T_max changes as much
as layer norm, within 0.02 bits. Written before the first run of this version of the study's grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import across, finish, zero
from bnstudy.studies.kit import (
    NORM,
    Published,
    claims_about,
    comparable,
    extended,
    fitted,
    in_order,
    select,
    titled,
    values,
)

FACTOR = 10  # the primary claim's length, in training lengths
MARGIN = 0.02  # bits a character: under half of what batch norm gains on no norm in the source
TRAINED = 3.0  # nats: largest training loss of a run
SOURCE = "Cooijmans et al. 2017, figure 3b"
WAYS = {
    "length": "clamped at T_max",
    "length_batch": "batch statistics",
    "length_shared": "shared over time",
    "length_truncated": "own statistics to T_max / 4",
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


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """Norms; ways of reading batch norm; differences to clamping; published."""
    return 1, 4


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Bits a character against test length."""
    norms, ways, differences, published = np.ravel(axes)
    labels = {"xlabel": "test length (characters)", "ylabel": "bits a character"}
    names = in_order(table[NORM])
    curves = {n: across(rows := select(table, {NORM: n}), lengths(rows)) for n in names}
    styles = {name: figures.style_of(name) for name in names}
    figures.series(norms, curves, styles=styles, **labels)
    batch = select(table, {NORM: "batch"})
    curves = {label: across(batch, lengths(batch, way)) for way, label in WAYS.items()}
    same = {label: figures.Style(*figures.SERIES[i], label) for i, label in enumerate(curves)}
    figures.series(ways, curves, styles=same, **labels)
    curves = {}
    for way, label in list(WAYS.items())[1:]:
        clamped = lengths(batch)
        columns = {n: batch[c] - batch[clamped[n]] for n, c in lengths(batch, way).items()}
        frame = extended(batch[["seed"]], {str(n): v for n, v in columns.items()})
        curves[label] = across(frame, {n: str(n) for n in columns})
    figures.series(differences, curves, styles=same, **labels)
    differences.set_ylabel("bits more than clamped")
    zero(differences)
    curves = {name: PUBLISHED.curve(name, "length") for name in list(PUBLISHED.values)[1:]}
    figures.series(published, curves, **labels)
    for ax, title in (
        (norms, f"text, LSTM, trained at {_training(table)}; batch norm clamped"),
        (ways, "batch norm, one training read in four ways"),
        (differences, "cost of other statistics"),
        (published, "digitised: Penn Treebank, trained at 100"),
    ):
        finish(ax, title, room=0.35)
        ax.tick_params(axis="x", labelrotation=45, labelsize=6.5)


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
