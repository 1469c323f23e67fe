"""Test error against the part of training with frozen statistics (Wu & Johnson 2021, figure 6).

Primary claim: with a residual network at groups of two, freezing for the last fifth lowers the test
error. An MLP's vectors are signs at groups of two, and anything without them is better: there it is
a demonstration, and its claims are about groups of four. Written before the first run of this
version of configs/study/frozen_finish.yaml.
"""

import numpy as np
import pandas as pd

from bnstudy import figures, stats
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import finish
from bnstudy.studies.kit import EMA, Panel, Published, extended, panels, sequence, smallest_judged

SIZE, FREEZE = "norm.group_size", "norm.freeze_at"
SOURCE = "Wu & Johnson 2021, figure 6"
FINISH = 0.8
PUBLISHED = Published(
    "digitised", SOURCE,
    "ResNet-50, ImageNet: error in %, population statistics against the last 20 of 100 epochs "
    "frozen",
    {
        "group_size": [64, 32, 16, 8, 4, 2],
        "population": [23.2, 23.4, 23.5, 24.3, 26.4, 32.4],
        "frozen": [24.2, 24.3, 23.9, 24.2, 24.3, 25.2],
    },
)  # fmt: skip


def main_first(table: pd.DataFrame) -> list[Panel]:
    """The panels; the primary claim is about the residual network on contrast digits."""
    return panels(table, model="resnet", data="contrast_digits")


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """A panel for each data set and model, and one for the published curves."""
    return 1, len(panels(table)) + 1


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Test error by the frozen part, a curve for each group size."""
    table = extended(table, {"frozen": 100 * (1 - table[FREEZE])})
    for ax, panel in zip(axes[0], main_first(table), strict=False):
        curves = {
            f"groups of {size}": stats.summarize(rows, "frozen", "test_error")
            for size, rows in panel.rows.groupby(SIZE)
        }
        figures.series(ax, curves, "frozen", percent=True, log2=False, ylabel="test error (%)",
                       xlabel="frozen end of training (%)")  # fmt: skip
        finish(ax, panel.title, room=0.3)
    curves = {
        "never frozen": PUBLISHED.curve("population", "group_size"),
        "last 20 % frozen": PUBLISHED.curve("frozen", "group_size"),
    }
    figures.series(axes[0, -1], curves, xlabel="normalization batch (examples)", ylabel="error (%)")
    finish(axes[0, -1], "digitised: ResNet-50, ImageNet")


def published_gain(size: int) -> float:
    """What the frozen finish gains on ImageNet, in pp."""
    return PUBLISHED.at("population", group_size=size) - PUBLISHED.at("frozen", group_size=size)


def claims(table: pd.DataFrame) -> list[Claim]:
    """Frozen finish at the smallest group, and whether the large ones gain as much, by model."""
    return [claim for panel in main_first(table) for claim in _claims_of(panel)]


def _claims_of(panel: Panel) -> list[Claim]:
    small, apart = smallest_judged(panel.rows[SIZE].unique(), panel.model)
    large = int(panel.rows[SIZE].max())
    certain = panel.model == "mlp" and small == 2
    kind = "demonstration" if certain else "greater"

    def gain(size: int) -> dict[int, float]:
        return panel.difference({SIZE: size, FREEZE: 1.0}, {SIZE: size, FREEZE: FINISH})

    ready = panel.ready(f"groups of {large}", {SIZE: large, FREEZE: 1.0})
    claim = panel.claims(source=SOURCE, preconditions=ready, estimand=EMA)
    found = sequence(
        claim(
            f"gain at {small}", f"at groups of {small} a frozen last fifth lowers the test error",
            gain(small), kind, primary=panel.main and not certain,
            **PUBLISHED.cite("{} pp on ImageNet", published_gain(small)),
        ),
        claim(
            "only at small groups",
            f"it lowers it more at groups of {small} than of {large}",
            paired_differences(gain(small), gain(large)), kind,
            **PUBLISHED.cite(
                f"{{}} pp on ImageNet, {small} against 64",
                published_gain(small) - published_gain(64),
            ),
        ),
    )  # fmt: skip
    if apart:
        found.append(
            claim(
                "signs", "at groups of 2 a frozen last fifth lowers the test error", gain(2),
                "demonstration", source="a vector normalized by two is a sign",
            )
        )  # fmt: skip
    return found
