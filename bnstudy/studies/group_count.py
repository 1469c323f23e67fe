"""Test error by group norm's number of groups, and by channels per group (Wu & He 2018, table 3).

Primary claim: one group, which is layer norm, is worse than the best larger number of groups by at
least 0.6 pp. The best number is chosen for each seed by the validation error of the other seeds, so
that it owes nothing to the errors that are compared. Written before the first run of
configs/study/group_count.yaml.
"""

from collections.abc import Collection

import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies import kit
from bnstudy.studies.convergence import at, best
from bnstudy.studies.drawing import cited, curve, effects
from bnstudy.studies.kit import MODEL, TEST, Panel, Published, extended, panels

GROUPS, CHANNELS, WIDTH = "norm.num_groups", "norm.channels_per_group", "model.width"
LABELS = {GROUPS: "number of groups", CHANNELS: "channels per group"}
SOURCE = "Wu & He 2018, table 3"
PUBLISHED = Published(
    "published", SOURCE, "ResNet-50, ImageNet, 32 images per GPU: error in %",
    {
        "sizes": [64, 32, 16, 8, 4, 2, 1],
        GROUPS: [24.6, 24.1, 24.6, 24.4, 24.6, 24.7, 25.3],
        CHANNELS: [24.4, 24.5, 24.2, 24.3, 24.8, 25.6, 28.4],
    },
)  # fmt: skip
WORSE = 0.6  # pp: half of the published 1.2 between one group and the best number
FLAT = 1.0  # pp between the best and the worst number in between, of which 0.6 are published


def prepared(table: pd.DataFrame) -> list[Panel]:
    """A panel for each data set and width, the narrowest network's first."""
    width = table[WIDTH].astype(int).astype(str)
    named = extended(table, {MODEL: "ResNet of width " + width})
    first = named.sort_values(WIDTH, kind="stable")[MODEL].iloc[0]
    return panels(named, model=first)


# --- what is judged ------------------------------------------------------------------------------


def by_size(panel: Panel, axis: str, metric: str = "test_error") -> pd.DataFrame:
    """An error in percent, seeds by numbers of groups (or of channels in one)."""
    rows = panel.rows[panel.rows[axis].notna()]
    return 100 * rows.pivot(index="seed", columns=axis, values=metric)


def sizes(panel: Panel, axis: str) -> list[float]:
    """The sizes of the grid along an axis, ascending."""
    return sorted(panel.rows[axis].dropna().unique())


def least(panel: Panel, axis: str, among: Collection[float], sign: int = 1) -> dict[int, float]:
    """Seed -> test error at the size that the other seeds choose by validation error.

    sign: 1 for the size of least error, -1 for that of the largest.
    """
    choice = best(sign * by_size(panel, axis, "val_error")[list(among)])
    return at(by_size(panel, axis), choice)


def excess(panel: Panel, axis: str, size: float, among: Collection[float]) -> dict[int, float]:
    """How much more test error one size has than the best of others, by seed."""
    error = by_size(panel, axis)[size]
    return paired_differences(dict(error), least(panel, axis, among))


def published_excess(axis: str, size: float) -> float:
    """The same of the published table, against its best number."""
    return PUBLISHED.at(axis, sizes=size) - min(PUBLISHED[axis])


