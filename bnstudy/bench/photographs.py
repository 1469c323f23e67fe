"""Training steps on photographs: 8 residual networks as one stack, against bare convolutions.

The stack's convolutions have 8 groups of 16 channels and more. The reference is one such
convolution alone, forward and backward, in the layout that oneDNN is fastest in: what this machine
makes of that shape at best. Nothing here decides how stacks train.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from bnstudy.bench import interleaved, median_interval
from bnstudy.bench.engine import CLASSES, flops, stacked, synchronized
from bnstudy.config import ModelConfig
from bnstudy.models import build
from bnstudy.norms import make

MODEL = ModelConfig(name="resnet", depth=8, width=16)
SIDES, BATCHES = (16, 32), (2, 32)
NETWORKS = 8
EXAMPLES = 512
REFERENCE_SIDE = 16
SHARE = 0.5  # of the reference's rate, wanted of the whole step


def convolution(batch: int, device: torch.device) -> tuple[Callable[[], Any], int]:
    """One grouped 3x3 convolution, forward and backward; its floating-point operations."""
    channels, side, last = NETWORKS * MODEL.width, REFERENCE_SIDE, torch.channels_last
    x = torch.randn(batch, channels, side, side, device=device).to(memory_format=last)
    weight = torch.randn(channels, MODEL.width, 3, 3, device=device).to(memory_format=last)
    grad = torch.randn_like(x)
    x.requires_grad_()
    weight.requires_grad_()

    def step() -> None:
        y = F.conv2d(x, weight, padding=1, groups=NETWORKS)
        torch.autograd.grad(y, (x, weight), grad)

    return step, 3 * 2 * weight.numel() * side**2 * batch


def measure(rounds: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row for each image side and batch size: milliseconds a step, GFLOP/s, the reference's."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(0)
    rows = []
    for side in SIDES:
        shape = (3, side, side)
        x = torch.rand(EXAMPLES, *shape, generator=generator).to(device)
        y = torch.randint(CLASSES, (EXAMPLES,), generator=generator).to(device)
        arithmetic = NETWORKS * flops(build(MODEL, shape, CLASSES, make("batch")), shape)
        for batch in BATCHES:
            torch.compiler.reset()
            reference, own = convolution(batch, device)
            work = {"eager": arithmetic * batch, "compiled": arithmetic * batch, "reference": own}
            ways = {
                "eager": stacked(MODEL, x, y, batch, NETWORKS, False),
                "compiled": stacked(MODEL, x, y, batch, NETWORKS, True),
                "reference": reference,
            }
            if device.type == "cuda":
                ways = {name: synchronized(call) for name, call in ways.items()}
            seconds = interleaved(ways, rounds)
            rates = {name: work[name] / 1e9 / seconds[name] for name in ways}
            rows.append(
                {
                    "image": side, "batch": batch, "device": device.type, "networks": NETWORKS,
                    "milliseconds": {n: median_interval(1e3 * v) for n, v in seconds.items()},
                    "gflops": {n: median_interval(v) for n, v in rates.items()},
                    "share": {
                        n: median_interval(rates[n] / rates["reference"])
                        for n in ("eager", "compiled")
                    },
                }
            )  # fmt: skip
            say(f"photographs {side}x{side} batch {batch}")
    return rows


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """The rows in words; reached where the interval of the share lies above what is wanted."""
    found = [
        f"{NETWORKS} ResNet-{MODEL.depth} of width {MODEL.width} on photographs as one stack; "
        f"wanted: {SHARE:g} of the rate of one such grouped convolution "
        f"({REFERENCE_SIDE}x{REFERENCE_SIDE}) alone"
    ]
    for row in rows:
        for way, (share, low, high) in row["share"].items():
            name = f"photographs {row['image']}x{row['image']} B={row['batch']} {way}"
            verdict = "reached" if low >= SHARE else "MISSED"
            found.append(
                f"{name:<34} {row['milliseconds'][way][0]:8.2f} ms a step  "
                f"{row['gflops'][way][0]:6.1f} of {row['gflops']['reference'][0]:.1f} GFLOP/s: "
                f"{share:.2f} [{low:.2f}, {high:.2f}]  {verdict}"
            )
    return found
