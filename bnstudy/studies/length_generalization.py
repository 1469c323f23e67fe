"""Recurrent batch norm past the longest training sequence (Cooijmans et al. 2017, figure 3b).

Primary claim: at ten times the training length the statistics of the test batch cost bits against
the population's, clamped at T_max. Written before the first run of the study's grid.
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
    in_order,
    select,
    titled,
    values,
)

FACTOR = 10  # the primary claim's length, in training lengths
MARGIN = 0.02  # bits a character
TRAINED = 3.0  # nats: mean training loss at most
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
    """Batch statistics, shared and truncated ones against clamping; the gain of layer norm."""
    once = _training(table)
    far = FACTOR * once
    batch, layer = select(table, {NORM: "batch"}), select(table, {NORM: "layer"})

    def bits(rows: pd.DataFrame, way: str, length: int) -> dict[int, float]:
        return values(rows, f"{way}/{length:04d}", factor=1)

    def cost(way: str, length: int) -> dict[int, float]:
        return paired_differences(bits(batch, way, length), bits(batch, "length", length))

    def gain(rows: pd.DataFrame) -> dict[int, float]:
        return paired_differences(bits(rows, "length", far), bits(rows, "length", once))

    loss = batch["train_loss"].mean()
    detail = f"mean training loss {loss:.2f} nats, limit {TRAINED:g}"
    ready = [("batch norm trains", bool(loss < TRAINED), detail), comparable(table)]
    claim = claims_about(titled("text", "LSTM"), unit="bits", source=SOURCE, preconditions=ready)
    published = [PUBLISHED.at(f"batch, {n}", length=1000) for n in ("batch statistics",
                                                                    "population")]  # fmt: skip
    found = [
        claim(
            "batch statistics",
            f"at {far} characters the test batch's statistics cost bits against the population's, "
            "clamped at T_max",
            cost("length_batch", far), primary=True,
            **PUBLISHED.cite(
                "{} bits on Penn Treebank at 1,000", published[0] - published[1]
            ),
        ),
        claim(
            "shared", f"at {far} characters one mean and variance for all steps cost bits",
            cost("length_shared", far),
        ),
        claim(
            "shared at the training length", f"so they do at {once} characters",
            cost("length_shared", once),
        ),
        claim(
            "truncated", f"at {far} characters statistics of the first quarter alone cost bits",
            cost("length_truncated", far),
        ),
    ]  # fmt: skip
    if len(layer):
        found.append(
            claim(
                "as layer norm",
                f"from {once} to {far} characters clamped batch norm gains as much as layer norm, "
                f"within {MARGIN} bits",
                paired_differences(gain(batch), gain(layer)), "equivalent", threshold=MARGIN,
            )
        )  # fmt: skip
    return found
