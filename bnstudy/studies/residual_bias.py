"""Variance of residual branches at initialization, and depth that trains (De & Smith 2020).

Primary claim: with SkipInit, a learned factor of the branch that starts at zero, 50 layers reach
the training error that they have with batch norm. Beside it what that is to explain, the part of
the variance that branches have at initialization: 1 / (l + 1) in block l with batch or layer norm,
1 / 2 without a norm. It follows from independent branches and a stream of variance 1, nearly so at
any width, and is a demonstration. Written before the first run of configs/study/residual_bias.yaml.
"""

import math

import numpy as np
import pandas as pd

from bnstudy import figures
from bnstudy.figures import Band, Curve, Style
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import course, curve, differences
from bnstudy.studies.kit import (
    NORM,
    TRAINING,
    Panel,
    Published,
    comparable,
    filled,
    panels,
    select,
    trained,
    values,
)

DEPTH, BRANCH, EPOCHS = "model.depth", "model.branch", "train.epochs"
SHARE = "branch_share"
WITHIN = 5.0  # %: a branch of width 256 varies by sqrt(5 / 256) = 14 %, of which a mean over
# blocks and 12 seeds keeps about 1 %; the rest is for what the prediction leaves out
WORSE = 3.0  # pp of training error: SkipInit in the place of a norm
SOURCE = "De & Smith 2020"
PUBLISHED = Published(
    "unconfirmed", SOURCE,
    "wide residual network of 1,000 layers without a norm, SkipInit, CIFAR-10: test accuracy in %",
    {"SkipInit": 94.3},
)  # fmt: skip
ARMS: dict[str, tuple[dict[str, str], Style]] = {
    "batch": ({NORM: "batch", BRANCH: "plain"}, figures.style_of("batch")),
    "layer": ({NORM: "layer", BRANCH: "plain"}, figures.style_of("layer")),
    "no norm": ({NORM: "none", BRANCH: "plain"}, figures.style_of("none")),
    "SkipInit": ({NORM: "none", BRANCH: "skipinit"}, figures.hue(0)),
}


def prepared(table: pd.DataFrame) -> list[Panel]:
    """The data sets, with the branch where it is the neutral one."""
    return panels(filled(table, {BRANCH: "plain"}))


def start(panel: Panel, arm: str, depth: int) -> pd.DataFrame:
    """The untrained networks of an arm and depth."""
    return select(panel.rows, {**ARMS[arm][0], DEPTH: depth, EPOCHS: 0})


def end(panel: Panel, arm: str) -> pd.DataFrame:
    """The trained networks of an arm."""
    rows = select(panel.rows, ARMS[arm][0])
    return rows[rows[EPOCHS] > 0]


def deviation(panel: Panel, arm: str, depth: int) -> dict[int, float]:
    """Seed -> measured over predicted part of the branches, in %, mean logarithm over blocks.

    Predicted is 1 / (l + 1) with a norm, 1 / 2 without.
    """
    rows = start(panel, arm, depth)
    columns = sorted(c for c in rows if str(c).startswith(f"{SHARE}/") and rows[c].notna().any())
    blocks = np.arange(1, len(columns) + 1)
    theory = np.full(len(blocks), 0.5) if arm == "no norm" else 1 / (blocks + 1)
    logs = np.log(rows[columns].to_numpy(dtype=float) / theory).mean(axis=1)
    return dict(zip(rows["seed"], 100 * logs, strict=True))


def more(panel: Panel, arm: str, depth: int) -> dict[int, float]:
    """Training error of an arm at a depth minus that with batch norm, by seed, in pp."""
    own, batch = (
        values(end(panel, name), "train_error", {DEPTH: depth}) for name in (arm, "batch")
    )
    return paired_differences(own, batch)


def depths(panel: Panel) -> list[int]:
    """The depths of the grid, ascending."""
    return sorted(int(depth) for depth in set(panel.rows[DEPTH]))


# --- figures -------------------------------------------------------------------------------------


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """What is learned by depth, against batch norm, and the branches' part of the variance."""
    main = prepared(table)[0]
    return [_learned(main), _against_batch(main), _shares(main)]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """The other depths, and other data sets."""
    main, *others = prepared(table)
    found = [_against_theory(main), _learned(main, "test_error")]
    found += [_shares(main, depth) for depth in depths(main)[:-1]]
    return [*found, *(p for panel in others for p in (_shares(panel), _learned(panel)))]


