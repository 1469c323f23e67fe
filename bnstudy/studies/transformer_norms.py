"""Norms in a small causal Transformer, and what predicts batch norm's excess loss.

Primary claim: at the largest batch batch norm has more bits a character than layer norm, by its
running averages. Next to it: whether that is training or evaluation, whether the gap between a
batch's variance and the running one predicts the excess, and whether dynamic tanh is as good as
layer norm. Written before the first run of this study's grid.
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import curve, differences
from bnstudy.studies.kit import (
    NORM,
    Precondition,
    Published,
    claims_about,
    comparable,
    extended,
    fitted,
    in_order,
    select,
    titled,
    values,
)

BATCH = "train.batch_size"
PREDICTOR = "variance_gap"
TRAINED = 3.12  # nats, 4.5 bits; frequencies of characters alone give 4.69 bits on the text
# bits a character: half of what the source's batch norm loses, log2(60.7 / 53.2) bits a word of
# five letters and a space
MARGIN = 0.015
PREDICTS = 0.5  # correlation: a quarter of the variance
WORSE, PREDICTION, WITHIN = "worse", "prediction", "prediction within"
POPULATION, PRECISE = "test loss, exponential average", "test loss, PreciseBN"
XLABEL, YLABEL = "batch size", "bits a character"
LOSS = "more than layer norm (bits)"
PUBLISHED = Published(
    "published", "Shen et al. 2020, abstract",
    "perplexity of words that power norm gains on layer norm",
    {"PTB": 5.6, "WikiText-103": 3.0},
)  # fmt: skip
BATCHNORM = Published(
    "unconfirmed", "Shen et al. 2020, table 2", "perplexity of words on PTB",
    {"batch": 60.7, "layer": 53.2},
)  # fmt: skip
TANH = Published(
    "unconfirmed", "Zhu et al. 2025, LLaMA 7B", "training loss in nats",
    {"rms": 1.59, "dyt": 1.60},
)  # fmt: skip
Bits = dict[int, float]  # by seed


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """With losses in bits: `bits`, `bits_precise` and, of training, `bits_train`."""
    losses = {"bits": "test_loss", "bits_precise": "test_loss_precise", "bits_train": "train_loss"}
    return extended(table, {k: table[v] / np.log(2) for k, v in losses.items()})


def largest(rows: pd.DataFrame) -> int:
    """The batch size at which all norms are compared."""
    return int(rows[BATCH].max())


def more(rows: pd.DataFrame, norm: str, size: int, metric: str = "bits") -> Bits:
    """Bits that a norm has more than layer norm at a batch size, by seed."""
    than = "bits_train" if metric == "bits_train" else "bits"  # layer norm has no PreciseBN
    own = values(rows, metric, {NORM: norm, BATCH: size}, factor=1)
    return paired_differences(own, values(rows, than, {NORM: "layer", BATCH: size}, factor=1))


def pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each run of batch norm: seed, batch size, its gap, its excess over layer norm."""
    found = []
    for size in sorted(rows[BATCH].unique()):
        gaps = values(rows, PREDICTOR, {NORM: "batch", BATCH: size}, factor=1)
        for seed, excess in more(rows, "batch", size).items():
            found.append((seed, int(size), gaps.get(seed, math.nan), excess))
    return pd.DataFrame(found, columns=["seed", BATCH, "gap", "excess"])


def correlations(runs: pd.DataFrame) -> Bits:
    """Seed -> correlation of excess and the gap's logarithm over its batch sizes.

    Not of ranks: of four sizes they agree wholly in every seed, and without spread there is no
    test.
    """
    return {
        int(seed): _correlation(np.log2(own["gap"]), own["excess"])
        for seed, own in runs.groupby("seed")
    }


