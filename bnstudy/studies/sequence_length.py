"""Error against training length and batch size, by scope of the statistics.

Primary claim: at the largest batch and the longest sequences one mean and variance for all steps
read worse than statistics per step. Written before the first run of the study's grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures, stats
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.kit import (
    NORM,
    Published,
    claims_about,
    comparable,
    extended,
    filled,
    select,
    values,
)

LENGTH, SIZE, SCOPE = "data.length", "train.batch_size", "norm.scope"
TRAINED = 4.5  # bits; the frequencies of characters alone give 4.69 on the embedded text
SOURCE = "Cooijmans et al. 2017, section 3"
PUBLISHED = Published(
    "published", SOURCE,
    "averaging the statistics over time costs a lot of accuracy; no number is given",
)  # fmt: skip
STYLES = {
    "step": figures.Style("#D55E00", "o", "batch, per step"),
    "shared": figures.Style("#E69F00", "p", "the same, read shared"),
    "sequence": figures.Style("#CC79A7", "D", "batch, per sequence"),
    "layer": figures.style_of("layer"),
    "none": figures.style_of("none"),
}


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """With the arm and its loss in bits; the shared reading of a training is an arm of its own."""
    scope = filled(table, {SCOPE: "step"})[SCOPE]
    arm = table[NORM].where(table[NORM] != "batch", scope)
    bits = table["test_loss"] / np.log(2)
    whole = extended(table[["seed", LENGTH, SIZE]], {"arm": arm, "bits": bits})
    if "test_loss_shared" not in table:
        return whole
    read = {"arm": "shared", "bits": table["test_loss_shared"] / np.log(2)}
    shared = extended(whole, read)[whole["arm"] == "step"]
    return pd.concat([whole, shared], ignore_index=True)


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """A panel for each batch size."""
    return 1, table[SIZE].nunique()


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Bits a character against the length."""
    for ax, (size, rows) in zip(np.ravel(axes), prepared(table).groupby(SIZE), strict=True):
        curves = {
            arm: stats.summarize(select(rows, {"arm": arm}), LENGTH, "bits")
            for arm in STYLES
            if (rows["arm"] == arm).any()
        }
        figures.series(ax, curves, LENGTH, log2=False, xlabel="length in training and test",
                       ylabel="bits a character", styles=STYLES)  # fmt: skip
        ax.set_title(f"text, LSTM, batch {size}")
    figures.legend(axes.flat[0].figure, columns=min(len(STYLES), 2 * axes.size))


def claims(table: pd.DataFrame) -> list[Claim]:
    """Shared and sequence-wise against per step; small batches against layer norm."""
    rows = prepared(table)
    few, many = int(rows[SIZE].min()), int(rows[SIZE].max())
    short, long = int(rows[LENGTH].min()), int(rows[LENGTH].max())

    def bits(arm: str, length: int, size: int) -> dict[int, float]:
        return values(rows, "bits", {"arm": arm, LENGTH: length, SIZE: size}, factor=1)

    def cost(arm: str, length: int) -> dict[int, float]:
        return paired_differences(bits(arm, length, many), bits("step", length, many))

    def loss_of_small(arm: str) -> dict[int, float]:
        return paired_differences(bits(arm, long, few), bits(arm, long, many))

    judged = select(rows, {"arm": "step", LENGTH: long, SIZE: many})["bits"].mean()
    ready = [
        (
            f"batch norm trains at length {long}, batch {many}",
            bool(judged < TRAINED),
            f"test loss {judged:.2f} bits, limit {TRAINED}",
        ),
        comparable(table),
    ]
    claim = claims_about("", unit="bits", source=SOURCE, preconditions=ready)
    found = [
        claim(
            "shared",
            f"at length {long}, batch {many}, one mean and variance for all steps read worse than "
            "statistics per step",
            cost("shared", long), primary=True, published="a lot, without a number",
        )
    ]  # fmt: skip
    if short < long:
        found.append(
            claim(
                "shared, short", f"they cost more at length {short} than at {long}",
                paired_differences(cost("shared", short), cost("shared", long)),
            )
        )  # fmt: skip
    found.append(
        claim(
            "sequence",
            f"at length {long}, batch {many}, sequence-wise statistics of the input term are "
            "worse than statistics per step",
            cost("sequence", long), expected="inconclusive",
        )
    )  # fmt: skip
    if (rows["arm"] == "layer").any() and few < many:
        found.append(
            claim(
                "small batches",
                f"from batch {many} to {few} batch norm per step loses more bits than layer norm "
                "does",
                paired_differences(loss_of_small("step"), loss_of_small("layer")),
            )
        )
    return found
