"""Recurrent batch norm past the longest training sequence (Cooijmans et al. 2017, figure 3b).

Primary claim: at ten times the training length the statistics of the test batch cost bits against
the population's, clamped at T_max. Written before the first run of the study's grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies import across, comparable, select, titled, values

FACTOR = 10  # the primary claim's length, in training lengths
MARGIN = 0.02  # bits a character
SOURCE = "Cooijmans et al. 2017, figure 3b"
WAYS = {
    "length": "clamped at T_max",
    "length_batch": "batch statistics",
    "length_shared": "shared over time",
    "length_truncated": "own statistics to T_max / 4",
}
PUBLISHED = {
    "what": "digitised: bits a character on Penn Treebank, trained at 100 characters (Cooijmans et "
    "al. 2017, figure 3b; +-0.003)",
    "length": [50, 1000],
    "no norm": [1.449, 1.391],
    "batch, population": [1.398, 1.333],
    "batch, batch statistics": [1.420, 1.362],
}


def lengths(table: pd.DataFrame, way: str = "length") -> dict[int, str]:
    """Test length -> column, for one way of reading."""
    own = [c for c in table if c.startswith(f"{way}/")]
    return {int(c.rpartition("/")[2]): c for c in sorted(own)}


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """Norms; ways of reading batch norm; differences to clamping; published."""
    return 1, 4


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Bits a character against test length."""
    norms, ways, differences, published = np.ravel(axes)
    by = dict(iter(table.groupby("norm.name")))
    order = [name for name in figures.STYLES if name in by]
    curves = {name: _curve(by[name], "length") for name in order}
    looks = {name: figures.style_of(name) for name in order}
    xlabel = "test length (characters)"
    figures.series(norms, curves, xlabel=xlabel, ylabel="bits a character", styles=looks)
    norms.set_title(f"text, LSTM, trained at {_training(table)}; batch norm clamped")
    batch = by.get("batch", table.iloc[:0])
    curves = {label: _curve(batch, way) for way, label in WAYS.items()}
    same = {label: figures.Style(*figures.SERIES[i], label) for i, label in enumerate(curves)}
    figures.series(ways, curves, xlabel=xlabel, ylabel="bits a character", styles=same)
    ways.set_title("batch norm, one training read in four ways")
    curves = {}
    for way, label in list(WAYS.items())[1:]:
        clamped = lengths(batch)
        columns = {n: batch[c] - batch[clamped[n]] for n, c in lengths(batch, way).items()}
        frame = pd.DataFrame({str(n): v for n, v in columns.items()}).assign(seed=batch["seed"])
        curves[label] = across(frame, {float(n): str(n) for n in columns})
    figures.series(differences, curves, xlabel=xlabel, ylabel="bits more than clamped",
                   styles=same)  # fmt: skip
    differences.axhline(0, color="black", linewidth=0.7)
    differences.set_title("cost of other statistics")
    x = PUBLISHED["length"]
    curves = {
        label: pd.DataFrame({"x": x, "mean": PUBLISHED[label], "low": np.nan, "high": np.nan})
        for label in PUBLISHED
        if label not in ("what", "length")
    }
    figures.series(published, curves, xlabel=xlabel, ylabel="bits a character")
    published.set_title("digitised: Penn Treebank, trained at 100")
    for ax in (norms, ways, differences, published):
        ax.legend(fontsize=6.5)
        ax.margins(y=0.35)
        ax.tick_params(axis="x", labelrotation=45, labelsize=6.5)


def _training(table: pd.DataFrame) -> int:
    return int(table["data.length"].iloc[0])


def _curve(rows: pd.DataFrame, way: str) -> pd.DataFrame:
    return across(rows, {float(n): c for n, c in lengths(rows, way).items()})


def claims(table: pd.DataFrame) -> list[Claim]:
    """Batch statistics, shared and truncated ones against clamping; the gain of layer norm."""
    once = _training(table)
    far = FACTOR * once
    batch, layer = select(table, norm__name="batch"), select(table, norm__name="layer")

    def bits(rows: pd.DataFrame, way: str, length: int) -> dict[int, float]:
        return values(rows, f"{way}/{length:04d}", factor=1)

    train = batch["train_loss"].mean()
    ready = [
        ("batch norm trains", bool(train < 3.0), f"mean training loss {train:.2f} nats, limit 3"),
        comparable(table),
    ]
    clamped = bits(batch, "length", far)
    common = {"unit": "bits", "source": SOURCE, "preconditions": ready}
    where = titled("text", "LSTM")
    found = [
        Claim(
            name="batch statistics", kind="greater", primary=True,
            values=paired_differences(bits(batch, "length_batch", far), clamped),
            text=f"{where}: at {far} characters the test batch's statistics cost bits against the "
            "population's, clamped at T_max",
            published="+0.029 bits on Penn Treebank at 1,000 (digitised)", published_effect=0.029,
            **common,
        ),
        Claim(
            name="shared", kind="greater",
            values=paired_differences(bits(batch, "length_shared", far), clamped),
            text=f"{where}: at {far} characters one mean and variance for all steps cost bits",
            **common,
        ),
        Claim(
            name="shared at the training length", kind="greater",
            values=paired_differences(
                bits(batch, "length_shared", once), bits(batch, "length", once)
            ),
            text=f"{where}: so they do at {once} characters",
            **common,
        ),
        Claim(
            name="truncated", kind="greater",
            values=paired_differences(bits(batch, "length_truncated", far), clamped),
            text=f"{where}: at {far} characters statistics of the first quarter alone cost bits",
            **common,
        ),
    ]  # fmt: skip
    if len(layer):
        gain = {
            name: paired_differences(bits(rows, "length", far), bits(rows, "length", once))
            for name, rows in (("batch", batch), ("layer", layer))
        }
        found.append(
            Claim(
                name="as layer norm", kind="equivalent", threshold=MARGIN,
                values=paired_differences(gain["batch"], gain["layer"]),
                text=f"{where}: from {once} to {far} characters clamped batch norm gains as much "
                f"as layer norm, within {MARGIN} bits",
                **common,
            )
        )  # fmt: skip
    return found
