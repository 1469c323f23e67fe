"""Training steps: a stack, eager and compiled, against one network after another and a textbook.

All ways run in one process, interleaved, one thread, the same optimiser. The baselines are in their
fastest plain form: torch.nn norms, a fused optimiser, tensors in memory where the row says so, and
whichever of torch's two layouts of images is the faster in this row.
"""

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnstudy.bench import interleaved, machine, median_interval
from bnstudy.config import Config, ModelConfig, OptimizerConfig, TrainConfig
from bnstudy.engine.optimizer import Optimizer
from bnstudy.engine.widen import Widened
from bnstudy.machine import keep_memory
from bnstudy.models import build
from bnstudy.norms import make

EXAMPLES = 2048
CLASSES = 10
SIZES = (1, 8, 32, 96)  # networks in a stack
# model, side of the image, batch sizes: what the studies train
GRID = (
    ("mlp", 8, (2, 8, 32)),
    ("lenet", 8, (2, 8, 64)),
    ("resnet", 8, (2, 8, 32)),
    ("lenet", 28, (2, 8, 32, 256)),
    ("resnet", 28, (2, 8, 32)),
)
# (model, side, batch, networks): ratio to reach, against one after another in memory
LIMITS = {
    ("lenet", 28, 2, 8): 6.0,
    ("lenet", 28, 8, 8): 3.0,
    ("lenet", 28, 32, 8): 2.0,
    ("resnet", 8, 2, 8): 3.0,
}
TEXTBOOK = ("lenet", 28, 256, 1)
TEXTBOOK_LIMIT = 3.0
LAYOUTS = {"plain": torch.contiguous_format, "plain_channels_last": torch.channels_last}
# optimiser steps of the longest runs of the studies: where compiling can pay
QUICK_EXAMPLES, FULL_EXAMPLES = 6 * 600, 10 * 54_000


def plain(model: str, side: int, seed: int) -> nn.Module:
    """The network with torch.nn's batch norms."""
    torch.manual_seed(seed)
    spatial = model != "mlp"

    def norm(channels: int) -> nn.Module:
        # the last two norms of a LeNet see vectors
        vector = not spatial or (model == "lenet" and channels in (120, 84))
        return nn.BatchNorm1d(channels) if vector else nn.BatchNorm2d(channels)

    return build(ModelConfig(name=model), (1, side, side), CLASSES, norm)


