"""Error against batch size (Wu & He 2018, figure 1): what does BN lose at small batches, and why?

Primary claim, on feature maps: from the reference batch to the small one BN's test error grows by
more than group norm's (a difference in differences, paired by seed, so that what smaller batches do
to every arm cancels). What follows says how much of it is the exponential average, and how much
noise in training. Networks in which BN sees vectors are judged beside it: they lose for another
reason. Written before the first run of the seeds in configs/study/batch_size.yaml.
"""

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from bnstudy import figures
from bnstudy.figures import Curve, Panel
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies import kit
from bnstudy.studies.drawing import cited, curve, gap, gaps
from bnstudy.studies.kit import (
    EMA,
    FAILURES,
    MODEL,
    NORM,
    PRECISE,
    TRAINING,
    Published,
    comparable,
    extended,
    filled,
    in_order,
    panels,
    select,
    sequence,
    trained,
)

B = "train.batch_size"
XLABEL = "batch size"
PER_GPU = "batch size (published: per GPU)"
MAIN = ("contrast_digits", "resnet")  # chosen by pilots, see the YAML
VECTORS = ("mlp", "lenet")  # networks with norms that see vectors
# compared with BN where they are trained; on photographs pilots of the last two at times failed at
# the reference batch, and a claim that is invalid ends a sequence
FURTHER = ("instance", "layer", "none")
PARTLY = "lenet_maps"  # LeNet whose norms follow its convolutions only

Arms = kit.Panel  # the runs of one data set and model; figures have panels of their own

PUBLISHED = Published(
    "published", "Wu & He 2018, tables 1 and 2",
    "validation error in %, ResNet-50 on ImageNet, one run; batch size: images per GPU",
    {
        "batch_size": [32, 16, 8, 4, 2],
        "batch": [23.6, 23.7, 24.8, 27.3, 34.7],
        "group": [24.1, 24.2, 24.0, 24.2, 24.1],
    },
)  # fmt: skip
OTHERS = Published(
    "published",
    "Wu & He 2018, table 1",
    "validation error in %, ResNet-50 on ImageNet, 32 images per GPU",
    {"batch": 23.6, "layer": 25.3, "instance": 28.4},
)
SOURCE = "Wu & He 2018, table 2"

# thresholds in pp, written before any seed of a claim was trained
MORE = 2.4  # half of the pilots' loss of 4.75, see the YAML; a fifth of the published one
WITHIN = 3.0  # margin of PreciseBN against group norm: under a third of the published loss
CONTROL = 1.0  # margin of torch's own layer against this package's
VECTORS_LOSE = 5.0  # half of the published loss on maps; pilots showed 2 to 3, see the YAML


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """With a name of its own for LeNet whose norms follow its convolutions only."""
    where = filled(table, {"model.normalized": "all"})["model.normalized"] == "convolutions"
    return extended(table, {MODEL: table[MODEL].mask(where, PARTLY)})


def found_panels(table: pd.DataFrame) -> list[Arms]:
    """The panels of a table, the one of the primary claim first."""
    return panels(prepared(table), data=MAIN[0], model=MAIN[1])


def control_of(panel: Arms) -> str:
    """The arm that BN is compared with: group norm in the ResNet, layer norm elsewhere."""
    present = set(panel.rows[NORM])
    wanted = "group" if panel.model == "resnet" else "layer"
    return wanted if wanted in present else "group"


def ends(panel: Arms) -> tuple[int, int]:
    """The small and the reference batch of a panel: 2 on maps, 4 on vectors, and the largest.

    Two vectors normalized by their own statistics are a pure sign, which is no finding.
    """
    sizes = sorted(int(size) for size in panel.rows[B].unique())
    least = 4 if panel.model in VECTORS else 2
    return next((s for s in sizes if s >= least), sizes[0]), sizes[-1]


# --- figures -------------------------------------------------------------------------------------


