"""Batches of few classes: what leaks through the statistics (Ioffe 2017, section 4.3).

Primary claim: trained in batches of two images of each of half the classes, Ioffe's design, batch
norm's error by population statistics exceeds that by statistics of equally composed batches. One
and two classes a batch are beside it; where an arm does not learn, nothing is concluded. Written
before the first run of this version of the study's grid.
"""

from collections.abc import Sequence

import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import across, curve, differences, reported
from bnstudy.studies.kit import (
    BATCH,
    EMA,
    Panel,
    Precondition,
    Published,
    arms,
    extended,
    filled,
    in_order,
    learned,
    panels,
    select,
    sequence,
    values,
)

CLASSES = "train.classes_per_batch"
XLABEL = "classes in a batch"
LEARNED = 0.75  # of chance, test error at most: above it an arm has nothing to leak or to lose
SOURCE = "Ioffe 2017, section 4.3"
PUBLISHED = Published(
    "published", SOURCE,
    "accuracies in %: Inception-v3 on ImageNet, batches of 16 labels x 2 images",
    {
        "fair batches": 78.3,
        "batch, population": 67.0,
        "batch, equally composed": 76.5,
        "batch, halves": 77.4,
        "renorm": 78.5,
    },
)  # fmt: skip

ARMS = (  # of the source: its name, arm, source of statistics, metric
    ("fair batches", "batch", "population", "test_error"),
    ("batch, population", "batch", "population", "test_error"),
    ("batch, equally composed", "batch", "batch", "composition_error"),
    ("batch, halves", "ghost", "population", "test_error"),
    ("renorm", "renorm", "population", "test_error"),
)


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """With the arm's name; batch norm on halves of the batch is `ghost`."""
    halves = filled(table, {"norm.group_size": None})["norm.group_size"].notna()
    leak = table["test_error"] - table["composition_error"]
    return extended(table, {"arm": arms(table).mask(halves, "ghost"), "leak": leak})


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Batch norm's error by both statistics; the difference, the leak, by classes in a batch."""
    main, *_ = panels(prepared(table))
    batch = select(main.rows, {"arm": "batch"})
    skewed = sorted((int(n) for n in batch[CLASSES].unique()), reverse=True)[1:]
    effect = PUBLISHED["batch, equally composed"] - PUBLISHED["batch, population"]
    published = reported(PUBLISHED, "ImageNet, 16 classes", effect, norm="batch")
    return [
        figures.Panel(
            f"{main.title}, batch norm",
            [
                curve(batch, CLASSES, "test_error", norm="batch", label="exponential average"),
                curve(batch, CLASSES, "composition_error", norm="batch", mode="batch",
                      label="equally composed batches"),
            ],
            XLABEL, ceiling=100,
        ),
        differences(
            "the leak: their difference",
            {
                f"{few} classes" if few > 1 else "1 class":
                    values(batch, "leak", {CLASSES: few})
                for few in skewed
            },
            figures.ramp(len(skewed)), beside=[published],
            claim=f"{main.key}: leak, {skewed[0]}",
        ),
    ]  # fmt: skip


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """Error and leak of every arm by classes in a batch; half the classes, here and published."""
    found = []
    for panel in panels(prepared(table)):
        names = in_order(panel.rows["arm"])
        leaking = [n for n in names if select(panel.rows, {"arm": n})["leak"].notna().any()]
        found += [
            figures.Panel(f"{panel.title}: all norms", _by_classes(panel, names, "test_error"),
                          XLABEL, ceiling=100),
            figures.Panel(f"{panel.title}: the leak", _by_classes(panel, leaking, "leak"), XLABEL,
                          "test error, difference (pp)", floor=None, zero=True),
            _few(panel),
        ]  # fmt: skip
    others = [
        reported(PUBLISHED, name, 100 - PUBLISHED[name], norm=arm, mode=mode)
        for name, arm, mode, _ in ARMS
    ]
    title = "ImageNet, 16 of 1,000 classes"
    return [*found, figures.Panel(title, others, kind="dots", ceiling=100)]


def _few(panel: Panel) -> figures.Panel:
    """The arms that the source has, at the most classes that are not all."""
    fair, few, *_ = sorted((int(n) for n in panel.rows[CLASSES].unique()), reverse=True)
    curves = []
    for name, arm, mode, metric in ARMS:
        classes = fair if name == "fair batches" else few
        rows = select(panel.rows, {"arm": arm, CLASSES: classes})
        if len(rows):
            curves.append(across(rows, {0: metric}, norm=arm, mode=mode, label=name))
    return figures.Panel(f"{panel.title}: {few} of {fair} classes", curves, kind="dots",
                         ceiling=100)  # fmt: skip


def _by_classes(panel: Panel, names: Sequence[str], metric: str) -> list[figures.Curve]:
    """A metric by classes in a batch, a curve for each arm."""
    return [curve(select(panel.rows, {"arm": name}), CLASSES, metric, norm=name) for name in names]


def claims(table: pd.DataFrame) -> list[Claim]:
    """Leak of batch norm, most classes first; what halves and renorm do; raw error."""
    return [claim for panel in panels(prepared(table)) for claim in _claims_of(panel)]


def _claims_of(panel: Panel) -> list[Claim]:
    fair, *skewed = sorted((int(n) for n in panel.rows[CLASSES].unique()), reverse=True)
    each = int(panel.rows["train.batch_size"].iloc[0])
    present = set(panel.rows["arm"])

    def at(arm: str, classes: int) -> dict[str, object]:
        return {"arm": arm, CLASSES: classes}

    def leak(arm: str, classes: int) -> dict[int, float]:
        return panel.cell("leak", at(arm, classes))

    def ready(*names: str, classes: int) -> list[Precondition]:
        """The fair reference has trained; these arms answer better than by chance."""
        there = [select(panel.rows, at(name, classes)) for name in names]
        learn = [
            learned(rows, f"{name} norm, {classes} a batch", "test_error", LEARNED)
            for name, rows in zip(names, there, strict=True)
        ]
        return [*panel.ready(f"batch norm, {fair} classes a batch", at("batch", fair)), *learn]

    claim = panel.claims(source=SOURCE, estimand=f"{EMA} minus {BATCH}, equally composed")
    accuracies = PUBLISHED["batch, equally composed"], PUBLISHED["batch, population"]
    found = sequence(*(
        claim(
            f"leak, {few}",
            f"with {few} of {fair} classes in batches of {each}, batch norm's error by population "
            "statistics exceeds that by statistics of equally composed batches",
            leak("batch", few), primary=panel.main and few == skewed[0],
            preconditions=ready("batch", classes=few),
            **PUBLISHED.cite("{} pp on ImageNet, 16 x 2", accuracies[0] - accuracies[1]),
        )
        for few in skewed
    ))  # fmt: skip
    found += [
        claim(
            f"{arm} leaks less, {skewed[0]}",
            f"there {figures.style_of(arm).label} norm leaks less than batch norm",
            paired_differences(leak("batch", skewed[0]), leak(arm, skewed[0])),
            preconditions=ready("batch", arm, classes=skewed[0]),
        )
        for arm in ("ghost", "renorm")
        if arm in present
    ]
    if "group" in present:
        found += [
            claim(
                f"raw error, {few}",
                f"{few} classes a batch raise batch norm's error more than group norm's",
                paired_differences(*(
                    panel.difference(at(arm, few), at(arm, fair)) for arm in ("batch", "group")
                )),
                estimand=EMA, expected="either way: both forget",
                preconditions=ready("batch", "group", classes=few),
            )
            for few in skewed
        ]  # fmt: skip
    return found
