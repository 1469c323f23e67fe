"""Error against batch size (Wu & He 2018, figure 1): does BN need large batches?

Primary claim: from the largest to the smallest batch BN's test error grows by more than group
norm's (a difference in differences, paired by seed, so that what smaller batches do to every arm
cancels). Written before the first run of the grid in configs/study/batch_size.yaml.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bnstudy import figures, stats
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import finish
from bnstudy.studies.kit import (
    EMA,
    NORM,
    Panel,
    Published,
    comparable,
    extended,
    panels,
    select,
    sequence,
    trained,
)

B = "train.batch_size"
XLABEL = "batch size"

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
NO_EFFECT = 3.0  # pp: about three times the binomial error of a 4 % error on 400 test images
VECTOR_FAILS = 5.0  # pp: a fifth of what pilots on vectors showed


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """One row for each data set and model, one for what is compared across them."""
    return len(panels(table)) + 1, 3


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Test error, training loss, BN's evaluation modes; below, published and paired differences."""
    table = extended(table, {"diverged": table["diverged_at"].notna()})
    for row, panel in zip(axes, panels(table), strict=False):
        draw(row[0], panel.rows, "test_error", "test error (%)", panel.title)
        draw(row[1], panel.rows, "train_loss", "training loss (nats)", panel.title)
        modes(row[2], select(panel.rows, {NORM: "batch"}), f"{panel.title}: BN evaluated by")
    published, difference, counts = axes[-1]
    frame = pd.concat(
        [
            PUBLISHED.curve(norm, "batch_size", x=B).assign(**{NORM: norm})
            for norm in ("batch", "group")
        ]
    )
    figures.curves(published, frame, B, xlabel="images per GPU", ylabel="validation error (%)")
    published.set_title("published: ResNet-50, ImageNet (Wu & He 2018)")
    lines = zip(panels(table), ("-", "--", "-.", ":") * 3, strict=False)
    for i, (panel, linestyle) in enumerate(lines):
        line = {"linestyle": linestyle, "color": SHADES[i % len(SHADES)], "marker": "."}
        frame = gap(panel)
        bars = [frame["mean"] - frame["low"], frame["high"] - frame["mean"]]
        where = frame[B] * 2 ** (figures.DODGE * (i - 1.5))
        difference.errorbar(where, frame["mean"], yerr=bars, capsize=1.8, elinewidth=0.9,
                            label=panel.title, **line)  # fmt: skip
        smallest = select(panel.rows, {NORM: "batch"}).groupby(B)["smallest_m"].min()
        # networks that share m would hide each other: a hair's breadth apart
        counts.plot(smallest.index, smallest * 1.06**i, label=panel.title, **line)
    for ax in (difference, counts):
        figures.batch_axis(ax, sorted(table[B].unique()))
        ax.set_xlabel(XLABEL)
    difference.axhline(0, color="black", linewidth=0.8)
    difference.set_ylabel("BN - GN test error (pp)")
    finish(difference, "paired difference: above zero BN is worse")
    counts.set_yscale("log", base=2)
    counts.yaxis.set_major_formatter("{x:g}")
    counts.set_ylabel("values behind a statistic, m")
    finish(counts, "smallest m of any BN layer")
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
    """BN minus GN in pp by batch size, with the 95 % interval of paired seeds."""
    rows = []
    for size in sorted(panel.rows[B].unique()):
        pair = [panel.cell("test_error", {NORM: n, B: size}) for n in ("batch", "group")]
        if all(pair):
            interval = stats.t_interval(list(paired_differences(*pair).values()))
            rows.append({B: size, **interval._asdict()})
    return pd.DataFrame(rows, columns=[B, "mean", "low", "high"])


def claims(table: pd.DataFrame) -> list[Claim]:
    """The claims for every data set and model of the table; the primary one first.

    Primary: on contrast digits with the ResNet, where they are in the table; else on its first
    data set and model.
    """
    small, large = int(table[B].min()), int(table[B].max())
    main = panels(table, model="resnet", data="contrast_digits")
    return [claim for panel in main for claim in _claims_of(panel, small, large)]


def _claims_of(panel: Panel, small: int, large: int) -> list[Claim]:
    expected_effect = panel.data != "digits" or panel.model == "mlp"
    vectors = panel.model == "mlp"
    control = "layer" if vectors and "layer" in set(panel.rows[NORM]) else "group"

    def at(norm: str, size: int) -> dict[str, object]:
        return {NORM: norm, B: size}

    def change(norm: str) -> dict[int, float]:
        return panel.difference(at(norm, small), at(norm, large))

    references = (("batch", large), (control, large), (control, small))
    ready = [trained(select(panel.rows, at(*r)), "{} at batch {}".format(*r)) for r in references]
    diverged = int(select(panel.rows, {NORM: "batch"})["diverged_at"].notna().sum())
    claim = panel.claims(
        source=SOURCE,
        estimand=EMA,
        preconditions=[*ready, comparable(panel.rows)],
        notes=[f"{diverged} BN runs diverged; they count at chance error"] if diverged else [],
    )
    more = paired_differences(change("batch"), change(control))
    # normalized by two, a vector is a sign: that batch norm fails there needs no seeds
    certain = vectors and small == 2
    printed = PUBLISHED.at
    lost = [printed(n, batch_size=2) - printed(n, batch_size=32) for n in ("batch", "group")]
    found = [
        claim(
            "BN loses more",
            f"from batch {large} to {small} BN's test error grows by more than {control} norm's"
            + (f" + {VECTOR_FAILS:g} pp" if vectors else ""),
            more, "demonstration" if certain else "greater",
            threshold=VECTOR_FAILS if vectors else 0.0,
            primary=panel.main and not certain,
            expected="supported" if expected_effect else "refuted or inconclusive",
            **PUBLISHED.cite("{} pp on ImageNet", lost[0] - lost[1]),
        )
    ]  # fmt: skip
    if vectors:
        return found
    if not expected_effect:
        return sequence(*found, claim(
            "no effect",
            f"BN's and {control} norm's change differ by less than {NO_EFFECT:g} pp",
            more, "equivalent", threshold=NO_EFFECT, source="pilots on plain digits",
        ))  # fmt: skip
    return [
        *found,
        claim(
            f"worse at {small}",
            f"at batch {small} BN's test error is above {control} norm's",
            panel.difference(at("batch", small), at(control, small)),
            **PUBLISHED.cite(
                "{} pp on ImageNet", printed("batch", batch_size=2) - printed("group", batch_size=2)
            ),
        ),
        claim(
            f"better at {large}",
            f"at batch {large} {control} norm's test error is above BN's",
            panel.difference(at(control, large), at("batch", large)),
            **PUBLISHED.cite(
                "{} pp on ImageNet",
                printed("group", batch_size=32) - printed("batch", batch_size=32),
            ),
        ),
    ]
