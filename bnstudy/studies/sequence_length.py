"""How the gap between batch and layer norm changes with the length of the sequences.

Primary claim: from the shortest to the longest sequences, at one batch size and equal updates, the
gap between batch norm per step and layer norm changes by less than 0.05 bits. Should that be
refuted, the next claim asks whether it grows. Written before the first run of this version of the
study's grid.
"""

import itertools

import numpy as np
import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import curve, differences, gaps
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
XLABEL, YLABEL = "length (characters)", "bits a character"
SOURCE = "Cooijmans et al. 2017, section 3"
PUBLISHED = Published(
    "published", SOURCE,
    "averaging the statistics over time costs a lot of accuracy; no number is given",
)  # fmt: skip
SCOPES = {"step": "per step", "shared": "the same, shared", "sequence": "per sequence"}


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


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Bits a character by length, and how the gap to layer norm changes from the shortest one."""
    rows = prepared(table)
    by = {"batch": "step", "layer": "layer", "none": "none"}
    curves = [
        curve(own, LENGTH, "bits", norm=norm, percent=False)
        for norm, arm in by.items()
        if len(own := select(rows, {"arm": arm}))
    ]
    short, *more = sorted(int(length) for length in rows[LENGTH].unique())
    before = difference(rows, "step", "layer", short)
    changes = {n: paired_differences(difference(rows, "step", "layer", n), before) for n in more}
    rows_of = {f"at length {n}": values for n, values in changes.items()}
    margin = figures.Band(-MARGIN, MARGIN, f"within {MARGIN:g} bits")
    batch = int(table["train.batch_size"].iloc[0])
    return [
        figures.Panel(f"text, LSTM, batch of {batch}", curves, XLABEL, YLABEL, floor=None),
        differences("batch minus layer norm", rows_of, figures.ramp(len(more)), bands=[margin],
                    ylabel=f"change from length {short} (bits)", claim="gap"),
    ]  # fmt: skip


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """The gap to layer norm at each length, by scope of the statistics, and what scopes cost."""
    rows = prepared(table)
    own = sorted(int(length) for length in rows[LENGTH].unique())
    scopes = {scope: label for scope, label in SCOPES.items() if (rows["arm"] == scope).any()}
    styles = {scope: figures.hue(i) for i, scope in enumerate(SCOPES)}
    found = []
    for than, title in (("layer", "batch minus layer norm"),
                        ("step", "other scopes minus per step")):  # fmt: skip
        curves = [
            gaps(label, {n: difference(rows, scope, than, n) for n in own}, style=styles[scope])
            for scope, label in scopes.items()
            if scope != than
        ]
        found.append(figures.Panel(title, curves, XLABEL, "paired difference (bits)", zero=True))
    return found


def difference(rows: pd.DataFrame, arm: str, than: str, length: int) -> dict[int, float]:
    """Bits that an arm has more than another at a length, by seed."""
    cells = (values(rows, "bits", {"arm": a, LENGTH: length}, factor=1) for a in (arm, than))
    return paired_differences(*cells)


def claims(table: pd.DataFrame) -> list[Claim]:
    """The gap's change with length; shared and sequence-wise statistics against per step."""
    rows = prepared(table)
    short, long = int(rows[LENGTH].min()), int(rows[LENGTH].max())

    def cost(arm: str, length: int, than: str = "step") -> dict[int, float]:
        return difference(rows, arm, than, length)

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