def headline(table: pd.DataFrame) -> list[Panel]:
    """What BN loses more than its control, published beside measured; the errors behind it."""
    every = found_panels(table)
    main = every[0]
    vectors = [own for own in every[1:] if own.model in VECTORS]
    shown = [main, *sorted(vectors, key=lambda own: VECTORS.index(own.model))[:1]]
    curves = [_published_gap(), _measured_gap(main, figures.hue(0))]
    claims_of = {own.key: f"{own.key}: BN loses more" if len({*ends(own)}) > 1 else ""
                 for own in shown}  # fmt: skip
    first = Panel(
        f"batch norm minus {control_of(main)} norm", curves, PER_GPU, "test error, difference (pp)",
        zero=True, claim=claims_of[main.key],
    )  # fmt: skip
    return [first, *(
        Panel(own.title, _errors(own), XLABEL, ceiling=100,
              claim="" if own is main or len({*ends(own)}) == 1 else claims_of[own.key])
        for own in shown
    )]  # fmt: skip


def details(table: pd.DataFrame) -> list[Panel]:
    """Every arm: test error, training loss, BN's evaluation modes; then paired differences."""
    every = found_panels(table)
    found = []
    for own in every:
        found += [
            Panel(f"{own.title}: all arms", _by_norm(own, "test_error"), XLABEL, ceiling=100),
            Panel(f"{own.title}: training", _by_norm(own, "train_loss"), XLABEL,
                  "training loss (nats)", y="log10"),
            Panel(f"{own.title}: BN by source of statistics", _modes(own), XLABEL, ceiling=100),
        ]  # fmt: skip
    measured = [own for own in every if control_of(own) in set(own.rows[NORM])]
    gaps = [_measured_gap(own, figures.hue(i)) for i, own in enumerate(measured)]
    found.append(Panel("BN minus its control", [_published_gap(), *gaps], PER_GPU,
                       "test error, difference (pp)", zero=True))  # fmt: skip
    return [*(panel for panel in found if panel.curves), _growth(measured)]


def _errors(own: Arms) -> list[Curve]:
    """BN, read in two ways, and its control."""
    batch = select(own.rows, {NORM: "batch"})
    control = control_of(own)
    return [
        curve(batch, B, "test_error", norm="batch"),
        curve(batch, B, "test_error_precise", norm="batch", mode="precise", dots=False),
        curve(select(own.rows, {NORM: control}), B, "test_error", norm=control),
    ]


def _by_norm(own: Arms, metric: str) -> list[Curve]:
    """All arms."""
    return [
        curve(select(own.rows, {NORM: norm}), B, metric, norm=norm, percent="error" in metric,
              dots=False)
        for norm in in_order(own.rows[NORM])
    ]  # fmt: skip


def _modes(own: Arms) -> list[Curve]:
    """BN's test error by the source of the statistics it is evaluated with."""
    batch = select(own.rows, {NORM: "batch"})
    return [
        curve(batch, B, f"test_error{mode.suffix}", norm="batch", mode=name, label=mode.label,
              dots=False)
        for name, mode in figures.MODES.items()
        if f"test_error{mode.suffix}" in batch and len(batch)
    ]  # fmt: skip


def _measured_gap(own: Arms, style: figures.Style) -> Curve:
    """BN minus its control by batch size; the seeds are beside it, in the errors."""
    control = control_of(own)
    differences = {
        size: own.difference(at("batch", size), at(control, size))
        for size in sorted(int(size) for size in own.rows[B].unique())
        if own.cell("test_error", at("batch", size)) and own.cell("test_error", at(control, size))
    }
    return gaps(own.title, differences, style=style, dots=False)


def _published_gap() -> Curve:
    """Published: BN minus GN by batch size."""
    pairs = zip(PUBLISHED["batch"], PUBLISHED["group"], strict=True)
    values = {**PUBLISHED.values, "gap": [round(b - g, 6) for b, g in pairs]}
    own = replace(PUBLISHED, values=values)
    return cited(own, "gap", "batch_size", style=figures.hue(3), label="ImageNet, ResNet-50")


def _growth(measured: list[Arms]) -> Panel:
    """What BN loses more than its control from the reference batch to the small one."""
    lost = pd.DataFrame({"x": [0], "mean": _published_loss(2, 32), "low": np.nan, "high": np.nan})
    rows = [Curve("ImageNet, ResNet-50, 32 to 2", lost, figures.hue(3), source="published")]
    for i, own in enumerate(measured):
        small, large = ends(own)
        for norm in (control_of(own), *_further(own)):
            values = _more(own, norm, small, large)
            label = f"{own.title}, {large} to {small}" + f", {norm}" * (norm != control_of(own))
            rows.append(gap(label, values, style=figures.hue(i)))
    return Panel("BN's growth of error minus its control's", rows, kind="dots", zero=True,
                 ylabel="test error, difference (pp)")  # fmt: skip


