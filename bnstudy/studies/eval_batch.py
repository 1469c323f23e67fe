"""Test error by evaluation batch, prior and the example's own share.

Primary claim: with a residual network, batch statistics of 4 test examples have a higher error than
the population's. Written before the first run of the study's grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import across, finish
from bnstudy.studies.kit import Published, panels

SMALL, PRIOR = 4, 16
MARGIN = 1.0  # pp
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
        for ax, what in zip(row, ("batch statistics", "with a prior", "example"), strict=True):
            ax.axhline(100 * here["test_error"].mean(), color="black", linewidth=0.8,
                       linestyle=(0, (4, 2)), label="population")  # fmt: skip
            finish(ax, f"{panel.title}: {what}")


def claims(table: pd.DataFrame) -> list[Claim]:
    """Small batches lose; a prior repairs; a little of the example does no harm."""
    found = []
    for panel in panels(table, model="resnet"):
        claim = panel.claims(source=SOURCE, preconditions=panel.ready("the network"))

        def above(metric, panel=panel):
            return paired_differences(panel.cell(metric), panel.cell("test_error"))

        found += [
            claim(
                "small batches",
                f"statistics of {SMALL} test examples have a higher error than the population's",
                above(f"batch_{SMALL}_error"), primary=panel.main,
            ),
            claim(
                "prior", f"a prior of {PRIOR} examples makes them at most {MARGIN:g} pp worse",
                above(f"prior_{PRIOR}_error_at_{SMALL}"), "not_worse", threshold=MARGIN,
            ),
            claim(
                "own share",
                f"a share of 0.1 of the example's own statistics is at most {MARGIN:g} pp worse",
                above("alpha_0.1_error"), "not_worse", threshold=MARGIN,
                source="Singh & Shrivastava 2019",
            ),
        ]  # fmt: skip
    return found
