"""Weight decay under normalization as a growing learning rate (Li & Arora 2020).

One step of SGD with rate r and weight decay d is w' = (1 - r d) w - r g(w). Where the loss does not
change with the length of w, its gradient has degree -1: g(c w) = g(w) / c. With a = 1 - r d and
v_t = w_t / a^t, dividing the step by a^(t + 1) gives

    v_(t+1) = v_t - r a^-(t+1) g(a^t v_t) = v_t - r a^-(2t+1) g(v_t):

SGD without decay, its rate r / a at step 0 and a^-2 times larger at each step, in weights of
another length that compute the same function. With heavy-ball momentum m the step is
w_(t+1) = (1 + m - r d) w_t - m w_(t-1) - r g(w_t), and the same substitution, w_t = a^t v_t, gives
v_(t+1) - v_t = m a^-2 (v_t - v_(t-1)) - r a^-(2t+1) g(v_t) where a + m / a = 1 + m - r d: the same
rates with the larger root a, up to the first step, at which v has a velocity and SGD has none.

All weights must be such that their length does not matter: gamma, beta, biases and the last layer
keep their initial values, and eps is 0. Then the two runs are one function up to rounding, a
demonstration. How far rounding takes them apart is bounded by a control, the run with decay once
more at eps = 2^-52: every normalized value is off by about one unit in its last place, in every
layer and at every step, and grows as rounding grows. The arithmetic rounds a value once for each
term of the sums behind it, at most: n terms err by n units (Higham 2002, section 4.2), so that the
tolerance is n times what the control differs by. n counts the terms of the longest sum, a mean over
batch and positions, forward and backward.

The claims that can fail are about what people train, eps = 1e-5 and momentum: whether the growing
rate is nearer to the function of weight decay than a constant rate without decay is, and whether
it has its test error. The second alone would say nothing where decay changes no error. Written
before the first run of configs/study/weight_decay_is_a_rate.yaml; three pilots of other seeds had
shown that in 200 steps neither rate is nearer.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from bnstudy import figures
from bnstudy.figures import Band, Curve, Panel
from bnstudy.stats import Claim
from bnstudy.studies import kit
from bnstudy.studies.drawing import curve, differences
from bnstudy.studies.kit import DATA, NORM, PRECISE, Published, extended, filled, panels, select

EPS, LR, DECAY, GROWTH, MOMENTUM, TRAINABLE = (
    "norm.eps", "optimizer.lr", "optimizer.weight_decay", "optimizer.growth", "optimizer.momentum",
    "optimizer.trainable",
)  # fmt: skip
RUN = "run"  # decay | growth | constant | uncorrected: how the rate and the weights behave
SOURCE = "Li & Arora 2020"
PUBLISHED = Published(
    "published", SOURCE,
    "difference of the two functions: equal by proof, for weights whose length does not matter, "
    "with batch, group, layer and instance norm",
    {"difference": 0.0},
)  # fmt: skip
MARGIN = 1.0  # pp: below what readers of a table of errors would call a difference
NEARER = math.log10(2)  # decades: half as far from the function of weight decay
ULP = 2.0**-52
SMALLEST = 2.0**-53  # differences count as at least half a unit of numbers around one
POSITIONS = {"digits": 64, "contrast_digits": 64, "mnist_small": 784}  # of the largest map
EXACT = {NORM: "batch", EPS: 0.0, MOMENTUM: 0.0, TRAINABLE: "hidden_weights"}
CONTROL = {**EXACT, EPS: ULP}
PRACTICE = {**EXACT, EPS: 1e-5, MOMENTUM: 0.9}
EVERYTHING = {**PRACTICE, TRAINABLE: "all"}
# what has the equality and what breaks it: name -> runs, title, color
KEPT: dict[str, tuple[dict[str, Any], str]] = {
    "batch": (EXACT, "batch norm"),
    "group": ({**EXACT, NORM: "group"}, "group norm"),
    "layer": ({**EXACT, NORM: "layer"}, "layer norm"),
}
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "eps": ({**EXACT, EPS: 1e-5}, "eps = 1e-5"),
    "momentum": ({**EXACT, MOMENTUM: 0.9}, "momentum 0.9, by the rates without it"),
    "first velocity": ({**EXACT, MOMENTUM: 0.9}, "momentum 0.9, by its own rates"),
    "last layer": ({**EXACT, TRAINABLE: "weights"}, "last layer learns"),
    "no norm": ({NORM: "none", MOMENTUM: 0.0, TRAINABLE: "hidden_weights"}, "no norm"),
}


def factor(rate: float, decay: float, momentum: float = 0.0) -> float:
    """a, by which decay shortens weights at a step: the larger root of a + m / a = 1 + m - r d."""
    half = (1 + momentum - rate * decay) / 2
    return half + math.sqrt(half * half - momentum)


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """With `run`: of each run how its rate behaves, and whether weights decay."""
    table = filled(table, {GROWTH: 1.0, TRAINABLE: "all", EPS: 0.0})
    decays = table[table[DECAY] > 0]
    rates = {
        momentum: factor(decays[LR].iloc[0], decays[DECAY].iloc[0], momentum) ** -2
        for momentum in table[MOMENTUM].unique()
    } if len(decays) else {}  # fmt: skip

    def named(row: pd.Series) -> str:
        if row[DECAY] > 0:
            return "decay"
        if row[GROWTH] == 1:
            return "constant"
        own = rates.get(row[MOMENTUM], math.nan)
        return "growth" if math.isclose(row[GROWTH], own, rel_tol=1e-12) else "uncorrected"

    return extended(table, {RUN: table[[DECAY, GROWTH, MOMENTUM]].apply(named, axis=1)})


def _logits(rows: pd.DataFrame) -> dict[int, np.ndarray]:
    """Seed -> logits (evaluations, images)."""
    names = sorted(str(c) for c in rows if str(c).startswith("logit_"))
    images = sorted({name.partition("/")[0] for name in names})
    each = [[name for name in names if name.startswith(f"{image}/")] for image in images]
    return {
        int(row["seed"]): np.array([[row[name] for name in own] for own in each], float).T
        for _, row in rows.iterrows()
    }


def apart(
    rows: pd.DataFrame, first: Mapping[str, Any], second: Mapping[str, Any]
) -> dict[int, np.ndarray]:
    """Seed -> largest difference of a logit between two runs, at each evaluation."""
    one, other = _logits(select(rows, first)), _logits(select(rows, second))
    return {
        seed: np.maximum(np.abs(one[seed] - other[seed]).max(1), SMALLEST)
        for seed in sorted(one.keys() & other.keys())
    }


def unlike(
    rows: pd.DataFrame, where: Mapping[str, Any], run: str = "growth"
) -> dict[int, np.ndarray]:
    """`apart` of weight decay and, in its place, a growing (or constant) rate."""
    return apart(rows, {**where, RUN: "decay"}, {**where, RUN: run})


def nearer(panel: kit.Panel, where: Mapping[str, Any]) -> dict[int, float]:
    """Seed -> decades by which a constant rate is farther from decay than a growing one is.

    Of the second half of the evaluations, the mean of the logarithms.
    """
    growth, constant = (unlike(panel.rows, where, run) for run in ("growth", "constant"))
    return {
        seed: float(np.log10(constant[seed] / growth[seed])[len(growth[seed]) // 2 :].mean())
        for seed in sorted(growth.keys() & constant.keys())
    }


def tolerance(rows: pd.DataFrame, norm: str) -> float:
    """What rounding can make of a logit's difference: terms of the longest sum times the control's.

    NaN without a control.
    """
    found = apart(rows, {**EXACT, NORM: norm, RUN: "decay"}, {**CONTROL, NORM: norm, RUN: "decay"})
    if not found or not len(rows):
        return math.nan
    terms = 2 * rows["train.batch_size"].iloc[0] * POSITIONS.get(rows[DATA].iloc[0], 1024)
    return terms * max(own.max() for own in found.values())


# --- figures -------------------------------------------------------------------------------------


def headline(table: pd.DataFrame) -> list[Panel]:
    """How far apart the functions are, where theory holds and in practice; test error there."""
    main, *_ = panels(prepared(table), model="mlp")
    return [_functions(main), _practice(main), _errors(main)]


def details(table: pd.DataFrame) -> list[Panel]:
    """The same of other networks; test error by run of each kind."""
    main, *others = panels(prepared(table), model="mlp")
    found = [panel for own in others for panel in (_functions(own), _practice(own), _errors(own))]
    return [*found, *(_runs(own) for own in (main, *others))]


def _functions(panel: kit.Panel) -> Panel:
    """Difference of logits over steps, on a logarithmic axis."""
    curves = []
    settings = iter(range(len(BROKEN)))  # norms have styles of their own
    for name, (where, label) in {**KEPT, **BROKEN}.items():
        norm = {"batch": "batch", "group": "group", "layer": "layer", "no norm": "none"}.get(name)
        style = figures.style_of(norm) if norm else figures.hue(next(settings))
        own = unlike(panel.rows, where)
        if name == "momentum":  # by the rates that are right without it
            own = unlike(panel.rows, where, "uncorrected")
        curves += _over_steps(panel, own, label, style)
    bound = tolerance(panel.rows, "batch")
    bands = [Band(bound, bound, "tolerance of rounding")] if math.isfinite(bound) else []
    return Panel(
        f"{panel.title}: weight decay, or a growing rate", curves, "steps",
        "largest difference of a logit", x="linear", y="log10", floor=None, bands=bands,
    )  # fmt: skip


def _practice(panel: kit.Panel) -> Panel:
    """How far a growing and a constant rate are from weight decay, with momentum and eps."""
    curves = []
    for i, (run, label) in enumerate(
        {"growth": "growing rate", "constant": "constant rate"}.items()
    ):
        own = unlike(panel.rows, PRACTICE, run)
        curves += _over_steps(panel, own, label, figures.hue(i))
    return Panel(
        "momentum 0.9, eps = 1e-5", curves, "steps", "difference from weight decay (logit)",
        x="linear", y="log10", floor=None, claim=f"{panel.key}: nearer",
    )  # fmt: skip


def _over_steps(
    panel: kit.Panel, values: Mapping[int, np.ndarray], label: str, style: figures.Style
) -> list[Curve]:
    """One curve of differences, nothing where there are no runs."""
    every = panel.rows["evaluate.steps"].iloc[0]
    long = pd.DataFrame(
        [
            {"seed": seed, "step": every * (i + 1), "apart": value}
            for seed, own in values.items()
            for i, value in enumerate(own)
        ]
    )
    if not len(long):
        return []
    return [curve(long, "step", "apart", style=style, label=label, percent=False, dots=False)]


def _errors(panel: kit.Panel) -> Panel:
    """Test error of a growing rate minus that of weight decay."""
    rows = {label: values for label, values in _gaps(panel).items() if values}
    styles = [figures.hue(i) for i in range(len(rows))]
    return differences(
        "in place of weight decay", rows, styles, bands=[Band(-MARGIN, MARGIN, "margin")],
        claim=f"{panel.key}: practice",
    )  # fmt: skip


def _gaps(panel: kit.Panel) -> dict[str, dict[int, float]]:
    """Label -> seed -> test error without decay minus that with it, in pp, by PreciseBN."""
    return {
        "growing rate, hidden weights learn": _against_decay(panel, PRACTICE),
        "growing rate, everything learns": _against_decay(panel, EVERYTHING),
        "constant rate, hidden weights learn": _against_decay(panel, PRACTICE, "constant"),
        "constant rate, everything learns": _against_decay(panel, EVERYTHING, "constant"),
    }


def _against_decay(
    panel: kit.Panel, where: Mapping[str, Any], run: str = "growth"
) -> dict[int, float]:
    """By PreciseBN: running averages add activations of weights of different lengths."""
    return panel.difference({**where, RUN: run}, {**where, RUN: "decay"}, "test_error_precise")


def _runs(panel: kit.Panel) -> Panel:
    """Test error by PreciseBN with decay, with a growing rate and with neither."""
    curves = []
    kinds = {"eps = 0": EXACT, "momentum": PRACTICE, "everything learns": EVERYTHING}
    for i, (label, where) in enumerate(kinds.items()):
        rows = select(panel.rows[panel.rows[RUN] != "uncorrected"], where)
        order = rows[RUN].map({"decay": 0, "growth": 1, "constant": 2})
        rows = rows.iloc[order.argsort(kind="stable")]
        if len(rows):
            curves.append(curve(rows, RUN, "test_error_precise", style=figures.hue(i), label=label))
    return Panel(f"{panel.title}: test error", curves, "", x="names", ceiling=100)


# --- claims --------------------------------------------------------------------------------------


def claims(table: pd.DataFrame) -> list[Claim]:
    """Equal test errors in practice; equal functions where theory says so, else unequal ones."""
    return [
        claim
        for panel in panels(prepared(table), model="mlp")
        for claim in (*_practical(panel), *_exact(panel))
    ]


def _practical(panel: kit.Panel) -> list[Claim]:
    """Whether a growing rate has the test error of weight decay where people use them."""
    ready = panel.ready("weight decay", {**PRACTICE, RUN: "decay"})
    claim = panel.claims(source=SOURCE, preconditions=ready, estimand=PRECISE)
    return kit.sequence(
        claim(
            "nearer",
            "with momentum, started at rest, and eps = 1e-5 a growing rate is at most half as far "
            "from the function of weight decay as a constant rate without decay",
            nearer(panel, PRACTICE), threshold=NEARER, primary=panel.main, unit="decades",
            estimand="largest difference of a logit, second half of training",
            expected="refuted: in pilots of 200 steps neither was nearer",
            source="derived from Li & Arora 2020, whose proof gives the first step a velocity",
        ),
        claim(
            "practice",
            "with momentum and eps = 1e-5 a growing rate in the place of weight decay gives the "
            f"same test error, within {MARGIN:g} pp",
            _against_decay(panel, PRACTICE), "equivalent", threshold=MARGIN,
            **PUBLISHED.cite("equal by proof, without eps", 0.0),
        ),
        claim(
            "everything learns",
            "the same where gamma, beta, biases and the last layer learn, too",
            _against_decay(panel, EVERYTHING), "equivalent", threshold=MARGIN, expected="refuted",
        ),
    )  # fmt: skip


def _exact(panel: kit.Panel) -> list[Claim]:
    """Decades below the tolerance of rounding, or above it."""
    claim = panel.claims(
        source=SOURCE, preconditions=[kit.comparable(panel.rows)], unit="decades",
        estimand="largest difference of a logit, against the tolerance of rounding",
    )  # fmt: skip
    found = []
    for name, (where, label) in KEPT.items():
        bound = tolerance(panel.rows, name)
        below = {s: math.log10(bound / own.max()) for s, own in unlike(panel.rows, where).items()}
        found.append(claim(
            f"exact, {name}",
            f"{label}: weight decay and a growing rate are one function, up to rounding",
            below, "demonstration",
        ))  # fmt: skip
    bound = tolerance(panel.rows, "batch")
    for name, (where, label) in BROKEN.items():
        run = "uncorrected" if name == "momentum" else "growth"
        above = {
            s: math.log10(own.max() / bound) for s, own in unlike(panel.rows, where, run).items()
        }
        found.append(claim(
            f"broken, {name}", f"{label}: they are two functions", above, "demonstration",
        ))  # fmt: skip
    return found
