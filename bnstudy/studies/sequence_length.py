"""Error against training length and batch size, by scope of the statistics.

Primary claim: at the largest batch and the longest sequences one mean and variance for all steps
read worse than statistics per step. Written before the first run of the study's grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures, stats
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies import comparable, extended, values

LENGTH, SIZE, SCOPE = "data.length", "train.batch_size", "norm.scope"
TRAINED = 4.5  # bits; the frequencies of characters alone give 4.69 on the embedded text
SOURCE = "Cooijmans et al. 2017, section 3"
PUBLISHED = {
    "what": "published: averaging the statistics over time costs a lot of accuracy (Cooijmans et "
    "al. 2017, section 3); no number is given",
}


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """With the arm and its loss in bits; the shared reading of a training is an arm of its own."""
    scope = table[SCOPE].fillna("step") if SCOPE in table else "step"
    arm = table["norm.name"].where(table["norm.name"] != "batch", scope)
    bits = table["test_loss"] / np.log(2)
    whole = extended(table[["seed", LENGTH, SIZE]], arm=arm, bits=bits)
    if "test_loss_shared" not in table:
        return whole
    per_step = whole["arm"] == "step"
    shared = extended(whole, arm="shared", bits=table["test_loss_shared"] / np.log(2))
    return pd.concat([whole, shared[per_step]], ignore_index=True)


LOOKS = {
    "step": figures.Style("#D55E00", "o", "batch, per step"),
    "shared": figures.Style("#E69F00", "p", "the same, read shared"),
    "sequence": figures.Style("#CC79A7", "D", "batch, per sequence"),
    "layer": figures.style_of("layer"),
    "none": figures.style_of("none"),
}


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """A panel for each batch size."""
    return 1, table[SIZE].nunique()


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Bits a character against the length."""
    table = prepared(table)
    for ax, (size, rows) in zip(np.ravel(axes), table.groupby(SIZE), strict=True):
        curves = {
            arm: stats.summarize(rows[rows["arm"] == arm], LENGTH, "bits")
            for arm in LOOKS
            if (rows["arm"] == arm).any()
        }
        figures.series(ax, curves, LENGTH, log2=False, xlabel="length in training and test",
                       ylabel="bits a character", styles=LOOKS)  # fmt: skip
        ax.set_title(f"text, LSTM, batch {size}")
    figures.legend(axes.flat[0].figure, columns=min(len(LOOKS), 2 * axes.size))


def claims(table: pd.DataFrame) -> list[Claim]:
    """Shared and sequence-wise against per step; small batches against layer norm."""
    rows = prepared(table)
    few, many = int(rows[SIZE].min()), int(rows[SIZE].max())
    short, long = int(rows[LENGTH].min()), int(rows[LENGTH].max())
    judged = rows[(rows["arm"] == "step") & (rows[LENGTH] == long) & (rows[SIZE] == many)]
    loss = judged["bits"].mean()
    ready = [
        (
            f"batch norm trains at length {long}, batch {many}",
            bool(loss < TRAINED),
            f"test loss {loss:.2f} bits, limit {TRAINED}",
        ),
        comparable(table),
    ]

    def bits(arm: str, length: int, size: int) -> dict[int, float]:
        own = rows[(rows["arm"] == arm) & (rows[LENGTH] == length) & (rows[SIZE] == size)]
        return values(own, "bits", factor=1)

    def cost(arm: str, length: int, size: int) -> dict[int, float]:
        return paired_differences(bits(arm, length, size), bits("step", length, size))

    common = {"unit": "bits", "source": SOURCE, "preconditions": ready}
    found = [
        Claim(
            name="shared", kind="greater", primary=True, values=cost("shared", long, many),
            text=f"at length {long}, batch {many}, one mean and variance for all steps read worse "
            "than statistics per step",
            published="a lot, without a number", **common,
        ),
        Claim(
            name="sequence", kind="greater", values=cost("sequence", long, many),
            text=f"at length {long}, batch {many}, sequence-wise statistics of the input term are "
            "worse than statistics per step",
            expected="inconclusive", **common,
        ),
    ]  # fmt: skip
    if short < long:
        found.insert(
            1,
            Claim(
                name="shared, short", kind="greater",
                values=paired_differences(cost("shared", short, many), cost("shared", long, many)),
                text=f"they cost more at length {short} than at {long}", **common,
            ),
        )  # fmt: skip
    if (rows["arm"] == "layer").any() and few < many:
        change = {
            arm: paired_differences(bits(arm, long, few), bits(arm, long, many))
            for arm in ("step", "layer")
        }
        found.append(
            Claim(
                name="small batches", kind="greater",
                values=paired_differences(change["step"], change["layer"]),
                text=f"from batch {many} to {few} batch norm per step loses more bits than layer "
                "norm does", **common,
            )
        )  # fmt: skip
    return found
