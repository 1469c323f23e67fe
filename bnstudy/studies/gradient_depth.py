"""Growth of gradients with depth at initialization, against theory (Yang et al. 2019).

Primary claim: in a plain ReLU network with batch norm the squared gradient grows by pi / (pi - 1) a
layer, within what a finite width lets one expect. It can fail: the constant is for infinite width
and batch. Where only a derivation of ours exists (finite batches, shortcuts) claims are secondary;
a batch of 4 is expected to refute them. Beside them what the constant does not say: layer norm
with tanh explodes like batch norm, and without a norm a ReLU network keeps its gradients. Written
before the first run of configs/study/gradient_depth.yaml.
"""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from bnstudy import figures
from bnstudy.figures import Band, Curve, Style
from bnstudy.mean_field import predicted_growth, predicted_residual
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import course, curve, differences
from bnstudy.studies.kit import (
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
    values,
)

PHI, RESIDUAL, BATCH, DEPTH = (
    "model.activation",
    "model.residual",
    "train.batch_size",
    "model.depth",
)
GROWTH, GRADIENT = "gradient_growth", "layer_gradient"
NAMES = {"relu": "ReLU", "tanh": "tanh", "identity": "no activation"}
HUES = {phi: figures.hue(i) for i, phi in enumerate(NAMES)}
WITHIN = 3.0  # %: three to five standard errors of 12 networks of width 512, see the YAML's notes
OF_LOGARITHM = 10.0  # %; without growth in the branches it would be about a third less
REFERENCE = 128  # examples: the batch at which norms and shortcuts are compared
ESTIMAND = "squared gradient by the activations, growth per layer at initialization"
SOURCE = "Yang et al. 2019"
PUBLISHED = Published(
    "unconfirmed", SOURCE,
    "plain networks of infinite width with batch norm: growth of the squared gradient per layer; "
    "of the identity (B - 2) / (B - 3)",
    {"relu": round(math.pi / (math.pi - 1), 3)},
)  # fmt: skip


def prepared(table: pd.DataFrame) -> list[Panel]:
    """The data sets, white noise first: the claims are about it."""
    return panels(filled(table, {RESIDUAL: True}), data="gaussian")


def predicted(norm: str, phi: str, batch: float, depth: int, residual: bool = False) -> float:
    """What theory says of a cell's growth; NaN where it says no constant."""
    if residual:
        return predicted_residual(norm, phi, batch, depth - 1)  # the first layer is no branch
    return predicted_growth(norm, phi, batch)


def error(
    panel: Panel, norm: str, phi: str, batch: int, residual: bool = False, limit: bool = False
) -> dict[int, float]:
    """Seed -> measured over predicted growth, in %; `limit`: that of an infinite batch."""
    rows = select(panel.rows, {NORM: norm, PHI: phi, BATCH: batch, RESIDUAL: residual})
    depth = int(panel.rows[DEPTH].iloc[0])
    theory = predicted(norm, phi, math.inf if limit else batch, depth, residual)
    found = values(rows, GROWTH, factor=1)
    return {seed: 100 * math.log(value / theory) for seed, value in found.items()}


def excess(panel: Panel, phi: str) -> dict[int, float]:
    """Seed -> the logarithm of growth with shortcuts, against the predicted one, in %.

    Of the logarithm, since a few percent a layer are near what branches without growth give.
    """
    rows = select(panel.rows, {NORM: "batch", PHI: phi, BATCH: REFERENCE, RESIDUAL: True})
    theory = predicted("batch", phi, REFERENCE, int(panel.rows[DEPTH].iloc[0]), residual=True)
    found = values(rows, GROWTH, factor=1)
    return {seed: 100 * (math.log(g) / math.log(theory) - 1) for seed, g in found.items()}


