"""Draws what networks of the study `restoration` make of one photograph, side by side.

    bnstudy study restoration save_weights=true
    python scripts/crops.py FOLDER [OUT]

FOLDER is that of the study's results, results/runs/studies/restoration/SCALE-HASH: its table names
the networks.

Chosen by rule, never by eye: of the cells at the largest batch and patch with the global skip, the
networks of the first seed; the test photograph whose PSNR, mean over the arms shown, is the median
(the lower one of two); in it, of all squares of 64 x 64 pixels side by side, the one whose clean
grey levels have the median variance. PSNR is that of the whole photograph, by scikit-image.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from bnstudy import api, figures
from bnstudy.config import Config
from bnstudy.figures.images import Shown, row
from bnstudy.store import Store
from bnstudy.studies import pixels, restoration
from bnstudy.studies.kit import NORM, select

ARMS = ("batch", "group", "none")
SIDE = 64  # pixels


def lower_median(values: "pd.Series | np.ndarray") -> int:
    """The place of the median, of two the lower one."""
    return int(np.argsort(np.asarray(values), kind="stable")[(len(values) - 1) // 2])


def networks(table: pd.DataFrame) -> pd.DataFrame:
    """The runs that are shown, a row for each arm."""
    panel = pixels.denoisers(table)[0]
    rows = select(panel.rows, restoration.reference(panel.rows))
    rows = rows[(rows["seed"] == rows["seed"].min()) & rows[NORM].isin(ARMS)]
    return rows.set_index(NORM).loc[[norm for norm in ARMS if norm in set(rows[NORM])]]


def square(clean: np.ndarray) -> tuple[slice, slice]:
    """The square of median variance of a photograph (H, W)."""
    places = [
        (slice(top, top + SIDE), slice(left, left + SIDE))
        for top in range(0, clean.shape[0] - SIDE + 1, SIDE)
        for left in range(0, clean.shape[1] - SIDE + 1, SIDE)
    ]
    return places[lower_median(np.array([clean[place].var() for place in places]))]


def draw(folder: Path, out: Path, data_root: str | None = None) -> Path:
    """Write the picture; the path of its PNG."""
    import torch

    from bnstudy import data
    from bnstudy.engine.restoration import fidelity

    rows = networks(pd.read_csv(folder / "table.csv", low_memory=False))
    results_dir = str(folder.resolve().parents[3])
    names = [c for c in map(str, rows) if c.startswith("psnr/")]
    column = names[lower_median(rows[names].mean(axis=0))]
    name = column.removeprefix("psnr/")
    record = Store(Path(results_dir) / "runs").get(rows.iloc[0]["address"])
    config = Config.model_validate(record["config"]).data
    config = config.model_copy(update={"root": data_root})
    photographs = data.load(config)
    whole = dict(zip(photographs.names["test"], photographs.whole("test"), strict=True))
    x, target = whole[name]
    clean = target[0, 0]
    made = {"noisy": x[0]}
    for norm, address in rows["address"].items():
        net = api.load(address, results_dir, data_root)
        with torch.no_grad():
            made[figures.style_of(str(norm)).label] = net(x)[0].clamp(0, 1)
    cut = square(clean.mean(0).numpy())
    shown = [
        Shown(image.mean(0).numpy()[cut], title, f"{fidelity(clean, image.clamp(0, 1))[0]:.2f} dB")
        for title, image in made.items()
    ]
    shown.append(Shown(clean.mean(0).numpy()[cut], "truth"))
    note = (
        f"{name}, seed {rows['seed'].iloc[0]}: photograph of median PSNR, square of median "
        "variance; PSNR of the whole photograph"
    )
    figures.save(row(shown, note=note), out, "crops")
    return out / "crops.png"


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("python scripts/crops.py FOLDER [OUT]: FOLDER has the study's table.csv")
    print(draw(Path(sys.argv[1]), Path([*sys.argv, "results/restoration"][2])))
