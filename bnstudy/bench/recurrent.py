"""Training steps of recurrent networks: a stack of eight against eight torch.nn.LSTM in turn.

One process, interleaved, one thread, Adam on both sides (fused in the baseline), tensors in memory.
The baseline takes tokens as one-hot vectors, which is how torch.nn.LSTM takes them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnstudy.bench import interleaved, machine, median_interval, write
from bnstudy.config import Config, NormConfig, OptimizerConfig
from bnstudy.engine.optimizer import Optimizer
from bnstudy.engine.widen import Widened
from bnstudy.machine import keep_memory
from bnstudy.models.recurrent import Recurrent, RecurrentLayer
from bnstudy.norms import NORMS, StepBatchNorm, parameters_of

NETWORKS, EXAMPLES, CLASSES = 8, 512, 10
# name: steps T, channels F, units H, batch B, whether tokens: what the studies train at quick
CASES = {
    "text": (50, 100, 64, 32, True),
    "rows": (28, 28, 48, 32, False),
    "pixels": (49, 1, 48, 32, False),
}
NORM_NAMES = ("none", "batch", "layer")
LIMIT = 2.0  # times the baseline's time, without a norm


class Theirs:
    """One network of torch.nn.LSTM and a linear readout of every state."""

    def __init__(self, channels: int, units: int, classes: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.lstm, self.readout = nn.LSTM(channels, units), nn.Linear(units, classes)
        self.optimizer = torch.optim.Adam(
            [*self.lstm.parameters(), *self.readout.parameters()], 1e-3, fused=True
        )

    def learn(self, x: Tensor, y: Tensor) -> None:
        """One step; x (T, B, F), y (T, B)."""
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.readout(self.lstm(x)[0])
        F.cross_entropy(logits.flatten(0, 1), y.flatten()).backward()
        self.optimizer.step()


def stack_of(norm: str, case: str) -> tuple[Widened, Optimizer]:
    """Eight networks of this package and their optimiser."""
    steps, channels, units, batch, tokens = CASES[case]
    kind = StepBatchNorm if norm == "batch" else NORMS[norm]
    allowed = parameters_of(kind)

    def factory(width: int, **more: Any) -> nn.Module:
        given = {"time_steps": steps, "gamma_init": 0.1 if norm == "batch" else 1.0, **more}
        return kind(width, **{k: v for k, v in given.items() if k in allowed})

    nets = []
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        layer = RecurrentLayer("lstm", channels, units, factory)
        nets.append(Recurrent([layer], channels if tokens else CLASSES))
    config = Config(
        norm=NormConfig(name=norm),
        optimizer=OptimizerConfig(name="adam", lr=1e-3, lr_rule="none", schedule="constant"),
    )
    stack = Widened(nets, torch.device("cpu"))
    return stack, Optimizer([config.optimizer], stack, batch, 1)


def ways(case: str) -> dict[str, Callable[[], None]]:
    """What is timed."""
    steps, channels, units, batch, tokens = CASES[case]
    classes = channels if tokens else CLASSES
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(classes, (EXAMPLES, steps), generator=generator)
    if tokens:
        x = torch.randint(channels, (EXAMPLES, 1, steps), generator=generator)
        plain = F.one_hot(x[:, 0], channels).float()  # (n, T, F), made once
    else:
        values = torch.randn(EXAMPLES, channels, steps, generator=generator)
        x = torch.cat([values, torch.ones(EXAMPLES, 1, steps)], 1)
        plain = values.transpose(1, 2).contiguous()
    theirs = [Theirs(channels, units, classes, seed) for seed in range(NETWORKS)]

    def one_after_another() -> None:
        for net in theirs:
            index = torch.randint(EXAMPLES, (batch,), generator=generator)
            net.learn(plain[index].transpose(0, 1), y[index].T)

    def stacked(norm: str) -> Callable[[], None]:
        stack, update = stack_of(norm, case)

        def step() -> None:
            index = torch.randint(EXAMPLES, (batch, NETWORKS), generator=generator)
            stack.gradient(x[index], y[index])
            update(0)

        return step

    return {"torch.nn.LSTM": one_after_another, **{n: stacked(n) for n in NORM_NAMES}}


def figure(rows: list[dict[str, Any]], axes: Any) -> None:
    """Times of the baseline, for each norm and case."""
    ax = np.ravel(axes)[0]
    colors = dict(zip(NORM_NAMES, ("#000000", "#D55E00", "#009E73"), strict=True))
    cases = list(CASES)
    for row in rows:
        mid, low, high = row["times"]
        place = cases.index(row["case"]) + 0.2 * (NORM_NAMES.index(row["norm"]) - 1)
        label = {"none": "no norm"}.get(row["norm"], row["norm"])
        ax.errorbar(place, mid, [[mid - low], [high - mid]], fmt="o", color=colors[row["norm"]],
                    capsize=2, label=label)  # fmt: skip
    ax.axhline(1, color="black", linewidth=0.7)
    ax.axhline(LIMIT, color="#999999", linewidth=0.7, linestyle="--")
    names = [f"{c}\nT = {CASES[c][0]}\n{CASES[c][2]} units" for c in cases]
    ax.set_xticks(range(len(cases)), names)
    ax.set_xlim(-0.6, len(cases) - 0.4)
    ax.set_ylim(bottom=0)
    ax.set_ylabel("time of a step, in that of\neight torch.nn.LSTM in turn")


def run(folder: Path, rounds: int, command: str, say: Callable[[str], None]) -> list[str]:
    """Measure and write recurrent.json, recurrent.csv and the figure."""
    import pandas as pd

    torch.set_num_threads(1)
    keep_memory()
    rows, lines = [], []
    for case in CASES:
        seconds = interleaved(ways(case), rounds)
        base = seconds["torch.nn.LSTM"]
        say(f"{case}: eight torch.nn.LSTM in turn {1e3 * float(np.median(base)):.1f} ms")
        for norm in NORM_NAMES:
            times = median_interval(seconds[norm] / base)
            rows.append({"case": case, "norm": norm, "times": times,
                         "milliseconds": 1e3 * float(np.median(seconds[norm])),
                         "baseline_milliseconds": 1e3 * float(np.median(base))})  # fmt: skip
            verdict = ""
            if norm == "none":
                verdict = f"; at most {LIMIT:g}: {'reached' if times[2] <= LIMIT else 'missed'}"
            lines.append(f"{case:<7} {norm:<6} {rows[-1]['milliseconds']:6.1f} ms a step of "
                         f"{NETWORKS}, {times[0]:.2f} times the baseline [{times[1]:.2f}, "
                         f"{times[2]:.2f}]{verdict}")  # fmt: skip
    flat = [{**row, **dict(zip(("ratio", "low", "high"), row["times"], strict=True))}
            for row in rows]  # fmt: skip
    table = pd.DataFrame(flat).drop(columns="times")
    content = {"command": command, "machine": machine(), "rounds": rounds, "rule": __doc__,
               "limit": LIMIT, "rows": rows}  # fmt: skip
    write(folder, "recurrent", content, table, figure, rows, (1, 1))
    return lines