class Plain:
    """One network, trained as a plain PyTorch loop does."""

    def __init__(
        self,
        model: str,
        side: int,
        x: Tensor,
        y: Tensor,
        batch: int,
        seed: int,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.net = plain(model, side, seed).to(x.device, memory_format=layout)
        self.layout = layout
        self.optimizer = torch.optim.SGD(self.net.parameters(), 0.05, 0.9, fused=True)
        self.x, self.y, self.batch = x, y, batch
        self.generator = torch.Generator().manual_seed(seed)

    def step(self) -> None:
        """One step on examples that are tensors in memory."""
        index = torch.randint(EXAMPLES, (self.batch,), generator=self.generator)
        self.learn(self.x[index], self.y[index])

    def learn(self, x: Tensor, y: Tensor) -> None:
        """One step on a batch."""
        self.optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(self.net(x.contiguous(memory_format=self.layout)), y).backward()
        self.optimizer.step()


class Images(torch.utils.data.Dataset):
    """Bytes that become a tensor one by one, as torchvision's data sets with ToTensor do it."""

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        from torchvision.transforms import ToTensor

        self.pixels, self.labels, self.transform = pixels, labels, ToTensor()

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        from PIL import Image

        image = Image.fromarray(self.pixels[i].numpy(), mode=None)
        return self.transform(image), int(self.labels[i])


def textbook(learner: Plain, images: Images) -> Callable[[], None]:
    """A step with a DataLoader without workers."""

    def forever() -> Iterator[list[Tensor]]:
        while True:
            yield from torch.utils.data.DataLoader(
                images, learner.batch, shuffle=True, drop_last=True
            )

    batches = forever()
    return lambda: learner.learn(*next(batches))


def stacked(
    model: ModelConfig, x: Tensor, y: Tensor, batch: int, networks: int, compiled: bool
) -> Callable[[], None]:
    """A step of the engine: gather, gradient, optimiser."""
    config = Config(
        model=model,
        optimizer=OptimizerConfig(lr=0.05, lr_rule="none", schedule="constant"),
        train=TrainConfig(batch_size=batch),
    )
    nets = []
    for seed in range(networks):
        torch.manual_seed(seed)
        nets.append(build(model, tuple(x.shape[1:]), CLASSES, make("batch")))
    stack = Widened(nets, x.device)
    if compiled:
        stack.compile()
    update = Optimizer([config.optimizer], stack, batch, 1)
    generator = torch.Generator().manual_seed(0)
    log = torch.zeros(2, networks, device=x.device)

    def step() -> None:
        index = torch.randint(len(x), (batch, networks), generator=generator)
        log[0], log[1] = stack.gradient(x[index], y[index])
        update(0)

    return step


def flops(net: nn.Module, shape: tuple[int, ...]) -> int:
    """Floating-point operations of one example's training step: three times a forward's."""
    found = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal found
        if isinstance(layer, nn.Linear | nn.Conv2d):
            found += 2 * layer.weight.numel() * output.shape[2:].numel()

    hooks = [layer.register_forward_hook(count) for layer in net.modules()]
    net(torch.zeros(2, *shape))
    for hook in hooks:
        hook.remove()
    return 3 * found


def matrix_rate(size: int = 1024) -> float:
    """Floating-point operations a second of a large matrix product, one thread."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    seconds = interleaved({"product": lambda: a @ b}, 15)["product"]
    return 2 * size**3 / float(np.median(seconds))


def measure(rounds: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row for each model, image side and batch size."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(0)
    rows = []
    for model, side, sizes in GRID:
        pixels = torch.randint(256, (EXAMPLES, side, side), generator=generator, dtype=torch.uint8)
        y = torch.randint(CLASSES, (EXAMPLES,), generator=generator)
        x = (pixels[:, None] / 255.0).to(device)
        arithmetic = flops(plain(model, side, 0), (1, side, side))
        for batch in sizes:
            torch.compiler.reset()
            ways: dict[str, Callable[[], None]] = {
                name: Plain(model, side, x, y.to(device), batch, 0, layout).step
                for name, layout in LAYOUTS.items()
            }
            for networks in SIZES:
                # beyond this a step costs seconds, and no study trains so
                if networks <= 8 or networks * batch * side * side <= 96 * 8 * 64:
                    ways[f"eager {networks}"] = stacked(
                        ModelConfig(name=model), x, y.to(device), batch, networks, False
                    )
            spent = {}
            for networks in (1, 8):
                name = f"compiled {networks}"
                ways[name] = stacked(
                    ModelConfig(name=model), x, y.to(device), batch, networks, True
                )
                begin = time.perf_counter()
                ways[name]()
                spent[name] = time.perf_counter() - begin
            if (model, side, batch, 1) == TEXTBOOK:
                learner = Plain(model, side, x, y, batch, 0)
                ways["textbook"] = textbook(learner, Images(pixels, y))
            if device.type == "cuda":
                ways = {name: synchronized(call) for name, call in ways.items()}
            seconds = interleaved(ways, rounds)
            rows.append(
                {
                    "model": model, "image": side, "batch": batch, "device": device.type,
                    "compile_seconds": max(spent.values()), "flops": arithmetic * batch,
                    "milliseconds": {n: median_interval(1e3 * v) for n, v in seconds.items()},
                    "speedup": speedups(seconds),
                }
            )  # fmt: skip
            say(f"{model} {side}x{side} batch {batch}")
    return rows


def synchronized(call: Callable[[], None]) -> Callable[[], None]:
    """The call with its kernels finished."""

    def timed() -> None:
        call()
        torch.cuda.synchronize()

    return timed


def speedups(seconds: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Times as fast as the same networks one after another, by way; one network: as a textbook."""
    found = {}
    baseline = seconds[min(LAYOUTS, key=lambda name: float(np.median(seconds[name])))]
    for way, values in seconds.items():
        kind, _, networks = way.partition(" ")
        if networks:
            found[way] = median_interval(int(networks) * baseline / values)
            if networks == "1" and "textbook" in seconds:
                found[f"{kind} 1 / textbook"] = median_interval(seconds["textbook"] / values)
    return found


def costs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the engine decides from: medians, in milliseconds a step."""
    table = []
    for row in rows:
        medians = {way: round(v[0], 3) for way, v in row["milliseconds"].items()}
        table.append(
            {
                **{k: row[k] for k in ("model", "image", "batch", "device")},
                **{
                    kind: {w.split()[1]: t for w, t in medians.items() if w.startswith(kind)}
                    for kind in ("eager", "compiled")
                },
                "compile_seconds": round(row["compile_seconds"], 1),
            }
        )
    return table


def whole_runs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """8 networks, a whole training as the table decides it, compilation included: speed-up."""
    from bnstudy.sweep import cost

    found = []
    for row, priced in zip(rows, costs(rows), strict=True):
        for scale, examples in (("quick", QUICK_EXAMPLES), ("full", FULL_EXAMPLES)):
            steps = math.ceil(examples / row["batch"])
            networks = min(cost.cheapest_stack(priced), 8)
            pays = cost.saved(priced, steps, networks) > cost.WORTH * priced["compile_seconds"]
            way = f"{'compiled' if pays else 'eager'} {networks}"
            training = row["milliseconds"][way][0] * steps / 1e3
            share = training / (training + row["compile_seconds"]) if pays else 1.0
            found.append(
                {
                    **{k: row[k] for k in ("model", "image", "batch")},
                    "scale": scale,
                    "steps": steps,
                    "way": way,
                    "speedup": [share * v for v in row["speedup"][way]],
                }
            )
    return found


def figure(rows: list[dict[str, Any]], axes: Any) -> None:
    """Speed-up over one network after another by batch size, one panel for each way."""
    from bnstudy.figures import hue

    networks = (("mlp", 8), ("lenet", 8), ("resnet", 8), ("lenet", 28), ("resnet", 28))
    marks = {key: (hue(i).marker, hue(i).color) for i, key in enumerate(networks)}
    for ax, way in zip(axes.ravel(), ("eager 8", "compiled 8"), strict=True):
        for (model, side), (marker, color) in marks.items():
            own = [r for r in rows if (r["model"], r["image"]) == (model, side)]
            if own:
                mid, low, high = np.array([r["speedup"][way] for r in own]).T
                ax.errorbar([r["batch"] for r in own], mid, yerr=[mid - low, high - mid],
                            marker=marker, color=color, label=f"{model} {side}x{side}",
                            capsize=1.8, elinewidth=0.9)  # fmt: skip
        ax.axhline(1, color="black", linewidth=0.8)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log", base=2)
        ax.set_xticks([2, 8, 32, 64, 256], ["2", "8", "32", "64", "256"])
        ax.set_yticks([0.5, 1, 2, 4, 8, 16], ["0.5", "1", "2", "4", "8", "16"])
        ax.set_ylim(0.5, 20)
        ax.set_xlabel("batch size (examples)")
        ax.set_ylabel("times as fast as one after another")
        ax.set_title(f"8 networks in a stack, {way.split()[0]} steps, 1 thread")


def run(folder: Path, rounds: int, command: str, say: Callable[[str], None]) -> list[str]:
    """Measure, write engine.json, engine.csv, the figure, and the table for `--adopt`."""
    import pandas as pd

    from bnstudy.bench import photographs, write
    from bnstudy.sweep.cost import WORTH

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    kept = keep_memory()  # as in a worker; the baselines have it, too
    with tempfile.TemporaryDirectory() as empty:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = empty  # compilation is priced cold
        try:
            rate = matrix_rate()
            rows = measure(rounds, say)
            photos = photographs.measure(rounds, say)
        finally:
            del os.environ["TORCHINDUCTOR_CACHE_DIR"]
            torch.set_num_threads(before)
    runs = whole_runs(rows)
    flat = [
        {**{k: row[k] for k in ("model", "image", "batch", "device", "compile_seconds")},
         "way": way, "milliseconds": t[0], "low": t[1], "high": t[2],
         **dict(zip(("speedup", "speedup_low", "speedup_high"),
                    row["speedup"].get(way, [None] * 3), strict=True)),
         "of_matrix_rate": row["flops"] * int(way.split()[1]) / (t[0] / 1e3) / rate
         if " " in way else None}
        for row in rows
        for way, t in row["milliseconds"].items()
    ]  # fmt: skip
    content = {
        "command": command, "machine": machine(), "rounds": rounds, "threads": 1,
        "allocator keeps memory": kept,
        "matrix rate (GFLOP/s)": rate / 1e9, "compiling must save": f"{WORTH} times its cost",
        "rows": rows, "whole runs": runs, "costs": costs(rows),
        "photographs": photos,
    }  # fmt: skip
    write(folder, "engine", content, pd.DataFrame(flat), figure, rows, (1, 2))
    lines = [f"{'what':<34} {'times as fast':>22}  at least"]
    for row in rows:
        for way, value in row["speedup"].items():
            kind, _, networks = way.partition(" ")
            key = (row["model"], row["image"], row["batch"])
            limit = LIMITS.get((*key, int(networks))) if networks.isdigit() else TEXTBOOK_LIMIT
            share = row["flops"] * int(networks.split()[0]) / rate / (
                row["milliseconds"][f"{kind} {networks.split()[0]}"][0] / 1e3
            )  # fmt: skip
            name = f"{key[0]} {key[1]}x{key[1]} B={key[2]} {way}"
            lines.append(
                f"{name:<34} {value[0]:8.2f} [{value[1]:.2f}, {value[2]:.2f}]"
                f"  {'' if limit is None else f'{limit:.0f}: ' + said(value[1] >= limit)}"
                f"  ({100 * share:.0f} % of the matrix rate)"
            )
    worst = min(runs, key=lambda r: r["speedup"][2])
    lines.append(
        f"whole trainings of 8, compilation included: the lowest is {worst['model']} "
        f"{worst['image']}x{worst['image']} B={worst['batch']} {worst['scale']}: "
        f"{worst['speedup'][0]:.2f} [{worst['speedup'][1]:.2f}, {worst['speedup'][2]:.2f}]"
    )
    return lines + photographs.lines(photos)


def said(reached: bool) -> str:
    """A word for the table."""
    return "reached" if reached else "missed"
