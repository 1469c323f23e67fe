"""Averaged weights by the source of their statistics: what torch's `update_bn` is for.

Primary claim: recomputing statistics lowers the test error of the mean of the weights over the last
quarter (SWA) by at least 1 pp more than that of the last weights, whose running statistics are
late as well. Averaged statistics, the exponential average of weights (EMA), and group norm, which
has nothing to recompute, have claims of their own. Written before the first run of
configs/study/averaged_weights.yaml.
"""

from collections.abc import Mapping

import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import across, differences
from bnstudy.studies.kit import (
    NORM,
    TEST,
    Panel,
    Published,
    comparable,
    filled,
    panels,
    select,
    trained,
)

FROM = "optimizer.average_from"
KINDS = {"SWA": 0.75, "EMA": 0.0}  # fraction of training from which on weights are averaged
LAST, LAST_PRECISE = "test_error", "test_error_precise"
STALE, RECOMPUTED = "test_error_averaged", "test_error_averaged_precise"
AVERAGED, UPDATED = "averaged_statistics_error", "update_bn_error"
READ = {  # column -> the last weights, or averaged ones and their statistics; as in figures
    LAST: "last",
    STALE: "stale",
    AVERAGED: "averaged",
    RECOMPUTED: "recomputed",
}
NOTICED = 1.0  # pp: a test part of some hundred images does not resolve much less in one run
SAME = 0.5  # pp: half of it, for two ways of recomputing
SOURCE = "Izmailov et al. 2018"
PUBLISHED = Published(
    "published", SOURCE,
    "after averaging, one more pass over the training data computes the statistics of batch norm. "
    "No number of what it is worth",
)  # fmt: skip


def by_kind(norm: str, kind: str) -> dict[str, object]:
    """The cell of a norm and a kind of average."""
    return {NORM: norm, FROM: KINDS[kind]}


def main_first(table: pd.DataFrame) -> list[Panel]:
    """The panels, with the fraction of training that is left out where it is the neutral one."""
    return panels(filled(table, {FROM: 0.0}), model="resnet")


def more(panel: Panel, kind: str, first: str, second: str, norm: str = "batch") -> dict[int, float]:
    """How much more of one error than of another a kind of average has, in pp."""
    cell = by_kind(norm, kind)
    return paired_differences(panel.cell(first, cell), panel.cell(second, cell))


