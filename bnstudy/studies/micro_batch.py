"""Statistics of two and four examples at an unchanged gradient batch (Ioffe 2017, section 4.2).

Primary claim: at groups of two Batch Renormalization has a lower test error than batch
normalization, with a residual network. An MLP's batch norm fails at groups of two, where vectors
become signs: a demonstration, and its claims are about groups of four. Written before the first run
of this version of configs/study/micro_batch.yaml.
"""

import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import course, curve, effects, gap, gaps, reported
from bnstudy.studies.kit import (
    EMA,
    PRECISE,
    TRAINING,
    Panel,
    Published,
    arms,
    extended,
    filled,
    panels,
    select,
    sequence,
    smallest_judged,
    values,
)

SIZE = "norm.group_size"
MARGIN = 1.0  # pp: the smallest difference of interest, a fifth of Ioffe's at micro-batches of 4
XLABEL = "examples behind a statistic"
SOURCE = "Ioffe 2017, section 4.2"
PUBLISHED = Published(
    "published", "Ioffe 2017; eigenfoo/batch-renorm",
    "accuracies in %: Inception-v3 on ImageNet, micro-batches of 4 (Ioffe 2017); a plain network "
    "on CIFAR-100 in micro-batches of 2, 5 seeds (eigenfoo/batch-renorm)",
    {
        "Ioffe 2017": {"batch": 74.2, "renorm": 76.5, "whole batch": 78.3},
        "replication, CIFAR-100": {"batch": 17.6, "renorm": 25.7},
    },
)  # fmt: skip


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """With the arm's name, and the whole batch's size where statistics are of all of it."""
    size = filled(table, {SIZE: None})[SIZE].fillna(table["train.batch_size"]).astype(float)
    return extended(table, {"arm": arms(table), "size": size})


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Error by the examples behind a statistic, and what Batch Renormalization changes."""
    panel = panels(prepared(table), model="resnet")[0]
    return [_errors(panel, "test_error", "test error (%)"), _gains(panel, PUBLISHED)]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """Training errors, what evaluation adds, other norms, r and d, effective m; other panels."""
    main, *others = panels(prepared(table), model="resnet")
    training = "train_error", "training error (%)"
    found = [_errors(main, *training), _mismatch(main), _norms(main), *_corrections(main),
             _behind(main)]  # fmt: skip
    for panel in others:
        found += [_errors(panel, "test_error", "test error (%)"), _gains(panel),
                  _errors(panel, *training), _norms(panel)]  # fmt: skip
    return [drawn for drawn in found if drawn.curves]


def _arm(panel: Panel, arm: str) -> pd.DataFrame:
    return select(panel.rows, {"arm": arm})


def _errors(panel: Panel, metric: str, ylabel: str) -> figures.Panel:
    """An error by the examples behind a statistic; group norm has none but its own."""
    present = set(panel.rows["arm"])
    curves = [
        curve(_arm(panel, arm), "size", metric, norm=arm)
        for arm in ("batch", "renorm", "group")
        if arm in present
    ]
    return figures.Panel(panel.title, curves, XLABEL, ylabel, ceiling=100)


def _gains(panel: Panel, published: Published | None = None) -> figures.Panel:
    """Batch norm against Batch Renormalization at the smallest groups."""
    small, _ = smallest_judged(panel.rows["size"].unique(), panel.model)
    named = {
        f"{panel.key}: renorm": "test error",
        f"{panel.key}: training": "training error",
    }
    curves = effects(_claims_of(panel), named, published, "ImageNet, groups of 4")
    if published:
        replication = published["replication, CIFAR-100"]
        gain = replication["renorm"] - replication["batch"]
        label, style = "CIFAR-100, groups of 2", figures.hue(0)
        curves.insert(2, reported(published, label, gain, style=style))
    return figures.Panel(
        f"groups of {small}: batch minus renorm", curves, ylabel="error, paired difference (pp)",
        kind="dots", zero=True, claim=f"{panel.key}: renorm",
    )  # fmt: skip


def _norms(panel: Panel) -> figures.Panel:
    """Batch norm at the smallest groups against norms without batches, and by PreciseBN."""
    small, _ = smallest_judged(panel.rows["size"].unique(), panel.model)
    by = {claim.name: claim for claim in _claims_of(panel)}
    curves = [
        gap(figures.style_of(arm).label, by[name].values, style=figures.style_of(arm))
        for arm in ("group", "ws_group", "layer", "online")
        if (name := f"{panel.key}: {arm}") in by
    ]
    name, bands = f"{panel.key}: by PreciseBN", ()
    if name in by:
        curves.append(gap("group, by PreciseBN", by[name].values))
        bands = (figures.Band(-MARGIN, MARGIN, f"within {MARGIN:g} pp"),)
    return figures.Panel(
        f"batch at {small} minus other norms", curves,
        ylabel="test error, difference (pp)", kind="dots", zero=True, bands=bands,
    )  # fmt: skip


def _mismatch(panel: Panel) -> figures.Panel:
    """What batch norm's exponential average loses against other statistics in evaluation."""
    error = "test_error"
    by = dict(list(_arm(panel, "batch").groupby("size")))
    others = {f"{error}_precise": "PreciseBN", f"{error}_batch": "batch statistics"}
    curves = [
        gaps(
            f"minus {label}",
            {
                size: paired_differences(values(own, error), values(own, c))
                for size, own in by.items()
            },
            style=figures.hue(i),
        )
        for i, (c, label) in enumerate(others.items())
    ]
    return figures.Panel(
        "exponential average", curves, XLABEL, "test error, difference (pp)",
        zero=True,
    )  # fmt: skip


