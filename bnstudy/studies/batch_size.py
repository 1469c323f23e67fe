"""Error against batch size (Wu & He 2018, figure 1): what does BN lose at small batches, and why?

Primary claim, on feature maps: from the reference batch to the small one BN's test error grows by
more than group norm's (a difference in differences, paired by seed, so that what smaller batches do
to every arm cancels). What follows says how much of it is the exponential average, and how much
noise in training. Networks in which BN sees vectors are judged beside it: they lose for another
reason. Written before the first run of the seeds in configs/study/batch_size.yaml.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bnstudy import figures, stats
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.kit import (
    EMA,
    FAILURES,
    MODEL,
    NORM,
    PRECISE,
    TRAINING,
    Panel,
    Published,
    comparable,
    extended,
    filled,
    panels,
    select,
    sequence,
    trained,
)

B = "train.batch_size"
XLABEL = "batch size"
MAIN = ("contrast_digits", "resnet")  # chosen by pilots, see the YAML
VECTORS = ("mlp", "lenet")  # networks with norms that see vectors
PARTLY = "lenet_maps"  # LeNet whose norms follow its convolutions only

PUBLISHED = Published(
    "published", "Wu & He 2018, tables 1 and 2",
    "validation error in %, ResNet-50 on ImageNet, one run; batch size: images per GPU",
    {
        "batch_size": [32, 16, 8, 4, 2],
        "batch": [23.6, 23.7, 24.8, 27.3, 34.7],
        "group": [24.1, 24.2, 24.0, 24.2, 24.1],
    },
)  # fmt: skip
SOURCE = "Wu & He 2018, table 2"
SHADES = ("#111111", "#666666", "#333333", "#999999")  # grey: color belongs to a norm

# thresholds in pp, written before any seed of a claim was trained
MORE = 2.4  # half of the pilots' loss of 4.75, see the YAML; a fifth of the published one
WITHIN = 3.0  # margin of PreciseBN against group norm: under a third of the published loss
CONTROL = 1.0  # margin of torch's own layer against this package's
VECTORS_LOSE = 5.0  # half of the published loss on maps; pilots showed 2 to 3, see the YAML


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """With a name of its own for LeNet whose norms follow its convolutions only."""
    where = filled(table, {"model.normalized": "all"})["model.normalized"] == "convolutions"
    return extended(table, {MODEL: table[MODEL].mask(where, PARTLY)})


def found_panels(table: pd.DataFrame) -> list[Panel]:
    """The panels of a table, the one of the primary claim first."""
    return panels(prepared(table), data=MAIN[0], model=MAIN[1])


def control_of(panel: Panel) -> str:
    """The arm that BN is compared with: group norm in the ResNet, layer norm elsewhere."""
    present = set(panel.rows[NORM])
    wanted = "group" if panel.model == "resnet" else "layer"
    return wanted if wanted in present else "group"


def ends(panel: Panel) -> tuple[int, int]:
    """The small and the reference batch of a panel: 2 on maps, 4 on vectors, and the largest.

    Two vectors normalized by their own statistics are a pure sign, which is no finding.
    """
    sizes = sorted(int(size) for size in panel.rows[B].unique())
    least = 4 if panel.model in VECTORS else 2
    return next((s for s in sizes if s >= least), sizes[0]), sizes[-1]


# --- figures -------------------------------------------------------------------------------------


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """Published, measured on maps and, where there are some, on vectors."""
    return 1, 1 + len(_shown(table))


def _shown(table: pd.DataFrame) -> list[Panel]:
    """The panel of the primary claim, and the first one on vectors."""
    found = found_panels(table)
    return [*found[:1], *[p for p in found[1:] if p.model in VECTORS][:1]]


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Error against batch size: published, on maps, on vectors; seeds as dots."""
    lines = figures.Lines(axes[0, 0])
    for norm in ("batch", "group"):
        lines.draw(PUBLISHED.curve(norm, "batch_size", x=B), None, B, norm, percent=False)
    _title(axes[0, 0], "published: ResNet-50, ImageNet", "group", 2, 32, _signed(_published_loss()))
    lines.finish("images per GPU", 40)
    for ax, panel in zip(axes[0, 1:], _shown(table), strict=True):
        lines = figures.Lines(ax)
        control = control_of(panel)
        for norm in ("batch", control):
            runs = select(panel.rows, {NORM: norm})
            lines.draw(stats.summarize(runs, [B], "test_error"), runs, B, norm, metric="test_error")
        runs = select(panel.rows, {NORM: "batch"})
        if "test_error_precise" in runs:
            lines.draw(stats.summarize(runs, [B], "test_error_precise"), None, B, "batch",
                       mode="precise", label="PreciseBN")  # fmt: skip
        small, large = ends(panel)
        values = list(_more(panel, control, small, large).values())
        interval = stats.sign_flip_interval(values)
        mean, *bounds = (_signed(value) for value in interval)
        _title(ax, f"measured: {panel.title}", control, small, large, mean, bounds)
        top = 100 * panel.rows[panel.rows[NORM].isin(["batch", control])]["test_error"].max()
        lines.finish(XLABEL, min(100.0, 1.15 * top))
    axes[0, 0].set_ylabel("error (%)")


