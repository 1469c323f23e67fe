"""The largest usable learning rate with and without BN (Bjorck et al. 2018, figures 1 and 3).

A run is usable when it has not diverged and has learned: every loss and weight is finite, and the
training error over the last epoch is at most half of chance (what `failed` says of every study).
The largest usable rate of a seed is the largest of the grid at which its run is usable, and beyond
it, before the next rate, where a line between the two training errors crosses half of chance.
Primary claim: in the deeper ResNet that with BN is at least ten times that without a norm, a mean
of log10 ratios over the seeds of one decade or more.

Rates beyond the grid are not known. Where the largest is usable it counts as that one, which
brings a ratio with BN at the top nearer to 1. Where an arm is usable at no rate there is no largest
one - it may learn at none, as deep networks of sigmoids do - and nothing is claimed. Written before
any run of the claims' seeds.
"""

import math

import numpy as np
import pandas as pd

from bnstudy import figures
from bnstudy.figures import Band, Curve
from bnstudy.stats import Claim, paired_differences
from bnstudy.stats.failures import HALF, chance, failed
from bnstudy.studies.drawing import cited, curve, gap, reported
from bnstudy.studies.kit import (
    DATA,
    EMA,
    MODEL,
    NORM,
    TEST,
    Panel,
    Precondition,
    Published,
    comparable,
    extended,
    filled,
    in_order,
    panels,
    select,
    sequence,
    trained,
)

LR, DEPTH, ACTIVATION = "optimizer.lr", "model.depth", "model.activation"
LARGEST = "largest usable learning rate"  # an estimand: of every run that trained, the grid's end
DECADE = 1.0  # F8's factor of ten; Bjorck et al.'s losses explode from 1e-3 and 3e-2 to 1e-1 on
STEP = math.log10(2)  # decades: one step of the grid
SMALL = 2**-10  # both arms of ResNet-20 learn there, in a pilot of other seeds
SAME = 1.0  # pp: a tenth of what BN has gained in the published figure where its rate is large
SOURCE = "Bjorck et al. 2018"
PUBLISHED = Published(
    "digitised", f"{SOURCE}, figure 1",
    "ResNet-110, CIFAR-10: final test error in %, 0.2 either way",
    {"rate": [1e-4, 3e-3, 1e-1], "batch": [18.7, 9.6, 6.8], "none": [18.0, math.nan, math.nan]},
)  # fmt: skip
EXPLODES = Published(
    "digitised", f"{SOURCE}, figure 3",
    "ResNet-110, CIFAR-10: step along the gradient from which the loss explodes",
    {"none": 1e-3, "batch": 3e-2, "batch, at most": 1e-1},
)  # fmt: skip


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """With a name for every network, and 1 for each usable run, else 0."""
    table = filled(table, {DEPTH: 8, ACTIVATION: "relu"})
    residual = table[MODEL] == "resnet"
    depth = table[DEPTH].astype(int).astype(str)
    names = ("ResNet-" + depth).where(
        residual, depth + " layers, " + table[ACTIVATION].fillna("relu")
    )
    return extended(table, {
        MODEL: names, "residual": residual, "layers": table[DEPTH].astype(int),
        "usable": (~failed(table)).astype(float),
    })  # fmt: skip


def main_first(table: pd.DataFrame) -> list[Panel]:
    """The panels; the primary claim is about the deepest ResNet, or network."""
    table = prepared(table)
    deepest = table.sort_values(["residual", "layers"], kind="stable")[MODEL].iloc[-1]
    return panels(table, model=deepest)


# --- what is judged ------------------------------------------------------------------------------


def largest(panel: Panel, norm: str) -> dict[int, float]:
    """Seed -> log10 of the largest usable rate, between rates of the grid by interpolation."""
    rows = select(panel.rows, {NORM: norm}).sort_values(LR, kind="stable")
    limit = HALF * chance(rows).min()
    return {int(seed): _largest(own, limit) for seed, own in rows.groupby("seed")}


def _largest(rows: pd.DataFrame, limit: float) -> float:
    """Where the training error crosses the limit for good: log10 of the rate.

    rows: one seed's, by rate; those that diverged have the error of chance. NaN where none is
    usable.
    """
    rates, errors = np.log10(rows[LR].to_numpy()), rows["train_error"].to_numpy()
    usable = np.flatnonzero(rows["usable"].to_numpy() == 1)
    if not len(usable):
        return math.nan
    last = usable[-1]
    if last == len(rates) - 1:
        return float(rates[-1])
    part = (limit - errors[last]) / (errors[last + 1] - errors[last])
    return float(rates[last] + part * (rates[last + 1] - rates[last]))


