"""One job of networks -> results: stacks are built, trained and, on a small GPU, halved."""

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch

from bnstudy import data, entry, probes
from bnstudy.config import Config, capabilities
from bnstudy.engine.distributed import Shard, together
from bnstudy.engine.federation import each_client
from bnstudy.engine.federation import together as federated
from bnstudy.engine.mapped import try_map
from bnstudy.engine.randomness import seeded
from bnstudy.engine.snapshot import Snapshot, State
from bnstudy.engine.stack import Stack, make_stack
from bnstudy.engine.train import WHOLE, Row, train
from bnstudy.engine.widen import Widened, widenable
from bnstudy.errors import UserError
from bnstudy.machine import keep_memory
from bnstudy.sweep import cost
from bnstudy.sweep.protocol import Execution
from bnstudy.work import sources
from bnstudy.work.anatomy import Anatomy, own_code
from bnstudy.work.build import anatomy, build, stackable
from bnstudy.work.checkpoint import Checkpoint
from bnstudy.work.tasks import task

HALVED = "stacks halved until they fitted the GPU's memory"
ALONE = "one network at a time: "
T = TypeVar("T")
Rows = list[Row]


@dataclass
class Trained:
    """Networks that were planned as one stack, and their results, in the same order."""

    configs: list[Config]
    anatomy: Anatomy
    history: list[Rows] = field(default_factory=list)  # of each network, a row per evaluation
    how: list[dict[str, Any]] = field(default_factory=list)  # how its stack trained
    weights: list[dict[str, torch.Tensor]] = field(default_factory=list)  # when they are kept
    waiting: list[list[int]] = field(default_factory=list)  # stacks to train; the first is training
    note: str = ""  # what went otherwise than planned

    def __post_init__(self) -> None:
        self.history = [[] for _ in self.configs]
        self.how = [{} for _ in self.configs]
        self.weights = [{} for _ in self.configs]

    @property
    def behind(self) -> int:
        """Networks whose stack has trained."""
        return len(self.configs) - sum(map(len, self.waiting))

    def end(self, members: list[int], end: "End") -> None:
        """Take down what some of the networks ended with."""
        for k, i in enumerate(members):
            self.how[i] = dict(end.how)
            self.weights[i] = end.weights[k] if end.weights else {}

    def state(self, training: State) -> State:
        """All so far, in the middle of a stack whose training has this state."""
        return {**{name: getattr(self, name) for name in KEPT}, "training": training}

    def resume(self, state: State) -> State:
        """Go on from what `state` said; the state of the training to go on with."""
        for name in KEPT:
            setattr(self, name, state[name])
        self.weights = [{k: t.cpu() for k, t in own.items()} for own in self.weights]
        return state["training"]

    def evaluations(self) -> Iterator[tuple[list[Config], Rows]]:
        """What was measured so far, as it is told evaluation by evaluation."""
        for k in range(max(map(len, self.history))):
            there = [i for i, rows in enumerate(self.history) if len(rows) > k]
            yield [self.configs[i] for i in there], [self.history[i][k] for i in there]


KEPT = ("history", "how", "weights", "waiting", "note")  # of a job, in its checkpoint


@dataclass
class End:
    """The last thing that a stack yields."""

    how: dict[str, Any]
    weights: list[dict[str, Any]]  # state of each network, empty when they are not kept


