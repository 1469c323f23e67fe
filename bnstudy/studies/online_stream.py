"""Prequential error and forgetting on streams (F12b: Online Norm, Continual Norm).

Primary claim: after a stream of tasks PreciseBN over all tasks answers the earlier ones more
accurately than the exponential average, among the classes of the task. Among all ten classes a
network answers with the last task's, and nothing is left to win; within the task what was learned
can still be there, and a precondition asks whether it is. Written before the first run of this
version of the study's grid.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import across, differences
from bnstudy.studies.kit import (
    EMA,
    PRECISE,
    Panel,
    Precondition,
    Published,
    arms,
    comparable,
    extended,
    in_order,
    learned,
    panels,
    select,
    sequence,
    values,
)

TASK = "train.classes_per_task"
PREQUENTIAL = "prequential error (%)"
FORGETTING, ONE_BY_ONE = ("continual", "group"), ("online", "group", "layer")  # claims' other arms
LEARNED = 0.75  # of chance: the prequential error counts every example from the first one on
KEPT = 0.75  # of chance within a task, by PreciseBN: above it there is nothing that statistics hide
PUBLISHED = Published(
    "published", "Chiley et al. 2019",
    "Online Norm equals BN at batch 32 offline (CIFAR-10, ResNet-20, 92.3 against 92.2 % "
    "accuracy); no number for streams of tasks at this scale",
)  # fmt: skip


def streams(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs that see one example at a time, and runs that see task after task."""
    return rows[rows[TASK].isna()], rows[rows[TASK].notna()]


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Earlier tasks by norm, what PreciseBN wins back of them, and one example at a time."""
    main, *_ = _panels(table)
    one, tasks = streams(main.rows)
    guess = 100 * (1 - 1 / float(tasks[TASK].max()))
    return _shown([
        figures.Panel(
            f"{main.title}: earlier tasks", _points(tasks, "old_tasks_error_within"), kind="dots",
            ylabel="test error within a task (%)", ceiling=100,
            bands=[figures.Band(guess, guess, "chance")],
        ),
        _won(main, "statistics_loss_within", "statistics", "within a task"),
        figures.Panel("one example at a time", _points(one, "online_error"), kind="dots",
                      ylabel=PREQUENTIAL, ceiling=100),
    ])  # fmt: skip


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """Task streams by norm; batch norm against others; what PreciseBN wins among all classes."""
    found = []
    for panel in _panels(table):
        one, tasks = streams(panel.rows)
        found += [
            figures.Panel(f"{panel.title}: task after task", _points(tasks, "online_error"),
                          kind="dots", ylabel=PREQUENTIAL, ceiling=100),
            figures.Panel(f"{panel.title}: forgotten tasks", _points(tasks, "forgetting_within"),
                          kind="dots", ylabel="accuracy lost within a task (pp)", ceiling=100),
            _batch_minus(panel, tasks, "forgetting_within", FORGETTING, "forgotten",
                         "accuracy lost, difference (pp)", "forgetting"),
            _batch_minus(panel, one, "online_error", ONE_BY_ONE, "one example at a time",
                         "prequential error, difference (pp)", "batch 1"),
            _won(panel, "statistics_loss", "statistics, all classes", "among all classes"),
        ]  # fmt: skip
    return _shown(found)


def _panels(table: pd.DataFrame) -> list[Panel]:
    """The panels of a table whose runs have the names that figures know."""
    return panels(extended(table, {"arm": arms(table)}))


def _shown(found: list[figures.Panel]) -> list[figures.Panel]:
    """Those that have something to show: a norm may lack population statistics, a grid a stream."""
    return [panel for panel in found if panel.curves]


def _measured(rows: pd.DataFrame, column: str) -> dict[str, pd.DataFrame]:
    """Arm -> its runs, of the arms that have this column, in the order of the legends."""
    found = {arm: select(rows, {"arm": arm}) for arm in in_order(rows["arm"])}
    return {a: own for a, own in found.items() if column in own and own[column].notna().any()}


def _points(rows: pd.DataFrame, column: str) -> list[figures.Curve]:
    """A metric by normalization."""
    return [across(own, {0: column}, norm=arm) for arm, own in _measured(rows, column).items()]


def _won(panel: Panel, column: str, claim: str, where: str) -> figures.Panel:
    """What PreciseBN of all tasks has less than the exponential average on earlier tasks."""
    _, tasks = streams(panel.rows)
    rows = {arm: values(own, column) for arm, own in _measured(tasks, column).items()}
    return _by_norm("won back by PreciseBN", rows, f"accuracy {where} (pp)",
                    f"{panel.data}: {claim}")  # fmt: skip


def _batch_minus(
    panel: Panel, rows: pd.DataFrame, column: str, others: Sequence[str], title: str, ylabel: str,
    claim: str,
) -> figures.Panel:  # fmt: skip
    """What batch norm has more of a metric than others."""
    found = {arm: values(own, column) for arm, own in _measured(rows, column).items()}
    more = {arm: paired_differences(found["batch"], found[arm]) for arm in others if arm in found}
    name = f"{panel.data}: {claim}, {next(iter(more), '')}"
    return _by_norm(f"batch minus others: {title}", more, ylabel, name)


def _by_norm(
    title: str, rows: Mapping[str, Mapping[int, float]], ylabel: str, claim: str
) -> figures.Panel:
    """Paired differences by normalization."""
    styles = [figures.style_of(arm) for arm in rows]
    named = {style.label: rows[arm] for style, arm in zip(styles, rows, strict=True)}
    return differences(title, named, styles, ylabel=ylabel, claim=claim)


def within(rows: pd.DataFrame, what: str) -> list[Precondition]:
    """That every run has learned the earlier tasks once, and by PreciseBN kept a part of them."""
    two = extended(rows, {"num_classes": rows[TASK]})  # the classes among which it answers
    return [
        # half of chance, as everywhere
        learned(two, f"{what} learns each task", "learned_error_within"),
        learned(two, f"{what} keeps a part of it", "old_tasks_error_precise_within", KEPT),
    ]


def claims(table: pd.DataFrame) -> list[Claim]:
    """Statistics in forgetting; continual norm; batch norm one example at a time."""
    table = extended(table, {"arm": arms(table)})
    return [claim for panel in panels(table) for claim in _claims_of(panel)]


def _claims_of(panel: Panel) -> list[Claim]:
    one, tasks = streams(panel.rows)
    batch = select(tasks, {"arm": "batch"})
    present = [arm for arm in ("online", "continual", "group", "layer")
               if arm in set(panel.rows["arm"])]  # fmt: skip
    same = comparable(panel.rows)

    def more(rows: pd.DataFrame, metric: str, arm: str) -> dict[int, float]:
        """How much more of a metric batch norm has than another arm."""
        return paired_differences(*(values(rows, metric, {"arm": a}) for a in ("batch", arm)))

    forgets = panel.claims(
        panel.data, source="Pham et al. 2022", preconditions=[*within(batch, "batch norm"), same]
    )
    won = f"{EMA} minus {PRECISE}"
    found = sequence(
        forgets(
            "statistics",
            "after the tasks PreciseBN over all of them is more accurate on the earlier ones than "
            "the exponential average, each among its own classes",
            values(batch, "statistics_loss_within"), primary=panel.main,
            estimand=f"{won}, within tasks",
        ),
        forgets(
            "statistics, all classes", "so it is among all classes",
            values(batch, "statistics_loss"), estimand=won,
        ),
    )  # fmt: skip
    found += [
        forgets(
            f"forgetting, {arm}",
            f"batch forgets more than {figures.style_of(arm).label} norm, within tasks",
            more(tasks, "forgetting_within", arm), estimand=f"{EMA}, lost since its best",
        )
        for arm in FORGETTING
        if arm in present
    ]  # fmt: skip
    for arm in ONE_BY_ONE:
        if arm not in present:
            continue
        rows, label = select(one, {"arm": arm}), f"{figures.style_of(arm).label} norm"
        ready = [learned(rows, f"{label}, one at a time", "online_error", LEARNED), same]
        errs = panel.claims(panel.data, source="Chiley et al. 2019", preconditions=ready)
        found.append(
            errs(
                f"batch 1, {arm}",
                f"one at a time, batch norm's prequential error exceeds {label}'s",
                more(one, "online_error", arm), estimand=f"prequential {EMA}",
            )
        )  # fmt: skip
    return found