def _behind(panel: Panel) -> figures.Panel:
    """m = B * H * W of the layer with the fewest, and how many of them are independent."""
    rows = _arm(panel, "batch")
    columns = {"smallest_m": "values", "effective_m": "as if independent"}
    curves = [
        curve(rows, "size", column, style=figures.hue(i), label=label, percent=False)
        for i, (column, label) in enumerate(columns.items())
        if column in rows
    ]
    return figures.Panel(
        "values behind a statistic", curves, XLABEL, "values, smallest layer",
        y="log10", floor=None,
    )  # fmt: skip


def _corrections(panel: Panel) -> list[figures.Panel]:
    """How far the statistics of groups are from the averages, over training."""
    rows = _arm(panel, "renorm")
    by = {size: own for size, own in rows.groupby("size") if size < rows["size"].max()}
    shades = figures.ramp(len(by))
    return [
        figures.Panel(
            f"{panel.title}: {what}",
            [
                course(own, name, style=style, label=f"groups of {size:.0f}", percent=False)
                for (size, own), style in zip(by.items(), shades, strict=True)
            ],
            "evaluation during training", ylabel, x="linear",
        )
        for name, what, ylabel in (("log_r", "r", "s.d. against average (|log2 r|)"),
                                   ("d", "d", "mean against average (|d|, s.d.)"))
    ]  # fmt: skip


def claims(table: pd.DataFrame) -> list[Claim]:
    """Renorm against batch at the smallest group, where it comes from, and other norms."""
    table = prepared(table)
    return [claim for panel in panels(table, model="resnet") for claim in _claims_of(panel)]


def _claims_of(panel: Panel) -> list[Claim]:
    small, apart = smallest_judged(panel.rows["size"].unique(), panel.model)
    whole = panel.rows["size"].max()
    imagenet, replication = PUBLISHED["Ioffe 2017"], PUBLISHED["replication, CIFAR-100"]
    batch, renorm = ({"arm": arm, "size": small} for arm in ("batch", "renorm"))
    reference = {"arm": "batch", "size": whole}
    certain = panel.model == "mlp" and small == 2
    kind = "demonstration" if certain else "greater"  # of what batch norm loses at groups of two
    claim = panel.claims(
        source=SOURCE, preconditions=panel.ready("batch norm, whole batch", reference)
    )
    found = sequence(
        claim(
            "renorm",
            f"at groups of {small} batch norm's test error exceeds Batch Renormalization's",
            panel.difference(batch, renorm), kind, estimand=EMA,
            primary=panel.main and not certain,
            **PUBLISHED.cite(
                f"{{}} pp at 4 on ImageNet, {replication['renorm'] - replication['batch']:+.1f} pp "
                "at 2 on CIFAR-100",
                imagenet["renorm"] - imagenet["batch"],
            ),
        ),
        claim(
            "training", "so does its training error",
            panel.difference(batch, renorm, "train_error"), kind, estimand=TRAINING,
        ),
        claim(
            "not all",
            f"Batch Renormalization at groups of {small} stays above batch norm with the whole "
            "batch",
            panel.difference(renorm, reference), estimand=EMA,
            **PUBLISHED.cite(
                "{} pp at 4 on ImageNet", imagenet["whole batch"] - imagenet["renorm"]
            ),
        ),
    )  # fmt: skip
    if apart:
        found.append(
            claim(
                "signs", "at groups of 2 batch norm has a higher test error than with the whole "
                "batch",
                panel.difference({"arm": "batch", "size": 2}, reference), "demonstration",
                estimand=EMA, source="a vector normalized by two is a sign",
            )
        )  # fmt: skip
    present = set(panel.rows["arm"])
    found += [
        claim(
            arm,
            f"batch norm at groups of {small} has a higher test error than "
            f"{figures.style_of(arm).label} norm",
            panel.difference(batch, {"arm": arm, "size": whole}), kind, estimand=EMA,
            source="Wu & He 2018, table 2",
        )
        for arm in ("group", "ws_group", "layer", "online")
        if arm in present
    ]  # fmt: skip
    if "group" in present and not certain:
        precise = panel.cell("test_error_precise", batch)
        group = panel.cell("test_error", {"arm": "group", "size": whole})
        found.append(
            claim(
                "by PreciseBN",
                f"with PreciseBN it is within {MARGIN:g} pp of group norm",
                paired_differences(precise, group), "equivalent", threshold=MARGIN,
                estimand=PRECISE, source="Wu & Johnson 2021, figure 5",
            )
        )  # fmt: skip
    return found
