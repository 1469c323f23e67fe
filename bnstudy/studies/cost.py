"""What a norm costs inside LeNet, ResNet-20 and ResNet-50: time, memory, parameters.

Times are ratios of a network to itself without its norm layers, timed in turn in one process (probe
`step_time`): across runs a clock of a shared machine drifts by more than a norm costs. Seeds are
repetitions, so an interval holds for one machine as it is. Primary claim: in ResNet-20 BN makes a
training step more than a tenth longer. The clock itself is judged: norm=none against itself. What
does not depend on time is an identity: parameters and kept bytes. Written before the first run.
"""

import pandas as pd

from bnstudy import figures
from bnstudy.figures import Band, Curve
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import curve, gap, reported
from bnstudy.studies.kit import (
    MODEL,
    NORM,
    Panel,
    Published,
    comparable,
    extended,
    filled,
    in_order,
    panels,
    select,
    sequence,
)
from bnstudy.studies.words import TITLES

ARCH, DEPTH = "model.arch", "model.depth"
STEP, PREDICT, FOLDED = "step_ratio", "predict_ratio", "folded_ratio"
SAVED, NORMALIZED, PARAMETERS = "activation_bytes", "normalized_bytes", "parameters"
PEAK = "peak_bytes"
TENTH = 10.0  # %: below that nobody would choose a norm, or none, for its time
CLOCK = 2.0  # %: a fifth of it, for what the clock cannot tell apart
PUBLISHED = Published(
    "unconfirmed", "Gitman & Ginsburg 2017, section 4",
    "ResNet-50, ImageNet, one GPU: share of the time of a training step that BN takes, in %",
    {"share": 24.0},
)  # fmt: skip


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """With the networks' names, and ratios of times as what is more, in %."""
    table = filled(table, {ARCH: "", DEPTH: 8})
    residual = "ResNet-" + table[DEPTH].astype(int).astype(str)
    names = table[MODEL].mask(table[MODEL] == "resnet", residual)
    names = names.mask(names == "torchvision", table[ARCH])
    times = [name for name in (STEP, PREDICT, FOLDED) if name in table]
    more = {f"more_{name}": 100 * (table[name] - 1) for name in times}
    return extended(table, {MODEL: names, **more})


def main_first(table: pd.DataFrame) -> list[Panel]:
    """The panels; the primary claim is about the small ResNet."""
    table = prepared(table)
    own = [name for name in table[MODEL].unique() if name.startswith("ResNet-")]
    return panels(table, model=own[0] if own else "")


# --- figures -------------------------------------------------------------------------------------


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """What a training step takes longer with each norm; BN in training, prediction, folded."""
    found = main_first(table)
    return [_steps(found), _ways(found)]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """Milliseconds of a step and of prediction, kept bytes and parameters, by network and norm."""
    found = prepared(table)
    found = extended(found, {
        "step_ms": 1e3 * found["step_seconds"], "predict_ms": 1e3 * found["predict_seconds"],
        "megabytes": found[SAVED] / 1e6, "thousands": found[PARAMETERS] / 1e3,
    })  # fmt: skip
    return [
        _by_norm(found, "step_ms", "training step", "processor time (ms)"),
        _by_norm(found, "predict_ms", "prediction of a batch", "processor time (ms)"),
        _by_norm(found, "more_predict_ratio", "prediction, over no norm", "more time (%)"),
        _by_norm(found, "megabytes", "kept for the backward pass", "memory of an example (MB)"),
        _by_norm(found, "thousands", "parameters", "parameters (thousands)"),
        *([_by_norm(found, PEAK, "peak of allocated memory, GPU", "memory of an example (bytes)")]
          if PEAK in found else []),
    ]  # fmt: skip


def _by_norm(table: pd.DataFrame, metric: str, title: str, ylabel: str) -> figures.Panel:
    """A metric by network, for each norm."""
    table = extended(table, {"network": table[MODEL].map(_called)})
    table = table.sort_values("network", kind="stable")  # names come in one order
    curves = [
        curve(select(table, {NORM: norm}), "network", metric, norm=norm, percent=False, dots=False)
        for norm in in_order(table[NORM])
    ]
    ratio = metric.startswith("more_")
    return figures.Panel(title, curves, "network", ylabel, x="names",
                         y="linear" if ratio else "log10", floor=None)  # fmt: skip


def _called(model: str) -> str:
    """What figures call a network."""
    return TITLES.get(model, model)