def _correlation(x: pd.Series, y: pd.Series) -> float:
    """Pearson's; NaN where a run was lost or nothing varies."""
    if x.isna().any() or y.isna().any() or x.nunique() < 2 or y.nunique() < 2:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def shares(runs: pd.DataFrame) -> Bits:
    """Seed -> its part in the correlation of gap and excess among runs of one batch size.

    Both are standardized over the seeds of each batch size; a seed's part is the mean of their
    products, and the mean of all parts is the correlation, pooled over the batch sizes.
    """
    by = runs.groupby(BATCH)[["gap", "excess"]]
    standard = (runs[["gap", "excess"]] - by.transform("mean")) / by.transform("std", ddof=0)
    product = standard["gap"] * standard["excess"]
    found = product.groupby(runs["seed"]).mean()
    lost = product.isna().groupby(runs["seed"]).any()
    return {int(seed): math.nan if lost[seed] else float(v) for seed, v in found.items()}


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Every norm against layer norm, and batch norm's excess over its statistics' gap."""
    rows = prepared(table)
    size = largest(rows)
    own: dict[str, Mapping[int, float]] = {}
    styles = []
    for norm in in_order(rows[NORM]):
        if norm == "layer":
            continue
        look = figures.style_of(norm)
        own[look.label] = more(rows, norm, size)
        styles.append(look)
        if norm == "batch":
            own["batch, PreciseBN"] = more(rows, norm, size, "bits_precise")
            styles.append(look)
    margin = figures.Band(-MARGIN, MARGIN, f"within {MARGIN:g} bits")
    return [
        differences(f"text, Transformer, batch of {size}", own, styles, ylabel=LOSS,
                    bands=[margin], claim=WORSE),
        _prediction(pairs(rows)),
    ]  # fmt: skip


def _prediction(runs: pd.DataFrame) -> figures.Panel:
    """Excess over gap, a marker for each run."""
    sizes = sorted(runs[BATCH].unique())
    curves = []
    for size, style in zip(sizes, figures.ramp(len(sizes)), strict=True):
        own = select(runs, {BATCH: size}).rename(columns={"gap": "x", "excess": "mean"}).dropna()
        points = own[["x", "mean"]].assign(low=math.nan, high=math.nan)
        curves.append(figures.Curve(f"batch of {size}", points, style))
    return figures.Panel(
        "batch norm, all runs", curves, "gap of the batch's variance (relative)", LOSS,
        kind="scatter", x="log10", zero=True, claim=PREDICTION,
    )  # fmt: skip


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """Bits by batch size, in training and by source of statistics; the gaps by batch size."""
    rows = prepared(table)
    by = {norm: select(rows, {NORM: norm}) for norm in in_order(rows[NORM])}
    several = {norm: by[norm] for norm in ("batch", "layer") if norm in by}
    test = [curve(own, BATCH, "bits", norm=norm, percent=False) for norm, own in several.items()]
    test.append(
        curve(by["batch"], BATCH, "bits_precise", norm="batch", mode="precise", percent=False)
    )
    train = [curve(own, BATCH, "bits_train", norm=n, percent=False) for n, own in several.items()]
    gaps = [
        curve(by["batch"], BATCH, column, style=figures.hue(i), label=label, percent=False)
        for i, (column, label) in enumerate(
            {PREDICTOR: "variance", "mean_gap": "mean, in s.d."}.items()
        )
    ]
    return [
        figures.Panel("test", test, XLABEL, YLABEL, floor=None),
        figures.Panel("training, batch statistics", train, XLABEL, YLABEL, floor=None),
        figures.Panel("batch norm: batch against running", gaps, XLABEL, "relative distance",
                      y="log10", floor=None),
    ]  # fmt: skip


def claims(table: pd.DataFrame) -> list[Claim]:
    """Batch norm against layer norm; training or evaluation; what predicts it; other norms."""
    rows = prepared(table)
    size = largest(rows)
    runs = pairs(rows)
    at = f"batch of {size}"
    claim = claims_about(
        titled("text", "transformer"), unit="bits", source="Shen et al. 2020",
        estimand=POPULATION,
        preconditions=[_trained(table, size), comparable(table)],
    )  # fmt: skip
    batch, precise = more(rows, "batch", size), more(rows, "batch", size, "bits_precise")
    power = more(rows, "power", size)
    worse = f"{BATCHNORM['batch']:g} to {BATCHNORM['layer']:g} perplexity of words on PTB"
    gains = f"{PUBLISHED['PTB']:g} perplexity on PTB, {PUBLISHED['WikiText-103']:g} on WikiText-103"
    everywhere = [_trained(table, int(b)) for b in sorted(rows[BATCH].unique())]
    predicts = {"unit": "", "estimand": "correlation over batch sizes, exponential average",
                "preconditions": [*everywhere, comparable(table)]}  # fmt: skip
    return [
        claim(WORSE, f"{at}: batch norm has more bits a character than layer norm", batch,
              primary=True, **BATCHNORM.cite(worse)),
        claim("recomputed", f"{at}: so it has with recomputed statistics (PreciseBN)", precise,
              estimand=PRECISE),
        claim("evaluation", f"{at}: running averages cost it bits against recomputed statistics",
              paired_differences(batch, precise),
              estimand="test loss, exponential average minus PreciseBN"),
        claim("training", f"{at}: its training loss, by batch statistics, is above layer norm's",
              more(rows, "batch", size, "bits_train"), estimand="training loss",
              expected="inconclusive"),
        claim(PREDICTION,
              "over the batch sizes of a seed, batch norm's excess over layer norm follows the gap "
              "between a batch's variance and the running one: mean correlation with the gap's "
              f"logarithm above {PREDICTS:g}",
              correlations(runs), threshold=PREDICTS, **predicts),
        claim(WITHIN, "among runs of one batch size, too, the excess grows with that gap",
              shares(runs), expected="inconclusive",
              **{**predicts, "estimand": "correlation within batch sizes, exponential average"}),
        claim("dynamic tanh", f"{at}: dynamic tanh is within {MARGIN:g} bits of layer norm",
              more(rows, "dyt", size), "equivalent", threshold=MARGIN, source="Zhu et al. 2025",
              **TANH.cite("{} nats of training loss against RMS norm, LLaMA 7B",
                          TANH["dyt"] - TANH["rms"])),
        claim("root mean square", f"{at}: RMS norm is within {MARGIN:g} bits of layer norm",
              more(rows, "rms", size), "equivalent", threshold=MARGIN,
              source="Zhang & Sennrich 2019"),
        claim("power against batch", f"{at}: power norm has fewer bits than batch norm",
              paired_differences(batch, power)),
        claim("power against layer", f"{at}: power norm has fewer bits than layer norm",
              {seed: -v for seed, v in power.items()}, expected="refuted or inconclusive",
              **PUBLISHED.cite(gains)),
    ]  # fmt: skip


def _trained(table: pd.DataFrame, size: int) -> Precondition:
    """That the reference has learned; that batch norm has not would be the effect."""
    return fitted(select(table, {NORM: "layer", BATCH: size}), f"layer norm at {size}", TRAINED)
