"""Several processes train one stack: each sees its part of every batch, gradients are averaged.

The processes talk by torch.distributed (gloo) through a file. They hold equal weights; batch norm
keeps each process's own statistics unless its `process_group` is set, as in every data-parallel
training. What is evaluated is the first process's network, as with DistributedDataParallel.
"""

import contextlib
import datetime
import os
import queue
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from bnstudy.engine.stack import Stack

TIMEOUT = 120  # seconds until a process that waits for another gives up
PATIENCE = 0.5  # seconds between checks of the processes


@dataclass(frozen=True)
class Shard:
    """One of `world` equal parts of every batch."""

    rank: int = 0
    world: int = 1

    @property
    def speaks(self) -> bool:
        """Whether this process measures: the first does."""
        return self.rank == 0

    def part(self, batch: Tensor) -> Tensor:
        """This process's rows of a batch (B, ...), consecutive ones."""
        return batch.chunk(self.world)[self.rank] if self.world > 1 else batch

    def average(self, stack: Stack, *measured: Tensor) -> None:
        """Gradient and measurements as means over the processes, in place."""
        if self.world > 1:
            for tensor in (stack.grad, *measured):
                dist.all_reduce(tensor)
                tensor.div_(self.world)


def together(
    world: int, work: Callable[..., Iterator[Any]], *arguments: Any
) -> Iterator[tuple[str, Any]]:
    """Run `work(shard, tell, *arguments)` in `world` processes of one thread each.

    `work` is a generator function found by its import path. Yields ("item", what the first process
    yields) and ("told", what it tells in between), in order.

    Raises:
        RuntimeError: a process failed or died; the message names it and holds its traceback. The
            others are ended.
    """
    context = mp.get_context("spawn")
    said = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(
                target=_rank,
                args=(Shard(rank, world), f"{folder}/meet", os.getpid(), said, work, *arguments),
                daemon=True,
            )
            for rank in range(world)
        ]
        # before they start: a library reads it when it is loaded
        before, method = os.environ.get("OMP_NUM_THREADS"), mp.get_start_method(allow_none=True)
        os.environ["OMP_NUM_THREADS"] = "1"
        # a worker of joblib tells its children to start theirs in joblib's way, unknown to them
        mp.set_start_method("spawn", force=True)
        try:
            for process in processes:
                process.start()
            yield from _listen(processes, said)
        finally:
            mp.set_start_method(method, force=True)
            if before is None:
                del os.environ["OMP_NUM_THREADS"]
            else:
                os.environ["OMP_NUM_THREADS"] = before
            for process in processes:
                if process.is_alive():
                    process.terminate()
                process.join()


def _listen(processes: list[Any], said: Any) -> Iterator[tuple[str, Any]]:
    """What the processes say until all are done."""
    done: set[int] = set()
    while len(done) < len(processes):
        try:
            kind, rank, what = said.get(timeout=PATIENCE)
        except queue.Empty:
            for rank, process in enumerate(processes):
                if not process.is_alive() and rank not in done:
                    raise RuntimeError(
                        f"process {rank} of {len(processes)} died (exit code {process.exitcode})"
                    ) from None
            continue
        if kind == "failed":
            # a process that lost its peer fails, too: report the crashed process, not its peers
            time.sleep(PATIENCE)
            for dead, process in enumerate(processes):
                if process.exitcode:
                    raise RuntimeError(
                        f"process {dead} of {len(processes)} died (exit code {process.exitcode})"
                    )
            raise RuntimeError(f"process {rank} of {len(processes)} failed:\n{what}")
        if kind == "done":
            done.add(rank)
        else:
            yield kind, what


def _rank(
    shard: Shard, meet: str, parent: int, said: Any, work: Callable[..., Iterator[Any]],
    *arguments: Any,
) -> None:  # fmt: skip
    """The life of one process."""

    def tell(what: Any) -> None:
        if os.getppid() != parent:
            os._exit(1)  # nobody is left who would wait for this process
        if shard.speaks and what is not None:
            said.put(("told", shard.rank, what))

    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("error")
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{meet}",
            rank=shard.rank,
            world_size=shard.world,
            timeout=datetime.timedelta(seconds=TIMEOUT),
        )
        for item in work(shard, tell, *arguments):
            if shard.speaks:
                said.put(("item", shard.rank, item))
        dist.barrier()
        said.put(("done", shard.rank, None))
    except Exception:
        said.put(("failed", shard.rank, traceback.format_exc()))
    finally:
        with contextlib.suppress(Exception):
            dist.destroy_process_group()
