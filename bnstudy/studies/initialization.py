"""Test error by the scale of the initial weights, with and without a norm (Ioffe & Szegedy 2015).

Primary claim: from the usual scale to others the test error of a ReLU network rises more without a
norm than with batch norm. It can fail: behind a norm the scale of weights changes no output, but it
changes the rate at which steps turn them. Written before the first run of
configs/study/initialization.yaml.
"""

import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import curve, differences
from bnstudy.studies.kit import (
    EMA,
    NORM,
    TEST,
    Panel,
    Published,
    comparable,
    filled,
    in_order,
    panels,
    select,
    trained,
    values,
)

PHI, SCALE = "model.activation", "model.init_scale"
NAMES = {"relu": "ReLU", "tanh": "tanh"}
USUAL = 1.0  # He's for ReLU, Xavier's for tanh: the scale at which rates are tuned
MARGIN = 1.0  # pp: rises of two norms that are alike
SOURCE = "Ioffe & Szegedy 2015, section 3.3"
PUBLISHED = Published(
    "published", SOURCE, "BN(W u) = BN((a W) u), and the gradient by a W is 1 / a of that by W; no "
    "experiment with scales of weights", {},
)  # fmt: skip


def prepared(table: pd.DataFrame) -> list[Panel]:
    """The data sets, with the scale where it is the neutral one."""
    return panels(filled(table, {SCALE: USUAL}))


def rise(
    panel: Panel, phi: str, norm: str, metric: str = "test_error", scales: tuple[float, ...] = ()
) -> dict[int, float]:
    """Seed -> mean error at other scales (by default all) minus that at the usual one, in pp."""
    rows = select(panel.rows, {PHI: phi, NORM: norm})
    others = rows[rows[SCALE].isin(scales or set(rows[SCALE]) - {USUAL})]
    means = 100 * others.groupby("seed")[metric].mean(skipna=False)
    return paired_differences(dict(means), values(rows, metric, {SCALE: USUAL}))


# --- figures -------------------------------------------------------------------------------------


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Test error by scale for ReLU and tanh, and the mean rise of each norm."""
    main = prepared(table)[0]
    return [*(_errors(main, phi) for phi in NAMES), _rises(main)]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """Training errors, and other data sets."""
    found = []
    for panel in prepared(table):
        metrics = ["train_error"] if panel.main else ["test_error", "train_error"]
        found += [_errors(panel, phi, metric) for metric in metrics for phi in NAMES]
    return found


def _errors(panel: Panel, phi: str, metric: str = "test_error") -> figures.Panel:
    rows = select(panel.rows, {PHI: phi})
    curves = [
        curve(select(rows, {NORM: norm}), SCALE, metric, norm=norm) for norm in in_order(rows[NORM])
    ]
    data = panel.title.partition(",")[0]
    what = "test error (%)" if metric == "test_error" else "training error (%)"
    return figures.Panel(f"{data}, {NAMES[phi]}", curves, "scale of the initial weights", what,
                         x="log10", ceiling=100)  # fmt: skip


def _rises(panel: Panel) -> figures.Panel:
    """What each norm's rise is below that without a norm."""
    rows, styles = {}, []
    for i, phi in enumerate(NAMES):
        for norm in ("batch", "layer"):
            rows[f"{NAMES[phi]}, {norm} norm"] = spared(panel, phi, norm)
            styles.append(figures.hue(2 * i + (norm == "layer")))
    return differences("rise that a norm spares", rows, styles, claim=f"{panel.key}: relu")


def spared(panel: Panel, phi: str, norm: str) -> dict[int, float]:
    """Rise without a norm minus that with one, in pp, by seed."""
    return paired_differences(rise(panel, phi, "none"), rise(panel, phi, norm))


# --- claims --------------------------------------------------------------------------------------


def claims(table: pd.DataFrame) -> list[Claim]:
    """Rises without a norm against those with batch norm, then layer norm, and BN's own."""
    return [claim for panel in prepared(table) for claim in _claims_of(panel)]


def _claims_of(panel: Panel) -> list[Claim]:
    found = []
    large = float(panel.rows[SCALE].max())
    for phi, name in NAMES.items():
        usual = select(panel.rows, {PHI: phi, SCALE: USUAL})
        ready = [trained(usual, f"{name}, usual scale"), comparable(panel.rows)]
        claim = panel.claims(source=SOURCE, preconditions=ready, estimand=f"{TEST}, rise")
        found += [
            claim(
                phi,
                f"with {name} other scales of the initial weights raise the test error more "
                "without a norm than with BN",
                spared(panel, phi, "batch"), primary=panel.main and phi == "relu",
            ),
            claim(
                f"{phi}, layer norm",
                f"with {name} other scales raise the test errors with layer norm and BN alike, "
                f"within {MARGIN:g} pp",
                paired_differences(rise(panel, phi, "layer"), rise(panel, phi, "batch")),
                "equivalent", threshold=MARGIN,
            ),
            claim(
                f"{phi}, rate",
                f"with {name} and BN the test error is higher from {large:g} times the usual "
                "weights, those behind the logits included, than from the usual ones",
                rise(panel, phi, "batch", scales=(large,)), estimand=f"{EMA}, rise",
            ),
        ]  # fmt: skip
    return found