class Trainer:
    """Trains jobs on one device, the way an execution says."""

    def __init__(self, execution: Execution, runs: Path, where: torch.device) -> None:
        """`runs` is where decoded data are kept between processes."""
        self.execution, self.runs, self.device = execution, runs, where

    def train(
        self,
        configs: list[Config],
        on_step: Callable[[float], None] = lambda fraction: None,
        on_rows: Callable[[list[Config], Rows], None] = lambda configs, rows: None,
        checkpoint: Checkpoint | None = None,
    ) -> Trained:
        """Train networks as one stack where they can share one, else one after the other.

        Args:
            configs: of one family: they differ in the seed and in mixable numbers.
            on_step: told the fraction of the work that is done, before each step; may raise to
                stop.
            on_rows: told each evaluation: the configs and a row for each of them. Of a job that
                goes on from a checkpoint also those before it.
            checkpoint: what an earlier, unfinished training left, and where this one leaves its
                own.

        Raises:
            UserError: a config that cannot train.
        """
        sources.check(configs[0])
        first = examples(configs[:1], self.runs)
        job, start = Trained(configs, anatomy(configs[0], first)), None
        if checkpoint is None or configs[0].train.processes > 1:
            checkpoint = Checkpoint()  # the state of several processes is not in this one
        if left := checkpoint.read(self.device):
            start = job.resume(left)
            for told, rows in job.evaluations():
                on_rows(told, rows)
        else:
            job.waiting, job.note = side_by_side(configs, first)
        while job.waiting:
            members, snapshot, start = job.waiting[0], Snapshot(start), None
            own = [configs[i] for i in members]
            if snapshot.start is None:
                for i in members:
                    job.history[i] = []
            report = _reporter(job, len(members), snapshot, on_step, checkpoint)
            try:
                with seeded(own[0].seed, "layers", self.device):
                    for rows in self._rows(own, report, snapshot):
                        if isinstance(rows, End):
                            job.end(members, rows)
                            continue
                        for i, row in zip(members, rows, strict=True):
                            job.history[i].append(row)
                        on_rows(own, rows)
            except torch.cuda.OutOfMemoryError:
                if len(members) == 1:
                    raise
                job.note = HALVED
                half = len(members) // 2
                job.waiting[:1] = [members[:half], members[half:]]
                continue
            except Exception as error:
                if isinstance(error, UserError) or not (own_code(own[0]) and entry.line(error)):
                    raise
                raise entry.failed(f"{own[0].label}: training failed", error) from error
            del job.waiting[0]
        for how in job.how:
            how |= {"note": job.note} if job.note else {}
        return job

    def _rows(
        self, configs: list[Config], on_step: Callable[[int, int], None], snapshot: Snapshot
    ) -> Iterator[Rows | End]:
        """Networks as one stack, here or in several processes."""
        world, keep = configs[0].train.processes, self.execution.save_weights
        if world > 1:
            return told(together(world, stack_part, configs, str(self.runs), keep), on_step)
        compile = self.execution.compile
        how = compile, keep, on_step, WHOLE, snapshot
        return stack_rows(configs, self.runs, self.device, *how)


def _reporter(
    job: Trained,
    networks: int,
    snapshot: Snapshot,
    on_step: Callable[[float], None],
    checkpoint: Checkpoint,
) -> Callable[[int, int], None]:
    """What the training of some networks of a job is to call before each step."""

    def report(step: int, total: int) -> None:
        with checkpoint.between_steps(lambda: job.state(snapshot.state())):
            on_step((job.behind + networks * step / total) / len(job.configs))

    return report


def stack_rows(
    configs: Sequence[Config],
    runs: Path,
    where: torch.device,
    compile: str,
    save_weights: bool,
    on_step: Callable[[int, int], None],
    shard: Shard = WHOLE,
    snapshot: Snapshot | None = None,
) -> Iterator[Rows | End]:
    """Build networks and their data, then train them as one stack: its rows, at last its end.

    The one way to networks and data, for one process and for several that share each batch. What
    layers draw comes from torch's own generators: iterate within `seeded`.
    """
    config = configs[0]
    dataset, clients = examples(configs, runs).to(where), config.federation.clients
    each = each_client(configs)
    nets = [build(c, tuple(dataset.shape), dataset.num_classes) for c in each]
    if config.train.precision == "float64":  # of weights that are drawn in float32 as ever
        dataset, nets = dataset.to(where, torch.float64), [net.double() for net in nets]
    stack = make_stack(nets, where, capabilities.widens(config))
    stack.task = task(config, dataset.shape[0], where)
    stack.precision = precision(config, where)
    kind = type(stack).__name__.lower() if stack.size > 1 else "single"
    if shard.world > 1:
        steps = f"eager: {shard.world} processes"
    else:
        steps = compiled(stack, config, config.train.total_steps(dataset.size("train")), compile)
    asked = probes.find(config.evaluate.probes)

    def end() -> Iterator[End]:
        how = {"networks": len(configs), "kind": kind, "steps": steps}
        kept = range(0, stack.size, clients)  # of a federation its first client's
        yield End(how, [stack.state(i) for i in kept] if save_weights else [])

    found = train(stack, dataset, each, asked, on_step, shard, snapshot)
    return chain((federated(rows, clients) for rows in found), end())