def _title(
    ax: Axes, what: str, control: str, small: int, large: int, growth: str,
    bounds: Sequence[str] = (),
) -> None:  # fmt: skip
    """What a panel shows, and how much more BN's error grows in it than its control's."""
    interval = f" [{', '.join(bounds)}]" if bounds else ""
    compared = f"batch minus {control}, from {large} to {small}:"
    ax.set_title(f"{what}\n{compared}\n{growth} pp{interval}", loc="left")


def details_shape(table: pd.DataFrame) -> tuple[int, int]:
    """A row for each data set and model, one for what is compared across them."""
    return len(found_panels(table)) + 1, 3


def details(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Every arm: test error, training loss, BN's evaluation modes; paired differences below."""
    table = extended(table, {"diverged": table["diverged_at"].notna()})
    found = found_panels(table)
    for row, panel in zip(axes, found, strict=False):
        draw(row[0], panel.rows, "test_error", "test error (%)", panel.title)
        draw(row[1], panel.rows, "train_loss", "training loss (nats)", panel.title)
        modes(row[2], select(panel.rows, {NORM: "batch"}), f"{panel.title}\nBN by evaluation mode")
    difference, counts, empty = axes[-1]
    empty.set_axis_off()
    lines = zip(found, ("-", "--", "-.", ":") * 3, strict=False)
    for i, (panel, linestyle) in enumerate(lines):
        line = {"linestyle": linestyle, "color": SHADES[i % len(SHADES)], "marker": "."}
        frame = gap(panel)
        label = panel.title
        if frame.empty:
            label += "\n(without a control: no difference)"
        else:
            bars = [frame["mean"] - frame["low"], frame["high"] - frame["mean"]]
            where = frame[B] * 2 ** (figures.DODGE * (i - 1.5))
            difference.errorbar(where, frame["mean"], yerr=bars, capsize=1.8, elinewidth=0.9,
                                label=label, **line)  # fmt: skip
        smallest = select(panel.rows, {NORM: "batch"}).groupby(B)["smallest_m"].min()
        # networks that share m would hide each other: a hair's breadth apart
        counts.plot(smallest.index, smallest * 1.06**i, label=label, **line)
    for ax in (difference, counts):
        figures.batch_axis(ax, sorted(table[B].unique()))
        ax.set_xlabel(XLABEL)
    difference.axhline(0, color="black", linewidth=0.8)
    difference.set_ylabel("BN minus its control, test error (pp)")
    difference.set_title("paired difference: above zero BN is worse")
    counts.set_yscale("log", base=2)
    counts.yaxis.set_major_formatter("{x:g}")
    counts.set_ylabel("values behind a statistic, m")
    counts.set_title("smallest m of any BN layer")
    handles, labels = counts.get_legend_handles_labels()  # in either panel it would hide curves
    empty.legend(handles, labels, loc="center left", title="in both panels of this row")
    figures.legend(axes[0, 0].figure, axes[:-1, :2].ravel())


def draw(ax: Axes, table: pd.DataFrame, metric: str, label: str, title: str) -> None:
    """One metric against batch size, one curve per norm."""
    summary = stats.summarize(table, [NORM, B], metric)
    hit = table.groupby([NORM, B])["diverged"].sum().rename("diverged").reset_index()
    summary = summary.merge(hit, on=[NORM, B])
    figures.curves(ax, summary, B, percent="error" in metric, xlabel=XLABEL, ylabel=label)
    ax.set_title(title)
    if "error" in metric:
        limit_errors(ax, summary)


def limit_errors(ax: Axes, summary: pd.DataFrame) -> None:
    """A log axis around the means; an interval that reaches zero runs off its lower end."""
    means = 100 * summary["mean"].dropna()
    ax.set_ylim(0.6 * means.min(), min(100.0, 1.6 * means.max()))
    figures.error_axis(ax)


def modes(ax: Axes, table: pd.DataFrame, title: str) -> None:
    """BN's test error by the source of the statistics it is evaluated with."""
    ax.set_title(title)
    if table.empty:
        ax.text(0.5, 0.5, "no BN arm", ha="center", transform=ax.transAxes)
        return
    frames = [
        stats.summarize(table, [B], "test_error" + mode.suffix).assign(mode=name)
        for name, mode in figures.MODES.items()
        if "test_error" + mode.suffix in table
    ]
    summary = pd.concat(frames)
    figures.curves(ax, summary, B, dash="mode", norm="batch", percent=True,
                   xlabel=XLABEL, ylabel="test error (%)")  # fmt: skip
    limit_errors(ax, summary)
    ax.legend(fontsize=6.5)


def gap(panel: Panel) -> pd.DataFrame:
    """BN minus its control in pp by batch size, with the 95 % interval of paired seeds."""
    rows = []
    for size in sorted(panel.rows[B].unique()):
        pair = [panel.cell("test_error", {NORM: n, B: size}) for n in ("batch", control_of(panel))]
        if all(pair):
            interval = stats.t_interval(list(paired_differences(*pair).values()))
            rows.append({B: size, **interval._asdict()})
    return pd.DataFrame(rows, columns=[B, "mean", "low", "high"])


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


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


def _change(panel: Panel, norm: str, small: int, large: int) -> dict[int, float]:
    return panel.difference(at(norm, small), at(norm, large))


def _more(panel: Panel, control: str, small: int, large: int) -> dict[int, float]:
    """How much more BN's error grows than the control's, in pp by seed."""
    return paired_differences(*(_change(panel, n, small, large) for n in ("batch", control)))


def _published_loss() -> float:
    lost = [PUBLISHED.at(n, batch_size=2) - PUBLISHED.at(n, batch_size=32) for n in
            ("batch", "group")]  # fmt: skip
    return lost[0] - lost[1]


def _ready(panel: Panel, *cells: tuple[str, int]) -> list[tuple[str, bool, str]]:
    """Reference cells have trained in every seed, and all runs are comparable."""
    ready = [trained(select(panel.rows, at(*c)), "{} at batch {}".format(*c)) for c in cells]
    return [*ready, comparable(panel.rows)]


def _on_maps(panel: Panel) -> list[Claim]:
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
        **PUBLISHED.cite("{} pp on ImageNet", _published_loss()),
    )  # fmt: skip
    if not panel.main:
        return [primary]
    precise = panel.cell("test_error_precise", batch)
    rethinking = {"source": "Wu & Johnson 2021, section 3"}
    found = sequence(
        primary,
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
    if (select(panel.rows, {NORM: "torch_batch"})[B] == small).any():
        found.append(claim(
            "control",
            f"at batch {small} torch's own BatchNorm2d and this package's differ by less than "
            f"{CONTROL:g} pp",
            panel.difference(at("torch_batch", small), batch), "equivalent", threshold=CONTROL,
            estimand=EMA, source="torch.nn.BatchNorm2d",
        ))  # fmt: skip
    return found


def _training(panel: Panel, control: str, small: int, large: int) -> dict[int, float]:
    changes = (
        panel.difference(at(n, small), at(n, large), "train_error") for n in ("batch", control)
    )
    return paired_differences(*changes)


def _on_vectors(panel: Panel) -> list[Claim]:
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


def _vectors_or_maps(others: list[Panel]) -> list[Claim]:
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
