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
from bnstudy.studies import comparable, extended, panels, select, titled, trained, values

B = "train.batch_size"
XLABEL = "batch size"

# validation error in %, ResNet-50 on ImageNet, images per GPU (Wu & He 2018, tables 1 and 2)
PUBLISHED = {
    "what": "published: Wu & He 2018, tables 1 and 2 (ResNet-50, ImageNet, one run)",
    "batch_size": [32, 16, 8, 4, 2],
    "batch": [23.6, 23.7, 24.8, 27.3, 34.7],
    "group": [24.1, 24.2, 24.0, 24.2, 24.1],
}
SOURCE = "Wu & He 2018, table 2"
SHADES = ("#111111", "#666666", "#333333", "#999999")  # grey: color belongs to a norm
NO_EFFECT = 3.0  # pp: about three times the binomial error of a 4 % error on 400 test images
VECTOR_FAILS = 5.0  # pp: a fifth of what pilots on vectors showed


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """One row for each data set and model, one for what is compared across them."""
    return len(panels(table)) + 1, 3


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Test error, training loss, BN's evaluation modes; below, published and paired differences."""
    table = extended(table, diverged=table["diverged_at"].notna())
    for row, (data, model) in zip(axes, panels(table), strict=False):
        here = select(table, data__name=data, model__name=model)
        title = titled(data, model)
        draw(row[0], here, "test_error", "test error (%)", title)
        draw(row[1], here, "train_loss", "training loss (nats)", title)
        modes(row[2], select(here, norm__name="batch"), f"{title}: BN evaluated by")
    published, difference, counts = axes[-1]
    frame = pd.DataFrame(
        [
            {B: size, "norm.name": norm, "mean": error, "low": np.nan, "high": np.nan}
            for norm in ("batch", "group")
            for size, error in zip(PUBLISHED["batch_size"], PUBLISHED[norm], strict=True)
        ]
    )
    figures.curves(published, frame, B, xlabel="images per GPU", ylabel="validation error (%)")
    published.set_title("published: ResNet-50, ImageNet (Wu & He 2018)")
    lines = zip(panels(table), ("-", "--", "-.", ":") * 3, strict=False)
    for i, ((data, model), linestyle) in enumerate(lines):
        here = select(table, data__name=data, model__name=model)
        look = {"linestyle": linestyle, "color": SHADES[i % len(SHADES)], "marker": "."}
        frame = gap(here)
        bars = [frame["mean"] - frame["low"], frame["high"] - frame["mean"]]
        where = frame[B] * 2 ** (figures.DODGE * (i - 1.5))
        difference.errorbar(where, frame["mean"], yerr=bars, capsize=1.8, elinewidth=0.9,
                            label=titled(data, model), **look)  # fmt: skip
        smallest = values_per_statistic(here)
        # networks that share m would hide each other: a hair's breadth apart
        counts.plot(smallest[B], smallest["m"] * 1.06**i, label=titled(data, model), **look)
    for ax in (difference, counts):
        figures.batch_axis(ax, sorted(table[B].unique()))
        ax.set_xlabel(XLABEL)
        ax.legend(fontsize=6.5)
    difference.axhline(0, color="black", linewidth=0.8)
    difference.set_ylabel("BN - GN test error (pp)")
    difference.set_title("paired difference: above zero BN is worse")
    counts.set_yscale("log", base=2)
    counts.yaxis.set_major_formatter("{x:g}")
    counts.set_ylabel("values behind a statistic, m")
    counts.set_title("smallest m of any BN layer")
    figures.legend(axes[0, 0].figure, axes[:-1, :2].ravel())


def draw(ax: Axes, table: pd.DataFrame, metric: str, label: str, title: str) -> None:
    """One metric against batch size, one curve per norm."""
    summary = stats.summarize(table, ["norm.name", B], metric)
    hit = table.groupby(["norm.name", B])["diverged"].sum().rename("diverged").reset_index()
    summary = summary.merge(hit, on=["norm.name", B])
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