# --- figures -------------------------------------------------------------------------------------


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Growth by the batch beside theory, what they differ by, and gradients by layer."""
    main = prepared(table)[0]
    return [_by_batch(main), _against_theory(main), _by_layer(main, "relu")]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """Growth by norm, plain and with shortcuts; gradients by layer; other data."""
    main, *others = prepared(table)
    found = [_by_norm(main, residual) for residual in (False, True)]
    found += [_by_layer(main, phi) for phi in ("tanh", "identity")]
    return [*found, *(_by_batch(panel) for panel in others)]


def _by_batch(panel: Panel) -> figures.Panel:
    """Growth with batch norm by the batch, measured and predicted, for each activation."""
    rows = select(panel.rows, {NORM: "batch", RESIDUAL: False})
    curves = []
    for phi, style in HUES.items():
        own = select(rows, {PHI: phi})
        curves.append(
            curve(own, BATCH, GROWTH, style=style, label=NAMES[phi], percent=False, dots=False)
        )
        theory = {batch: predicted_growth("batch", phi, batch) for batch in sorted(set(own[BATCH]))}
        curves.append(_line(NAMES[phi], theory, style))
    return figures.Panel(
        f"{panel.title.partition(',')[0]}: plain, BN", curves, "batch (examples)",
        "growth per layer (factor)", floor=None,
    )  # fmt: skip


def _line(label: str, points: Mapping[Any, float], style: Style) -> Curve:
    """A prediction as a curve."""
    frame = pd.DataFrame({"x": list(points), "mean": list(points.values())})
    return Curve(label, frame.assign(low=math.nan, high=math.nan), style, source="predicted")


def _against_theory(panel: Panel) -> figures.Panel:
    """Measured over predicted growth: of plain networks by batch, with shortcuts, of layer norm."""
    rows = {
        f"{NAMES[phi]}, batch {batch}": error(panel, "batch", phi, batch, limit=phi == "relu")
        for phi in ("relu", "identity")
        for batch in _large(panel)
    }
    styles = [HUES[phi] for phi in ("relu", "identity") for _ in _large(panel)]
    for phi in ("relu", "tanh"):
        rows[f"{NAMES[phi]}, shortcuts"] = error(panel, "batch", phi, REFERENCE, residual=True)
        styles.append(HUES[phi])
    return differences(
        "BN, against theory", rows, styles, ylabel="growth, measured over predicted (%)",
        bands=[Band(-WITHIN, WITHIN, f"within {WITHIN:g} %")],
        claim=f"{panel.data}: relu, batch {_large(panel)[0]}",
    )  # fmt: skip


def _by_layer(panel: Panel, phi: str) -> figures.Panel:
    """Squared gradients by layer for each norm, and with shortcuts, at the reference batch."""
    rows = select(panel.rows, {PHI: phi, BATCH: REFERENCE})
    curves = [
        course(select(rows, {NORM: norm, RESIDUAL: False}), GRADIENT, norm=norm, percent=False)
        for norm in in_order(rows[NORM])
    ]
    shortcuts = select(rows, {NORM: "batch", RESIDUAL: True})
    curves.append(
        course(shortcuts, GRADIENT, style=figures.hue(4), label="batch, shortcuts", percent=False)
    )
    return figures.Panel(f"{NAMES[phi]}, batch {REFERENCE}", curves, "layer",
                         "log10 of the squared gradient", x="linear", floor=None)  # fmt: skip


def _by_norm(panel: Panel, residual: bool) -> figures.Panel:
    """Growth of every norm by activation, measured and predicted, at the reference batch."""
    rows = select(panel.rows, {RESIDUAL: residual, BATCH: REFERENCE})
    rows = extended(rows, {"activation": rows[PHI].map(NAMES)})
    rows = rows.sort_values(PHI, key=lambda names: names.map(list(NAMES).index), kind="stable")
    depth, curves = int(panel.rows[DEPTH].iloc[0]), []
    for norm in in_order(rows[NORM]):
        own = select(rows, {NORM: norm})
        theory = {
            name: predicted(norm, phi, REFERENCE, depth, residual) for phi, name in NAMES.items()
        }
        curves.append(curve(own, "activation", GROWTH, norm=norm, percent=False, dots=False))
        style = figures.style_of(norm)
        curves.append(_line(style.label, theory, style))
    return figures.Panel("with shortcuts" if residual else "plain", curves, "activation",
                         "growth per layer (factor)", x="names", floor=None)  # fmt: skip


# --- claims --------------------------------------------------------------------------------------


def claims(table: pd.DataFrame) -> list[Claim]:
    """White noise: batch norm at large batches; other batches, norms and shortcuts."""
    panel = prepared(table)[0]
    claim = panel.claims(
        panel.data, preconditions=[comparable(panel.rows)], source=SOURCE, unit="%",
        estimand=ESTIMAND,
    )  # fmt: skip

    def agrees(name: str, text: str, values: dict[int, float], **own) -> Claim:
        whole = f"{text} within {WITHIN:g} %"
        return claim(name, whole, values, "equivalent", threshold=WITHIN, **own)

    large = _large(panel)
    first = [
        agrees(
            f"{phi}, batch {batch}",
            f"with BN, {NAMES[phi]} and batches of {batch} the squared gradient grows by {says} a "
            "layer",
            error(panel, "batch", phi, batch, limit=phi == "relu"),
            primary=phi == "relu" and batch == large[0],
            **PUBLISHED.cite(f"{says} at infinite width"),
        )
        for phi, says in (("relu", "pi / (pi - 1)"), ("identity", "(B - 2) / (B - 3)"))
        for batch in large
    ]
    return [*sequence(*first), *_derived(panel, claim, agrees), *_causes(panel, claim, agrees)]


def _large(panel: Panel) -> list[int]:
    """The batches at which the constant of infinite batches is to hold."""
    return [int(batch) for batch in sorted(set(panel.rows[BATCH])) if batch >= REFERENCE]


def _derived(panel: Panel, claim, agrees) -> list[Claim]:
    """Finite batches and shortcuts, of which the source says less: the predictions derived here."""
    found = []
    for phi in NAMES:
        for batch in sorted(int(b) for b in set(panel.rows[BATCH])):
            if batch >= REFERENCE and phi != "tanh":  # judged in the sequence
                continue
            found.append(agrees(
                f"{phi}, batch {batch}, finite",
                f"with BN, {NAMES[phi]} and batches of {batch} the squared gradient grows as "
                "predicted for this batch",
                error(panel, "batch", phi, batch),
                expected="refuted: no finite variance" if batch == 4 else "supported",
            ))  # fmt: skip
        found.append(claim(
            f"{phi}, shortcuts",
            f"with BN, {NAMES[phi]} and shortcuts the logarithm of the squared gradient grows as "
            f"predicted within {OF_LOGARITHM:g} %",
            excess(panel, phi), "equivalent", threshold=OF_LOGARITHM, source="derived",
        ))  # fmt: skip
    return found


def _causes(panel: Panel, claim, agrees) -> list[Claim]:
    """Whether it is batch norm that makes gradients grow."""

    def logs(norm: str, phi: str) -> dict[int, float]:
        where = {NORM: norm, PHI: phi, BATCH: REFERENCE, RESIDUAL: False}
        found = values(panel.rows, GROWTH, where, factor=1)
        return {seed: 100 * math.log(value) for seed, value in found.items()}

    return [
        claim(
            "BN causes growth", "with ReLU the squared gradient grows more with BN than without",
            paired_differences(logs("batch", "relu"), logs("none", "relu")), "demonstration",
            source="Yang et al. 2019; against Ioffe & Szegedy 2015, section 1",
        ),
        agrees("none, relu", "without a norm a ReLU network keeps its squared gradient",
               error(panel, "none", "relu", REFERENCE), source="He et al. 2015, eq. 14"),
        agrees("layer, relu", "with layer norm a ReLU network keeps its squared gradient",
               error(panel, "layer", "relu", REFERENCE), source="derived"),
        agrees(
            "layer like batch, tanh",
            "with tanh the squared gradient grows alike with layer norm and with BN",
            paired_differences(logs("layer", "tanh"), logs("batch", "tanh")), source="derived",
        ),
    ]  # fmt: skip
