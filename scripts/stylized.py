"""Draws what networks of the study `stylization` make of photographs, side by side.

    bnstudy study stylization save_weights=true
    python scripts/stylized.py FOLDER [OUT]

FOLDER is that of the study's results, results/runs/studies/stylization/SCALE-HASH: its table names
the networks.

Chosen by rule, never by eye: the networks of the first seed at a batch of four. Above, the whole
test photograph whose loss by the first network (in the order of the legends) is the median, of an
even number the lower one. Below, for batch and for instance norm, the middle 64 x 64 pixels of the
first test photograph in two batches of four, normalized as in training, that differ in the other
three images; last the difference between the two outputs, ten times as large.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from bnstudy import api, data, figures
from bnstudy.config import Config
from bnstudy.data.samplers import generator
from bnstudy.engine.stylization import Stylization
from bnstudy.figures.images import Shown, sheet
from bnstudy.norms import batch_norms, evaluation_mode
from bnstudy.probes.style import clean
from bnstudy.store import Store
from bnstudy.studies import stylization
from bnstudy.studies.kit import NORM, in_order, select
from bnstudy.work.tasks import task

SIDE = 64  # pixels
TIMES = 10  # differences are drawn so many times as large
SIZE = stylization.SIZE


def networks(table: pd.DataFrame) -> pd.DataFrame:
    """The runs that are shown, a row for each norm."""
    rows = select(stylization.found_panels(table)[0].rows, {stylization.B: SIZE})
    rows = rows[rows["seed"] == rows["seed"].min()].set_index(NORM)
    return rows.loc[in_order(rows.index)]


def pixels(image: Tensor) -> np.ndarray:
    """(C, H, W) as (H, W), or (H, W, 3) where it has colors."""
    plain = image.clamp(0, 1).numpy()
    return plain[0] if len(plain) == 1 else plain.transpose(1, 2, 0)


def loss(judge: Stylization, output: Tensor, y: Tensor) -> float:
    """Of one image: output (1, C, H, W), y (1, 2, C, H, W)."""
    return float(judge.score(output[:, None], y[:, None])[0])


def outputs(
    nets: dict[str, nn.Module], photographs: Any, judge: Stylization
) -> tuple[list[Shown], str]:
    """One photograph as all networks stylize it, and its name."""
    first, pieces = next(iter(nets.values())), list(photographs.whole("test"))
    losses = [loss(judge, first(x), y) for x, y in pieces]
    middle = int(np.argsort(losses, kind="stable")[(len(losses) - 1) // 2])
    x, y = pieces[middle]
    made = {"photograph": x, **{name: net(x) for name, net in nets.items()}}
    found = [
        Shown(pixels(image[0]), name, f"loss {loss(judge, image, y):.2f}")
        for name, image in made.items()
    ]
    return found, photographs.names["test"][middle]


def companions(name: str, net: nn.Module, photographs: Any) -> list[Shown]:
    """One crop in two batches that differ in the other images."""
    crops = [middle(image) for image in clean(photographs) if min(image.shape[1:]) >= SIDE]
    made = []
    for draw in range(2):
        stream = generator(draw, "companions")
        order = torch.randint(1, len(crops), (SIZE - 1,), generator=stream).tolist()
        others = [torch.rot90(crops[i], int(i + draw), (1, 2)) for i in order]
        x = torch.stack([crops[0], *others])
        if batch_norms(net):
            with evaluation_mode(net, "batch", SIZE):
                made.append(net(x)[0])
        else:
            made.append(net(x)[0])
    difference = made[0] - made[1]
    levels = f"{255 * float(difference.square().mean().sqrt()):.1f} levels of 255"
    return [
        Shown(pixels(crops[0]), "crop"),
        Shown(pixels(made[0]), f"{name}, batch A"),
        Shown(pixels(made[1]), f"{name}, batch B"),
        Shown(pixels(TIMES * difference.abs()), f"difference x {TIMES}", levels),
    ]


def middle(image: Tensor) -> Tensor:
    """The middle square of an image (C, H, W)."""
    top, left = ((length - SIDE) // 2 for length in image.shape[1:])
    return image[:, top : top + SIDE, left : left + SIDE]


@torch.no_grad()
def draw(folder: Path, out: Path, data_root: str | None = None) -> Path:
    """Write the picture; the path of its PNG."""
    rows = networks(pd.read_csv(folder / "table.csv", low_memory=False))
    results_dir = str(folder.resolve().parents[3])
    record = Store(Path(results_dir) / "runs").get(rows.iloc[0]["address"])
    config = Config.model_validate(record["config"])
    photographs = data.load(config.data.model_copy(update={"root": data_root}))
    judge = task(config, photographs.shape[0])
    nets = {
        figures.style_of(str(norm)).label: api.load(address, results_dir, data_root)
        for norm, address in rows["address"].items()
    }
    above, name = outputs(nets, photographs, judge)
    shared = [norm for norm in ("batch", "instance") if norm in nets]
    below = [companions(norm, nets[norm], photographs) for norm in shared]
    below[0].append(Shown(pixels(middle(judge.image)), f"style: {config.task.style}"))
    note = (
        f"{name}, seed {rows['seed'].iloc[0]}: photograph of median loss by the first network.\n"
        f"Features: {config.task.features} filters. Below: one crop with other companions."
    )
    figures.save(sheet([above, *below], note=note), out, "stylized")
    return out / "stylized.png"


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(
            "python scripts/stylized.py FOLDER [OUT]: FOLDER has the study's table.csv"
        )
    print(draw(Path(sys.argv[1]), Path([*sys.argv, "results/stylization"][2])))
