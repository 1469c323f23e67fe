"""Batch norm at its best batch against what needs no batch (Qiao et al. 2019, Brock et al. 2021).

Primary claim: group norm with weight standardization at the smallest batch is at most 1 pp worse
than batch norm at its best batch size, which the validation errors of the other seeds choose. Then
networks without any norm: SkipInit at the smallest batch, and normalizer-free networks with and
without adaptive gradient clipping at the largest. Written before the first run of
configs/study/no_norm.yaml.
"""

import pandas as pd

from bnstudy import figures
from bnstudy.figures import Style
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies import kit
from bnstudy.studies.convergence import at, best
from bnstudy.studies.drawing import curve, effects, reported
from bnstudy.studies.kit import EMA, PRECISE, TEST, Panel, Published, extended, filled, panels

SIZE, ARM = "train.batch_size", "arm"
BRANCH, SCALED, CLIP = "model.branch", "model.scaled_weights", "optimizer.clip_adaptive"
MARGIN = 1.0  # pp; Qiao et al. print 0.58 in favour of the small batch
PUBLISHED = Published(
    "digitised", "Qiao et al. 2019, figure 1",
    "ResNet-50, ImageNet: error in %, BN at 64 images per GPU, GN with and without WS at 1",
    {"batch": 24.30, "group": 24.81, "ws_group": 23.72},
)  # fmt: skip
TRANSFER = Published(
    "unconfirmed", "Kolesnikov et al. 2020",
    "ResNet-50, ImageNet, batch 4,096: error in % (from accuracies of 75.6, 70.2 and 76.0)",
    {"batch": 24.4, "group": 29.8, "ws_group": 24.0},
)  # fmt: skip
STYLES: dict[str, Style] = {
    "none": figures.style_of("none"),
    "skipinit": figures.hue(0),
    "skipinit_clipped": figures.hue(1),
    "normalizer_free": figures.hue(2),
    "normalizer_free_clipped": figures.hue(3),
}
LABELS = {
    "skipinit": "SkipInit",
    "skipinit_clipped": "SkipInit, clipped",
    "normalizer_free": "normalizer-free",
    "normalizer_free_clipped": "normalizer-free, clipped",
}


def prepared(table: pd.DataFrame) -> list[Panel]:
    """The data sets, each run with the name of its arm."""
    table = filled(table, {BRANCH: "plain", SCALED: False, CLIP: None})
    names = kit.arms(table)
    names = names.mask(table[BRANCH] == "skipinit", "skipinit")
    names = names.mask(table[SCALED].astype(bool), "normalizer_free")
    clipped = pd.to_numeric(table[CLIP]).notna()
    named = extended(table, {ARM: names.mask(clipped, names + "_clipped")})
    return panels(named.sort_values([ARM, SIZE, "seed"]))  # figures do not follow a file's order


# --- what is judged ------------------------------------------------------------------------------


def ends(panel: Panel) -> tuple[int, int]:
    """The smallest and the largest batch."""
    return int(panel.rows[SIZE].min()), int(panel.rows[SIZE].max())


def at_best(panel: Panel, metric: str = "test_error") -> dict[int, float]:
    """Seed -> batch norm's error in percent at the batch that the other seeds choose."""
    rows = kit.select(panel.rows, {ARM: "batch"})
    choice = best(rows.pivot(index="seed", columns=SIZE, values="val_error"))
    return at(100 * rows.pivot(index="seed", columns=SIZE, values=metric), choice)


def against_best(panel: Panel, arm: str, metric: str = "test_error") -> dict[int, float]:
    """An arm's test error at the smallest batch minus batch norm's at its best one, in pp."""
    own = panel.cell("test_error", {ARM: arm, SIZE: ends(panel)[0]})
    return paired_differences(own, at_best(panel, metric))


def more(panel: Panel, first: str, second: str, size: int) -> dict[int, float]:
    """How much more test error one arm has than another at a batch size, in pp."""
    return panel.difference({ARM: first, SIZE: size}, {ARM: second, SIZE: size})


