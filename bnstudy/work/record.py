"""What a trained network leaves behind: its record, summary and provenance."""

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import bnstudy
from bnstudy.config import RESULTS_VERSION
from bnstudy.engine.train import Row
from bnstudy.machine import git_state
from bnstudy.store import Provenance, Record
from bnstudy.sweep.protocol import Execution
from bnstudy.work.trainer import Trained, by_cell

Delivery = tuple[list[Record], list[Row], Callable[[Path], None] | None]
"""What `Store.put_all` takes for a cell: records, rows of history, a writer of weights."""


def deliveries(trained: Trained, provenance: Provenance) -> list[Delivery]:
    """The records, history and weights of a job, cell by cell."""
    networks = range(len(trained.configs))
    made, anatomy = [], trained.anatomy
    share = provenance["stack_seconds"] / len(trained.configs)
    for members in by_cell(trained.configs, networks).values():
        records: list[Record] = []
        for i in members:
            config, history = trained.configs[i], trained.history[i]
            size = config.train.batch_size
            records.append(
                {
                    "address": config.address,
                    "cell": config.cell,
                    "results_version": RESULTS_VERSION,
                    "seed": config.seed,
                    "config": config.canonical(),
                    "summary": {
                        **summary(history),
                        "parameters": anatomy.parameters,
                        "train_size": anatomy.train_size,
                        "num_classes": anatomy.num_classes,
                        "dropped_per_epoch": anatomy.train_size % size,
                        "smallest_m": min((la["m"] for la in anatomy.layers), default=0),
                        "lr_initial": config.optimizer.lr_at(size),
                        "steps": history[-1]["step"],
                    },
                    "layers": anatomy.layers,
                    "provenance": {**provenance, "wall_seconds": share},
                    "stack": {
                        "seeds": [trained.configs[j].seed for j in members],
                        "addresses": [c.address for c in trained.configs],
                        **trained.how[i],
                    },
                }
            )
        rows = [row for i in members for row in trained.history[i]]
        own = {trained.configs[i].address: trained.weights[i] for i in members}
        made.append((records, rows, writer(own) if any(own.values()) else None))
    return made


def summary(history: list[Row]) -> dict[str, Any]:
    """Of one run: the last evaluation (headline) and `_last5`, the median of the last five."""
    last = history[-1]
    found = {k: v for k, v in last.items() if k not in ("seed", "step")}
    for key in last:
        if key.startswith(("test_", "val_", "train_")):
            found[f"{key}_last5"] = _median([row[key] for row in history[-5:] if key in row])
    return found


def _median(values: list[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(0.5))


def summaries(trained: Trained) -> dict[str, dict[str, Any]]:
    """The summary of each run by its address."""
    pairs = zip(trained.configs, trained.history, strict=True)
    return {config.address: summary(history) for config, history in pairs}


def writer(states: dict[str, dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    """Writes final weights: address -> state_dict."""
    return lambda path: torch.save(states, path)


def provenance(
    execution: Execution, where: torch.device, seconds: float, tracker: str, resumed: int = 0
) -> Provenance:
    """How a job was made: by what, where, for how long.

    Args:
        execution: of the launch.
        where: the device.
        seconds: wall time of the whole job; `deliveries` gives each run its share.
        tracker: what became of its mirror.
        resumed: how often it went on from a checkpoint.
    """
    made: Provenance = {
        **environment(where),
        "command": execution.command,
        "launcher": execution.launcher,
        "study": execution.study,
        "stack_seconds": seconds,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "tracker": tracker,
    }
    return {**made, "resumed": resumed} if resumed else made


def environment(where: torch.device) -> dict[str, Any]:
    """What the bits of a result depend on beside the config."""
    kind = torch.cuda.get_device_name(where) if where.type == "cuda" else platform.machine()
    state = git_state()
    return {
        "device": where.type,
        "device_name": kind,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "bnstudy": bnstudy.__version__,
        "git_commit": state["commit"],
        "git_dirty": state["dirty"],
        "host": platform.node(),
    }
