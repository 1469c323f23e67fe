"""Test error against the part of training with frozen statistics (Wu & Johnson 2021, figure 6).

Primary claim: with a residual network at groups of two, freezing for the last fifth lowers the test
error. An MLP's vectors are signs at groups of two, and anything without them is better: there it is
a demonstration, and its claims are about groups of four. Written before the first run of this
version of configs/study/frozen_finish.yaml.
"""

import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import cited, curve, gap, reported
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


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Test error of the main panel by the frozen part, and what the last fifth gains."""
    panel = main_first(table)[0]
    return [_errors(panel), _gains(panel, published=True)]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """The other panels, and the published curves."""
    found = [d for panel in main_first(table)[1:] for d in (_errors(panel), _gains(panel))]
    curves = [
        cited(PUBLISHED, name, "group_size", norm="ghost", mode=name, label=label)
        for name, label in (("population", "never frozen"), ("frozen", "last 20 % frozen"))
    ]
    xlabel = "normalization batch (examples)"
    others = figures.Panel("ResNet-50, ImageNet", curves, xlabel, "error (%)", ceiling=100)
    return [*found, others]


def _errors(panel: Panel) -> figures.Panel:
    """Test error by the frozen part, a curve for each group size."""
    rows = extended(panel.rows, {"frozen": 100 * (1 - panel.rows[FREEZE])})
    by = list(rows.groupby(SIZE))
    curves = [
        curve(own, "frozen", "test_error", style=style, label=f"groups of {size:.0f}")
        for (size, own), style in zip(by, figures.ramp(len(by)), strict=True)
    ]
    return figures.Panel(panel.title, curves, "frozen end of training (%)", x="linear", ceiling=100)


def _gains(panel: Panel, published: bool = False) -> figures.Panel:
    """What freezing the last fifth gains at each group size."""
    small, _ = smallest_judged(panel.rows[SIZE].unique(), panel.model)
    sizes = sorted(int(size) for size in panel.rows[SIZE].unique())
    curves = []
    for size, style in zip(sizes, figures.ramp(len(sizes)), strict=True):
        curves.append(gap(f"groups of {size}", gain(panel, size), style=style))
        if published:
            curves.append(reported(PUBLISHED, "ImageNet", published_gain(size), style=style))
    return figures.Panel(
        "gain of a frozen last fifth", curves,
        ylabel="test error, paired difference (pp)", kind="dots", zero=True,
        claim=f"{panel.key}: gain at {small}",
    )  # fmt: skip


def gain(panel: Panel, size: int) -> dict[int, float]:
    """What a frozen last fifth gains at a group size, in pp, by seed."""
    return panel.difference({SIZE: size, FREEZE: 1.0}, {SIZE: size, FREEZE: FINISH})


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

    ready = panel.ready(f"groups of {large}", {SIZE: large, FREEZE: 1.0})
    claim = panel.claims(source=SOURCE, preconditions=ready, estimand=EMA)
    found = sequence(
        claim(
            f"gain at {small}", f"at groups of {small} a frozen last fifth lowers the test error",
            gain(panel, small), kind, primary=panel.main and not certain,
            **PUBLISHED.cite("{} pp on ImageNet", published_gain(small)),
        ),
        claim(
            "only at small groups",
            f"it lowers it more at groups of {small} than of {large}",
            paired_differences(gain(panel, small), gain(panel, large)), kind,
            **PUBLISHED.cite(
                f"{{}} pp on ImageNet, {small} against 64",
                published_gain(small) - published_gain(64),
            ),
        ),
    )  # fmt: skip
    if apart:
        found.append(
            claim(
                "signs", "at groups of 2 a frozen last fifth lowers the test error", gain(panel, 2),
                "demonstration", source="a vector normalized by two is a sign",
            )
        )  # fmt: skip
    return found
