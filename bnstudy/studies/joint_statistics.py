"""Images and corrupted copies in one forward or in two apart, and which statistics read them.

Primary claim: trained in two forwards apart, a network read by its population statistics has a test
error (mean of clean and corrupted images) at least 1 pp above that of one trained jointly in groups
of the same size. Whether that is training or evaluation is asked of the same networks by statistics
of each kind alone, as auxiliary batch norm has them. Written before the first run of
configs/study/joint_statistics.yaml.
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
    extended,
    filled,
    panels,
    select,
    trained,
)

CORRUPTION, COPIES, SIZE = "train.corruption", "train.copies", "norm.group_size"
MAIN = "noise"
MARGIN = 1.0  # pp: a test part of some hundred images does not resolve much less in one run
POPULATION, OWN = "population", "own"  # which statistics are read
COLUMNS = {  # (kind of image, statistics) -> column
    ("clean", POPULATION): "test_error",
    ("clean", OWN): "test_error_precise",
    ("corrupted", POPULATION): "corrupted_error",
    ("corrupted", OWN): "corrupted_error_own",
}
SOURCE = "Bhatt et al. 2024"
PUBLISHED = Published(
    "published", SOURCE,
    "without target networks, batch norm works in reinforcement learning where both distributions "
    "of a step share one forward. No number for images",
)  # fmt: skip


def main_first(table: pd.DataFrame) -> list[Panel]:
    """A panel for each data set, model and corruption of training, noise first."""
    table = filled(table, {SIZE: None, COPIES: "between"})
    for statistics in (POPULATION, OWN):
        columns = [COLUMNS[kind, statistics] for kind in ("clean", "corrupted")]
        table = extended(table, {f"mean_{statistics}": table[columns].mean(axis=1, skipna=False)})
    found = []
    for panel in panels(table, model="resnet"):
        names = sorted(panel.rows[CORRUPTION].unique(), key=lambda name: (name != MAIN, name))
        found += [
            Panel(panel.data, panel.model, select(panel.rows, {CORRUPTION: name}),
                  panel.main and i == 0)
            for i, name in enumerate(names)
        ]  # fmt: skip
    return found


def arms_of(panel: Panel) -> dict[str, dict[str, object]]:
    """Name -> cell: one group of all, groups of both kinds, groups of one kind, group norm."""
    size = float(panel.rows[SIZE].max())
    batch = {NORM: "batch", COPIES: "between"}
    return {
        "joint": {**batch, SIZE: None},
        "joint in groups": {**batch, SIZE: size},
        "apart": {NORM: "batch", COPIES: "behind", SIZE: size},
        "group norm": {NORM: "group", SIZE: None, COPIES: "between"},
    }


def corruption(panel: Panel) -> str:
    """The corruption that a panel's networks were trained with."""
    return str(panel.rows[CORRUPTION].iloc[0])