# --- claims --------------------------------------------------------------------------------------


def claims(table: pd.DataFrame) -> list[Claim]:
    """The primary claim and what follows from it, on the main panel; then the other panels."""
    every = found_panels(table)
    found = []
    for panel in every:
        if panel.model != PARTLY:  # which is there for comparison with the whole LeNet
            found += _on_vectors(panel) if panel.model in VECTORS else _on_maps(panel)
    return [*found, *_vectors_or_maps(every)]


def at(norm: str, size: int) -> dict[str, object]:
    """The cell of an arm at a batch size."""
    return {NORM: norm, B: size}


def _change(panel: Arms, norm: str, small: int, large: int) -> dict[int, float]:
    return panel.difference(at(norm, small), at(norm, large))


def _more(panel: Arms, control: str, small: int, large: int) -> dict[int, float]:
    """How much more BN's error grows than the control's, in pp by seed."""
    return paired_differences(*(_change(panel, n, small, large) for n in ("batch", control)))


def _published_loss(small: int, large: int) -> float:
    """Published: how much more BN's error grows than GN's; NaN for sizes that are not published."""
    batch, group = (
        PUBLISHED.at(norm, batch_size=small) - PUBLISHED.at(norm, batch_size=large)
        for norm in ("batch", "group")
    )
    return batch - group


def _ready(panel: Arms, *cells: tuple[str, int]) -> list[tuple[str, bool, str]]:
    """Reference cells have trained in every seed, and all runs are comparable."""
    ready = [trained(select(panel.rows, at(*c)), "{} at batch {}".format(*c)) for c in cells]
    return [*ready, comparable(panel.rows)]


def _on_maps(panel: Arms) -> list[Claim]:
    """What BN loses on feature maps; on the main panel as a sequence that the primary begins."""
    small, large = ends(panel)
    control = control_of(panel)
    batch, other = at("batch", small), at(control, small)
    references = (("batch", large), (control, large), (control, small))
    claim = panel.claims(source=SOURCE, preconditions=_ready(panel, *references))
    primary = claim(
        "BN loses more",
        f"from batch {large} to {small} BN's test error grows by at least {MORE:g} pp "
        f"more than {control} norm's",
        _more(panel, control, small, large), threshold=MORE, primary=panel.main, estimand=EMA,
        **PUBLISHED.cite("{} pp on ImageNet", _published_loss(small, large)),
    )  # fmt: skip
    if not panel.main:
        return [primary]
    precise = panel.cell("test_error_precise", batch)
    further = _further(panel)
    rethinking = {"source": "Wu & Johnson 2021, section 3"}
    found = sequence(
        primary,
        *(c for norm in further for c in _against(panel, norm)),
        claim(
            "PreciseBN",
            f"at batch {small} BN evaluated with PreciseBN and {control} norm differ by less "
            f"than {WITHIN:g} pp",
            paired_differences(precise, panel.cell("test_error", other)),
            "equivalent", threshold=WITHIN, estimand=PRECISE, **rethinking,
        ),
        claim(
            "stale averages",
            f"at batch {small} BN's test error by exponential average is above that by PreciseBN",
            paired_differences(panel.cell("test_error", batch), precise),
            estimand=f"{EMA} minus {PRECISE}", **rethinking,
        ),
        claim(
            "training noise",
            f"from batch {large} to {small} BN's training error grows by more than {control} "
            "norm's",
            _training(panel, control, small, large), estimand=TRAINING,
        ),
        claim(
            "failures",
            f"at batch {small} BN fails to train more often than {control} norm",
            panel.failure_difference(batch, other), estimand=FAILURES,
        ),
    )  # fmt: skip
    if "instance" in further:
        found.append(_small_instance(panel))
    if (select(panel.rows, {NORM: "torch_batch"})[B] == small).any():
        found.append(claim(
            "control",
            f"at batch {small} torch's own BatchNorm2d and this package's differ by less than "
            f"{CONTROL:g} pp",
            panel.difference(at("torch_batch", small), batch), "equivalent", threshold=CONTROL,
            estimand=EMA, source="torch.nn.BatchNorm2d",
        ))  # fmt: skip
    return found


