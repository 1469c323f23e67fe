"""Draws DnCNN-S with and without batch norm against the published PSNR: no verdict, one seed.

    bnstudy train -m task=restoration data=photos data.root=DIR model=dncnn norm=batch,none \
        optimizer=adam optimizer.lr=0.001 optimizer.lr_rule=none optimizer.schedule=cosine \
        train.batch_size=16 train.examples=N evaluate.steps=M evaluate.large_batch=32 \
        evaluate.precise_examples=512 evaluate.probes=[photographs] seeds=1
    python scripts/denoiser.py [RESULTS_DIR [OUT]]

DIR holds Train400, Set12 and BSD68; M steps lie between two points of the curve. Written are
denoiser.{svg,pdf,png}, the PSNR by examples seen, and denoiser.csv; printed is the distance to the
numbers of Zhang et al. 2017, table II and III.
"""

import sys
from pathlib import Path
from typing import Any

import pandas as pd

from bnstudy import figures
from bnstudy.figures import Band, Curve, Panel
from bnstudy.store import Store

PUBLISHED = {"Set12": 30.44, "BSD68": 29.23}  # dB at sigma 25: DnCNN-S, which has batch norm
START = "psnr_of/"


def is_dncnn_s(config: dict[str, Any]) -> bool:
    """Whether a network is DnCNN-S at sigma 25: 17 layers of 64 channels, by residual learning."""
    model, data = config["model"], config["data"]
    return (
        (model["name"], model["depth"], model["width"]) == ("dncnn", 17, 64)
        and (data.get("degradation"), data.get("sigma", 25.0)) == ("noise", 25.0)
        and data.get("test_part", "test") == "test"
    )


def curves(store: Store) -> pd.DataFrame:
    """PSNR of each set by examples seen: columns norm, seed, set, examples, psnr."""
    found = []
    for record in store:
        config = record["config"]
        if not is_dncnn_s(config):
            continue
        history = store.history(record["address"])
        for column in (c for c in map(str, history) if c.startswith(START)):
            found += [
                {
                    "norm": config["norm"]["name"],
                    "seed": record["seed"],
                    "set": column.removeprefix(START),
                    "examples": row["examples"],
                    "psnr": row[column],
                }
                for _, row in history[history["seed"] == record["seed"]].iterrows()
            ]
    return pd.DataFrame(found)


def panel(rows: pd.DataFrame, name: str) -> Panel:
    """A test set's panel: a curve for each norm beside the published number."""
    arms = []
    for norm in figures.STYLES:
        own = rows[(rows["set"] == name) & (rows["norm"] == norm)].groupby("examples")["psnr"]
        points = own.mean().rename("mean").reset_index().rename(columns={"examples": "x"})
        points["low"] = points["high"] = float("nan")
        style = figures.style_of(norm)
        if len(points):
            arms.append(Curve(style.label, points, style))
    bands = [
        Band(value, value, f"published {value}") for n, value in PUBLISHED.items() if n == name
    ]
    return Panel(f"{name}, DnCNN-S, sigma 25", arms, "patches seen", "PSNR (dB)", x="linear",
                 floor=None, bands=bands)  # fmt: skip


def main(results_dir: str = "results", out: str = "results/denoiser") -> None:
    """Write the figure and the table, print the distances."""
    rows = curves(Store(Path(results_dir) / "runs"))
    if rows.empty:
        raise SystemExit(f"{results_dir} has no runs with the probe `photographs` on several sets")
    folder = Path(out)
    sets = sorted(rows["set"].unique())
    figures.save(figures.draw([panel(rows, name) for name in sets]), folder, "denoiser")
    rows.to_csv(folder / "denoiser.csv", index=False, float_format="%.4f")
    last = rows.loc[rows.groupby(["set", "norm", "seed"])["examples"].idxmax()]
    for row in last.itertuples():
        there = PUBLISHED.get(row.set)
        distance = f", {row.psnr - there:+.2f} dB from the published {there}" if there else ""
        print(f"{row.set:<6} {row.norm:<6} {row.psnr:.2f} dB after {row.examples:,}{distance}")


if __name__ == "__main__":
    main(*sys.argv[1:])