def gap(table: pd.DataFrame) -> pd.DataFrame:
    """BN minus GN in pp by batch size, with the 95 % interval of paired seeds."""
    rows = []
    for size in sorted(table[B].unique()):
        pair = [values(table, "test_error", norm__name=n, train__batch_size=size)
                for n in ("batch", "group")]  # fmt: skip
        if all(pair):
            mean, low, high = stats.t_interval(list(paired_differences(*pair).values()))
            rows.append({B: size, "mean": mean, "low": low, "high": high})
    return pd.DataFrame(rows, columns=[B, "mean", "low", "high"])


def values_per_statistic(table: pd.DataFrame) -> pd.DataFrame:
    """Smallest m of any BN layer by batch size."""
    found = select(table, norm__name="batch").groupby(B)["smallest_m"].min().reset_index()
    return found.rename(columns={"smallest_m": "m"}).sort_values(B)


def claims(table: pd.DataFrame) -> list[Claim]:
    """The claims for every data set and model of the table; the primary one first.

    Primary: on contrast digits with the ResNet, where they are in the table; else on its first
    data set and model.
    """
    small, large = int(table[B].min()), int(table[B].max())
    pairs = panels(table)
    wanted = ("contrast_digits", "resnet")
    main = wanted if wanted in pairs else pairs[0]
    found = []
    for data, model in [main, *(p for p in pairs if p != main)]:
        found += _claims_of(table, data, model, small, large, primary=(data, model) == main)
    return found


def _claims_of(
    table: pd.DataFrame, data: str, model: str, small: int, large: int, primary: bool
) -> list[Claim]:
    here = select(table, data__name=data, model__name=model)
    where = titled(data, model)
    expected_effect = data != "digits" or model == "mlp"

    def error(norm: str, size: int) -> dict[int, float]:
        return values(here, "test_error", norm__name=norm, train__batch_size=size)

    def change(norm: str) -> dict[int, float]:
        return paired_differences(error(norm, small), error(norm, large))

    def learns(norm: str, size: int) -> tuple[str, bool, str]:
        return trained(here, f"{norm} at batch {size}", norm__name=norm, train__batch_size=size)

    control = "layer" if model == "mlp" and "layer" in set(here["norm.name"]) else "group"
    ready = [learns("batch", large), learns(control, large), learns(control, small),
             comparable(here)]  # fmt: skip
    diverged = int(select(here, norm__name="batch")["diverged_at"].notna().sum())
    notes = [f"{diverged} BN runs diverged; they count at chance error"] if diverged else []
    key = f"{data} {model}"
    more = paired_differences(change("batch"), change(control))
    threshold = VECTOR_FAILS if model == "mlp" else 0.0
    result = [
        Claim(
            name=f"{key}: BN loses more",
            text=f"{where}: from batch {large} to {small} BN's test error grows by more than "
            f"{control} norm's" + (f" + {threshold:g} pp" if threshold else ""),
            kind="greater",
            values=more,
            threshold=threshold,
            primary=primary,
            source=SOURCE,
            published="+11.1 pp on ImageNet (from the published table)",
            published_effect=11.1,
            expected="supported" if expected_effect else "refuted or inconclusive",
            preconditions=ready,
            notes=notes,
        )
    ]
    if model != "mlp":
        if not expected_effect:
            result.append(
                Claim(
                    name=f"{key}: no effect",
                    text=f"{where}: BN's and {control} norm's change differ by less than "
                    f"{NO_EFFECT:g} pp",
                    kind="equivalent",
                    values=more,
                    threshold=NO_EFFECT,
                    source="pilots on plain digits",
                    preconditions=ready,
                    notes=notes,
                )
            )
        else:
            worse = paired_differences(error("batch", small), error(control, small))
            better = paired_differences(error(control, large), error("batch", large))
            result += [
                Claim(
                    name=f"{key}: worse at {small}",
                    text=f"{where}: at batch {small} BN's test error is above {control} norm's",
                    kind="greater",
                    values=worse,
                    source=SOURCE,
                    published="+10.6 pp on ImageNet",
                    published_effect=10.6,
                    preconditions=ready,
                    notes=notes,
                ),
                Claim(
                    name=f"{key}: better at {large}",
                    text=f"{where}: at batch {large} {control} norm's test error is above BN's",
                    kind="greater",
                    values=better,
                    source=SOURCE,
                    published="+0.5 pp on ImageNet",
                    published_effect=0.5,
                    preconditions=ready,
                    notes=notes,
                ),
            ]
    return result
