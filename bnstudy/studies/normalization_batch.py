"""Error against the normalization batch at a fixed SGD batch (Wu & Johnson 2021, figures 5, 6).

Primary claim: with a residual network on contrast digits, ghost groups of two raise the
training error over groups of the whole SGD batch. The sign of the train / test inconsistency is a
finding either way. Vectors normalized by two are signs: what the MLP loses at groups of two is a
demonstration, and its claims are about groups of four. Written before the first run of the grid in
configs/study/normalization_batch.yaml.
"""

import dataclasses

import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import cited, curve, effects, gaps
from bnstudy.studies.kit import (
    EMA,
    TRAINING,
    Panel,
    Published,
    panels,
    select,
    sequence,
    smallest_judged,
)

SIZE, FREEZE = "norm.group_size", "norm.freeze_at"
XLABEL = "normalization batch (examples)"
READINGS = {"population": "average", "precise": "PreciseBN", "batch": "batch statistics"}
FROZEN = "frozen finish"
FINISH = 0.8  # frozen from here on: the last fifth of training
SOURCE = "Wu & Johnson 2021, figures 5 and 6"
PUBLISHED = Published(
    "digitised", SOURCE, "error in %, about 0.2 either way, ResNet-50, ImageNet",
    {
        "group_size": [64, 32, 16, 8, 4, 2],
        "training, batch statistics": [9.8, 10.8, 12.1, 13.6, 15.2, 16.6],
        "batch": [24.7, 24.5, 24.7, 25.1, 25.5, 26.0],
        "population": [23.2, 23.4, 23.5, 24.3, 26.4, 32.4],
        "frozen": [24.2, 24.3, 23.9, 24.2, 24.3, 25.2],
    },
)  # fmt: skip


