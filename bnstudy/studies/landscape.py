"""What batch norm does to the loss along its gradient (Santurkar et al. 2018, figures 2 and 4).

At each evaluation the probe `landscape` follows the gradient g of one training batch and finds the
range of the loss, the range of the gradient's change, and the largest change for a step's length,
"effective beta-smoothness", on two grids: eta from 1/2 to 4 times the learning rate, as published,
and eta |g| / |w| from 1/1024 to 1/8, gradients then times |w|. The second is fairer: the loss of a
normalized network does not change with the length of its weights, while its gradient does, so that
one eta is another step in each network.

Primary claim: at equal rates the gradient of a VGG-like network changes less than half as much for
a step's length with batch norm than without. Networks whose training loss has not fallen are a
failed precondition: what is dead is flat. Written before the first run of
configs/study/landscape.yaml.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bnstudy import figures
from bnstudy.figures import Curve, Panel
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies import kit
from bnstudy.studies.drawing import differences, medians
from bnstudy.studies.kit import NORM, PRECISE, Published, extended, panels, select

SOURCE = "Santurkar et al. 2018"
PUBLISHED = Published(
    "unconfirmed", "Santurkar et al. 2018, appendix",
    "constants of the noise behind each batch norm: mean up to, s.d. up to, jitter of both",
    {"noise_mean": 0.5, "noise_std": 1.25, "jitter": 0.1},
)  # fmt: skip
MEASURES = {
    "smoothness": "effective smoothness",
    "gradient_range": "range of the gradient's change",
    "loss_range": "range of the loss",
}
SHORT = {"smoothness": "smoothness", "gradient_range": "gradient", "loss_range": "loss"}
UNITS = {"": "equal rates", "_relative": "equal relative steps"}
HALF = 0.3  # decades: a factor of two, which a reader of such a figure sees
MARGIN = 1.0  # pp, within which noise costs nothing
FALLEN = 0.5  # of the loss of guessing: a network above it has not learned
ERROR = "error"  # by PreciseBN where there is batch norm


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """With the mean of log10 of each measure over the evaluations, as `log_<measure>`, and `error`.

    The error of batch norm is by PreciseBN: its exponential average is of activations with the
    noise that evaluation does not have.
    """
    found = {ERROR: table["test_error_precise"].fillna(table["test_error"])}
    names = [f"{measure}{unit}" for measure in MEASURES for unit in UNITS] + ["shift_norm"]
    for name in names:
        columns = sorted(str(c) for c in table if str(c).startswith(f"{name}/"))
        positive = table[columns].where(table[columns] > 0)
        # one value that is not there makes the mean NaN: no run is judged by its better half
        found[f"log_{name}"] = np.log10(positive).mean(axis=1, skipna=False)
    return extended(table, found)


def contrast(panel: kit.Panel, metric: str, norm: str = "batch") -> dict[int, float]:
    """Decades by which a mean logarithm is larger without norm than with this one, by seed."""
    first, second = ({NORM: name} for name in ("none", norm))
    return paired_differences(panel.cell(metric, first, 1), panel.cell(metric, second, 1))


# --- figures -------------------------------------------------------------------------------------


def headline(table: pd.DataFrame) -> list[Panel]:
    """Smoothness over training; what batch norm gains in each measure; test errors."""
    main, *_ = panels(prepared(table), model="vgg")
    return [_course(main, "smoothness"), _gains(main), _errors(main)]


def details(table: pd.DataFrame) -> list[Panel]:
    """Every measure over training, in both units; covariate shift; the other networks."""
    main, *others = panels(prepared(table), model="vgg")
    found = []
    for panel in (main, *others):
        found += [panel_of for panel_of in (_gains(panel), _errors(panel)) if panel is not main]
        found += [
            _course(panel, measure, unit)
            for unit in UNITS
            for measure in MEASURES
            if panel is not main or (measure, unit) != ("smoothness", "")
        ]
        found += [_course(panel, "shift_norm"), _course(panel, "shift_cosine", log=False)]
    return found


TITLES = {
    **MEASURES,
    "shift_norm": "internal covariate shift, |G - G'| / |G|",
    "shift_cosine": "cosine of G and G'",
}


def _course(panel: kit.Panel, name: str, unit: str = "", log: bool = True) -> Panel:
    """A measure over the steps of training, a curve for each norm."""
    title = f"{panel.title}, {UNITS[unit]}" if name in MEASURES else panel.title
    curves = [
        _over_steps(select(panel.rows, {NORM: norm}), f"{name}{unit}", norm)
        for norm in kit.in_order(panel.rows[NORM])
    ]
    return Panel(
        title, curves, "steps (medians, quartiles of runs)", TITLES[name], x="linear", floor=None,
        y="log10" if log else "linear",
    )  # fmt: skip


def _over_steps(rows: pd.DataFrame, name: str, norm: str) -> Curve:
    """The columns name/01, name/02, ... over the steps at which they were measured."""
    every = rows["evaluate.steps"].iloc[0]
    columns = sorted(str(c) for c in rows if str(c).startswith(f"{name}/"))
    steps = {every * int(column.rpartition("/")[2]): column for column in columns}
    style = figures.style_of(norm)
    return medians(rows, steps, style=style, label=style.label)


def _gains(panel: kit.Panel) -> Panel:
    """Decades by which each measure is smaller with batch norm."""
    rows, styles = {}, []
    for j, (unit, where) in enumerate(UNITS.items()):
        for measure, title in SHORT.items():
            rows[f"{title}, {where}"] = contrast(panel, f"log_{measure}{unit}")
            styles.append(figures.hue(j))
    return differences(
        "smaller with batch norm", rows, styles, ylabel="log10 of none / batch norm (decades)",
        claim=f"{panel.key}: smoothness, equal rates",
    )  # fmt: skip


def _errors(panel: kit.Panel) -> Panel:
    """Test error of other norms minus that of batch norm."""
    names = [n for n in ("none", "noisy") if n in set(panel.rows[NORM])]
    rows = {
        {"none": "no norm", "noisy": "noisy batch norm"}[norm]: _lost(panel, norm) for norm in names
    }
    return differences(
        "against batch norm", rows, [figures.style_of(n) for n in names],
        claim=f"{panel.key}: noise costs nothing",
    )  # fmt: skip


def _lost(panel: kit.Panel, norm: str, other: str = "batch") -> dict[int, float]:
    """Test error with one norm minus that with another, in pp."""
    return panel.difference({NORM: norm}, {NORM: other}, ERROR)


# --- claims --------------------------------------------------------------------------------------


def claims(table: pd.DataFrame) -> list[Claim]:
    """Smoothness first, by both units; then noise, and covariate shift."""
    return [claim for panel in panels(prepared(table), model="vgg") for claim in _claims(panel)]


def _claims(panel: kit.Panel) -> Sequence[Claim]:
    rows = panel.rows
    limit = FALLEN * math.log(rows["num_classes"].iloc[0]) if len(rows) else 0.0
    ready = [
        *(kit.fitted(select(rows, {NORM: n}), n, limit) for n in ("none", "batch")),
        kit.comparable(rows),
    ]
    claim = panel.claims(source=SOURCE, preconditions=ready)
    found = []
    for unit, where in UNITS.items():
        for measure, title in MEASURES.items():
            found.append(claim(
                f"{measure.replace('_', ' ')}, {where}",
                f"the {title} is less than half with batch norm, at {where}",
                contrast(panel, f"log_{measure}{unit}"), threshold=HALF, unit="decades",
                estimand=f"mean log10 of the {title}", primary=panel.main and not found,
                **({} if found else {"expected": "refuted: about equal in pilots"}),
            ))  # fmt: skip
    noisy = [*ready, kit.fitted(select(rows, {NORM: "noisy"}), "noisy", limit)]
    found += [
        claim(
            "noise costs nothing",
            f"noise behind each batch norm costs at most {MARGIN:g} pp of test error",
            _lost(panel, "noisy"), "not_worse", threshold=MARGIN,
            estimand=PRECISE, preconditions=noisy,
        ),
        claim(
            "noise is better than none",
            "batch norm with noise has a lower test error than no norm",
            _lost(panel, "none", "noisy"), estimand=PRECISE, preconditions=noisy,
        ),
        claim(
            "covariate shift",
            "batch norm does not halve internal covariate shift, |G - G'| / |G|",
            contrast(panel, "log_shift_norm"), "not_worse", threshold=HALF, unit="decades",
            estimand="mean log10 of |G - G'| / |G|",
        ),
    ]  # fmt: skip
    return found
