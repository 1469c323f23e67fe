"""What grows while much is trained: a worker's memory, the store.

    python -m bnstudy.bench.growth FOLDER

One process trains PARTS packs of STACKS stacks, one small network each, into FOLDER and prints its
resident memory in MiB after each pack, a line each.
"""

import os
import subprocess
import sys
from pathlib import Path

PARTS, STACKS = 10, 50


def worker_memory(results: Path) -> list[float]:
    """MiB of a worker of its own after each STACKS stacks, PARTS times."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(results)], check=True, capture_output=True, text=True
    )
    return list(map(float, done.stdout.split()))


def bytes_per_run(results: Path) -> float:
    """Of all files of the store of `worker_memory`, divided by its runs."""
    size = sum(p.stat().st_size for p in (results / "runs" / "cells").rglob("*") if p.is_file())
    return size / (PARTS * STACKS)


def resident() -> float:
    """MiB of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(results: Path) -> None:
    """Train the packs; a cell of its own for each stack."""
    from bnstudy.config import (
        Config,
        DataConfig,
        EvaluateConfig,
        ModelConfig,
        OptimizerConfig,
        TrackerConfig,
        TrainConfig,
    )
    from bnstudy.sweep.protocol import Execution, Pack, StackPlan
    from bnstudy.work.worker import run_pack

    execution = Execution(
        results_dir=str(results), compile="never", tracker=TrackerConfig(mode="disabled")
    )
    for part in range(PARTS):
        folder = results / f"launch-{part}"
        folder.mkdir(parents=True)
        (folder / "planner.pid").write_text(str(os.getpid()))
        plans = [
            StackPlan(
                configs=[
                    Config(
                        data=DataConfig(train_size=40),
                        model=ModelConfig(name="mlp"),
                        optimizer=OptimizerConfig(lr=1e-3 * (1 + STACKS * part + i)),
                        train=TrainConfig(steps=20, batch_size=8),
                        evaluate=EvaluateConfig(every=10),
                    )
                ],
                seconds=1,
            )
            for i in range(STACKS)
        ]
        pack = Pack(index=0, folder=str(folder), execution=execution, stacks=plans)
        pack.write()
        states = run_pack(str(pack.path))
        if states != {"done": STACKS}:
            raise RuntimeError(f"{folder}: {states}")
        print(resident(), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
