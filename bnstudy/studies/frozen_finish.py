"""Test error against the part of training with frozen statistics (Wu & Johnson 2021, figure 6).

Primary claim: at the smallest group, freezing for the last fifth lowers the test error, with the
MLP. Written before the first run of the grid in configs/study/frozen_finish.yaml.
"""

import numpy as np
import pandas as pd

from bnstudy import figures, stats
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies import comparable, extended, panels, select, titled, trained, values

SIZE, FREEZE = "norm.group_size", "norm.freeze_at"
SOURCE = "Wu & Johnson 2021, figure 6"
FINISH = 0.8
PUBLISHED = {
    "what": "digitised: Wu & Johnson 2021, figure 6 (ResNet-50, ImageNet): error in %, population "
    "statistics against the last 20 of 100 epochs frozen",
    "group_size": [64, 32, 16, 8, 4, 2],
    "population": [23.2, 23.4, 23.5, 24.3, 26.4, 32.4],
    "frozen": [24.2, 24.3, 23.9, 24.2, 24.3, 25.2],
}


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """A panel for each data set and model, and one for the published curves."""
    return 1, len(panels(table)) + 1


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Test error by the frozen part, a curve for each group size."""
    table = extended(table, frozen=100 * (1 - table[FREEZE]))
    for ax, (data, model) in zip(axes[0], panels(table), strict=False):
        here = select(table, data__name=data, model__name=model)
        curves = {
            f"groups of {size}": stats.summarize(rows, "frozen", "test_error")
            for size, rows in here.groupby(SIZE)
        }
        figures.series(ax, curves, "frozen", percent=True, log2=False, ylabel="test error (%)",
                       xlabel="frozen end of training (%)")  # fmt: skip
        ax.margins(y=0.3)
        ax.legend(fontsize=6.5)
        ax.set_title(titled(data, model))
    ax = axes[0, -1]
    sizes = PUBLISHED["group_size"]
    curves = {
        label: pd.DataFrame({"x": sizes, "mean": PUBLISHED[key], "low": np.nan, "high": np.nan})
        for key, label in (("population", "never frozen"), ("frozen", "last 20 % frozen"))
    }
    figures.series(ax, curves, xlabel="normalization batch (examples)", ylabel="error (%)")
    ax.legend(fontsize=6.5)
    ax.set_title("digitised: ResNet-50, ImageNet")


def claims(table: pd.DataFrame) -> list[Claim]:
    """Frozen finish at the smallest group, by model; primary: the MLP."""
    small, large = int(table[SIZE].min()), int(table[SIZE].max())
    pairs = panels(table)
    main = next((p for p in pairs if p[1] == "mlp"), pairs[0])
    found = []
    for data, model in [main, *(p for p in pairs if p != main)]:
        here = select(table, data__name=data, model__name=model)
        cell = lambda size, part, rows=here: values(  # noqa: E731
            rows, "test_error", norm__group_size=size, norm__freeze_at=part
        )
        ready = [
            trained(here, f"groups of {large}", norm__group_size=large, norm__freeze_at=1.0),
            comparable(here),
        ]
        where, key = titled(data, model), f"{data} {model}"
        gain = paired_differences(cell(small, 1.0), cell(small, FINISH))
        found += [
            Claim(
                name=f"{key}: gain at {small}", kind="greater", values=gain,
                text=f"{where}: at groups of {small} a frozen last fifth lowers the test error",
                primary=(data, model) == main, source=SOURCE, preconditions=ready,
                published="+7.2 pp on ImageNet (digitised)", published_effect=7.2,
            ),
            Claim(
                name=f"{key}: only at small groups", kind="greater",
                values=paired_differences(
                    gain, paired_differences(cell(large, 1.0), cell(large, FINISH))
                ),
                text=f"{where}: it lowers it more at groups of {small} than of {large}",
                source=SOURCE, preconditions=ready,
                published="+8.2 pp on ImageNet, 2 against 64 (digitised)", published_effect=8.2,
            ),
        ]  # fmt: skip
    return found
