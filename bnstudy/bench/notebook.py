"""Training speed of a textbook's LeNet in examples per second, whoever's BN it has.

One process, interleaved, batch 256, images of 28 x 28 in memory, SGD without momentum: the plain
loop of a notebook with the chapter's own BN, torch.nn's, this package's two backends and no norm;
and this package's stack of six networks, examples of all networks counted. The chapter's numbers
are of another machine.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from bnstudy.bench import interleaved, machine, median_interval, write
from bnstudy.bench.norms import FromScratch
from bnstudy.config import ModelConfig, OptimizerConfig
from bnstudy.engine.optimizer import Optimizer
from bnstudy.engine.widen import Widened
from bnstudy.machine import keep_memory
from bnstudy.models.lenet import lenet
from bnstudy.norms import make

BATCH, EXAMPLES, CLASSES, NETWORKS = 256, 2048, 10, 6
SHAPE = (1, 28, 28)
# examples per second, published (Dive into Deep Learning, batch normalization; slides of 2023)
CHAPTER = {"the chapter's": 32293.9, "torch.nn": 50597.3}


class Chapters(FromScratch):
    """The chapter's BN for vectors, too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 4:
            return super().forward(x)
        return super().forward(x[:, :, None, None]).flatten(1)


def torchs(channels: int) -> nn.Module:
    """torch.nn's BN: for maps behind the two convolutions (6, 16 channels), else for vectors."""
    return nn.BatchNorm2d(channels) if channels in (6, 16) else nn.BatchNorm1d(channels)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "torch.nn": torchs,
    "the chapter's": Chapters,
    "fused": make("batch"),
    "reference": make("batch", backend="reference"),
    "no norm": lambda channels: nn.Identity(),
}


def ways(device: torch.device) -> dict[str, Callable[[], None]]:
    """One training step of each way."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(EXAMPLES, *SHAPE, generator=generator).to(device)
    y = torch.randint(CLASSES, (EXAMPLES,), generator=generator).to(device)

    def network(norm: Callable[[int], nn.Module]) -> nn.Module:
        torch.manual_seed(0)
        return lenet(ModelConfig(name="lenet"), SHAPE, CLASSES, norm).to(device)

    def finished() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def plain(norm: Callable[[int], nn.Module]) -> Callable[[], None]:
        net = network(norm)
        optimizer = torch.optim.SGD(net.parameters(), 1e-3)

        def step() -> None:
            index = torch.randint(EXAMPLES, (BATCH,), generator=generator).to(device)
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(net(x[index]), y[index]).backward()
            optimizer.step()
            finished()

        return step

    stack = Widened([network(NORMS["fused"]) for _ in range(NETWORKS)], device)
    rate = OptimizerConfig(lr=1e-3, lr_rule="none", momentum=0, schedule="constant")
    update = Optimizer([rate] * NETWORKS, stack, BATCH, 1)

    def stacked() -> None:
        index = torch.randint(EXAMPLES, (BATCH, NETWORKS), generator=generator).to(device)
        stack.gradient(x[index], y[index])
        update(0)
        finished()

    alone = {name: plain(norm) for name, norm in NORMS.items()}
    return {**alone, f"stack of {NETWORKS}, eager": stacked}


def figure(rows: list[dict[str, Any]], axes: Any) -> None:
    """Examples per second of each way, and the chapter's."""
    ax = np.ravel(axes)[0]
    for place, row in enumerate(rows):
        mid, low, high = (value / 1000 for value in row["examples_per_second"])
        ends = [[mid - low], [high - mid]]
        ax.errorbar(mid, place, xerr=ends, fmt="o", color="black", capsize=2)
        if row["chapter"]:
            hollow = {"marker": "o", "color": "#999999", "markerfacecolor": "none"}
            ax.plot(row["chapter"] / 1000, place, linestyle="none", **hollow,
                    label="published, another machine")  # fmt: skip
    ax.set_yticks(range(len(rows)), [row["way"] for row in rows])
    ax.invert_yaxis()
    ax.set_xlim(left=0)
    ax.set_xlabel("1,000 examples per second")


def run(folder: Path, rounds: int, command: str, say: Callable[[str], None]) -> list[str]:
    """Measure and write notebook.json, notebook.csv and the figure."""
    import pandas as pd

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    keep_memory()
    seconds = interleaved(ways(device), rounds)
    rows, lines = [], []
    for way, values in seconds.items():
        seen = BATCH * (NETWORKS if way.startswith("stack") else 1)
        speed = median_interval(seen / values)
        ratio = median_interval(seen / BATCH * seconds["torch.nn"] / values)
        chapter = CHAPTER.get(way)
        rows.append({"way": way, "examples_per_second": speed, "ratio": ratio, "chapter": chapter})
        told = f"; published, another machine: {chapter:,.0f}" if chapter else ""
        lines.append(
            f"{way:<17} {speed[0]:9,.0f} examples/s [{speed[1]:,.0f}, {speed[2]:,.0f}], "
            f"{ratio[0]:.2f} times torch.nn's [{ratio[1]:.2f}, {ratio[2]:.2f}]{told}"
        )
        say(lines[-1])
    flat = [
        {"way": row["way"], "chapter": row["chapter"],
         **{f"{key}{end}": value for key in ("examples_per_second", "ratio")
            for end, value in zip(("", "_low", "_high"), row[key], strict=True)}}
        for row in rows
    ]  # fmt: skip
    content = {"command": command, "machine": machine(), "device": device.type, "rounds": rounds,
               "rule": __doc__, "rows": rows}  # fmt: skip
    stem = "notebook" if device.type == "cpu" else "notebook_cuda"
    write(folder, stem, content, pd.DataFrame(flat), figure, rows, (1, 1))
    return lines