def _further(panel: Arms) -> list[str]:
    """The norms that have claims beside the control.

    None on the data of the first registration: it has them, and no claims about them.
    """
    if panel.data == MAIN[0] or not panel.main:
        return []
    small, large = ends(panel)
    return [n for n in FURTHER if all(panel.cell("test_error", at(n, b)) for b in (small, large))]


def _against(panel: Arms, norm: str) -> list[Claim]:
    """BN against a norm other than its control."""
    small, large = ends(panel)
    called = "without a norm" if norm == "none" else f"with {norm} norm"
    theirs = OTHERS.values.get(norm, math.nan) - OTHERS["batch"]
    claim = panel.claims(
        source="Wu & He 2018, table 1", estimand=EMA,
        preconditions=_ready(panel, ("batch", large), (norm, large)),
    )  # fmt: skip
    return [
        claim(
            f"loses more, {norm}",
            f"from batch {large} to {small} BN's test error grows by more than that {called}",
            _more(panel, norm, small, large),
        ),
        claim(
            f"reference, {norm}",
            f"at batch {large} the test error {called} is above BN's",
            panel.difference(at(norm, large), at("batch", large)),
            **OTHERS.cite("{} pp on ImageNet", theirs),
        ),
    ]


def _small_instance(panel: Arms) -> Claim:
    """Instance norm, which sees one image whatever the batch, against BN at the small one."""
    small, large = ends(panel)
    claim = panel.claims(
        source="Wu & He 2018, tables 1 and 2", estimand=EMA,
        preconditions=_ready(panel, ("batch", large), ("instance", large)),
    )  # fmt: skip
    lost = PUBLISHED.at("batch", batch_size=small) - OTHERS["instance"]
    return claim(
        "small, instance", f"at batch {small} BN's test error is above that with instance norm",
        panel.difference(at("batch", small), at("instance", small)),
        expected="refuted or inconclusive", **OTHERS.cite("{} pp on ImageNet", lost),
    )  # fmt: skip


def _training(panel: Arms, control: str, small: int, large: int) -> dict[int, float]:
    changes = (
        panel.difference(at(n, small), at(n, large), "train_error") for n in ("batch", control)
    )
    return paired_differences(*changes)


def _on_vectors(panel: Arms) -> list[Claim]:
    """What BN loses on vectors: at four and more; at two its output is a pure sign."""
    small, large = ends(panel)
    control = control_of(panel)
    references = (("batch", large), (control, large), (control, small))
    claim = panel.claims(source=SOURCE, preconditions=_ready(panel, *references))
    found = []
    if small < large:
        found.append(claim(
            "BN loses more",
            f"from batch {large} to {small} BN's test error grows by at least "
            f"{VECTORS_LOSE:g} pp more than {control} norm's",
            _more(panel, control, small, large), threshold=VECTORS_LOSE, primary=panel.main,
            estimand=EMA,
        ))  # fmt: skip
    if (panel.rows[B] == 2).any() and panel.model == "mlp":
        found.append(claim(
            "a pure sign",
            "at batch 2, where a normalized vector is a pure sign, BN's training error is above "
            f"{control} norm's",
            panel.difference(at("batch", 2), at(control, 2), "train_error"), "demonstration",
            estimand=TRAINING,
        ))  # fmt: skip
    return found


def _vectors_or_maps(others: list[Arms]) -> list[Claim]:
    """LeNet with BN everywhere against LeNet with BN behind its convolutions only."""
    lenets = {(p.data, p.model): p for p in others}
    found = []
    for (data, model), panel in lenets.items():
        partly = lenets.get((data, PARTLY))
        if model != "lenet" or partly is None:
            continue
        small, large = ends(panel)
        changes = (_change(p, "batch", small, large) for p in (panel, partly))
        claim = panel.claims(
            preconditions=[
                *_ready(panel, ("batch", large)), *_ready(partly, ("batch", large))
            ],
        )  # fmt: skip
        found.append(claim(
            "vectors lose, maps do not",
            f"from batch {large} to {small} BN loses more where it also normalizes vectors",
            paired_differences(*changes), estimand=EMA,
        ))  # fmt: skip
    return found
