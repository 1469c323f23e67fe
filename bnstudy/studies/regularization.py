"""The gap between training and test error with BN, dropout and weight decay, and BN for dropout.

Primary claim: in the MLP, BN without dropout has at most 1 pp more test error than no norm at the
rate of dropout that is best for it (Ioffe & Szegedy 2015: BN in some cases eliminates the need for
dropout). Every cell has a learning rate that pilots chose; the rate of dropout of an arm is that of
least validation error, a mean over all seeds. The gap is the test error minus the error on the
training part, both in evaluation mode after training. Written before the first run.
"""

from typing import Any

import pandas as pd

from bnstudy import figures
from bnstudy.figures import Band, Curve
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import curve, differences, networks, reported
from bnstudy.studies.kit import (
    EMA,
    NORM,
    TEST,
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

B, DROPOUT, DECAY = "train.batch_size", "model.dropout", "optimizer.weight_decay"
REFERENCE = {B: 32, DROPOUT: 0.0, DECAY: 0.0}
GAP, FIT = "gap", "fit_error"
ESTIMAND = "test error minus error on the training part, evaluation mode"
WITHIN = 1.0  # pp: what nobody would add a layer for; errors here are 5 to 20 %
PUBLISHED = Published(
    "unconfirmed", "Ioffe & Szegedy 2015, section 4.2.1",
    "Inception, ImageNet: validation accuracy in %, with dropout and no BN, and BN-x5: no "
    "dropout, five times the rate and the other changes of section 4.2.1",
    {"none": 72.2, "batch": 73.0},
)  # fmt: skip


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """With the gap of each run, a fraction."""
    table = filled(table, {DROPOUT: 0.0, DECAY: 0.0})
    return extended(table, {GAP: table["test_error"] - table[FIT]})


def main_first(table: pd.DataFrame) -> list[Panel]:
    """The panels; the primary claim is about the MLP."""
    return panels(prepared(table), model="mlp")


def at(norm: str, **other: float) -> dict[str, object]:
    """A cell: the reference but for what is named, `B`, `DROPOUT` or `DECAY`."""
    return {NORM: norm, **REFERENCE, **other}


def along(panel: Panel, norm: str, axis: str) -> pd.DataFrame:
    """The runs of an arm in which nothing but this differs from the reference."""
    rest = {name: value for name, value in REFERENCE.items() if name != axis}
    return select(panel.rows, {NORM: norm, **rest})


def rate(panel: Panel, norm: str) -> float:
    """The rate of dropout of least validation error, a mean over the seeds."""
    means = along(panel, norm, DROPOUT).groupby(DROPOUT)["val_error"].mean()
    return float(means.idxmin())


# --- figures -------------------------------------------------------------------------------------


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Test error by dropout in the main panel, what BN alone loses, the gap by batch size."""
    found = main_first(table)
    return [
        _over(found[0], DROPOUT, "test_error", "test error (%)"),
        _replaced(found),
        _over(found[0], B, GAP, "test minus training error (pp)"),
    ]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """Gap, test and training error of every network over batch size, dropout and weight decay."""
    metrics = {
        GAP: "test minus training error (pp)",
        "test_error": "test error (%)",
        FIT: "error on the training part (%)",
    }
    return [
        _over(panel, axis, metric, label)
        for panel in main_first(table)
        for axis in (B, DROPOUT, DECAY)
        for metric, label in metrics.items()
    ]


def _over(panel: Panel, axis: str, metric: str, ylabel: str) -> figures.Panel:
    """A metric over one setting, a curve for each norm."""
    labels = {B: "batch size", DROPOUT: "dropout", DECAY: "weight decay"}
    words = axis == DECAY  # 0 has no place on a logarithmic axis
    curves: list[Curve] = []
    for norm in in_order(panel.rows[NORM]):
        rows = along(panel, norm, axis).sort_values(axis, kind="stable")
        if words:
            rows = extended(rows, {axis: rows[axis].map("{:g}".format)})
        curves.append(curve(rows, axis, metric, norm=norm))
    return figures.Panel(
        panel.title, curves, labels[axis], ylabel,
        x="names" if words else "log2" if axis == B else "linear",
        floor=None if metric == GAP else 0.0, ceiling=None if metric == GAP else 100.0,
    )  # fmt: skip


def _replaced(found: list[Panel]) -> figures.Panel:
    """What BN without dropout has more than no norm with it; what dropout gains beside BN."""
    rows, styles, called = {}, [], networks(found)
    for i, panel in enumerate(found):
        rows[f"{called[panel.key]}: minus none with"] = replaced(panel)
        rows[f"{called[panel.key]}: minus BN with"] = added(panel)
        styles += [figures.hue(i), figures.hue(i)]
    beside = [reported(PUBLISHED, "Inception, ImageNet", published(), style=figures.hue(5))]
    return differences(
        "BN without dropout", rows, styles, beside=beside,
        bands=[Band(-WITHIN, WITHIN, f"within {WITHIN:g} pp")],
        claim=f"{found[0].key}: replaces dropout",
    )  # fmt: skip


# --- claims --------------------------------------------------------------------------------------


def claims(table: pd.DataFrame) -> list[Claim]:
    """Of every network: BN for dropout, dropout beside BN, the gap, and the gap by batch size."""
    return [claim for panel in main_first(table) for claim in _claims_of(panel)]


def replaced(panel: Panel) -> dict[int, float]:
    """Test error of BN without dropout minus that of no norm at its best rate of dropout, in pp."""
    return panel.difference(at("batch"), at("none", **{DROPOUT: rate(panel, "none")}))


def added(panel: Panel) -> dict[int, float]:
    """Test error of BN without dropout minus that with it, at the best rate above 0, in pp."""
    rows = along(panel, "batch", DROPOUT)
    means = rows[rows[DROPOUT] > 0].groupby(DROPOUT)["val_error"].mean()
    return panel.difference(at("batch"), at("batch", **{DROPOUT: float(means.idxmin())}))


def narrower(panel: Panel, norm: str) -> dict[int, float]:
    """The gap in large batches minus that in small ones, in pp."""
    sizes = along(panel, norm, B)[B]
    ends = ({B: int(sizes.max())}, {B: int(sizes.min())})
    return panel.difference(*(at(norm, **end) for end in ends), GAP)


def published() -> float:
    """Error with BN minus error with dropout, in pp."""
    return round(PUBLISHED["none"] - PUBLISHED["batch"], 6)


def _claims_of(panel: Panel) -> list[Claim]:
    ready = [
        *panel.ready("BN", at("batch")),
        panel.ready("no norm at its best dropout", at("none", **{DROPOUT: rate(panel, "none")}))[0],
    ]
    dropped = f"no norm: dropout {rate(panel, 'none'):g}; BN: {rate(panel, 'batch'):g}"
    claim = panel.claims(
        source="Ioffe & Szegedy 2015", preconditions=ready,
        notes=[f"rates of dropout of least validation error, {dropped}"],
    )  # fmt: skip
    first, second = (
        claim(
            "replaces dropout",
            f"without dropout BN's test error is at most {WITHIN:g} pp above that of no norm at "
            "its best rate of dropout",
            replaced(panel), "not_worse", threshold=WITHIN, primary=panel.main, estimand=TEST,
            expected="not known beforehand",
            **PUBLISHED.cite("{} pp, Inception, dropout left out", published()),
        ),
        claim(
            "nothing to add",
            f"dropout at its best rate above 0 changes BN's test error by less than {WITHIN:g} pp",
            added(panel), "equivalent", threshold=WITHIN, estimand=EMA,
        ),
    )  # fmt: skip
    small, large = (f(along(panel, "batch", B)[B]) for f in (min, max))

    def of_gaps(*sizes: float) -> dict[str, Any]:
        """What is said of a claim about gaps: networks that have not fitted have none."""
        ready = [
            panel.ready(f"{norm}{f' at {size:g}' if size else ''}",
                        at(norm, **({B: int(size)} if size else {})))[0]
            for norm in ("batch", "none") for size in sizes or (0,)
        ]  # fmt: skip
        return {"source": "Luo et al. 2019", "estimand": ESTIMAND,
                "preconditions": [*ready, comparable(panel.rows)]}  # fmt: skip

    return [
        *sequence(first, second),
        claim(
            "narrows the gap", "BN's gap between test and training error is below that of no norm",
            panel.difference(at("none"), at("batch"), GAP), **of_gaps(),
        ),
        claim(
            "by its noise",
            f"from batch {large:g} to {small:g} BN's gap falls by more than that of no norm",
            paired_differences(narrower(panel, "batch"), narrower(panel, "none")),
            **of_gaps(small, large),
        ),
    ]  # fmt: skip