def examples(configs: Sequence[Config], runs: Path) -> Any:
    """The data of a stack; a federation's clients each have their own."""
    config = configs[0]
    found = data.load_many([(c.data, c.seed) for c in configs], runs / "cache")
    if config.federation.clients == 1:
        return found
    from bnstudy.data.clients import clients

    return clients(found, [c.seed for c in configs], config.federation, config.data.split_seed)


def stack_part(
    shard: Shard,
    tell: Callable[[Any], None],
    configs: list[Config],
    runs: str,
    save_weights: bool,
) -> Iterator[Rows | End]:
    """`stack_rows` in one of several processes."""
    keep_memory()

    def on_step(step: int, total: int) -> None:
        tell((step, total) if step % 10 == 0 else None)

    cpu = torch.device("cpu")
    with seeded(configs[0].seed, "layers", cpu):
        for item in stack_rows(configs, Path(runs), cpu, "never", save_weights, on_step, shard):
            if isinstance(item, End):  # a tensor's memory would go with this process
                item.weights = [{k: t.numpy() for k, t in state.items()} for state in item.weights]
            yield item


def told(
    said: Iterator[tuple[str, Any]], on_step: Callable[[int, int], None]
) -> Iterator[Rows | End]:
    """Items from other processes; what they tell of their steps goes to `on_step`."""
    with contextlib.closing(said):  # also when on_step stops it: the processes end
        for kind, what in said:
            if kind != "item":
                on_step(*what)
                continue
            if isinstance(what, End):
                what.weights = [
                    {k: torch.from_numpy(a) for k, a in state.items()} for state in what.weights
                ]
            yield what


def side_by_side(configs: Sequence[Config], dataset: Any) -> tuple[list[list[int]], str]:
    """Which networks train as one stack: all; where they do not widen, those of a cell; or none.

    Also why they train one at a time where that shows only in the network itself, else "".
    """
    everyone, config = list(range(len(configs))), configs[0]
    if config.train.processes > 1:  # processes are expensive to start: one set for all
        return [everyone], ""
    net = build(config, tuple(dataset.shape), dataset.num_classes)
    alone = [[i] for i in everyone]
    if not stackable(net):
        why = "a layer draws random numbers or carries a state from example to example"
        return alone, f"{ALONE}{why}" if own_code(config) and len(configs) > 1 else ""
    if capabilities.widens(config) and widenable(net):
        return [everyone], ""
    cells = list(by_cell(configs, everyone).values())
    if all(len(members) == 1 for members in cells):
        return cells, ""
    x, y = dataset.take("train", torch.arange(config.train.batch_size)[:, None])
    try:
        try_map(net, x[:, 0], y[:, 0], task(config, dataset.shape[0]))
    except Exception as error:  # anything may be in a forward
        return alone, f"{ALONE}it does not run under torch.func.vmap{entry.reason(error)}"
    return cells, ""


def by_cell(configs: Sequence[Config], items: Iterable[T]) -> dict[str, list[T]]:
    """Items, one for each config, by the config's cell."""
    found: dict[str, list[T]] = {}
    for config, item in zip(configs, items, strict=True):
        found.setdefault(config.cell, []).append(item)
    return found


def compiled(stack: Stack, config: Config, steps: int, wanted: str) -> str:
    """Compile the stack's steps where that is wanted and pays; what was decided and why."""
    if not isinstance(stack, Widened):
        return "eager: only widened stacks compile"
    if not capabilities.MODELS[config.model.name].compiles:
        return "eager: loops over time are compiled step by step, which costs more than it saves"
    if config.model.dropout:
        return "eager: dropout's masks come from each network's own generator"
    if wanted == "never":
        return "eager: compile=never"
    if wanted == "always":
        pays, reason = True, "compiled: compile=always"
    else:
        pays, reason = cost.compiles(config, steps, stack.size, stack.flat.device.type)
    if pays and (missing := no_compiler(stack.flat.device)):
        return f"eager: {missing} ({reason})"
    if pays:
        stack.compile()
    return reason


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


def device(name: str) -> torch.device:
    """The device of that name; `auto` is the GPU where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: torch sees no GPU here; use device=cpu")
    found = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(found if name == "auto" else name)