def _steps(found: list[Panel]) -> figures.Panel:
    """What a training step takes longer, for each network and norm."""
    dots: list[Curve] = []
    for i, panel in enumerate(found):
        for norm in in_order(panel.rows[NORM]):
            label = f"{_called(panel.model)}, {norm}"
            dots.append(gap(label, more(panel, norm, STEP), style=figures.hue(i)))
    share = PUBLISHED["share"] / 100
    beside = round(100 * (1 / (1 - share) - 1), 1)
    dots.append(reported(PUBLISHED, "ResNet-50, ImageNet, GPU", beside, style=figures.hue(5)))
    return figures.Panel(
        "training step, over no norm", dots, kind="dots", zero=True, floor=None,
        ylabel="more time (%)", bands=[Band(TENTH, TENTH, "a tenth")],
        claim=f"{found[0].key}: training step",
    )  # fmt: skip


def _ways(found: list[Panel]) -> figures.Panel:
    """What BN takes longer in training, in prediction, and folded."""
    ways = {"training step": STEP, "prediction": PREDICT, "prediction, folded": FOLDED}
    dots = [
        gap(f"{_called(panel.model)}, {label}", more(panel, "batch", metric), style=figures.hue(i))
        for i, panel in enumerate(found)
        for label, metric in ways.items()
    ]
    return figures.Panel("BN, over no norm", dots, kind="dots", zero=True, floor=None,
                         ylabel="more time (%)")  # fmt: skip


# --- claims --------------------------------------------------------------------------------------


def more(panel: Panel, norm: str, metric: str) -> dict[int, float]:
    """What a way takes longer than the same network without norm layers, in %, by seed."""
    return panel.cell(f"more_{metric}", {NORM: norm}, factor=1)


def claims(table: pd.DataFrame) -> list[Claim]:
    """Of every network: training, prediction after folding, the clock; parameters and bytes."""
    return [claim for panel in main_first(table) for claim in _claims_of(panel)]


def _claims_of(panel: Panel) -> list[Claim]:
    claim = panel.claims(
        preconditions=[comparable(panel.rows)], unit="%", source="measured in turn, one machine",
        estimand="time, over that of the same network without its norm layers",
    )  # fmt: skip
    share = PUBLISHED["share"] / 100
    found = sequence(
        claim(
            "training step",
            f"a training step with BN takes over {TENTH:g} % longer than without norm layers",
            more(panel, "batch", STEP), threshold=TENTH, primary=panel.main,
            **PUBLISHED.cite("{} %, ResNet-50 on a GPU", round(100 * (1 / (1 - share) - 1), 1)),
        ),
        claim(
            "folded",
            f"folded into its convolutions BN changes the time of prediction by less than "
            f"{TENTH:g} %",
            more(panel, "batch", FOLDED), "equivalent", threshold=TENTH,
        ),
    )  # fmt: skip
    found.append(claim(
        "the clock", f"norm=none against itself: training steps differ by less than {CLOCK:g} %",
        more(panel, "none", STEP), "equivalent", threshold=CLOCK,
    ))  # fmt: skip
    if len(own := more(panel, "group", STEP)):
        found.append(claim(
            "group norm", "a training step with group norm takes longer than with BN",
            paired_differences(own, more(panel, "batch", STEP)),
        ))  # fmt: skip
    return [*found, *_identities(panel)]


def _identities(panel: Panel) -> list[Claim]:
    """What a function of the graph says, of every norm that is there."""
    claim = panel.claims(
        preconditions=[comparable(panel.rows)], source="counted",
    )  # fmt: skip
    found = [
        claim(
            f"parameters, {norm}",
            f"{norm} norm adds two parameters for each channel it normalizes",
            _left(panel, norm, PARAMETERS, "normalized_channels", 2),
            "identical",
            unit="parameters",
            estimand="parameters",
        )
        for norm in in_order(panel.rows[NORM])
        if norm != "none"
    ]
    bytes_ = claim(
        "bytes, batch", "BN keeps one map more for each of its inputs, to the byte",
        _left(panel, "batch", SAVED, NORMALIZED, 1), "identical", unit="bytes",
        estimand="bytes that one more example adds",
    )  # fmt: skip
    return [*found, bytes_]


def _left(panel: Panel, norm: str, metric: str, count: str, times: float) -> dict[int, float]:
    """A metric of the norm minus that of no norm, minus so many times a count, by seed."""
    own, none = panel.cell(metric, {NORM: norm}, 1), panel.cell(metric, {NORM: "none"}, 1)
    return paired_differences(paired_differences(own, none), panel.cell(count, {NORM: norm}, times))
