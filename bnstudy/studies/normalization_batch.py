"""Error against the normalization batch at a fixed SGD batch (Wu & Johnson 2021, figures 5, 6).

Primary claim: ghost groups of two raise the training error over groups of the whole SGD batch, with
the MLP. The sign of the train / test inconsistency is a finding either way. Written before the
first run of the grid in configs/study/normalization_batch.yaml.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bnstudy import figures, stats
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies import comparable, panels, select, titled, trained, values

SIZE, FREEZE = "norm.group_size", "norm.freeze_at"
XLABEL = "normalization batch (examples in a ghost group)"
SOURCE = "Wu & Johnson 2021, figures 5 and 6"

# ResNet-50 on ImageNet, error in %; read off the paper's figures, about 0.2 either way
PUBLISHED = {
    "what": "digitised: Wu & Johnson 2021, figures 5 and 6 (ResNet-50, ImageNet)",
    "group_size": [64, 32, 16, 8, 4, 2],
    "training, batch statistics": [9.8, 10.8, 12.1, 13.6, 15.2, 16.6],
    "batch": [24.7, 24.5, 24.7, 25.1, 25.5, 26.0],
    "population": [23.2, 23.4, 23.5, 24.3, 26.4, 32.4],
    "frozen": [24.2, 24.3, 23.9, 24.2, 24.3, 25.2],
}


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """One row for each data set and model, one for the published curves."""
    return len(panels(table)) + 1, 2


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Training error and test error by the source of statistics, measured and published."""
    for row, (data, model) in zip(axes, panels(table), strict=False):
        here = select(table, data__name=data, model__name=model)
        running = here[here[FREEZE] == 1.0]
        summary = stats.summarize(running, [SIZE], "train_error")
        figures.curves(row[0], summary, SIZE, norm="ghost", percent=True, xlabel=XLABEL,
                       ylabel="training error (%)")  # fmt: skip
        row[0].set_title(f"{titled(data, model)}: training, batch statistics")
        _test_error(row[1], running, here[here[FREEZE] < 1.0])
        row[1].set_title(f"{titled(data, model)}: test, by statistics")
    first, second = axes[-1]
    sizes = PUBLISHED["group_size"]
    for ax, names in ((first, ["training, batch statistics"]),
                      (second, ["population", "batch", "frozen"])):  # fmt: skip
        frames = [
            pd.DataFrame({SIZE: sizes, "mode": n if n in figures.MODES else "batch",
                          "mean": PUBLISHED[n], "low": np.nan, "high": np.nan})
            for n in names
        ]  # fmt: skip
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
    """Training noise, frozen finish and inconsistency; primary: training noise with the MLP."""
    small, large = int(table[SIZE].min()), int(table[SIZE].max())
    pairs = panels(table)
    main = next((p for p in pairs if p[1] == "mlp"), pairs[0])
    found = []
    for data, model in [main, *(p for p in pairs if p != main)]:
        here = select(table, data__name=data, model__name=model)
        found += _claims_of(here, data, model, small, large, primary=(data, model) == main)
    return found


def _claims_of(
    here: pd.DataFrame, data: str, model: str, small: int, large: int, primary: bool
) -> list[Claim]:
    where, key = titled(data, model), f"{data} {model}"

    def cell(metric: str, size: int, frozen: bool = False) -> dict[int, float]:
        rows = here[(here[FREEZE] < 1.0) == frozen]
        return values(rows, metric, norm__group_size=size)

    def inconsistency(size: int) -> dict[int, float]:
        return paired_differences(cell("test_error", size), cell("test_error_batch", size))

    running = here[here[FREEZE] == 1.0]
    ready = [
        trained(running, f"groups of {large}", norm__group_size=large),
        comparable(here),
    ]
    result = [
        Claim(
            name=f"{key}: training noise",
            text=f"{where}: groups of {small} have a higher training error than groups of {large}",
            kind="greater",
            values=paired_differences(cell("train_error", small), cell("train_error", large)),
            primary=primary,
            source=SOURCE,
            published="+6.8 pp on ImageNet, 64 to 2 (digitised)",
            published_effect=6.8,
            preconditions=ready,
        ),
        Claim(
            name=f"{key}: inconsistency",
            text=f"{where}: population minus batch-statistics test error is larger at groups of "
            f"{small} than at {large}",
            kind="greater",
            values=paired_differences(inconsistency(small), inconsistency(large)),
            source=SOURCE,
            published="+7.9 pp on ImageNet, 64 to 2 (digitised)",
            published_effect=7.9,
            expected="refuted (boundary condition: small scale)",
            preconditions=ready,
        ),
    ]
    if (here[FREEZE] < 1.0).any():
        result.insert(
            1,
            Claim(
                name=f"{key}: frozen finish",
                text=f"{where}: at groups of {small}, freezing BN for the last fifth of training "
                "lowers the test error",
                kind="greater",
                values=paired_differences(
                    cell("test_error", small), cell("test_error", small, frozen=True)
                ),
                source=SOURCE,
                published="+7.2 pp on ImageNet (digitised)",
                published_effect=7.2,
                preconditions=ready,
            ),
        )
    return result
