"""Error against the normalization batch at a fixed SGD batch (Wu & Johnson 2021, figures 5, 6).

Primary claim: with a residual network on contrast digits, ghost groups of two raise the
training error over groups of the whole SGD batch. The sign of the train / test inconsistency is a
finding either way. Vectors normalized by two are signs: what the MLP loses at groups of two is a
demonstration, and its claims are about groups of four. Written before the first run of the grid in
configs/study/normalization_batch.yaml.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bnstudy import figures, stats
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.kit import (
    EMA,
    TRAINING,
    Panel,
    Published,
    panels,
    select,
    sequence,
    smallest_judged,
)

SIZE, FREEZE = "norm.group_size", "norm.freeze_at"
XLABEL = "normalization batch (examples in a ghost group)"
FINISH = 0.8  # frozen from here on: the last fifth of training
SOURCE = "Wu & Johnson 2021, figures 5 and 6"
PUBLISHED = Published(
    "digitised", SOURCE, "error in %, about 0.2 either way, ResNet-50, ImageNet",
    {
        "group_size": [64, 32, 16, 8, 4, 2],
        "training, batch statistics": [9.8, 10.8, 12.1, 13.6, 15.2, 16.6],
        "batch": [24.7, 24.5, 24.7, 25.1, 25.5, 26.0],
        "population": [23.2, 23.4, 23.5, 24.3, 26.4, 32.4],
        "frozen": [24.2, 24.3, 23.9, 24.2, 24.3, 25.2],
    },
)  # fmt: skip


def main_first(table: pd.DataFrame) -> list[Panel]:
    """The panels; the primary claim is about the residual network on contrast digits."""
    return panels(table, model="resnet", data="contrast_digits")


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """One row for each data set and model, one for the published curves."""
    return len(panels(table)) + 1, 2


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Training error and test error by the source of statistics, measured and published."""
    for row, panel in zip(axes, main_first(table), strict=False):
        running = select(panel.rows, {FREEZE: 1.0})
        summary = stats.summarize(running, [SIZE], "train_error")
        figures.curves(row[0], summary, SIZE, norm="ghost", percent=True, xlabel=XLABEL,
                       ylabel="training error (%)")  # fmt: skip
        row[0].set_title(f"{panel.title}: training, batch statistics")
        _test_error(row[1], running, select(panel.rows, {FREEZE: FINISH}))
        row[1].set_title(f"{panel.title}: test, by statistics")
    first, second = axes[-1]
    for ax, names in ((first, {"training, batch statistics": "batch"}),
                      (second, {n: n for n in ("population", "batch", "frozen")})):  # fmt: skip
        frames = [
            PUBLISHED.curve(name, "group_size", x=SIZE).assign(mode=mode)
            for name, mode in names.items()
        ]
        figures.curves(ax, pd.concat(frames), SIZE, dash="mode", norm="ghost", xlabel=XLABEL,
                       ylabel="error (%)")  # fmt: skip
    for ax in axes[:, 1]:
        ax.margins(y=0.3)  # room for the legend
        ax.legend(fontsize=6.5, loc="upper right")
    first.set_title("digitised: ResNet-50, ImageNet, training")
    second.set_title("digitised: ResNet-50, ImageNet, validation")


def _test_error(ax: Axes, running: pd.DataFrame, frozen: pd.DataFrame) -> None:
    frames = [
        stats.summarize(running, [SIZE], "test_error" + figures.MODES[name].suffix).assign(
            mode=name
        )
        for name in ("population", "precise", "batch")
    ]
    if len(frozen):
        frames.append(stats.summarize(frozen, [SIZE], "test_error").assign(mode="frozen"))
    figures.curves(ax, pd.concat(frames), SIZE, dash="mode", norm="ghost", percent=True,
                   xlabel=XLABEL, ylabel="test error (%)")  # fmt: skip


def claims(table: pd.DataFrame) -> list[Claim]:
    """Training noise, what it costs in test error, frozen finish, inconsistency; see above."""
    return [claim for panel in main_first(table) for claim in _claims_of(panel)]


def published(name: str, size: int) -> float:
    """A published error at a group size, in %."""
    return PUBLISHED.at(name, group_size=size)


def published_inconsistency(size: int) -> float:
    """Published population minus batch-statistics error at a group size, in pp."""
    return published("population", size) - published("batch", size)


def _claims_of(panel: Panel) -> list[Claim]:
    small, apart = smallest_judged(panel.rows[SIZE].unique(), panel.model)
    large, two = int(panel.rows[SIZE].max()), {SIZE: 2, FREEZE: 1.0}
    certain = panel.model == "mlp" and small == 2
    running = {size: {SIZE: size, FREEZE: 1.0} for size in (small, large)}

    def inconsistency(size: int) -> dict[int, float]:
        errors = (panel.cell(f"test_error{mode}", running[size]) for mode in ("", "_batch"))
        return paired_differences(*errors)

    claim = panel.claims(
        source=SOURCE, preconditions=panel.ready(f"groups of {large}", running[large])
    )
    noise = published("training, batch statistics", small) - published(
        "training, batch statistics", 64
    )
    nested = [
        claim(
            "training noise",
            f"groups of {small} have a higher training error than groups of {large}",
            panel.difference(running[small], running[large], "train_error"),
            "demonstration" if certain else "greater", estimand=TRAINING,
            primary=panel.main and not certain,
            **PUBLISHED.cite(f"{{}} pp on ImageNet, 64 to {small}", noise),
        ),
        claim(
            "test error",
            "they have a higher test error, too",
            panel.difference(running[small], running[large]), estimand=EMA,
            **PUBLISHED.cite(
                f"{{}} pp on ImageNet, 64 to {small}",
                published("population", small) - published("population", 64),
            ),
        ),
    ]  # fmt: skip
    if (panel.rows[FREEZE] == FINISH).any():
        nested.append(
            claim(
                "frozen finish",
                f"at groups of {small}, freezing BN for the last fifth of training lowers the test "
                "error",
                panel.difference(running[small], {SIZE: small, FREEZE: FINISH}), estimand=EMA,
                **PUBLISHED.cite(
                    "{} pp on ImageNet", published("population", small) - published("frozen", small)
                ),
            )
        )  # fmt: skip
    found = sequence(*nested)
    if apart:
        found.append(
            claim(
                "signs", f"groups of 2 have a higher training error than groups of {large}",
                panel.difference(two, running[large], "train_error"), "demonstration",
                estimand=TRAINING, source="a vector normalized by two is a sign",
            )
        )  # fmt: skip
    return [
        *found,
        claim(
            "inconsistency",
            "population minus batch-statistics test error is larger at groups of "
            f"{small} than at {large}",
            paired_differences(inconsistency(small), inconsistency(large)),
            estimand="test error, exponential average minus batch statistics",
            expected="refuted (boundary condition: small scale)",
            **PUBLISHED.cite(
                f"{{}} pp on ImageNet, 64 to {small}",
                published_inconsistency(small) - published_inconsistency(64),
            ),
        ),
    ]  # fmt: skip