# --- figures -------------------------------------------------------------------------------------


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Errors by batch size with norms, and the differences that are judged."""
    main, *_ = prepared(table)
    return [_errors(main, norms=True), _small(main), _large(main)]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """Errors without norms, training errors, other data, and the published numbers."""
    main, *others = prepared(table)
    found = [_errors(main, norms=False)]
    found += [_errors(main, norms, "train_error") for norms in (True, False)]
    for panel in others:
        found += [*(_errors(panel, norms) for norms in (True, False)), _small(panel), _large(panel)]
    return [*found, _published()]


def _errors(panel: Panel, norms: bool, metric: str = "test_error") -> figures.Panel:
    """An error by batch size, of the arms with or without norms; batch norm is in both."""
    names = list(dict.fromkeys(panel.rows[ARM]))
    own = [name for name in names if name == "batch" or (name not in STYLES) is norms]
    curves = [_by_size(panel, name, metric) for name in own]
    what = "test" if metric == "test_error" else "training"
    title = f"{panel.title}, {'with' if norms else 'without'} norms"
    return figures.Panel(title, curves, "batch size (examples)", f"{what} error (%)", ceiling=100)


def _by_size(panel: Panel, arm: str, metric: str) -> figures.Curve:
    rows = kit.select(panel.rows, {ARM: arm})
    style = STYLES.get(arm) or figures.style_of(arm)
    return curve(rows, SIZE, metric, style=style, label=LABELS.get(arm, style.label))


def _small(panel: Panel) -> figures.Panel:
    """What is judged at the smallest batch."""
    small, _ = ends(panel)
    named = {
        f"{panel.key}: batch of {small}": "group + WS minus batch norm's best",
        f"{panel.key}: weight standardization": "group minus group + WS",
        f"{panel.key}: no norm": "batch norm minus SkipInit",
    }
    return figures.Panel(
        f"batches of {small}", effects(_claims(panel), named, PUBLISHED, "ImageNet"),
        ylabel="test error, paired difference (pp)", kind="dots", zero=True,
        bands=[figures.Band(MARGIN, MARGIN, f"{MARGIN:g} pp")],
        claim=f"{panel.key}: batch of {small}",
    )  # fmt: skip


def _large(panel: Panel) -> figures.Panel:
    """What is judged at the largest batch."""
    _, large = ends(panel)
    named = {
        f"{panel.key}: clipping": "what clipping gains, normalizer-free",
        f"{panel.key}: clipping, SkipInit": "what clipping gains, SkipInit",
        f"{panel.key}: normalizer-free": "normalizer-free, clipped, minus batch norm",
        f"{panel.key}: group norm, large batch": "group minus group + WS",
    }
    return figures.Panel(
        f"batches of {large}", effects(_claims(panel), named, TRANSFER, "ImageNet, batch 4,096"),
        ylabel="test error, paired difference (pp)", kind="dots", zero=True,
        claim=f"{panel.key}: clipping",
    )  # fmt: skip


def _published() -> figures.Panel:
    """The published errors, by norm and batch."""
    curves = [
        reported(found, f"{figures.style_of(norm).label}, {batch}", found[norm], norm=norm)
        for found, batch in ((PUBLISHED, "1 image (BN: 64)"), (TRANSFER, "batch 4,096"))
        for norm in ("batch", "group", "ws_group")
    ]
    return figures.Panel("ResNet-50, ImageNet", curves, ylabel="error (%)", kind="dots", floor=None)


# --- claims --------------------------------------------------------------------------------------


def claims(table: pd.DataFrame) -> list[Claim]:
    """The smallest batch against batch norm's best; then the largest batch."""
    return [claim for panel in prepared(table) for claim in _claims(panel)]


def _claims(panel: Panel) -> list[Claim]:
    small, large = ends(panel)
    reference = {ARM: "batch", SIZE: sorted({int(s) for s in panel.rows[SIZE]})[-2]}
    ready = panel.ready(f"batch norm at batch {reference[SIZE]}", reference)
    claim = panel.claims(preconditions=ready, source="Qiao et al. 2019")
    ws = PUBLISHED["ws_group"]
    found = kit.sequence(
        claim(
            f"batch of {small}",
            f"at batch {small} group norm with weight standardization has a test error at most "
            f"{MARGIN:g} pp above batch norm's at its best batch",
            against_best(panel, "ws_group"), "not_worse", threshold=MARGIN, primary=panel.main,
            estimand=EMA,
            **PUBLISHED.cite("{} pp on ImageNet, 1 image per GPU against 64",
                                   ws - PUBLISHED["batch"]),
        ),
        claim(
            f"batch of {small}, PreciseBN",
            "the same of batch norm with PreciseBN, at the batch chosen by exponential averages",
            against_best(panel, "ws_group", "test_error_precise"), "not_worse", threshold=MARGIN,
            estimand=PRECISE,
        ),
    )  # fmt: skip
    large_batch = panel.claims(preconditions=ready, source="Brock et al. 2021", estimand=TEST)
    kind, gain = "normalizer_free", {}
    for name in (kind, "skipinit"):
        gain[name] = more(panel, name, f"{name}_clipped", large)
    middle = reference[SIZE]
    return [
        *found,
        claim(
            "weight standardization",
            f"at batch {small} weight standardization lowers group norm's test error",
            more(panel, "group", "ws_group", small), estimand=TEST,
            **PUBLISHED.cite("{} pp on ImageNet, 1 image per GPU",
                                   PUBLISHED["group"] - ws),
        ),
        claim(
            "no norm",
            f"at batch {small} batch norm has a higher test error than SkipInit without a norm",
            more(panel, "batch", "skipinit", small), source="De & Smith 2020", estimand=EMA,
            expected="not known beforehand",
        ),
        large_batch(
            "clipping",
            f"at batch {large} clipping lowers a normalizer-free network's test error",
            gain[kind],
        ),
        large_batch(
            "clipping, SkipInit",
            f"at batch {large} clipping lowers the test error with SkipInit and plain weights",
            gain["skipinit"],
        ),
        large_batch(
            "clipping, batch",
            f"clipping lowers it more at batch {large} than at {middle}",
            paired_differences(gain[kind], more(panel, kind, f"{kind}_clipped", middle)),
        ),
        large_batch(
            "normalizer-free",
            f"at batch {large} a normalizer-free network with clipping has a test error at most "
            f"{MARGIN:g} pp above batch norm's",
            more(panel, f"{kind}_clipped", "batch", large), "not_worse", threshold=MARGIN,
        ),
        large_batch(
            "group norm, large batch",
            f"at batch {large} weight standardization lowers group norm's test error",
            more(panel, "group", "ws_group", large), source=TRANSFER.source,
            **TRANSFER.cite("{} pp on ImageNet, batch 4,096",
                            TRANSFER["group"] - TRANSFER["ws_group"]),
        ),
    ]  # fmt: skip
