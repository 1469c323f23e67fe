"""How the gap between batch and layer norm changes with the length of the sequences.

Primary claim: from the shortest to the longest sequences, at one batch size and equal updates, the
gap between batch norm per step and layer norm changes by less than 0.05 bits. Should that be
refuted, the next claim asks whether it grows. Written before the first run of this version of the
study's grid.
"""

import itertools

import numpy as np
import pandas as pd

from bnstudy import figures, stats
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import finish, zero
from bnstudy.studies.kit import (
    NORM,
    Precondition,
    Published,
    claims_about,
    comparable,
    extended,
    filled,
    fitted,
    select,
    sequence,
    values,
)

LENGTH, SCOPE = "data.length", "norm.scope"
TRAINED = 3.12  # nats, 4.5 bits; frequencies of characters alone give 4.69 bits on the text
MARGIN = 0.05  # bits: what batch norm gains on no norm at the training length (figure 3b there)
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
    whole = extended(table[["seed", LENGTH]], {"arm": arm, "bits": bits})
    if "test_loss_shared" not in table:
        return whole
    read = {"arm": "shared", "bits": table["test_loss_shared"] / np.log(2)}
    shared = extended(whole, read)[whole["arm"] == "step"]
    return pd.concat([whole, shared], ignore_index=True)


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """Bits a character, and what batch norm has more than layer norm."""
    return 1, 2


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Both against the length."""
    bits, gap = np.ravel(axes)
    rows = prepared(table)
    labels = {"log2": False, "xlabel": "length in training and test", "styles": STYLES}
    by = {arm: select(rows, {"arm": arm}) for arm in STYLES if (rows["arm"] == arm).any()}
    curves = {arm: stats.summarize(own, LENGTH, "bits") for arm, own in by.items()}
    figures.series(bits, curves, LENGTH, ylabel="bits a character", **labels)
    layer = by["layer"].set_index(["seed", LENGTH])["bits"]
    curves = {}
    for arm in ("step", "sequence"):
        if arm in by:
            own = by[arm].set_index(["seed", LENGTH])["bits"]
            frame = (own - layer).rename("gap").reset_index()
            curves[arm] = stats.summarize(frame, LENGTH, "gap")
    figures.series(gap, curves, LENGTH, ylabel="bits more than layer norm", **labels)
    zero(gap)
    gap.axhspan(-MARGIN, MARGIN, color="0.9", zorder=0, label=f"within {MARGIN:g} bits")
    finish(bits, f"text, LSTM, batch {int(table['train.batch_size'].iloc[0])}", room=0.2)
    finish(gap, "batch minus layer norm, paired", room=0.4)


def claims(table: pd.DataFrame) -> list[Claim]:
    """The gap's change with length; shared and sequence-wise statistics against per step."""
    rows = prepared(table)
    short, long = int(rows[LENGTH].min()), int(rows[LENGTH].max())

    def bits(arm: str, length: int) -> dict[int, float]:
        return values(rows, "bits", {"arm": arm, LENGTH: length}, factor=1)

    def cost(arm: str, length: int, than: str = "step") -> dict[int, float]:
        return paired_differences(bits(arm, length), bits(than, length))

    change = paired_differences(cost("step", long, "layer"), cost("step", short, "layer"))
    claim = claims_about(
        "", unit="bits", source=SOURCE, estimand="test loss, population statistics",
        preconditions=[*_ready(table, (short, long)), comparable(table)],
    )  # fmt: skip
    found = sequence(
        claim(
            "gap",
            f"from length {short} to {long} the gap between batch norm per step and layer norm "
            f"changes by less than {MARGIN:g} bits",
            change, "equivalent", threshold=MARGIN, primary=True,
        ),
        claim("gap grows", f"from length {short} to {long} that gap grows", change,
              expected="refuted or inconclusive"),
    )  # fmt: skip
    found.append(
        claim(
            "shared",
            f"at length {long} one mean and variance for all steps read worse than statistics per "
            "step",
            cost("shared", long), published="a lot, without a number",
        )
    )  # fmt: skip
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
            f"at length {long} sequence-wise statistics of the input term are worse than "
            "statistics per step",
            cost("sequence", long), expected="inconclusive",
        )
    )  # fmt: skip
    return found


def _ready(table: pd.DataFrame, lengths: tuple[int, int]) -> list[Precondition]:
    """That every run of the compared arms has met one criterion of training, at both lengths."""
    per_step = select(filled(table, {SCOPE: "step"}), {SCOPE: "step"})
    return [
        fitted(select(per_step, {NORM: norm, LENGTH: length}), f"{norm} norm at {length}", TRAINED)
        for norm, length in itertools.product(("batch", "layer"), lengths)
    ]
