"""How many steps, and how much time, a training loss takes with and without BN.

Primary claim: in the small MLP with Adam the network with BN reaches 0.25 nats in fewer steps, each
arm at its own best rate. Best is the rate of least mean log2 steps over the *other* seeds, the
criterion that is judged. Beside it: both at the rate that is best without a norm, where BN has no
more than the other; and seconds, by the measured ratio of a step's times.

A run that never reaches the level counts with all its steps, a lower bound: a ratio in which one
arm does not reach it is nearer to 1 than the true one, whichever arm it is. Where neither reaches
it nothing is known and the claim is invalid. Level, window and rules were written before any run.
"""

import math

import numpy as np
import pandas as pd

from bnstudy import figures
from bnstudy.figures import Band, Curve
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies import kit
from bnstudy.studies.drawing import across, cited, course, curve, gap, networks, reported
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
from bnstudy.studies.notebook import GAMMA

LR, ACTIVATION = "optimizer.lr", "model.activation"
LEVELS = (1.0, 0.5, 0.25, 0.1)  # nats
# one in ten images wrong, about: far below a plateau, and above what ten epochs end with
LEVEL = 0.25
STEPS, SECONDS = "steps to the training loss", "seconds to the training loss"
PUBLISHED = Published(
    "published", "Ioffe & Szegedy 2015, abstract",
    "Inception, ImageNet: how many times fewer steps to the accuracy of the network without BN, at "
    "a larger rate and with other changes", {"times": 14.0},
)  # fmt: skip
EQUAL = Published(
    "unconfirmed", "Ioffe & Szegedy 2015, figure 3",
    "Inception, ImageNet: million steps to 72.2 % accuracy at one rate",
    {"none": 31.0, "batch": 13.3},
)  # fmt: skip
OWN, SAME, TIME = "own best rates", "at the best rate without a norm", "in seconds"
SHORT = {OWN: OWN, SAME: "none's best rate", TIME: TIME}


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """LeNet with ReLU as a network of its own; steps with the length of training as their bound."""
    table = filled(table, {ACTIVATION: None})
    relu = (table[MODEL] == "lenet") & (table[ACTIVATION] == "relu")
    counted = {bounded(level): table[reached(level)].fillna(table["steps"]) for level in LEVELS}
    return extended(table, {MODEL: table[MODEL].mask(relu, "lenet_relu"), **counted})


def reached(level: float) -> str:
    """The column of steps to a level, empty where it is not reached."""
    return f"steps_to_{level:g}"


def bounded(level: float) -> str:
    """The same, with all steps of a run that does not reach it."""
    return f"bounded_{level:g}"


def main_first(table: pd.DataFrame) -> list[Panel]:
    """The panels; the primary claim is about the MLP."""
    return panels(prepared(table), model="mlp")


# --- what is judged ------------------------------------------------------------------------------


def arm(panel: Panel, norm: str) -> pd.DataFrame:
    """log2 of the bounded steps to the judged level, seeds by rates."""
    rows = select(panel.rows, {NORM: norm})
    wide = rows.pivot(index="seed", columns=LR, values=bounded(LEVEL))
    return np.log2(wide)


def best(wide: pd.DataFrame) -> dict[int, float]:
    """Seed -> the rate of least mean over the other seeds; the smaller of equal ones."""
    if len(wide) == 1:
        return {seed: float(wide.loc[seed].idxmin()) for seed in wide.index}
    return {seed: float(wide.drop(seed).mean().idxmin()) for seed in wide.index}


def at(wide: pd.DataFrame, rates: dict[int, float]) -> dict[int, float]:
    """Seed -> value at the rate of this seed; not a number where there is no such run."""
    return {seed: wide[lr].get(seed, math.nan) for seed, lr in rates.items() if lr in wide}


def gains(panel: Panel) -> dict[str, dict[int, float]]:
    """log2 of what the network without a norm takes times as long, by seed, in three ways."""
    batch, none = arm(panel, "batch"), arm(panel, "none")
    without, rates = best(none), best(batch)
    own = paired_differences(at(none, without), at(batch, rates))
    return {
        OWN: own,
        SAME: paired_differences(at(none, without), at(batch, without)),
        TIME: paired_differences(own, at(longer(panel), rates)),
    }