def ratio(panel: Panel, norm: str, other: str) -> dict[int, float]:
    """log10 of the ratio of largest usable rates, by seed."""
    return paired_differences(largest(panel, norm), largest(panel, other))


def chosen(panel: Panel, norm: str) -> dict[int, float]:
    """Seed -> test error in percent at the rate of least validation error of this seed."""
    rows = select(panel.rows, {NORM: norm}).sort_values(["seed", "val_error", LR], kind="stable")
    first = rows.groupby("seed").first()
    return {int(seed): 100 * error for seed, error in first["test_error"].items()}


def at(norm: str, rate: float) -> dict[str, object]:
    """The cell of an arm at a rate."""
    return {NORM: norm, LR: rate}


# --- figures -------------------------------------------------------------------------------------


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Test error by rate in the main panel, and the ratios of largest usable rates."""
    found = main_first(table)
    return [_errors(found[0], published=True), _ratios(found, f"{found[0].key}: ten times")]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """Test error by rate of the other networks; largest usable rate by depth."""
    found = main_first(table)
    sheets = [_errors(panel) for panel in found[1:]]
    ratios = [_ratios(found, norm=norm) for norm in ("group", "layer") if _has(table, norm)]
    sheets += [panel for panel in ratios if panel.curves]
    table = prepared(table)
    for (data, kind), rows in table.groupby([DATA, _kind(table)], sort=True):
        own = panels(select(rows, {DATA: data}))
        sheets.append(_by_depth(f"{own[0].title.partition(',')[0]}, {kind}", own))
    return sheets


def _kind(table: pd.DataFrame) -> pd.Series:
    """What networks are that differ in depth only."""
    plain = "fully connected, " + table[ACTIVATION].fillna("relu").astype(str)
    return plain.mask(table["residual"], "ResNet").rename("kind")


def _errors(panel: Panel, published: bool = False) -> figures.Panel:
    """Test error by rate; a run that diverged is at chance."""
    curves: list[Curve] = [
        curve(select(panel.rows, {NORM: norm}), LR, "test_error", norm=norm)
        for norm in in_order(panel.rows[NORM])
    ]
    if published:
        curves += [
            cited(PUBLISHED, norm, "rate", norm=norm, label=f"{norm}, ResNet-110, CIFAR-10")
            for norm in ("batch", "none")
        ]
    return figures.Panel(panel.title, curves, "learning rate", x="log10", ceiling=100)


def _has(table: pd.DataFrame, norm: str) -> bool:
    return bool((table[NORM] == norm).any())


def _ratios(found: list[Panel], claim: str = "", norm: str = "batch") -> figures.Panel:
    """Decades between the largest usable rates of a norm and of no norm, for each network."""
    dots: list[Curve] = [
        gap(panel.model, ratio(panel, norm, "none"), style=figures.hue(i))
        for i, panel in enumerate(found)
        if _has(panel.rows, norm) and all(_usable(panel, arm)[1] for arm in (norm, "none"))
    ]
    if norm == "batch":
        low, high = published_decades()
        for name, value in (("at least", low), ("at most", high)):
            dots.append(reported(EXPLODES, f"ResNet-110, {name}", value, style=figures.hue(5)))
    return figures.Panel(
        f"largest usable rate, {norm} over no norm", dots, kind="dots", zero=True, floor=None,
        ylabel="log10 of the ratio (decades)", bands=[Band(DECADE, DECADE, "ten times")],
        claim=claim,
    )  # fmt: skip


def _by_depth(kind: str, found: list[Panel]) -> figures.Panel:
    """Largest usable rate by depth for each norm, of one kind of networks."""
    long = pd.concat([
        pd.DataFrame({"layers": panel.rows["layers"].iloc[0], NORM: norm, "seed": list(own),
                      "rate": list(own.values())})
        for panel in found for norm in in_order(panel.rows[NORM])
        if (own := largest(panel, norm))
    ])  # fmt: skip
    curves = [
        curve(select(long, {NORM: norm}), "layers", "rate", norm=norm, percent=False)
        for norm in in_order(long[NORM])
    ]
    return figures.Panel(kind, curves, "layers", "log10 of the largest usable rate", floor=None)


# --- claims --------------------------------------------------------------------------------------


def claims(table: pd.DataFrame) -> list[Claim]:
    """Of every network the ratio to no norm; of the main one also what explains it."""
    return [claim for panel in main_first(table) for claim in _claims_of(panel)]


def _normed(panel: Panel) -> list[str]:
    return [norm for norm in in_order(panel.rows[NORM]) if norm != "none"]


def _usable(panel: Panel, norm: str) -> Precondition:
    """The precondition that an arm has a largest usable rate in every seed."""
    own = largest(panel, norm)
    none = sum(math.isnan(rate) for rate in own.values())
    told = f"at none in {none} of {len(own)} seeds" if none else ""
    return (f"{norm} is usable at some rate of the grid in every seed", not none, told)


def _claims_of(panel: Panel) -> list[Claim]:
    arms = {norm: _usable(panel, norm) for norm in in_order(panel.rows[NORM])}
    claim = panel.claims(
        source=SOURCE, preconditions=[arms["batch"], arms["none"], comparable(panel.rows)],
        notes=_beyond(panel), unit="decades", estimand=LARGEST,
    )  # fmt: skip
    low, _ = published_decades()
    ten = claim(
        "ten times", "the largest usable rate with BN is at least ten times that without a norm",
        ratio(panel, "batch", "none"), threshold=DECADE, primary=panel.main,
        **EXPLODES.cite("{} decades, ResNet-110", low),
    )  # fmt: skip
    if not panel.main:
        return [ten]
    found = sequence(ten, _one_rate(panel))
    for norm in (name for name in _normed(panel) if name != "batch"):
        found.append(claim(
            f"more than {norm}",
            f"the largest usable rate with BN is at least twice that with {norm} norm",
            ratio(panel, "batch", norm), threshold=STEP,
            preconditions=[arms["batch"], arms[norm], comparable(panel.rows)],
            **({"expected": "refuted: nearly the same"} if norm == "group" else {}),
        ))  # fmt: skip
    found.append(claim(
        "at the best rates",
        "at the rate of least validation error the test error without a norm is above BN's",
        paired_differences(chosen(panel, "none"), chosen(panel, "batch")), unit="pp", estimand=TEST,
        preconditions=[comparable(panel.rows)],
        **PUBLISHED.cite("{} pp, ResNet-110", published_error("none", 1e-4, "batch", 1e-1)),
    ))  # fmt: skip
    return found


def _one_rate(panel: Panel) -> Claim:
    """At one small rate BN and no norm have equal test errors."""
    rate = min(panel.rows[LR].unique(), key=lambda lr: abs(math.log(lr / SMALL)))
    ready = [
        trained(select(panel.rows, at(norm, rate)), f"{norm} at {rate:g}")
        for norm in ("batch", "none")
    ]
    claim = panel.claims(source=SOURCE, preconditions=[*ready, comparable(panel.rows)])
    return claim(
        "equal at one rate",
        f"at the rate {rate:g} the test errors with BN and without a norm differ by less than "
        f"{SAME:g} pp",
        panel.difference(at("batch", rate), at("none", rate)), "equivalent", threshold=SAME,
        estimand=EMA, expected="refuted: after so few steps BN is ahead", **PUBLISHED.cite(
            "{} pp at 1e-4, ResNet-110", published_error("batch", 1e-4, "none", 1e-4)
        ),
    )  # fmt: skip


def published_decades() -> tuple[float, float]:
    """Between the steps from which losses explode: at least, at most."""
    ends = (EXPLODES["batch"], EXPLODES["batch, at most"])
    low, high = (round(math.log10(end / EXPLODES["none"]), 2) for end in ends)
    return low, high


def published_error(first: str, rate: float, second: str, other: float) -> float:
    """Test error of one arm at a rate minus that of another at its own, in pp."""
    return PUBLISHED.at(first, rate=rate) - PUBLISHED.at(second, rate=other)


def _beyond(panel: Panel) -> list[str]:
    """How many largest usable rates may lie beyond the grid, by norm."""
    found = []
    for norm in in_order(panel.rows[NORM]):
        rows, rates = select(panel.rows, {NORM: norm}), largest(panel, norm)
        top = sum(rate >= math.log10(rows[LR].max()) for rate in rates.values())
        if top:
            found.append(f"{norm}: usable at the largest rate of the grid in {top} of {len(rates)}")
    return found
