"""Test error by the estimate of population statistics, and its horizon in examples.

Primary claim: at the largest batch, momentum 0.02 (a horizon of 50 batches) has a higher test error
than PreciseBN, the part that the average still holds of its initial values taken off. Written
before the first run of this version of the grid; the pixel noise (0.5, then 0.3) was chosen after a
first look at an earlier one, with other seeds.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import curve, differences
from bnstudy.studies.kit import (
    CORRECTED,
    EMA,
    PRECISE,
    Panel,
    Published,
    extended,
    panels,
    select,
    sequence,
)

SIZE, MOMENTUM = "train.batch_size", "norm.momentum"
LONG, USUAL = 0.02, 0.1
HORIZON = "examples behind the average"  # batch size / momentum
CORRECTED_LABEL = "exponential average without initial values"
SOURCE = "Wu & Johnson 2021, section 3.1"
PUBLISHED = Published(
    "published", SOURCE,
    "PreciseBN needs 1,000 to 10,000 examples; pooled moments replace the mean of batch variances. "
    "No single number to compare.",
)  # fmt: skip
ESTIMATES: dict[str, dict[str, Any]] = {  # column -> how its curve looks
    "test_error": {"label": "exponential average", "norm": "batch"},
    "test_error_precise": {"label": "PreciseBN", "norm": "batch", "mode": "precise"},
    "mean_of_batches_error": {"label": "mean of variances", "style": figures.hue(1)},
    "test_error_averaged_precise": {"label": "averaged weights", "style": figures.hue(2)},
}


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """By horizon at the largest batch: the average's error, and what PreciseBN has less."""
    main, *_ = panels(table)
    size = int(main.rows[SIZE].max())
    own = _averaged(select(main.rows, {SIZE: size}))
    momenta = sorted((m for m in own[MOMENTUM].unique() if m >= LONG), reverse=True)
    return [
        figures.Panel(
            f"{main.title}, batch size {size}",
            [
                curve(own, "horizon", "corrected_error", norm="batch", label=CORRECTED_LABEL),
                curve(own, "horizon", "test_error_precise", **ESTIMATES["test_error_precise"]),
            ],
            HORIZON, x="log10", ceiling=100,
        ),
        differences(
            "average minus PreciseBN",
            {
                f"momentum {momentum:g}": _more(main, "corrected_error", "test_error_precise",
                                                {SIZE: size, MOMENTUM: momentum})
                for momentum in momenta
            },
            figures.ramp(len(momenta)), claim=f"{main.data}: stale",
        ),
    ]  # fmt: skip


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """All batch sizes: horizon, as used and without initial values; estimates; their gains."""
    return [found for panel in panels(table) for found in _details_of(panel)]


def _details_of(panel: Panel) -> list[figures.Panel]:
    sizes = sorted(int(size) for size in panel.rows[SIZE].unique())
    styles = figures.ramp(len(sizes))
    horizons = [
        figures.Panel(
            f"{panel.title}: exponential average {what}",
            [
                curve(_averaged(select(panel.rows, {SIZE: size})), "horizon", column, style=style,
                      label=f"batch size {size}")
                for size, style in zip(sizes, styles, strict=True)
            ],
            HORIZON, x="log10", ceiling=100,
        )
        for what, column in (("as used", "test_error"),
                             ("without its initial values", "corrected_error"))
    ]  # fmt: skip
    rows = select(panel.rows, {MOMENTUM: USUAL})
    estimates = figures.Panel(
        f"{panel.title}: by estimate, momentum {USUAL}",
        [curve(rows, SIZE, column, **look) for column, look in ESTIMATES.items()],
        "batch size (examples)",
        ceiling=100,
    )

    def by_size(title: str, claim: str, difference: Callable[[int], dict[int, float]]):
        rows = {f"batch size {size}": difference(size) for size in sizes}
        return differences(f"{panel.title}: {title}", rows, styles, claim=f"{panel.data}: {claim}")

    def usual(first: str, second: str) -> Callable[[int], dict[int, float]]:
        return lambda size: _more(panel, first, second, {SIZE: size, MOMENTUM: USUAL})

    return [
        *horizons,
        estimates,
        by_size(
            f"cumulative average minus momentum {USUAL}", "cumulative",
            lambda n: panel.difference({SIZE: n, MOMENTUM: None}, {SIZE: n, MOMENTUM: USUAL}),
        ),
        by_size("mean of variances minus pooled", "estimators",
                usual("mean_of_batches_error", "precise_small_error")),
        by_size("last weights minus averaged", "averaged weights",
                usual("test_error_precise", "test_error_averaged_precise")),
    ]  # fmt: skip


def _more(panel: Panel, first: str, second: str, cell: Mapping[str, Any]) -> dict[int, float]:
    """How much more of one error than of another a cell has, in pp."""
    return paired_differences(panel.cell(first, cell), panel.cell(second, cell))


def _averaged(rows: pd.DataFrame) -> pd.DataFrame:
    """The runs of exponential averages, with the number of examples behind each."""
    rows = rows[rows[MOMENTUM].notna()]
    return extended(rows, {"horizon": rows[SIZE] / rows[MOMENTUM]})


def claims(table: pd.DataFrame) -> list[Claim]:
    """Stale averages, the cumulative mean, the two estimators, averaged weights."""
    found = []
    for panel in panels(table):
        small, large = int(panel.rows[SIZE].min()), int(panel.rows[SIZE].max())

        def more(first, second, size, momentum=USUAL, panel=panel):
            return _more(panel, first, second, {SIZE: size, MOMENTUM: momentum})

        usual = {SIZE: large, MOMENTUM: USUAL}
        claim = panel.claims(
            panel.data, source=SOURCE, preconditions=panel.ready(f"batch {large}", usual)
        )
        found += sequence(
            claim(
                "stale",
                f"at batch {large} an average of momentum {LONG}, without its initial values, has "
                "a higher test error than PreciseBN",
                more("corrected_error", "test_error_precise", large, LONG),
                primary=panel.main,
                estimand=f"{CORRECTED} minus {PRECISE}",
            ),
            claim(
                "stale at the usual momentum", f"so has one of momentum {USUAL}",
                more("corrected_error", "test_error_precise", large),
                estimand=f"{CORRECTED} minus {PRECISE}",
            ),
        )  # fmt: skip
        longest = panel.rows[MOMENTUM].min()
        found += [
            claim(
                "initial values",
                f"at batch {large} what an average of momentum {longest:g} holds of its initial "
                "values raises its test error",
                more("test_error", "corrected_error", large, longest),
                estimand=f"{EMA} minus {CORRECTED}",
            ),
            claim(
                "cumulative",
                f"at batch {large} the cumulative mean has a higher test error than momentum "
                f"{USUAL}",
                panel.difference({SIZE: large, MOMENTUM: None}, usual), estimand=EMA,
            ),
            claim(
                "estimators",
                f"in batches of {small} the mean of batch variances has a higher test error than "
                "pooled moments",
                more("mean_of_batches_error", "precise_small_error", small), estimand=PRECISE,
            ),
            claim(
                "averaged weights",
                f"at batch {large}, with PreciseBN, the last weights have a higher test error than "
                "averaged ones",
                more("test_error_precise", "test_error_averaged_precise", large),
                estimand=PRECISE, source="Izmailov et al. 2018",
            ),
        ]  # fmt: skip
    return found
