"""Test error by evaluation batch, prior and the example's own share.

Where do batch statistics become as good as the population's? A fixed sequence asks one evaluation
batch after another, from 32 down to 2: is its error within 1 pp of the population's? The crossover
lies where the answers turn from supported to refuted. Primary claim: the first of them, with a
residual network at 32, the training batch. Written before the first run of this version of the
study's grid.
"""

import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import across, differences
from bnstudy.studies.kit import BATCH, EMA, Panel, Published, extended, panels, sequence

SIZES = (32, 16, 8, 4, 2)  # evaluation batches, from that of training downwards
SMALL, PRIOR = 4, 16
TRAINING = "train.batch_size"
XLABEL, PRIOR_LABEL = "evaluation batch (examples)", "weight of the prior (examples)"
EXCESS = "excess test error (pp)"  # over the population's
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


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Error by evaluation batch; what each has more than the population's, beside the margin."""
    main, *_ = panels(table, model="resnet")
    rows = {f"batch {n}": _above(main, f"batch_{n}_error") for n in SIZES}
    population = 100 * main.rows["test_error"].mean()
    return [
        figures.Panel(
            f"{main.title}, trained in batches of {int(main.rows[TRAINING].max())}",
            [across(main.rows, numbers(main.rows, "batch_", "_error"), norm="batch", mode="batch",
                    label="statistics of the test batch")],
            XLABEL, ceiling=100, bands=[figures.Band(population, population, "population")],
        ),
        differences(
            "excess over the population", rows, figures.ramp(len(rows))[::-1],
            bands=[figures.Band(-MARGIN, MARGIN, f"within {MARGIN:g} pp")],
            claim=f"{main.key}: batches of {SIZES[0]}",
        ),
    ]  # fmt: skip


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """For every network what other readings have more than the population's statistics."""
    found = panels(table, model="resnet")
    curves = [
        figures.Panel(
            title, [_excess(panel, *names, figures.hue(i)) for i, panel in enumerate(found)],
            xlabel, EXCESS, x="linear" if names[0] == "alpha_" else "log2", floor=None, zero=True,
        )
        for title, xlabel, names in (
            ("statistics of the test batch", XLABEL, ("batch_", "_error")),
            ("one example and a prior", PRIOR_LABEL, ("prior_", "_error_at_1")),
            (f"batches of {SMALL} and a prior", PRIOR_LABEL, ("prior_", f"_error_at_{SMALL}")),
            ("a share of the example itself", "share of its statistics", ("alpha_", "_error")),
        )
    ]  # fmt: skip
    margins = [
        differences(
            title, {panel.title: _above(panel, metric) for panel in found},
            [figures.hue(i) for i in range(len(found))], ylabel=EXCESS,
            bands=[figures.Band(MARGIN, MARGIN, f"margin {MARGIN:g} pp")],
            claim=f"{found[0].key}: {claim}",
        )
        for title, metric, claim in (
            (f"batches of {SMALL}, prior of {PRIOR}", f"prior_{PRIOR}_error_at_{SMALL}", "prior"),
            ("a share of 0.1 of the example", "alpha_0.1_error", "own share"),
        )
    ]  # fmt: skip
    return [*curves, *margins]


def _excess(panel: Panel, before: str, after: str, style: figures.Style) -> figures.Curve:
    """The columns `before` n `after` minus the error by the population's statistics, over n."""
    named = numbers(panel.rows, before, after)
    own = {column: panel.rows[column] - panel.rows["test_error"] for column in named.values()}
    return across(extended(panel.rows, own), named, style=style, label=panel.title)


def _above(panel: Panel, metric: str) -> dict[int, float]:
    """What a reading has more than the population's statistics, in pp."""
    return paired_differences(panel.cell(metric), panel.cell("test_error"))


def claims(table: pd.DataFrame) -> list[Claim]:
    """The evaluation batches in sequence; a prior; a little of the example's own."""
    return [claim for panel in panels(table, model="resnet") for claim in _claims_of(panel)]


def _claims_of(panel: Panel) -> list[Claim]:
    claim = panel.claims(source=SOURCE, preconditions=panel.ready("the network"))

    return [
        *sequence(*(
            claim(
                f"batches of {size}",
                f"statistics of {size} test examples have an error within {MARGIN:g} pp of the "
                "population's",
                _above(panel, f"batch_{size}_error"), "equivalent", threshold=MARGIN,
                primary=panel.main and size == SIZES[0], estimand=f"{BATCH} minus {EMA}",
                expected="supported" if size == SIZES[0] else "refuted at the small end",
            )
            for size in SIZES
        )),
        claim(
            "prior",
            f"a prior of {PRIOR} examples makes batches of {SMALL} at most {MARGIN:g} pp worse",
            _above(panel, f"prior_{PRIOR}_error_at_{SMALL}"), "not_worse", threshold=MARGIN,
            estimand=f"test error, mixture of batch and population, minus {EMA}",
        ),
        claim(
            "own share",
            f"a share of 0.1 of the example's own statistics is at most {MARGIN:g} pp worse",
            _above(panel, "alpha_0.1_error"), "not_worse", threshold=MARGIN,
            estimand=f"test error, mixture of example and population, minus {EMA}",
            source="Singh & Shrivastava 2019",
        ),
    ]  # fmt: skip
