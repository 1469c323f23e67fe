"""Networks of two notebooks, many times: LeNet of a textbook's chapter, and a small MLP with Adam.

The chapter trains LeNet with BN twice, with a BN of its own and with torch.nn's; the two have equal
training accuracy and differ by ten points of test accuracy. Primary claim: after the first quarter
of the epochs the exponential average's test error exceeds PreciseBN's, so that a part of what such
notebooks print is their running averages. Beside it: whose BN it is makes no difference, and BN
against no norm. Written before the first run of the seeds in configs/study/notebook.yaml.
"""

from typing import Any

import pandas as pd

from bnstudy import figures
from bnstudy.figures import Band, Curve
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import across, cited, course, curve, differences, reported
from bnstudy.studies.ema_vs_precise import checkpoints, late, late_gap
from bnstudy.studies.kit import (
    EMA,
    NORM,
    PRECISE,
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

SOURCE = "Dive into Deep Learning, batch normalization"
WHAT = "LeNet with BN, sigmoid, lr 1.0, batch 256, 10 epochs, one run each"
ON = "Fashion-MNIST"
PUBLISHED = Published(
    "published", SOURCE, f"{WHAT}; {ON}; the second by torch.nn.BatchNorm2d",
    {
        "run": ["from scratch", "torch.nn", "Paddle", "a reader's"],
        "training accuracy": [0.899, 0.902, 0.907, 0.901],
        "test accuracy": [0.807, 0.708, 0.843, 0.853],
        "without BN, lr 0.9": {"training accuracy": 0.823, "test accuracy": 0.779},
    },
)  # fmt: skip
EPOCHS = Published(
    "digitised", SOURCE, f"{WHAT}; {ON}; test accuracy by epoch, 0.002 either way",
    {
        "epoch": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
        "from scratch": [.756, .795, .764, .795, .790, .837, .856, .766, .834, .808],
        "torch.nn": [.730, .828, .683, .832, .812, .882, .793, .790, .851, .708],
    },
)  # fmt: skip
GAMMA = Published(
    "published", SOURCE, f"{WHAT}; {ON}; gamma of the first layer, sorted",
    {"channel": [1, 2, 3, 4, 5, 6], "gamma": [0.486, 1.794, 2.319, 2.857, 3.859, 4.319]},
)  # fmt: skip
SAME = 0.5  # pp: margin between two implementations; a twentieth of the chapter's difference
OWN, TORCH, NONE = "batch", "torch_batch", "none"


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Test error by epoch and statistics, what explains a difference, gamma of the first layer."""
    main = panels(table, model="lenet")[0]
    return [_course(main), _explained(main), _gammas(main)]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """The last epoch beside the published runs; affine maps by layer; BN against no norm."""
    found = []
    for panel in panels(table, model="lenet"):
        if panel.main:
            found += [_last(panel), *_layers(panel)]
        found += [
            _by_norm(panel, "test_error", "test error (%)"),
            _by_norm(panel, "train_error", "training error (%)"),
        ]
    return found


def _own(panel: Panel) -> pd.DataFrame:
    """The runs with this package's BN."""
    return select(panel.rows, {NORM: OWN})


def _course(panel: Panel) -> figures.Panel:
    """Test error by epoch, and the chapter's."""
    numbers = checkpoints(_own(panel))
    own = _own(panel)[["seed", *(f"{kind}_error/{n}" for kind in ("ema", "precise")
                                 for n in numbers)]]  # fmt: skip
    curves = [
        course(own, "ema_error", norm=OWN, label="average"),
        course(own, "precise_error", norm=OWN, mode="precise"),
        *(_errors(name, i) for i, name in enumerate(("from scratch", "torch.nn"))),
    ]
    return figures.Panel(panel.title, curves, xlabel="epoch", x="linear", y="log10", ceiling=100)


def _errors(name: str, i: int) -> Curve:
    """A published course of test accuracy as error in percent."""
    errors = {**EPOCHS.values, name: [round(100 * (1 - a), 1) for a in EPOCHS[name]]}
    own = Published(EPOCHS.kind, EPOCHS.source, EPOCHS.what, errors)
    return cited(own, name, "epoch", style=figures.hue(i + 1), label=f"{ON}, {name}")


def _explained(panel: Panel) -> figures.Panel:
    """What whose BN it is explains, and what the average does; the chapter's difference."""
    rows = {"average minus PreciseBN": late_gap(_own(panel)), **_implementations(panel)}
    theirs = dict(zip(PUBLISHED["run"], PUBLISHED["test accuracy"], strict=True))
    chapter = round(100 * (theirs["torch.nn"] - theirs["from scratch"]), 1)
    styles = [figures.hue(0), figures.hue(3)][: len(rows)]
    return differences(
        "epochs after the first quarter", rows, styles,
        beside=[reported(PUBLISHED, f"{ON}: own minus torch.nn", chapter, style=figures.hue(3))],
        bands=[Band(-SAME, SAME, f"within {SAME:g} pp")], claim=f"{panel.key}: late gap",
    )  # fmt: skip


def _implementations(panel: Panel) -> dict[str, dict[int, float]]:
    """This package's BN minus torch.nn's, mean over late epochs, where both were trained."""
    theirs = select(panel.rows, {NORM: TORCH})
    if not len(theirs):
        return {}
    return {"own BN minus torch.nn's": paired_differences(
        _late(_own(panel), "ema_error"), _late(theirs, "ema_error")
    )}  # fmt: skip


def _late(rows: pd.DataFrame, error: str) -> dict[int, float]:
    """Seed -> mean of an error over the late epochs, in percent."""
    columns = [f"{error}/{n}" for n in late(rows)]
    return values(extended(rows, {"late": rows[columns].mean(axis=1)}), "late")


def _gammas(panel: Panel) -> figures.Panel:
    """The first layer's gamma, sorted within each network, and the chapter's."""
    curves = [
        course(_own(panel), "first_gamma", norm=OWN, label=panel.title, percent=False),
        cited(GAMMA, "gamma", "channel", style=figures.hue(1), label=f"{ON}, from scratch"),
    ]
    return figures.Panel("gamma of the first layer", curves, xlabel="channel, by size",
                         ylabel="gamma (1 at the start)", x="linear")  # fmt: skip


def _last(panel: Panel) -> figures.Panel:
    """Test error after the last epoch by statistics, each seed a dot; the published runs."""
    columns = {"average": "test_error", "PreciseBN": "test_error_precise"}
    curves = [
        across(_own(panel), {0: column}, style=figures.hue(i), label=label)
        for i, (label, column) in enumerate(columns.items())
    ]
    for run, accuracy in zip(PUBLISHED["run"], PUBLISHED["test accuracy"], strict=True):
        error = round(100 * (1 - accuracy), 1)
        curves.append(reported(PUBLISHED, f"{ON}, {run}", error, style=figures.hue(3)))
    return figures.Panel("after the last epoch", curves, kind="dots", ceiling=100)


def _layers(panel: Panel) -> list[figures.Panel]:
    """Mean and spread over the channels of gamma and beta, by layer."""
    found = []
    for name in ("gamma", "beta"):
        curves = [
            course(_own(panel), f"{name}_{what}", style=figures.hue(i), label=label, percent=False)
            for i, (what, label) in enumerate((("mean", "mean"), ("sd", "s.d. over channels")))
        ]
        found.append(figures.Panel(f"{name} by layer", curves, xlabel="layer", x="linear",
                                   ylabel=f"{name} (learned)", floor=None))  # fmt: skip
    return found


def _by_norm(panel: Panel, metric: str, ylabel: str) -> figures.Panel:
    """A final error of every arm."""
    rows = [
        curve(extended(own, {"one": 0}), "one", metric, norm=norm)
        for norm in in_order(panel.rows[NORM])
        if len(own := select(panel.rows, {NORM: norm}))
    ]
    return figures.Panel(panel.title, rows, ylabel=ylabel, kind="dots", ceiling=100)


def claims(table: pd.DataFrame) -> list[Claim]:
    """The late gap, swings and whose BN it is in LeNet; BN against no norm in both networks."""
    found = []
    for panel in panels(table, model="lenet"):
        if panel.model == "lenet":
            found += _on_statistics(panel)
        if (panel.rows[NORM] == NONE).any():
            found += _against_none(panel)
    return found


def _on_statistics(panel: Panel) -> list[Claim]:
    own = _own(panel)
    ready = [trained(own, "batch"), comparable(panel.rows)]
    claim = panel.claims(source=SOURCE, preconditions=ready)
    between = f"{EMA} minus {PRECISE}"
    found = sequence(
        claim(
            "late gap",
            "the exponential average's test error exceeds PreciseBN's, mean over the epochs after "
            "the first quarter",
            late_gap(own), primary=panel.main, estimand=between,
        ),
        claim(
            "swings",
            "from epoch to epoch the exponential average's error has the larger standard deviation",
            values(own, "log_sd_ratio", factor=1), unit="octaves",
            estimand=f"standard deviation over epochs, {EMA} against {PRECISE}",
        ),
    )  # fmt: skip
    for implementations in _implementations(panel).values():
        found.append(claim(
            "whose BN",
            f"the test errors of this package's BN (plain formula) and of torch.nn's differ by "
            f"less than {SAME:g} pp, mean over the epochs after the first quarter",
            implementations, "equivalent", threshold=SAME, estimand=EMA,
            published="+9.9 pp, one run each (published)",
        ))  # fmt: skip
    return found


def _against_none(panel: Panel) -> list[Claim]:
    """What the network without norms has more than the one with BN, at equal settings."""
    ready = [trained(_own(panel), "batch"), comparable(panel.rows)]
    claim = panel.claims(source=SOURCE, preconditions=ready)
    kinds: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
        ("learns faster", "training", "train_error", {"estimand": TRAINING}),
        ("tests better", "test", "test_error", {"estimand": TEST}),
    )
    published = {
        "learns faster": PUBLISHED.cite(f"{{}} pp on {ON}, one run each, lr 0.9 and 1.0", 7.6),
        "tests better": PUBLISHED.cite(f"{{}} pp on {ON}, one run each, lr 0.9 and 1.0", 2.8),
    }
    return [
        claim(
            name,
            f"without a norm the {error} error is higher than with BN, at equal settings",
            panel.difference({NORM: NONE}, {NORM: OWN}, metric),
            **common, **(published[name] if panel.model == "lenet" else {}),
        )
        for name, error, metric, common in kinds
    ]  # fmt: skip
