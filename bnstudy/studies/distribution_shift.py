"""Corrupted test images by the source of statistics (Wu & Johnson 2021, domain shift).

Primary claim: recovery, the mean over noise, blur and JPEG at five severities of the test error by
training statistics minus that by statistics of test batches of 256, is above zero for batch norm.
Written before the first run of the study's grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies import across, comparable, extended, panels, select, titled, trained, values

CLAIMED = ("noise", "blur", "jpeg")
SHOWN = ("contrast", "brightness", *CLAIMED)
SEVERITIES = (1, 2, 3, 4, 5)
CLEAN_COST = 2.0  # pp that batch statistics may cost on clean data
SOURCE = "Wu & Johnson 2021, domain shift"
PUBLISHED = {
    "what": "published: Wu & Johnson 2021, domain-shift table (ResNet-50, ImageNet-C), error in %",
    "corruption": ["contrast", "noise", "jpeg", "clean"],
    "training statistics": [40.8, 64.4, 40.4, 23.4],
    "statistics of the shifted data": [33.1, 52.5, 36.7, np.nan],
}


def adapted(table: pd.DataFrame, name: str, severity: int) -> str:
    """The column of the largest test batches."""
    columns = [c for c in table if c.startswith(f"{name}_{severity}_error_batch")]
    return max(columns, key=lambda c: int(c.rpartition("batch")[2]))


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """Two rows for each data set and model."""
    return 2 * len(panels(table)), 4


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Error by severity for each corruption; batch size and prior; calibration; published."""
    for i, (data, model) in enumerate(panels(table)):
        here = select(table, data__name=data, model__name=model)
        batch = select(here, norm__name="batch")
        flat = axes[2 * i : 2 * i + 2].ravel()
        for ax, name in zip(flat, SHOWN, strict=False):
            curves, looks = {}, {}
            for norm in (n for n in figures.STYLES if (here["norm.name"] == n).any()):
                rows = select(here, norm__name=norm)
                curves[norm] = across(rows, {s: f"{name}_{s}_error" for s in SEVERITIES})
                looks[norm] = figures.style_of(norm)
            label = "batch, test statistics"
            curves[label] = across(batch, {s: adapted(batch, name, s) for s in SEVERITIES})
            looks[label] = figures.style_of("batch")._replace(label=label)
            figures.series(ax, curves, percent=True, log2=False, styles=looks, dashed=[label],
                           xlabel="severity", ylabel="test error (%)")  # fmt: skip
            ax.set_title(f"{titled(data, model)}: {name}")
        flat[0].legend(fontsize=6)
        _batches(flat[5], batch)
        _calibration(flat[6], batch)
        _published(flat[7])


def _batches(ax, batch: pd.DataFrame) -> None:
    """Severity 3: error by test batch size, and with a prior at 16."""
    curves = {}
    for name in CLAIMED:
        sizes = sorted(
            int(c.rpartition("batch")[2]) for c in batch if c.startswith(f"{name}_3_error_batch")
        )
        curves[name] = across(batch, {float(s): f"{name}_3_error_batch{s}" for s in sizes})
    figures.series(ax, curves, percent=True, xlabel="test batch (examples)",
                   ylabel="test error (%)")  # fmt: skip
    for name, (color, _) in zip(CLAIMED, figures.SERIES, strict=False):
        mean = 100 * batch[f"{name}_3_error_prior16"].mean()
        ax.plot(16, mean, linestyle="none", marker="*", markersize=9, color=color)
    ax.plot([], [], linestyle="none", marker="*", color="grey", label="16, with prior of 16")
    ax.legend(fontsize=6)
    ax.set_title("severity 3, by test batch")