def beyond(panel: Panel, kind: str) -> dict[int, float]:
    """What recomputed statistics gain averaged weights beyond what they gain the last ones."""
    pairs = ((STALE, RECOMPUTED), (LAST, LAST_PRECISE))
    return paired_differences(*(more(panel, kind, *pair) for pair in pairs))


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Test error of averaged weights by their statistics, and what stale ones cost."""
    main, *_ = main_first(table)
    return [_errors(main), _costs(main, f"{main.key}: stale, SWA")]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """The other panels; what averaging weights wins, by norm."""
    found, (main, *others) = [], main_first(table)
    for panel in others:
        found += [_errors(panel), _costs(panel)]
    return [*found, *(_gains(panel) for panel in (main, *others))]


def _errors(panel: Panel) -> figures.Panel:
    """Test error by weights and statistics, a curve for each kind of average and for group norm."""
    curves = []
    for i, kind in enumerate(KINDS):
        own = select(panel.rows, by_kind("batch", kind))
        if len(own):
            columns = {words: column for column, words in READ.items()}
            curves.append(across(own, columns, style=figures.hue(i), label=f"batch, {kind}"))
        own = select(panel.rows, by_kind("group", kind))
        if len(own):
            columns = {READ[column]: column for column in (LAST, STALE)}
            curves.append(across(own, columns, style=figures.hue(i + 2), label=f"group, {kind}"))
    return figures.Panel(panel.title, curves, "last weights, and averaged ones by statistics",
                         x="names", ceiling=100)  # fmt: skip


def _costs(panel: Panel, claim: str = "") -> figures.Panel:
    """What statistics that were not recomputed add to the error of averaged weights."""
    rows = {
        f"{words}, {kind}": more(panel, kind, column, RECOMPUTED)
        for kind in KINDS
        for column, words in ((STALE, "stale"), (AVERAGED, "averaged"), (UPDATED, "update_bn"))
        if len(select(panel.rows, by_kind("batch", kind)))
    }
    for kind in KINDS:
        if len(select(panel.rows, by_kind("batch", kind))):
            rows[f"last weights, {kind}"] = more(panel, kind, LAST, LAST_PRECISE)
            rows[f"stale beyond last, {kind}"] = beyond(panel, kind)
    styles = [figures.hue(list(KINDS).index(label.rpartition(" ")[2])) for label in rows]
    return differences(
        "minus recomputed statistics", rows, styles, claim=claim,
        bands=[figures.Band(NOTICED, NOTICED, f"{NOTICED:g} pp")],
    )  # fmt: skip


def _gains(panel: Panel) -> figures.Panel:
    """Last weights minus averaged ones: with recomputed statistics, and for group norm."""
    rows: dict[str, Mapping[int, float]] = {}
    for kind in KINDS:
        rows[f"batch, {kind}, recomputed"] = more(panel, kind, LAST_PRECISE, RECOMPUTED)
        rows[f"batch, {kind}, stale"] = more(panel, kind, LAST, STALE)
        rows[f"group, {kind}"] = more(panel, kind, LAST, STALE, "group")
    shown = {label: own for label, own in rows.items() if own}
    styles = [figures.hue(i) for i in range(len(shown))]
    return differences("last minus averaged weights", shown, styles)


def claims(table: pd.DataFrame) -> list[Claim]:
    """Stale and averaged statistics, what averaging wins, and group norm, by panel."""
    return [claim for panel in main_first(table) for claim in _claims_of(panel)]


def _claims_of(panel: Panel) -> list[Claim]:
    ready = [
        trained(select(panel.rows, {NORM: "batch"}), "batch norm"),
        comparable(panel.rows),
    ]
    claim = panel.claims(source=SOURCE, preconditions=ready, estimand=TEST)
    averages = {"SWA": "the mean of the weights over the last quarter",
                "EMA": "an exponential average of the weights"}  # fmt: skip
    found = []
    for kind, average in averages.items():
        found += [
            claim(
                f"stale, {kind}",
                f"recomputing statistics lowers the test error of {average} by at least "
                f"{NOTICED:g} pp more than that of the last weights",
                beyond(panel, kind), threshold=NOTICED, primary=panel.main and kind == "SWA",
                expected="supported" if kind == "SWA" else "not known beforehand",
            ),
            claim(
                f"stale in all, {kind}",
                f"{average} has a test error at least {NOTICED:g} pp higher by the running "
                "statistics of the last weights than by recomputed ones",
                more(panel, kind, STALE, RECOMPUTED), threshold=NOTICED,
            ),
            claim(
                f"averaged statistics, {kind}",
                f"{average}: by statistics that are averaged, too, the test error is less than "
                f"{NOTICED:g} pp above that by recomputed ones",
                more(panel, kind, AVERAGED, RECOMPUTED), "not_worse", threshold=NOTICED,
            ),
            claim(
                f"gain, {kind}",
                f"{average} has a lower test error than the last weights, both by recomputed "
                "statistics",
                more(panel, kind, LAST_PRECISE, RECOMPUTED),
            ),
        ]  # fmt: skip
    return [
        *found,
        claim(
            "averaged and stale",
            "averaged over the last quarter and read by stale statistics, weights have a higher "
            "test error than the last ones",
            more(panel, "SWA", STALE, LAST),
        ),
        claim(
            "update_bn",
            "torch's update_bn, a mean over batches of the training size, and pooled moments differ"
            f" by less than {SAME:g} pp",
            more(panel, "SWA", UPDATED, RECOMPUTED), "equivalent", threshold=SAME,
        ),
        claim(
            "group norm",
            "with group norm, which has nothing to recompute, the mean over the last quarter has a "
            "lower test error than the last weights",
            more(panel, "SWA", LAST, STALE, "group"),
            preconditions=[
                trained(select(panel.rows, {NORM: "group"}), "group norm"),
                comparable(panel.rows),
            ],
        ),
    ]  # fmt: skip