def named(panel: Panel, name: str) -> str:
    """A claim's name."""
    return f"{panel.key}, {corruption(panel)}: {name}"


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Errors of each arm by statistics, and what forwards apart cost by either."""
    main, *_ = main_first(table)
    return [_errors(main), _costs(main, named(main, "apart"))]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """The other panels; each kind of image by itself."""
    found, every = [], main_first(table)
    for panel in every:
        found += [] if panel.main else [_errors(panel), _costs(panel)]
        found += [_kinds(panel, statistics) for statistics in (POPULATION, OWN)]
    return found


def _errors(panel: Panel) -> figures.Panel:
    """Mean error of clean and corrupted images, by arm and by the statistics that are read."""
    curves = []
    for i, (arm, cell) in enumerate(arms_of(panel).items()):
        own = select(panel.rows, cell)
        columns = {"population": f"mean_{POPULATION}", "of its own kind": f"mean_{OWN}"}
        style = figures.style_of("group") if arm == "group norm" else figures.hue(i)
        if len(own):
            curves.append(across(own, columns, style=style, label=arm))
    return figures.Panel(f"{panel.title}: {corruption(panel)}", curves, "statistics that are read",
                         x="names", ceiling=100)  # fmt: skip


def _kinds(panel: Panel, statistics: str) -> figures.Panel:
    """Errors of clean and of corrupted images, by arm."""
    curves = []
    for i, (arm, cell) in enumerate(arms_of(panel).items()):
        own = select(panel.rows, cell)
        columns = {kind: COLUMNS[kind, statistics] for kind in ("clean", "corrupted")}
        if len(own) and own[list(columns.values())].notna().any(axis=None):
            style = figures.style_of("group") if arm == "group norm" else figures.hue(i)
            curves.append(across(own, columns, style=style, label=arm))
    words = "population" if statistics == POPULATION else "own kind"
    return figures.Panel(f"{corruption(panel)}: {words}", curves, "test images", x="names",
                         ceiling=100)  # fmt: skip


def _costs(panel: Panel, claim: str = "") -> figures.Panel:
    """Test error, mean of both kinds, minus that of joint groups by their population."""
    shown = {
        "apart, population": ("apart", POPULATION),
        "apart, own kind": ("apart", OWN),
        "joint in groups, own kind": ("joint in groups", OWN),
        "joint, population": ("joint", POPULATION),
    }
    rows: dict[str, Mapping[int, float]] = {
        label: against_groups(panel, arm, statistics) for label, (arm, statistics) in shown.items()
    }
    arms = list(arms_of(panel))  # whose colors they have
    return differences(
        "minus joint in groups", rows, [figures.hue(arms.index(arm)) for arm, _ in shown.values()],
        claim=claim, bands=[figures.Band(MARGIN, MARGIN, f"{MARGIN:g} pp")],
    )  # fmt: skip


def against_groups(panel: Panel, arm: str, statistics: str) -> dict[int, float]:
    """Mean error of an arm minus that of joint groups read by their population, in pp."""
    arms = arms_of(panel)
    return paired_differences(
        panel.cell(f"mean_{statistics}", arms[arm]),
        panel.cell(f"mean_{POPULATION}", arms["joint in groups"]),
    )


def claims(table: pd.DataFrame) -> list[Claim]:
    """What forwards apart cost, in evaluation and in training; groups alone; each kind."""
    return [claim for panel in main_first(table) for claim in _claims_of(panel)]


def _claims_of(panel: Panel) -> list[Claim]:
    arms, name = arms_of(panel), corruption(panel)
    ready = [
        *(trained(select(panel.rows, arms[arm]), arm)
          for arm in ("joint", "joint in groups", "apart")),
        comparable(panel.rows),
    ]  # fmt: skip
    claim = panel.claims(
        key=f"{panel.key}, {name}", source=SOURCE, preconditions=ready, estimand=TEST
    )

    def kind(image: str) -> dict[int, float]:
        return paired_differences(
            panel.cell(COLUMNS[image, POPULATION], arms["joint in groups"]),
            panel.cell(COLUMNS[image, OWN], arms["apart"]),
        )

    return [
        claim(
            "apart",
            f"with copies under {name}, two forwards apart give a mean test error, by population "
            f"statistics, at least {MARGIN:g} pp above that of one forward in groups of equal size",
            against_groups(panel, "apart", POPULATION), threshold=MARGIN, primary=panel.main,
        ),
        claim(
            "apart, own statistics",
            f"with copies under {name}, read by statistics of each kind alone they cost less than "
            f"{MARGIN:g} pp",
            against_groups(panel, "apart", OWN), "not_worse", threshold=MARGIN,
            source="Xie et al. 2020",
        ),
        claim(
            "joint, own statistics",
            f"with copies under {name}, a network trained jointly has a higher mean test error by "
            "statistics of each kind alone than by its population's",
            against_groups(panel, "joint in groups", OWN),
        ),
        claim(
            "groups alone",
            f"with copies under {name}, one forward in groups of half the batch and one in a "
            f"single group differ by less than {MARGIN:g} pp",
            against_groups(panel, "joint", POPULATION), "equivalent", threshold=MARGIN,
        ),
        *(
            claim(
                f"auxiliary, {image}",
                f"with copies under {name}, on {image} images training apart with statistics of "
                "their own gives a lower test error than training jointly",
                kind(image), source="Xie et al. 2020", expected="not known beforehand",
            )
            for image in ("clean", "corrupted")
        ),
    ]  # fmt: skip
