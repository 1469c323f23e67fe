"""Draws DnCNN-S with and without batch norm against the published PSNR: no verdict, one seed.

    bnstudy train -m task=restoration data=photos data.root=DIR model=dncnn norm=batch,none \
        optimizer=adam optimizer.lr=0.001 optimizer.lr_rule=none optimizer.schedule=cosine \
        train.batch_size=16 train.examples=N evaluate.steps=M evaluate.large_batch=32 \
        evaluate.precise_examples=512 seeds=1
    python scripts/denoiser.py DIR ROOT [RESULTS_DIR [OUT]]

DIR holds Train400 and Set12, the set of the curve, of which M steps lie between two points. ROOT
holds Train400, Set12 and BSD68: on these the final networks are tested, once, since every point
would take minutes. Written are denoiser.{svg,pdf,png}, the PSNR by patches seen, and denoiser.csv;
printed is the distance to the numbers of Zhang et al. 2017, tables II and III.
"""

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.progress import track

from bnstudy import api, data, figures
from bnstudy.config import Config
from bnstudy.engine.restoration import fidelity
from bnstudy.figures import Band, Curve, Panel
from bnstudy.store import Store

PUBLISHED = {"Set12": 30.44, "BSD68": 29.23}  # dB at sigma 25: DnCNN-S, which has batch norm
CURVE = "Set12"  # tested while training
Record = dict[str, Any]


def is_dncnn_s(config: dict[str, Any]) -> bool:
    """Whether a network is DnCNN-S at sigma 25: 17 layers of 64 channels, by residual learning."""
    model, photographs = config["model"], config["data"]
    return (
        (model["name"], model["depth"], model["width"]) == ("dncnn", 17, 64)
        and (photographs.get("degradation"), photographs.get("sigma", 25.0)) == ("noise", 25.0)
        and photographs.get("test_part", "test") == "test"
    )


def course(record: Record, store: Store) -> pd.DataFrame:
    """Mean PSNR on Set12 at every evaluation of a network: columns patches, psnr."""
    history = store.history(record["address"])
    own = history[history["seed"] == record["seed"]]
    return pd.DataFrame({"patches": own["examples"], "psnr": own["test_psnr"]})


def tested(record: Record, folder: str, root: str, results_dir: str) -> dict[str, float]:
    """Mean PSNR of a final network on each set of test photographs below a root.

    folder: the data that it was trained on.
    """
    config = Config.model_validate(record["config"])
    photographs = data.load(config.data.model_copy(update={"root": root, "fingerprint": ""}))
    net = api.load(record["address"], results_dir, folder)
    found: dict[str, list[float]] = {}
    names = photographs.names["test"]
    whole = zip(names, photographs.whole("test"), strict=True)
    for name, (x, target) in track(whole, f"testing {config.norm.name}", len(names)):
        with torch.no_grad():
            image = net(x)[0].clamp(0, 1)
        found.setdefault(name.rpartition("/")[0], []).append(fidelity(target[0, 0], image)[0])
    return {name: sum(own) / len(own) for name, own in found.items()}


def panel(rows: pd.DataFrame, name: str) -> Panel:
    """A test set's panel: a curve for each norm beside the published number."""
    arms = []
    for norm in figures.STYLES:
        own = rows[(rows["set"] == name) & (rows["norm"] == norm)].groupby("patches")["psnr"]
        points = own.mean().rename("mean").reset_index().rename(columns={"patches": "x"})
        points["low"] = points["high"] = float("nan")
        style = figures.style_of(norm)
        if len(points):
            arms.append(Curve(style.label, points, style))
    bands = [
        Band(value, value, f"published {value}") for n, value in PUBLISHED.items() if n == name
    ]
    return Panel(f"{name}, DnCNN-S, sigma 25", arms, "patches seen", "PSNR (dB)", x="linear",
                 floor=None, bands=bands)  # fmt: skip


def main(folder: str, root: str, results_dir: str = "results", out: str = "results/denoiser"):
    """Write the figure and the table, print the distances."""
    store, rows = Store(Path(results_dir) / "runs"), []
    for record in (record for record in store if is_dncnn_s(record["config"])):
        arm = {"norm": record["config"]["norm"]["name"], "seed": record["seed"]}
        curve = course(record, store)
        rows.append(curve.assign(**arm, set=CURVE))
        for name, psnr in tested(record, folder, root, results_dir).items():
            patches = curve["patches"].iloc[-1]
            there = PUBLISHED.get(name)
            distance = f", {psnr - there:+.2f} dB from the published {there}" if there else ""
            print(f"{name:<6} {arm['norm']:<6} {psnr:.2f} dB after {patches:,} patches{distance}")
            if name != CURVE:
                rows.append(pd.DataFrame([{**arm, "set": name, "patches": patches, "psnr": psnr}]))
    if not rows:
        raise SystemExit(f"{results_dir} has no runs of DnCNN-S at sigma 25")
    table = pd.concat(rows)
    panels = [panel(table, name) for name in sorted(table["set"].unique(), reverse=True)]
    figures.save(figures.draw(panels), Path(out), "denoiser")
    columns = ["set", "norm", "seed", "patches", "psnr"]
    table[columns].to_csv(Path(out) / "denoiser.csv", index=False, float_format="%.4f")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit("python scripts/denoiser.py DIR ROOT [RESULTS_DIR [OUT]]")
    main(*sys.argv[1:])