def _shares(panel: Panel, depth: int | None = None) -> figures.Panel:
    """The branches' part of the variance by block; SkipInit's is zero everywhere."""
    depth = depth or depths(panel)[-1]
    curves = [
        course(rows, SHARE, style=style, label=arm)
        for arm, (_, style) in ARMS.items()
        if len(rows := start(panel, arm, depth))
    ]
    blocks = np.arange(1, max(len(c.points) for c in curves) + 1)
    theory = pd.DataFrame({"x": blocks, "mean": 100 / (blocks + 1), "low": math.nan,
                           "high": math.nan})  # fmt: skip
    line = Curve("1 / (l + 1)", theory, figures.hue(1), source="predicted")
    return figures.Panel(f"{depth} layers, untrained", [*curves, line], "residual block l",
                         "variance in the branch (%)", x="linear", ceiling=100)  # fmt: skip


def _against_theory(panel: Panel) -> figures.Panel:
    rows, styles = {}, []
    for i, depth in enumerate(depths(panel)):
        rows[f"BN, {depth} layers"] = deviation(panel, "batch", depth)
        styles.append(figures.hue(i))
    return differences(
        "BN, against 1 / (l + 1)", rows, styles, ylabel="part, measured over predicted (%)",
        bands=[Band(-WITHIN, WITHIN, f"within {WITHIN:g} %")],
    )  # fmt: skip


def _against_batch(panel: Panel) -> figures.Panel:
    """Training errors at the greatest depth minus those with batch norm."""
    depth = depths(panel)[-1]
    arms = [arm for arm in ("SkipInit", "layer", "no norm") if len(end(panel, arm))]
    rows = {arm: more(panel, arm, depth) for arm in arms}
    return differences(
        f"{depth} layers, minus BN", rows, [ARMS[arm][1] for arm in arms],
        ylabel="training error, difference (pp)", claim=f"{panel.key}: SkipInit trains",
    )  # fmt: skip


def _learned(panel: Panel, metric: str = "train_error") -> figures.Panel:
    curves = [
        curve(rows, DEPTH, metric, style=style, label=arm)
        for arm, (_, style) in ARMS.items()
        if len(rows := end(panel, arm))
    ]
    what = "training error (%)" if metric == "train_error" else "test error (%)"
    return figures.Panel(panel.title, curves, "layers", what, ceiling=100)


# --- claims --------------------------------------------------------------------------------------


def claims(table: pd.DataFrame) -> list[Claim]:
    """Variances at initialization, BN at the greatest depth first; what is learned there."""
    return [claim for panel in prepared(table) for claim in _claims_of(panel)]


def _claims_of(panel: Panel) -> list[Claim]:
    *_, deepest = every = depths(panel)
    claim = panel.claims(
        source=SOURCE, preconditions=[comparable(panel.rows)],
        estimand=f"part of the variance in branches, untrained: {WITHIN:g} % minus its error",
    )  # fmt: skip
    says = {"batch": "with BN", "layer": "with layer norm", "no norm": "without a norm"}
    found = []
    for arm, where in says.items():
        part = "1 / 2" if arm == "no norm" else "1 / (l + 1)"
        for depth in reversed(every) if arm == "batch" else [deepest]:
            found.append(claim(
                f"{arm}, {depth}",
                f"in {depth} layers {where} the branch of block l has {part} of the variance, "
                f"within {WITHIN:g} % in the mean",
                {seed: WITHIN - abs(value) for seed, value in deviation(panel, arm, depth).items()},
                "demonstration", unit="%",
            ))  # fmt: skip
    return [*found, _skipinit(panel, claim, deepest), *_trainability(panel, deepest)]


def _skipinit(panel: Panel, claim, depth: int) -> Claim:
    rows = start(panel, "SkipInit", depth)
    columns = [c for c in rows if str(c).startswith(f"{SHARE}/") and rows[c].notna().any()]
    added = rows[columns].max(axis=1)
    return claim("SkipInit", f"in {depth} layers with SkipInit branches add nothing at the start",
                 dict(zip(rows["seed"], added, strict=True)), "identical", unit="")  # fmt: skip


def _trainability(panel: Panel, depth: int) -> list[Claim]:
    """Training errors at the greatest depth."""
    shallow = depths(panel)[0]
    ready = [
        trained(select(end(panel, "batch"), {DEPTH: shallow}), f"{shallow} layers, BN"),
        comparable(panel.rows),
    ]
    claim = panel.claims(source=SOURCE, preconditions=ready, estimand=TRAINING)

    return [
        claim(
            "no norm fails", f"{depth} layers have a higher training error without a norm than "
            "with BN", more(panel, "no norm", depth),
        ),
        claim(
            "SkipInit trains",
            f"the training error of {depth} layers with SkipInit is less than {WORSE:g} pp above "
            "that with BN",
            more(panel, "SkipInit", depth), "not_worse", threshold=WORSE,
            primary=panel.main,
            **PUBLISHED.cite("94.3 % accuracy at 1,000 layers"),
        ),
    ]  # fmt: skip
