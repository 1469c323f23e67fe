"""The one place that knows models, data, engine, store and tracking: it runs packs."""

import contextlib
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

import bnstudy
from bnstudy import data, probes
from bnstudy.config import RESULTS_VERSION, Config, DataConfig, capabilities
from bnstudy.data.samplers import generator
from bnstudy.engine.distributed import Shard, together
from bnstudy.engine.train import train
from bnstudy.engine.vectorize import Folded, Stack, make_stack
from bnstudy.errors import UserError
from bnstudy.machine import keep_memory
from bnstudy.norms import TooFewValues
from bnstudy.store import Store, stack_id
from bnstudy.sweep import cost
from bnstudy.sweep.protocol import Pack, StackPlan, Status, stop_file
from bnstudy.tracking import Tracker
from bnstudy.work.build import anatomy, build, check, stackable


class Stopped(Exception):
    """The planner asked this worker to stop, or is gone."""


def dataset_of(config: Config, runs: Path) -> Any:
    """The data of a config, kept in memory for the next cells that use them."""
    return data.load(config.data, runs / "cache")


def run_pack(path: str) -> dict[str, Any]:
    """Train the stacks of a pack one after another; what a launcher calls in its worker.

    Never raises: a stack that fails is reported in the status with its traceback, the others go
    on. Stops between two steps when the stop file appears; a worker whose parent is gone exits.
    """
    pack = Pack.model_validate_json(Path(path).read_text())
    own_process = os.getpid() != int((Path(pack.folder) / "planner.pid").read_text())
    if own_process and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the planner's to handle
    torch.set_num_threads(1)
    keep_memory()
    # not use_deterministic_algorithms, which does the same and imports the compiler: 3 to 11 s
    torch.set_deterministic_debug_mode("error")
    status = Status(total_seconds=sum(plan.seconds for plan in pack.stacks))
    status.write(Path(pack.folder), pack.index)
    try:
        runner = Runner(pack, status, os.getppid() if own_process else None)
        for plan in pack.stacks:
            if pack.deadline is not None and time.time() > pack.deadline:
                break
            runner.run(plan)
    except Stopped:
        pass
    except Exception:
        status.failures.append({"label": f"pack {pack.index}", "error": traceback.format_exc()})
    status.write(Path(pack.folder), pack.index)
    return {"done": status.done, "failed": len(status.failures)}


@dataclass
class Job:
    """Networks that were planned as one stack, and what became of them, in the same order."""

    configs: list[Config]
    nets: list[torch.nn.Module]
    datasets: dict[DataConfig, Any]
    trackers: dict[str, Tracker]  # by cell
    note: str = ""

    def __post_init__(self) -> None:
        self.history: list[list[dict[str, Any]]] = [[] for _ in self.nets]
        self.states: list[dict[str, torch.Tensor]] = [{} for _ in self.nets]
        self.how: list[dict[str, Any]] = [{} for _ in self.nets]