def main_first(table: pd.DataFrame) -> list[Panel]:
    """The panels; the primary claim is about the residual network on contrast digits."""
    return panels(table, model="resnet", data="contrast_digits")


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Errors of the main panel by normalization batch, and what the smallest one costs."""
    panel = main_first(table)[0]
    return [*_errors(panel), _costs(panel, PUBLISHED)]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """The other panels, the train / test inconsistency of all, and the published errors."""
    found = main_first(table)
    others = [drawn for panel in found[1:] for drawn in (*_errors(panel), _costs(panel))]
    return [*others, _inconsistencies(found), _published()]


def _errors(panel: Panel) -> list[figures.Panel]:
    """Training and test error by normalization batch."""
    running, frozen = (select(panel.rows, {FREEZE: part}) for part in (1.0, FINISH))
    training = curve(running, SIZE, "train_error", norm="ghost", mode="batch", label="training")
    test = [
        curve(running, SIZE, f"test_error{figures.MODES[mode].suffix}", norm="ghost", mode=mode,
              label=label, dots=mode == "population")
        for mode, label in READINGS.items()
    ]  # fmt: skip
    if len(frozen):
        test.append(curve(frozen, SIZE, "test_error", norm="ghost", mode="frozen", label=FROZEN))
    return [
        figures.Panel(panel.title, curves, XLABEL, f"{what} error (%)", ceiling=100)
        for what, curves in (("training", [training]), ("test", test))
    ]


def _costs(panel: Panel, others: Published | None = None) -> figures.Panel:
    """What claims compare: small groups against large ones, and without a frozen finish."""
    small, _ = smallest_judged(panel.rows[SIZE].unique(), panel.model)
    large = int(panel.rows[SIZE].max())
    rows = {
        "training noise": "training error",
        "test error": "test error",
        "frozen finish": "test error, won back",
    }
    named = {f"{panel.key}: {name}": label for name, label in rows.items()}
    return figures.Panel(
        f"groups of {small} minus groups of {large}",
        effects(_claims_of(panel), named, others, "ImageNet"),
        ylabel="error, paired difference (pp)", kind="dots", zero=True,
        claim=next(iter(named)),
    )  # fmt: skip


def _inconsistencies(found: list[Panel]) -> figures.Panel:
    """Test error by the exponential average minus that by batch statistics."""
    curves = [
        gaps(
            panel.title,
            {size: inconsistency(panel, size) for size in sorted(panel.rows[SIZE].unique())},
            style=figures.hue(i),
        )
        for i, panel in enumerate(found)
    ]
    sizes = PUBLISHED["group_size"]
    more = {"group_size": sizes, "more": [published_inconsistency(size) for size in sizes]}
    digitised = dataclasses.replace(PUBLISHED, values=more)
    style = figures.hue(len(found))
    curves.append(cited(digitised, "more", "group_size", style=style, label="ImageNet"))
    ylabel = "test error, difference (pp)"
    return figures.Panel("average minus batch statistics", curves, XLABEL, ylabel, zero=True)


def _published() -> figures.Panel:
    curves = [
        cited(PUBLISHED, name, "group_size", norm="ghost", mode=mode, label=label)
        for name, mode, label in (("population", "population", READINGS["population"]),
                                  ("batch", "batch", READINGS["batch"]),
                                  ("frozen", "frozen", FROZEN),
                                  ("training, batch statistics", "batch", "training"))
    ]  # fmt: skip
    return figures.Panel("ResNet-50, ImageNet", curves, XLABEL, "error (%)", ceiling=100)


def claims(table: pd.DataFrame) -> list[Claim]:
    """Training noise, what it costs in test error, frozen finish, inconsistency; see above."""
    return [claim for panel in main_first(table) for claim in _claims_of(panel)]


def published(name: str, size: int) -> float:
    """A published error at a group size, in %."""
    return PUBLISHED.at(name, group_size=size)


def published_inconsistency(size: int) -> float:
    """Published population minus batch-statistics error at a group size, in pp."""
    return published("population", size) - published("batch", size)


def inconsistency(panel: Panel, size: int) -> dict[int, float]:
    """Test error by population minus by batch statistics at a group size, in pp, by seed."""
    errors = (panel.cell(f"test_error{m}", {SIZE: size, FREEZE: 1.0}) for m in ("", "_batch"))
    return paired_differences(*errors)


def _claims_of(panel: Panel) -> list[Claim]:
    small, apart = smallest_judged(panel.rows[SIZE].unique(), panel.model)
    large, two = int(panel.rows[SIZE].max()), {SIZE: 2, FREEZE: 1.0}
    certain = panel.model == "mlp" and small == 2
    running = {size: {SIZE: size, FREEZE: 1.0} for size in (small, large)}

    claim = panel.claims(
        source=SOURCE, preconditions=panel.ready(f"groups of {large}", running[large])
    )
    noise = published("training, batch statistics", small) - published(
        "training, batch statistics", 64
    )
    nested = [
        claim(
            "training noise",
            f"groups of {small} have a higher training error than groups of {large}",
            panel.difference(running[small], running[large], "train_error"),
            "demonstration" if certain else "greater", estimand=TRAINING,
            primary=panel.main and not certain,
            **PUBLISHED.cite(f"{{}} pp on ImageNet, 64 to {small}", noise),
        ),
        claim(
            "test error",
            "they have a higher test error, too",
            panel.difference(running[small], running[large]), estimand=EMA,
            **PUBLISHED.cite(
                f"{{}} pp on ImageNet, 64 to {small}",
                published("population", small) - published("population", 64),
            ),
        ),
    ]  # fmt: skip
    if (panel.rows[FREEZE] == FINISH).any():
        nested.append(
            claim(
                "frozen finish",
                f"at groups of {small}, freezing BN for the last fifth of training lowers the test "
                "error",
                panel.difference(running[small], {SIZE: small, FREEZE: FINISH}), estimand=EMA,
                **PUBLISHED.cite(
                    "{} pp on ImageNet", published("population", small) - published("frozen", small)
                ),
            )
        )  # fmt: skip
    found = sequence(*nested)
    if apart:
        found.append(
            claim(
                "signs", f"groups of 2 have a higher training error than groups of {large}",
                panel.difference(two, running[large], "train_error"), "demonstration",
                estimand=TRAINING, source="a vector normalized by two is a sign",
            )
        )  # fmt: skip
    return [
        *found,
        claim(
            "inconsistency",
            "population minus batch-statistics test error is larger at groups of "
            f"{small} than at {large}",
            paired_differences(inconsistency(panel, small), inconsistency(panel, large)),
            estimand="test error, exponential average minus batch statistics",
            expected="refuted (boundary condition: small scale)",
            **PUBLISHED.cite(
                f"{{}} pp on ImageNet, 64 to {small}",
                published_inconsistency(small) - published_inconsistency(64),
            ),
        ),
    ]  # fmt: skip