def _calibration(ax, batch: pd.DataFrame) -> None:
    """Expected calibration error, mean over the claimed corruptions."""
    rows = batch.copy()
    for s in SEVERITIES:
        rows[f"plain{s}"] = rows[[f"{n}_{s}_ece" for n in CLAIMED]].mean(axis=1)
        own = [adapted(batch, n, s).replace("_error_", "_ece_") for n in CLAIMED]
        rows[f"own{s}"] = rows[own].mean(axis=1)
    curves = {
        "training statistics": across(rows, {s: f"plain{s}" for s in SEVERITIES}),
        "test statistics": across(rows, {s: f"own{s}" for s in SEVERITIES}),
    }
    figures.series(ax, curves, percent=True, log2=False, xlabel="severity",
                   ylabel="calibration error (%)")  # fmt: skip
    ax.legend(fontsize=6)
    ax.set_title("noise, blur, JPEG: calibration (ECE)")


def _published(ax) -> None:
    places = np.arange(len(PUBLISHED["corruption"]))
    for shift, key, color in ((-0.2, "training statistics", "#D55E00"),
                              (0.2, "statistics of the shifted data", "#0072B2")):  # fmt: skip
        ax.bar(places + shift, PUBLISHED[key], 0.38, color=color, label=key)
    ax.set_xticks(places, PUBLISHED["corruption"])
    ax.set_ylabel("error (%)")
    ax.margins(y=0.3)
    ax.legend(fontsize=6)
    ax.set_title("published: ResNet-50, ImageNet-C")


def recovery(rows: pd.DataFrame, names: tuple[str, ...]) -> dict[int, float]:
    """Seed -> mean over corruptions and severities of plain minus adapted error, in pp."""
    pairs = [(f"{n}_{s}_error", adapted(rows, n, s)) for n in names for s in SEVERITIES]
    gain = sum(rows[plain] - rows[own] for plain, own in pairs) / len(pairs)
    return values(extended(rows, gain=gain), "gain")


def claims(table: pd.DataFrame) -> list[Claim]:
    """Recovery on the claimed corruptions together and alone; the clean cost; group norm."""
    found = []
    pairs = panels(table)
    main = next((p for p in pairs if p[1] == "resnet"), pairs[0])
    for data, model in [main, *(p for p in pairs if p != main)]:
        here = select(table, data__name=data, model__name=model)
        batch = select(here, norm__name="batch")
        where, key = titled(data, model), f"{data} {model}"
        common = {
            "source": SOURCE,
            "preconditions": [trained(batch, "batch norm"), comparable(here)],
        }
        found.append(
            Claim(
                name=f"{key}: recovery", kind="greater", values=recovery(batch, CLAIMED),
                primary=(data, model) == main,
                text=f"{where}: test-batch statistics lower batch norm's error under noise, blur "
                "and JPEG, mean over severities",
                published="+11.9 pp noise, +3.7 pp JPEG on ImageNet-C (published)",
                published_effect=7.8, **common,
            )
        )  # fmt: skip
        found += [
            Claim(
                name=f"{key}: {name}", kind="greater", values=recovery(batch, (name,)),
                text=f"{where}: so they do under {name} alone", **common,
            )
            for name in CLAIMED
        ]  # fmt: skip
        found.append(
            Claim(
                name=f"{key}: clean", kind="not_worse", threshold=CLEAN_COST,
                values=paired_differences(
                    values(batch, "test_error_large_batch"), values(batch, "test_error")
                ),
                text=f"{where}: on clean data they cost less than {CLEAN_COST:g} pp", **common,
            )
        )  # fmt: skip
        group = select(here, norm__name="group")
        if len(group):
            plain = lambda rows: values(  # noqa: E731
                extended(
                    rows,
                    mean=rows[[f"{n}_{s}_error" for n in CLAIMED for s in SEVERITIES]].mean(axis=1),
                ),
                "mean",
            )
            found.append(
                Claim(
                    name=f"{key}: group", kind="greater",
                    values=paired_differences(plain(batch), plain(group)),
                    text=f"{where}: under the same shifts group norm has a lower error than batch "
                    "norm with training statistics",
                    **{**common, "source": "Schneider et al. 2020"},
                )
            )  # fmt: skip
    return found