class Runner:
    """One worker at work on a pack."""

    def __init__(self, pack: Pack, status: Status, parent: int | None) -> None:
        """`parent` is the process that a worker must not outlive, if it is one of its own."""
        self.pack, self.status, self.parent = pack, status, parent
        self.runs = Path(pack.results_dir) / "runs"
        self.store = Store(self.runs)
        self.device = device(pack.device)
        self.looked = 0.0

    def run(self, plan: StackPlan) -> None:
        """Train one stack and store it; a failure is noted, not raised."""
        self.status.current = plan.label
        try:
            self._train(plan)
            self.status.done += 1
        except Stopped:
            raise
        except Exception as error:
            self.status.failures.append(
                {
                    "label": plan.label,
                    "addresses": [c.address for c in plan.configs],
                    "error": str(error)
                    if isinstance(error, UserError | TooFewValues)
                    else traceback.format_exc(),
                }
            )
        self.status.done_seconds += plan.seconds
        self.status.write(Path(self.pack.folder), self.pack.index)

    def _train(self, plan: StackPlan) -> None:
        begin = time.perf_counter()
        config = plan.configs[0]
        each = {c.data: dataset_of(c, self.runs) for c in plan.configs}
        whole = each[config.data]
        check(config, whole)
        parts = anatomy(config, whole)
        nets = [build(c, tuple(whole.shape), whole.num_classes) for c in plan.configs]
        trackers = self._trackers(plan)
        job = Job(plan.configs, nets, each, trackers)
        waiting = deque(side_by_side(plan.configs, nets))
        before, share = self.status.done_seconds, plan.seconds / len(waiting)
        try:
            while waiting:
                members = waiting.popleft()
                on_step = self._on_step(self.status.done_seconds, share)
                try:
                    self._train_together(job, members, on_step)
                    self.status.done_seconds += share
                except torch.cuda.OutOfMemoryError:
                    if len(members) == 1:
                        raise
                    job.note = "stacks halved until they fitted the GPU's memory"
                    half = len(members) // 2
                    waiting.extendleft([members[half:], members[:half]])
                    share /= 2
        finally:
            self.status.done_seconds = before
            final = [summary(rows) if rows else {} for rows in job.history]
            for cell, members in by_cell(plan.configs, range(len(nets))).items():
                trackers[cell].finish({plan.configs[i].seed: final[i] for i in members if final[i]})
        seconds = time.perf_counter() - begin
        status = next(iter(trackers.values())).status
        self.status.tracker = status
        provenance = {
            **environment(self.device),
            "command": self.pack.command,
            "study": self.pack.study,
            "wall_seconds": seconds / len(nets),  # a run's share of its stack
            "stack_seconds": seconds,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "tracker": status,
        }
        size = config.train.batch_size
        deliveries = []
        for members in by_cell(plan.configs, range(len(nets))).values():
            records = [
                {
                    "address": c.address,
                    "cell": c.cell,
                    "results_version": RESULTS_VERSION,
                    "seed": c.seed,
                    "config": c.canonical(),
                    "summary": {
                        **final[i],
                        "parameters": parts.parameters,
                        "train_size": parts.train_size,
                        "dropped_per_epoch": parts.train_size % size,
                        "smallest_m": min((la["m"] for la in parts.layers), default=0),
                        "lr_initial": c.optimizer.lr_at(size),
                        "steps": job.history[i][-1]["step"],
                    },
                    "layers": parts.layers,
                    "provenance": provenance,
                    "stack": {
                        "seeds": [plan.configs[j].seed for j in members],
                        **job.how[i],
                    },
                }
                for i in members
                for c in [plan.configs[i]]
            ]
            rows = [row for i in members for row in job.history[i]]
            weights = None
            if self.pack.save_weights:
                own = {plan.configs[i].address: job.states[i] for i in members}
                weights = lambda path, own=own: torch.save(own, path)  # noqa: E731
            deliveries.append((records, rows, weights))
        self.store.put_all(deliveries)

    def _train_together(
        self, job: "Job", members: list[int], on_step: Callable[[int, int], None]
    ) -> None:
        """Train some of a job's networks as one stack."""
        configs = [job.configs[i] for i in members]
        config = configs[0]
        for i in members:
            job.history[i] = []
        used = list(dict.fromkeys(c.data for c in configs))
        dataset = data.join(
            [job.datasets[d] for d in used], [used.index(c.data) for c in configs]
        ).to(self.device)
        world = config.train.processes
        if world > 1:
            said = together(world, train_part, configs, str(self.runs))
            rows_of = told(said, on_step)
            how = {"networks": len(members), "kind": "folded" if folds(config) else "mapped",
                   "steps": f"eager: {world} processes"}  # fmt: skip
        else:
            nets = [job.nets[i] for i in members]
            stack = make_stack(nets, self.device, folds(config))
            stack.precision = precision(config, self.device)
            steps = self._compile(stack, config, config.train.total_steps(dataset.size("train")))
            asked = probes.find(config.evaluate.probes)
            rows_of = train(stack, dataset, configs, asked, on_step)
            kind = type(stack).__name__.lower() if stack.size > 1 else "single"
            how = {"networks": stack.size, "kind": kind, "steps": steps}
        with torch.random.fork_rng(devices=[]):  # for layers that draw random numbers
            torch.set_rng_state(generator(config.seed, "layers").get_state())
            for rows in rows_of:
                for i, row in zip(members, rows, strict=True):
                    job.history[i].append(row)
                for cell, here in by_cell(configs, rows).items():
                    job.trackers[cell].log(here)
                error = sum(r["test_error"] for r in rows) / len(rows)
                self.status.metric = f"test error {100 * error:.1f} %"
        for k, i in enumerate(members):
            job.how[i] = how | ({"note": job.note} if job.note else {})
            if self.pack.save_weights:
                if world > 1:
                    raise UserError("save_weights=true is not there for train.processes > 1")
                job.states[i] = stack.state(k)

    def _compile(self, stack: Stack, config: Config, steps: int) -> str:
        """Compile the stack's steps where that is wanted and pays; what was decided and why."""
        wanted = self.pack.compile
        if not isinstance(stack, Folded):
            return "eager: only folded stacks compile"
        if not getattr(stack.net, "compiles", True):
            return (
                "eager: loops over time are compiled step by step, which costs more than it saves"
            )
        if wanted == "never":
            return "eager: compile=never"
        if wanted == "always":
            pays, reason = True, "compiled: compile=always"
        else:
            pays, reason = cost.compiles(config, steps, stack.size, self.device.type)
        if pays and (missing := no_compiler(self.device)):
            return f"eager: {missing} ({reason})"
        if pays:
            stack.compile()
        return reason

    def _trackers(self, plan: StackPlan) -> dict[str, Tracker]:
        """A mirror for each cell, started."""
        config = plan.configs[0]
        tags = [config.norm.name, git_state()["commit"][:7] or "no-commit"]
        folder = Path(self.pack.results_dir) / "wandb"
        found = {}
        for cell, configs in by_cell(plan.configs, plan.configs).items():
            found[cell] = Tracker(self.pack.tracker, folder, self.pack.study or "ad-hoc", tags)
            addresses = [c.address for c in configs]
            found[cell].start(cell, stack_id(addresses), configs[0].canonical(), plan.label)
        return found

    def _on_step(self, before: float, seconds: float) -> Callable[[int, int], None]:
        """What the loop calls before each step: twice a second, progress is told."""

        def on_step(step: int, total: int) -> None:
            now = time.monotonic()
            if now - self.looked >= 0.5:
                self.looked = now
                self.status.started = self.status.started or time.time()
                self.status.done_seconds = before + seconds * step / total
                self._look()

        return on_step

    def _look(self) -> None:
        """Say how far this worker is; stop if that is wanted."""
        self.status.write(Path(self.pack.folder), self.pack.index)
        if self.parent is not None and os.getppid() != self.parent:
            os._exit(1)  # the planner was killed: nobody would give this process work or end it
        if stop_file(self.pack.folder).exists():
            raise Stopped


