"""Test error by evaluation batch, prior and the example's own share.

Where do batch statistics become as good as the population's? A fixed sequence asks one evaluation
batch after another, from 32 down to 2: is its error within 1 pp of the population's? The crossover
lies where the answers turn from supported to refuted. Primary claim: the first of them, with a
residual network at 32, the training batch. Written before the first run of this version of the
study's grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import across, finish
from bnstudy.studies.kit import BATCH, EMA, Panel, Published, panels, sequence

SIZES = (32, 16, 8, 4, 2)  # evaluation batches, from that of training downwards
SMALL, PRIOR = 4, 16
MARGIN = 1.0  # pp: four of 400 test images
SOURCE = "Schneider et al. 2020, section 3"
PUBLISHED = Published(
    "published", "Schneider et al. 2020",
    "ImageNet-C mean corruption error, ResNet-50: 76.7 by training statistics, 62.2 with test "
    "statistics of whole corruptions",
)  # fmt: skip


def numbers(table: pd.DataFrame, before: str, after: str) -> dict[float, str]:
    """n -> the column `before` n `after`, smallest first."""
    named = {c.removeprefix(before).removesuffix(after): c for c in table
             if c.startswith(before) and c.endswith(after)}  # fmt: skip
    return dict(sorted((float(n), c) for n, c in named.items() if n.replace(".", "", 1).isdigit()))


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """A row for each data set and model: batch size, prior, share of the example."""
    return len(panels(table)), 3


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Three panels a row; dashed: the population's statistics."""
    for row, panel in zip(axes, panels(table), strict=True):
        here = panel.rows
        curves = {"batch statistics": across(here, numbers(here, "batch_", "_error"))}
        figures.series(row[0], curves, percent=True, xlabel="evaluation batch (examples)",
                       ylabel="test error (%)")  # fmt: skip
        curves = {
            f"batch of {size}": across(here, numbers(here, "prior_", f"_error_at_{size}"))
            for size in (1, 4)
        }
        figures.series(row[1], curves, percent=True, xlabel="prior (examples)",
                       ylabel="test error (%)")  # fmt: skip
        curves = {"mixture with the example": across(here, numbers(here, "alpha_", "_error"))}
        figures.series(row[2], curves, percent=True, log2=False,
                       xlabel="alpha, the example's share", ylabel="test error (%)")  # fmt: skip
        population = 100 * here["test_error"].mean()
        row[0].axhspan(population - MARGIN, population + MARGIN, color="0.9", zorder=0,
                       label=f"within {MARGIN:g} pp")  # fmt: skip
        for ax, what in zip(row, ("batch statistics", "with a prior", "example"), strict=True):
            ax.axhline(population, color="black", linewidth=0.8,
                       linestyle=(0, (4, 2)), label="population")  # fmt: skip
            finish(ax, f"{panel.title}: {what}")


def claims(table: pd.DataFrame) -> list[Claim]:
    """The evaluation batches in sequence; a prior; a little of the example's own."""
    return [claim for panel in panels(table, model="resnet") for claim in _claims_of(panel)]


def _claims_of(panel: Panel) -> list[Claim]:
    claim = panel.claims(source=SOURCE, preconditions=panel.ready("the network"))

    def above(metric: str) -> dict[int, float]:
        """What a reading has more than the population's statistics."""
        return paired_differences(panel.cell(metric), panel.cell("test_error"))

    return [
        *sequence(*(
            claim(
                f"batches of {size}",
                f"statistics of {size} test examples have an error within {MARGIN:g} pp of the "
                "population's",
                above(f"batch_{size}_error"), "equivalent", threshold=MARGIN,
                primary=panel.main and size == SIZES[0], estimand=f"{BATCH} minus {EMA}",
                expected="supported" if size == SIZES[0] else "refuted at the small end",
            )
            for size in SIZES
        )),
        claim(
            "prior",
            f"a prior of {PRIOR} examples makes batches of {SMALL} at most {MARGIN:g} pp worse",
            above(f"prior_{PRIOR}_error_at_{SMALL}"), "not_worse", threshold=MARGIN,
            estimand=f"test error, mixture of batch and population, minus {EMA}",
        ),
        claim(
            "own share",
            f"a share of 0.1 of the example's own statistics is at most {MARGIN:g} pp worse",
            above("alpha_0.1_error"), "not_worse", threshold=MARGIN,
            estimand=f"test error, mixture of example and population, minus {EMA}",
            source="Singh & Shrivastava 2019",
        ),
    ]  # fmt: skip