def longer(panel: Panel) -> pd.DataFrame:
    """log2 of what a step with BN takes times as long as without, seeds by rates."""
    rows = select(panel.rows, {NORM: "batch"})
    return np.log2(rows.pivot(index="seed", columns=LR, values="step_ratio"))


def chosen(panel: Panel, norm: str) -> pd.DataFrame:
    """The runs of an arm at its own best rate, by seed: sums come in one order."""
    rates = best(arm(panel, norm))
    rows = select(panel.rows, {NORM: norm}).sort_values("seed")
    return rows[rows[LR] == rows["seed"].map(rates)]


# --- figures -------------------------------------------------------------------------------------


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Steps by rate in the main panel; what it gains in three ways, others at own best rates."""
    main, *others = main_first(table)
    ways = [(panel, OWN) for panel in others]
    return [_by_rate(main), _gains([*((main, way) for way in gains(main)), *ways], main)]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """Of every network the course of the loss and steps by level; gamma and beta by layer."""
    found = main_first(table)
    sheets = [_by_rate(panel) for panel in found[1:]]
    if others := [(panel, way) for panel in found[1:] for way in (SAME, TIME)]:
        sheets.append(_gains(others))
    for panel in found:
        sheets += [_by_level(panel), _losses(panel)]
    learned = [_learned(found, "gamma", 1), _learned(found, "beta", 0)]
    return [*sheets, *learned, *_first_gammas(found)]


def _arms(panel: Panel) -> list[str]:
    return in_order(panel.rows[NORM])


def _by_rate(panel: Panel) -> figures.Panel:
    """Steps to the judged level by learning rate."""
    curves = [
        curve(select(panel.rows, {NORM: norm}), LR, bounded(LEVEL), norm=norm, percent=False)
        for norm in _arms(panel)
    ]
    total = float(panel.rows["steps"].max())
    return figures.Panel(
        panel.title, curves, "learning rate", f"steps to {LEVEL:g} nats",
        y="log10", floor=None, bands=[Band(total, total, "not reached: all steps")],
    )  # fmt: skip


def _gains(ways: list[tuple[Panel, str]], main: Panel | None = None) -> figures.Panel:
    """How many times fewer steps BN takes, in octaves.

    main: the panel of the primary claim, where its verdict and the published numbers are shown.
    """
    called = networks([panel for panel, _ in ways])
    dots: list[Curve] = []
    for panel, way in ways:
        style = figures.hue(list(called).index(panel.key))
        label = f"{called[panel.key]}, {SHORT[way]}"
        dots.append(gap(label, gains(panel)[way], style=style))
    if main:
        dots += [
            reported(PUBLISHED, f"Inception, {OWN}", published_own(), style=figures.hue(5)),
            reported(EQUAL, "Inception, one rate", published_same(), style=figures.hue(5)),
        ]
    return figures.Panel(
        f"none / BN, to {LEVEL:g} nats", dots, kind="dots", zero=True, floor=None,
        ylabel="log2 of the ratio (octaves)",
        claim=f"{main.key}: {OWN}" if main else "",
    )  # fmt: skip


def _by_level(panel: Panel) -> figures.Panel:
    """Steps to every level, each arm at its own best rate for the judged one."""
    columns = {level: bounded(level) for level in sorted(LEVELS)}
    curves = [
        across(chosen(panel, norm), columns, norm=norm, percent=False) for norm in _arms(panel)
    ]
    total = float(panel.rows["steps"].max())
    return figures.Panel(
        f"{panel.title}, {OWN}", curves, "training loss (nats)", "steps", x="log10", y="log10",
        floor=None, bands=[Band(total, total, "not reached: all steps")],
    )  # fmt: skip


def _losses(panel: Panel) -> figures.Panel:
    """Training loss of each twentieth of the steps at the own best rates."""
    curves = [
        course(chosen(panel, norm), "loss_course", norm=norm, percent=False)
        for norm in _arms(panel)
    ]
    return figures.Panel(f"{panel.title}, {OWN}", curves, "twentieth of the steps",
                         "training loss (nats)", x="linear")  # fmt: skip


def _learned(found: list[Panel], name: str, start: int) -> figures.Panel:
    """Mean of the learned gamma or beta by layer, of each network at BN's best rate."""
    curves = [
        course(chosen(panel, "batch"), f"{name}_mean", style=figures.hue(i), label=panel.title,
               percent=False)
        for i, panel in enumerate(found)
    ]  # fmt: skip
    return figures.Panel(f"learned {name} by layer", curves, "layer with a norm",
                         f"mean {name} ({start} at the start)", x="linear", floor=None)  # fmt: skip


