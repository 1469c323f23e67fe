"""Networks with saturating activations, with and without a norm (Ioffe & Szegedy 2015).

Primary claim: ten layers with sigmoids test better with batch norm than without a norm, each at its
own rate. Beside it: whether layer norm does as well, whether networks with tanh need either, and
the two reasons that are given, gradients that vanish and units that saturate. Written before the
first run of configs/study/saturation.yaml.
"""

import math

import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import course, curve, differences
from bnstudy.studies.kit import (
    NORM,
    TEST,
    TRAINING,
    Panel,
    Published,
    comparable,
    extended,
    in_order,
    panels,
    select,
    sequence,
    trained,
    values,
)

PHI, DEPTH, EPOCHS = "model.activation", "model.depth", "train.epochs"
GROWTH, GRADIENT, SATURATED = "gradient_growth", "layer_gradient", "saturated"
MAIN = 10  # layers, of the primary claim
BETTER = 5.0  # pp: a difference that matters beside errors of about 10 %
ALIKE = 3.0  # pp: batch against layer norm, a margin that 12 seeds can decide
LOST = math.log10(16)  # decades a layer: slopes of a sigmoid are 1 / 4 at most
SOURCE = "Ioffe & Szegedy 2015"
PUBLISHED = Published(
    "unconfirmed", f"{SOURCE}, section 4.2.2",
    "Inception with sigmoids in the place of ReLU, ImageNet: accuracy with BN in %; without it no "
    "better than chance (one in a thousand)",
    {"with BN": 69.8},
)  # fmt: skip


def prepared(table: pd.DataFrame) -> list[Panel]:
    """The data sets; with the saturated part of a run, mean over its layers."""
    layers = [name for name in table if str(name).startswith(f"{SATURATED}/")]
    return panels(extended(table, {SATURATED: table[layers].mean(axis=1)}))