def train_part(
    shard: Shard, tell: Callable[[Any], None], configs: list[Config], runs: str
) -> Iterator[list[dict[str, Any]]]:
    """One of several processes that train a stack: builds what it needs, trains its part."""
    keep_memory()
    config = configs[0]
    dataset = data.load_many([c.data for c in configs], Path(runs) / "cache")
    nets = [build(c, tuple(dataset.shape), dataset.num_classes) for c in configs]
    stack = make_stack(nets, torch.device("cpu"), folds(config))
    stack.precision = precision(config, stack.flat.device)
    asked = probes.find(config.evaluate.probes)

    def on_step(step: int, total: int) -> None:
        tell((step, total) if step % 10 == 0 else None)

    yield from train(stack, dataset, configs, asked, on_step, shard)


def told(
    said: Iterator[tuple[str, Any]], on_step: Callable[[int, int], None]
) -> Iterator[list[dict[str, Any]]]:
    """Rows from other processes; what they tell of their steps goes to `on_step`."""
    with contextlib.closing(said):  # also when on_step stops it: the processes end
        for kind, what in said:
            if kind == "item":
                yield what
            else:
                on_step(*what)


def folds(config: Config) -> bool:
    """Whether all that sees channels is this package's own, so that seeds can be channels."""
    return capabilities.widens(config)


def precision(config: Config, where: torch.device) -> str:
    """The precision of training. Raises UserError for tf32 on anything but an NVIDIA GPU."""
    if config.train.precision == "tf32" and where.type != "cuda":
        raise UserError(
            "train.precision=tf32 is a mode of NVIDIA GPUs and this run is on the "
            f"{where.type.upper()}: use float32 or bf16"
        )
    return config.train.precision


def no_compiler(where: torch.device) -> str:
    """Why steps cannot be compiled here; empty when they can."""
    if where.type == "cuda":
        return "" if importlib.util.find_spec("triton") else "triton is not installed"
    named = os.environ.get("CXX", "g++")
    return "" if shutil.which(named) else f"there is no C++ compiler ({named})"


def side_by_side(configs: Sequence[Config], nets: list[torch.nn.Module]) -> list[list[int]]:
    """Which networks train as one stack: all; where they do not fold, those of a cell; or none."""
    if configs[0].train.processes > 1:  # processes are dear to start: one set for all
        return [list(range(len(nets)))]
    if not stackable(nets[0]):
        return [[i] for i in range(len(nets))]
    if capabilities.widens(configs[0]):
        return [list(range(len(nets)))]
    return list(by_cell(configs, range(len(nets))).values())


def by_cell(configs: Sequence[Config], items: Iterable[Any]) -> dict[str, list[Any]]:
    """Items, one for each config, by the config's cell."""
    found: dict[str, list[Any]] = {}
    for config, item in zip(configs, items, strict=True):
        found.setdefault(config.cell, []).append(item)
    return found


def summary(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Of one run: the last evaluation (headline) and `_last5`, the median of the last five."""
    last = history[-1]
    found = {k: v for k, v in last.items() if k not in ("seed", "step")}
    for key in last:
        if key.startswith(("test_", "val_", "train_")):
            found[f"{key}_last5"] = _median([row[key] for row in history[-5:] if key in row])
    return found


def _median(values: list[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(0.5))


def device(name: str) -> torch.device:
    """The device of that name; `auto` is the GPU where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: torch sees no GPU here; use device=cpu")
    found = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(found if name == "auto" else name)


@cache
def git_state() -> dict[str, Any]:
    """Commit of the code that runs, and whether the tree differs from it; empty when unknown."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(Path(bnstudy.__file__).parent), *words],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        tracked = git("ls-files", "--error-unmatch", "run.py")
        if not tracked:  # installed into somebody else's repository, or none
            return {"commit": "", "dirty": None}
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except OSError:
        return {"commit": "", "dirty": None}


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