def _first_gammas(found: list[Panel]) -> list[figures.Panel]:
    """The first layer's gammas of each LeNet, sorted within a network, and the textbook's."""
    lenets = [panel for panel in found if panel.model.startswith("lenet")]
    curves = [
        course(chosen(panel, "batch"), "first_gamma", style=figures.hue(i), label=panel.title,
               percent=False)
        for i, panel in enumerate(lenets)
    ]  # fmt: skip
    beside = cited(GAMMA, "gamma", "channel", style=figures.hue(4), label="Fashion-MNIST")
    panel = figures.Panel("gamma of the first layer", [*curves, beside], "channel, by size",
                          "gamma (1 at the start)", x="linear")  # fmt: skip
    return [panel] if lenets else []


# --- claims --------------------------------------------------------------------------------------


def claims(table: pd.DataFrame) -> list[Claim]:
    """Of every network: fewer steps at own best rates, at one rate, and less time."""
    return [claim for panel in main_first(table) for claim in _claims_of(panel)]


def _claims_of(panel: Panel) -> list[Claim]:
    found = gains(panel)
    claim = panel.claims(
        preconditions=[_decided(panel), comparable(panel.rows)], unit="octaves",
        source="Ioffe & Szegedy 2015", notes=_notes(panel),
    )  # fmt: skip
    level = f"a training loss of {LEVEL:g} nats"
    first, second = (
        claim(
            OWN, f"BN reaches {level} in fewer steps than no norm, each at its own best rate",
            found[OWN], primary=panel.main, estimand=STEPS,
            **PUBLISHED.cite("{} octaves, Inception", published_own()),
        ),
        claim(
            SAME,
            f"BN reaches {level} in fewer steps than no norm, both at the best rate without a norm",
            found[SAME], estimand=STEPS,
            preconditions=[_decided(panel), _has_a_best(panel), comparable(panel.rows)],
            **EQUAL.cite("{} octaves, Inception", published_same()),
        ),
    )  # fmt: skip
    less = claim(
        TIME, f"BN reaches {level} in less time than no norm, each at its own best rate",
        found[TIME], estimand=SECONDS,
    )  # fmt: skip
    return [*sequence(first, second), less]


def published_own() -> float:
    """14 times fewer steps, in octaves."""
    return round(math.log2(PUBLISHED["times"]), 2)


def published_same() -> float:
    """Steps at one rate, in octaves."""
    return round(math.log2(EQUAL["none"] / EQUAL["batch"]), 2)


def _decided(panel: Panel) -> kit.Precondition:
    """In every seed at least one arm reaches the level at its own best rate."""
    arms = [_reached(panel, norm) for norm in ("batch", "none")]
    neither = [
        seed for seed in arms[0].index if all(math.isnan(a.get(seed, math.nan)) for a in arms)
    ]
    told = f"neither in seed {', '.join(map(str, neither))}" if neither else ""
    return (f"{LEVEL:g} nats are reached with BN or without in every seed", not neither, told)


def _has_a_best(panel: Panel) -> kit.Precondition:
    """Without a norm the level is reached, or no rate is better than another."""
    never = bool(_reached(panel, "none").isna().all())
    return (f"{LEVEL:g} nats are reached without a norm", not never, "in no seed" if never else "")


def _reached(panel: Panel, norm: str) -> "pd.Series[float]":
    """Steps to the level at the own best rate, by seed; not a number where it is not reached."""
    return chosen(panel, norm).set_index("seed")[reached(LEVEL)]


def _notes(panel: Panel) -> list[str]:
    """What did not reach the level, and best rates at an end of their grid."""
    found = []
    for norm in _arms(panel):
        rows, wide = chosen(panel, norm), arm(panel, norm)
        short, n = int(rows[reached(LEVEL)].isna().sum()), len(rows)
        if short:
            found.append(
                f"{norm}: {short} of {n} runs do not reach {LEVEL:g} nats at the best rate"
            )
        ends = {float(wide.columns.min()), float(wide.columns.max())}
        if edge := sorted(ends & set(rows[LR])):
            found.append(f"{norm}: the best rate {edge[0]:g} is an end of its grid")
    return found