def split(panel: Panel, phi: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The runs of an activation: at initialization, and trained."""
    rows = select(panel.rows, {PHI: phi})
    return rows[rows[EPOCHS] == 0], rows[rows[EPOCHS] > 0]


def main_depth(panel: Panel) -> int:
    """The depth of the primary claim: ten layers, or the deepest that there is."""
    depths = {int(depth) for depth in panel.rows[DEPTH]}
    return MAIN if MAIN in depths else max(depths)


def against(
    rows: pd.DataFrame, depth: int, first: str, second: str, metric: str, factor: float = 100
) -> dict[int, float]:
    """A metric of the first norm minus that of the second at a depth, by seed."""
    return paired_differences(
        *(values(rows, metric, {NORM: norm, DEPTH: depth}, factor) for norm in (first, second))
    )


# --- figures -------------------------------------------------------------------------------------


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Test error by depth with sigmoids, what the norms gain, gradients at initialization."""
    panel = prepared(table)[0]
    return [_errors(panel, "sigmoid"), _gains(panel), _gradients(panel, "sigmoid")]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """The same with tanh; the saturated part after training."""
    found = []
    for panel in prepared(table):
        if not panel.main:
            found += [_errors(panel, "sigmoid"), _gradients(panel, "sigmoid")]
        found += [_errors(panel, "tanh"), _gradients(panel, "tanh")]
        found += [_saturated(panel, phi) for phi in ("sigmoid", "tanh")]
    return found


def _errors(panel: Panel, phi: str) -> figures.Panel:
    rows = split(panel, phi)[1]
    curves = [
        curve(select(rows, {NORM: norm}), DEPTH, "test_error", norm=norm)
        for norm in in_order(rows[NORM])
    ]
    data = panel.title.partition(",")[0]
    return figures.Panel(f"{data}, {phi}", curves, "layers", ceiling=100)


def _gains(panel: Panel) -> figures.Panel:
    depth, rows, styles = main_depth(panel), {}, []
    for i, phi in enumerate(("sigmoid", "tanh")):
        for norm in ("batch", "layer"):
            after = split(panel, phi)[1]
            rows[f"{phi}, {norm} norm"] = against(after, depth, "none", norm, "test_error")
            styles.append(figures.hue(2 * i + (norm == "layer")))
    return differences(f"{depth} layers: gain by a norm", rows, styles,
                       claim=f"{panel.key}: sigmoid")  # fmt: skip


def _gradients(panel: Panel, phi: str) -> figures.Panel:
    """Squared gradients by layer in untrained networks of the primary claim's depth."""
    rows = select(split(panel, phi)[0], {DEPTH: main_depth(panel)})
    curves = [
        course(select(rows, {NORM: norm}), GRADIENT, norm=norm, percent=False)
        for norm in in_order(rows[NORM])
    ]
    return figures.Panel(f"{phi}, untrained", curves, "layer", "log10 of the squared gradient",
                         x="linear", floor=None)  # fmt: skip


def _saturated(panel: Panel, phi: str) -> figures.Panel:
    rows = split(panel, phi)[1]
    curves = [
        curve(select(rows, {NORM: norm}), DEPTH, SATURATED, norm=norm)
        for norm in in_order(rows[NORM])
    ]
    return figures.Panel(f"{phi}, trained", curves, "layers", "saturated units (%)", ceiling=100)


# --- claims --------------------------------------------------------------------------------------


def claims(table: pd.DataFrame) -> list[Claim]:
    """Errors of norms at the main depth, sigmoids first; gradients and saturation."""
    return [claim for panel in prepared(table) for claim in _claims_of(panel)]


def _claims_of(panel: Panel) -> list[Claim]:
    depth, shallow = main_depth(panel), int(panel.rows[DEPTH].min())
    found = []
    for phi in ("sigmoid", "tanh"):
        end = split(panel, phi)[1]
        ready = [
            trained(select(end, {NORM: "batch", DEPTH: shallow}), f"{shallow} layers, BN"),
            comparable(panel.rows),
        ]
        claim = panel.claims(source=SOURCE, preconditions=ready)
        title = f"{depth} layers with {phi}"
        own = claim(
            phi, f"{title} have a test error at least {BETTER:g} pp lower with BN than without",
            against(end, depth, "none", "batch", "test_error"), threshold=BETTER, estimand=TEST,
            primary=panel.main and phi == "sigmoid",
            **({"expected": "refuted: Xavier networks with tanh learn"} if phi == "tanh"
               else PUBLISHED.cite("69.8 % accuracy against chance, Inception on ImageNet")),
        )  # fmt: skip
        alike = claim(
            f"{phi}, layer norm",
            f"{title} have test errors that differ by less than {ALIKE:g} pp with layer norm and "
            "BN",
            against(end, depth, "layer", "batch", "test_error"), "equivalent", threshold=ALIKE,
            estimand=TEST,
            expected="refuted: gradients vanish with it, too" if phi == "sigmoid" else "supported",
        )  # fmt: skip
        found += sequence(own, alike)
        found.append(claim(
            f"{phi}, training", f"{title} have a lower training error with BN than without",
            against(end, depth, "none", "batch", "train_error"), estimand=TRAINING,
        ))  # fmt: skip
        found += _reasons(panel, claim, phi, title, depth)
    return found


def _reasons(panel: Panel, claim, phi: str, title: str, depth: int) -> list[Claim]:
    """Vanishing gradients at initialization, and saturated units after training."""
    start, end = split(panel, phi)

    def decades(norm: str) -> dict[int, float]:
        growth = values(start, GROWTH, {NORM: norm, DEPTH: depth}, factor=1)
        return {seed: math.log10(value) for seed, value in growth.items()}

    of_gradients = {
        "unit": "decades", "estimand": "squared gradient, growth per layer at initialization",
        "preconditions": [comparable(start)],
    }  # fmt: skip
    found = [
        claim(
            f"{phi}, BN keeps gradients",
            f"in untrained {title} and BN the squared gradient does not shrink towards the input",
            decades("batch"), "demonstration",
            source="wide layers: E[phi'^2] is at least Var phi (Poincare)", **of_gradients,
        ),
        claim(
            f"{phi}, saturated",
            f"fewer units of {title} are saturated after training with BN than without",
            against(end, depth, "none", "batch", SATURATED),
            estimand="part of saturated units after training",
            preconditions=[  # what has not moved from its start is not saturated
                *(trained(select(end, {NORM: norm, DEPTH: depth}), f"{depth} layers, {norm}")
                  for norm in ("none", "batch")),
                comparable(panel.rows),
            ],
        ),
    ]  # fmt: skip
    if phi == "sigmoid":
        lost = {seed: -value for seed, value in decades("none").items()}
        found.append(claim(
            f"{phi}, vanishing",
            f"in untrained {title} and no norm the squared gradient shrinks by 16 or more a layer",
            lost, "demonstration", threshold=LOST, **of_gradients,
        ))  # fmt: skip
    return found
