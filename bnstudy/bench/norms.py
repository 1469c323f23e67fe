"""Forward and backward of one norm layer: ours, torch.nn's, and the formula written out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bnstudy.bench import interleaved, machine, median_interval, write
from bnstudy.machine import keep_memory
from bnstudy.norms import make

# listed before the first run: a LeNet's, small residual networks', and two of ResNet-50's sizes
SHAPES = (
    (2, 6, 24, 24),
    (256, 6, 24, 24),
    (2, 16, 32, 32),
    (32, 16, 32, 32),
    (128, 32, 16, 16),
    (128, 64, 8, 8),
    (128, 64, 32, 32),
    (32, 256, 14, 14),
)
LIMITS = {"geometric mean": 1.02, "any shape": 1.10}


class FromScratch(nn.Module):
    """Batch normalization as the d2l chapter writes it: mean, squares, and a moving average."""

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        shape = (1, channels, 1, 1)
        self.gamma, self.beta = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))
        self.register_buffer("moving_mean", torch.zeros(shape))
        self.register_buffer("moving_var", torch.ones(shape))
        self.eps, self.momentum = eps, momentum

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(0, 2, 3), keepdim=True)
        var = ((x - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
        y = (x - mean) / torch.sqrt(var + self.eps)
        with torch.no_grad():
            keep = 1 - self.momentum
            self.moving_mean = keep * self.moving_mean + self.momentum * mean
            self.moving_var = keep * self.moving_var + self.momentum * var
        return self.gamma * y + self.beta


def layers(norm: str, channels: int) -> dict[str, nn.Module]:
    """The ways to be compared; torch.nn's is the yardstick."""
    groups = {"num_groups": min(32, channels // 2)} if norm == "group" else {}
    torchs: dict[str, Callable[[], nn.Module]] = {
        "batch": lambda: nn.BatchNorm2d(channels),
        "group": lambda: nn.GroupNorm(groups["num_groups"], channels),
        "layer": lambda: nn.GroupNorm(1, channels),
        "instance": lambda: nn.InstanceNorm2d(channels, affine=True),
    }
    ways = {
        "torch": torchs[norm](),
        "fused": make(norm, **groups)(channels),
        "reference": make(norm, backend="reference", **groups)(channels),
    }
    if norm == "batch":
        ways["from scratch"] = FromScratch(channels)
        ways["fused, moments out"] = make(norm, keep_moments=True)(channels)
    return ways


def timed(layer: nn.Module, x: Tensor, upstream: Tensor) -> Callable[[], None]:
    """Forward and backward of a layer in training mode, gradients of input, gamma and beta."""
    leaves = [x, *layer.parameters()]

    def call() -> None:
        torch.autograd.grad(layer(x), leaves, upstream)
        if x.is_cuda:
            torch.cuda.synchronize()

    return call


def peak_bytes(call: Callable[[], None]) -> int:
    """Largest sum of bytes allocated and not yet freed during one call."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    now = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


def measure(
    rounds: int, threads: tuple[int, ...], device: str, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """One row per norm, shape, way and number of threads."""
    rows = []
    before = torch.get_num_threads()
    try:
        for count in threads:
            torch.set_num_threads(count)
            for norm in ("batch", "group", "layer", "instance"):
                for shape in SHAPES:
                    g = torch.Generator().manual_seed(0)
                    x = (3 + 2 * torch.randn(shape, generator=g)).to(device).requires_grad_()
                    upstream = torch.randn(shape, generator=g).to(device)
                    ways = {
                        name: timed(layer.to(device), x, upstream)
                        for name, layer in layers(norm, shape[1]).items()
                    }
                    seconds = interleaved(ways, rounds)
                    for name, values in seconds.items():
                        rows.append(
                            {
                                "norm": norm,
                                "shape": list(shape),
                                "threads": count,
                                "way": name,
                                "microseconds": median_interval(1e6 * values),
                                "ratio": median_interval(values / seconds["torch"]),
                                "ratios": (values / seconds["torch"]).tolist(),
                                "peak_mib": peak_bytes(ways[name]) / 2**20
                                if device == "cpu"
                                else None,
                            }
                        )
                    say(f"{norm} {shape} {count} thread{'s' * (count > 1)}")
    finally:
        torch.set_num_threads(before)
    return rows


def summarize(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Geometric mean of the ratios over the shapes, round by round, and the worst shape."""
    result = []
    keys = dict.fromkeys((r["norm"], r["threads"], r["way"]) for r in rows if r["way"] != "torch")
    for norm, threads, way in keys:
        own = [r for r in rows if (r["norm"], r["threads"], r["way"]) == (norm, threads, way)]
        logs = np.mean([np.log(r["ratios"]) for r in own], axis=0)
        worst = max(own, key=lambda r: r["ratio"][0])
        result.append(
            {
                "norm": norm,
                "threads": threads,
                "way": way,
                "geometric_mean": median_interval(np.exp(logs)),
                "worst": worst["ratio"][0],
                "worst_shape": worst["shape"],
            }
        )
    return result


def figure(rows: list[dict[str, Any]], axes: Any) -> None:
    """Ratio to torch.nn of each way by shape, one panel per norm, one thread."""
    from bnstudy.figures import hue

    ways = ("fused", "reference", "from scratch", "fused, moments out")
    styles = {way: (hue(i).marker, hue(i).color) for i, way in enumerate(ways)}
    few = min(r["threads"] for r in rows)
    for ax, norm in zip(axes.ravel(), ("batch", "group", "layer", "instance"), strict=True):
        for i, (way, (marker, color)) in enumerate(styles.items()):
            own = [r for r in rows if r["norm"] == norm and r["way"] == way and r["threads"] == few]
            if not own:
                continue
            where = np.arange(len(own)) + 0.12 * (i - 1.5)
            mid, low, high = np.array([r["ratio"] for r in own]).T
            ax.errorbar(where, mid, yerr=[mid - low, high - mid], marker=marker, color=color,
                        linestyle="none", label=way, capsize=1.8, elinewidth=0.9)  # fmt: skip
            ax.set_xticks(range(len(own)), ["x".join(map(str, r["shape"])) for r in own],
                          rotation=35, ha="right", fontsize=6)  # fmt: skip
        ax.axhline(1, color="black", linewidth=0.8)
        ax.set_yscale("log")
        ax.set_yticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
        ax.minorticks_off()
        ax.set_ylabel("time / torch.nn's")
        ax.set_title(f"{norm}: forward + backward, {few} thread{'s' * (few > 1)}")


def run(folder: Path, rounds: int, command: str, say: Callable[[str], None]) -> list[str]:
    """Measure, write norms.json, norms.csv and norms.{svg,pdf,png}; return the lines of a table."""
    import pandas as pd

    device = "cuda" if torch.cuda.is_available() else "cpu"
    cores = machine()["cores"]
    threads = (1,) if device == "cuda" or cores == 1 else (1, cores)
    kept = keep_memory()
    rows = measure(rounds, threads, device, say)
    summary = summarize(rows)
    stem = "norms" if device == "cpu" else "norms_cuda"
    flat = [
        {**{k: r[k] for k in ("norm", "threads", "way", "peak_mib")},
         "shape": "x".join(map(str, r["shape"])),
         **{f"{k}{end}": v for k in ("microseconds", "ratio")
            for end, v in zip(("", "_low", "_high"), r[k], strict=True)}}
        for r in rows
    ]  # fmt: skip
    content = {
        "command": command, "machine": machine(), "device": device, "rounds": rounds,
        "allocator keeps memory": kept, "limits": LIMITS, "summary": summary,
        "rows": [{k: v for k, v in r.items() if k != "ratios"} for r in rows],
    }  # fmt: skip
    write(folder, stem, content, pd.DataFrame(flat), figure, rows, (2, 2))
    lines = [f"{'norm':<9} {'threads':>7}  {'way':<19} {'time / torch.nn':>24}  worst shape"]
    for s in summary:
        mid, low, high = s["geometric_mean"]
        lines.append(
            f"{s['norm']:<9} {s['threads']:>7}  {s['way']:<19} {mid:8.3f} [{low:.3f}, {high:.3f}]"
            f"  {s['worst']:.3f} at {'x'.join(map(str, s['worst_shape']))}"
        )
    return lines