# --- figures -------------------------------------------------------------------------------------


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Test error by groups and by channels per group, and what the ends have more."""
    main, *_ = prepared(table)
    return [_errors(main, GROUPS), _errors(main, CHANNELS), _ends(main)]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """Training errors, other networks, and the published table."""
    main, *others = prepared(table)
    found = [_errors(main, axis, "train_error") for axis in LABELS]
    for panel in others:
        found += [*(_errors(panel, axis) for axis in LABELS), _ends(panel)]
    curves = [
        cited(PUBLISHED, axis, "sizes", style=figures.hue(i), label=label)
        for i, (axis, label) in enumerate(LABELS.items())
    ]
    return [
        *found,
        figures.Panel("ResNet-50, ImageNet", curves, "groups, or channels in one", "error (%)",
                      floor=None),
    ]  # fmt: skip


def _errors(panel: Panel, axis: str, metric: str = "test_error") -> figures.Panel:
    """An error by the size of groups."""
    rows = panel.rows[panel.rows[axis].notna()]
    what = metric.removesuffix("_error").replace("train", "training")
    return figures.Panel(panel.title, [curve(rows, axis, metric, norm="group")], LABELS[axis],
                         f"{what} error (%)", ceiling=100)  # fmt: skip


def _ends(panel: Panel) -> figures.Panel:
    """What the ends of both axes have more than the best number."""
    named = {
        f"{panel.key}: one group": "one group (layer norm)",
        f"{panel.key}: one channel": "one channel per group (instance norm)",
        f"{panel.key}: most groups": "as many groups as channels in the first stage",
    }
    return figures.Panel(
        "more than the best number", effects(_claims(panel), named, PUBLISHED, "ImageNet"),
        ylabel="test error, paired difference (pp)", kind="dots", zero=True,
        bands=[figures.Band(WORSE, WORSE, f"{WORSE:g} pp")], claim=f"{panel.key}: one group",
    )  # fmt: skip


# --- claims --------------------------------------------------------------------------------------


def claims(table: pd.DataFrame) -> list[Claim]:
    """One group, then one channel per group; then what lies between the ends."""
    return [claim for panel in prepared(table) for claim in _claims(panel)]


def _claims(panel: Panel) -> list[Claim]:
    one, *larger = sizes(panel, GROUPS)
    *between, most = larger
    single, *wider = sizes(panel, CHANNELS)
    rows = panel.rows[panel.rows[GROUPS].isin(between)]
    ready = [
        kit.trained(rows, f"group norm with {between[0]:.0f} to {between[-1]:.0f} groups"),
        kit.comparable(panel.rows),
    ]
    published_best = min(PUBLISHED[GROUPS]) - min(PUBLISHED[CHANNELS])
    claim = panel.claims(source=SOURCE, preconditions=ready, estimand=TEST)
    found = kit.sequence(
        claim(
            "one group",
            f"one group has a test error at least {WORSE:g} pp above the best larger number's",
            excess(panel, GROUPS, one, larger), threshold=WORSE, primary=panel.main,
            **PUBLISHED.cite("{} pp on ImageNet", published_excess(GROUPS, 1)),
        ),
        claim(
            "one channel",
            f"one channel per group, instance norm, is at least {WORSE:g} pp above the best "
            "larger number",
            excess(panel, CHANNELS, single, wider), threshold=WORSE,
            **PUBLISHED.cite("{} pp on ImageNet", published_excess(CHANNELS, 1)),
        ),
    )  # fmt: skip
    found += [
        claim(
            "most groups",
            f"{most:.0f} groups have a higher test error than the best number between the ends",
            excess(panel, GROUPS, most, between),
            **PUBLISHED.cite("{} pp on ImageNet, 64 groups", published_excess(GROUPS, 64)),
        ),
        claim(
            "two rules",
            f"the best number of groups and of channels per group are within {WORSE:g} pp",
            paired_differences(least(panel, GROUPS, larger), least(panel, CHANNELS, wider)),
            "equivalent", threshold=WORSE,
            **PUBLISHED.cite("{} pp on ImageNet", published_best),
        ),
    ]  # fmt: skip
    if len(between) > 1:
        inner = PUBLISHED[GROUPS][1:-1]
        found.append(claim(
            "flat",
            f"between the ends the worst number is at most {FLAT:g} pp above the best",
            paired_differences(
                least(panel, GROUPS, between, sign=-1), least(panel, GROUPS, between)
            ),
            "not_worse", threshold=FLAT,
            **PUBLISHED.cite("{} pp on ImageNet, 32 to 2 groups", max(inner) - min(inner)),
        ))  # fmt: skip
    return found
