"""Test error by evaluation batch, prior and the example's own share.

Primary claim: with a residual network, batch statistics of 4 test examples have a higher error than
the population's. Written before the first run of the study's grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies import across, comparable, panels, select, titled, trained, values

SMALL, PRIOR = 4, 16
MARGIN = 1.0  # pp
SOURCE = "Schneider et al. 2020, section 3"
PUBLISHED = {
    "what": "published: ImageNet-C mean corruption error, ResNet-50: 76.7 by training statistics, "
    "62.2 with test statistics of whole corruptions (Schneider et al. 2020)",
}


def numbers(table: pd.DataFrame, before: str, after: str) -> list[float]:
    """The numbers n for which there is a column before + n + after."""
    found = [c[len(before) : len(c) - len(after)] for c in table
             if c.startswith(before) and c.endswith(after)]  # fmt: skip
    return sorted(float(n) for n in found if n.replace(".", "", 1).isdigit())


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """A row for each data set and model: batch size, prior, share of the example."""
    return len(panels(table)), 3


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Three panels a row; dashed: the population's statistics."""
    for row, (data, model) in zip(axes, panels(table), strict=True):
        here = select(table, data__name=data, model__name=model)
        population = 100 * here["test_error"].mean()
        columns = {n: f"batch_{n:g}_error" for n in numbers(here, "batch_", "_error")}
        curves = {"batch statistics": across(here, columns)}
        figures.series(row[0], curves, percent=True, xlabel="evaluation batch (examples)",
                       ylabel="test error (%)")  # fmt: skip
        curves = {
            f"batch of {size}": across(
                here,
                {n: f"prior_{n:g}_error_at_{size}"
                 for n in numbers(here, "prior_", f"_error_at_{size}")},
            )
            for size in (1, 4)
        }  # fmt: skip
        figures.series(row[1], curves, percent=True, xlabel="prior (examples)",
                       ylabel="test error (%)")  # fmt: skip
        columns = {n: f"alpha_{n:g}_error" for n in numbers(here, "alpha_", "_error")}
        curves = {"mixture with the example": across(here, columns)}
        figures.series(row[2], curves, percent=True, log2=False,
                       xlabel="alpha, the example's share", ylabel="test error (%)")  # fmt: skip
        for ax, what in zip(row, ("batch statistics", "with a prior", "example"), strict=True):
            ax.axhline(population, color="black", linewidth=0.8, linestyle=(0, (4, 2)),
                       label="population")  # fmt: skip
            ax.set_title(f"{titled(data, model)}: {what}")
            ax.legend(fontsize=6.5)


def claims(table: pd.DataFrame) -> list[Claim]:
    """Small batches lose; a prior repairs; a little of the example does no harm."""
    found = []
    pairs = panels(table)
    main = next((p for p in pairs if p[1] == "resnet"), pairs[0])
    for data, model in [main, *(p for p in pairs if p != main)]:
        here = select(table, data__name=data, model__name=model)
        population = values(here, "test_error")
        where, key = titled(data, model), f"{data} {model}"
        common = {"source": SOURCE, "preconditions": [trained(here, "the network"),
                                                      comparable(here)]}  # fmt: skip
        found += [
            Claim(
                name=f"{key}: small batches", kind="greater", primary=(data, model) == main,
                values=paired_differences(values(here, f"batch_{SMALL}_error"), population),
                text=f"{where}: statistics of {SMALL} test examples have a higher error than the "
                "population's", **common,
            ),
            Claim(
                name=f"{key}: prior", kind="not_worse", threshold=MARGIN,
                values=paired_differences(
                    values(here, f"prior_{PRIOR}_error_at_{SMALL}"), population
                ),
                text=f"{where}: a prior of {PRIOR} examples makes them at most {MARGIN:g} pp worse",
                **common,
            ),
            Claim(
                name=f"{key}: own share", kind="not_worse", threshold=MARGIN,
                values=paired_differences(values(here, "alpha_0.1_error"), population),
                text=f"{where}: a share of 0.1 of the example's own statistics is at most "
                f"{MARGIN:g} pp worse",
                **{**common, "source": "Singh & Shrivastava 2019"},
            ),
        ]  # fmt: skip
    return found
