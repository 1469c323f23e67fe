"""The one place that knows models, data, engine, store and tracking: it runs packs."""

import math
import os
import platform
import signal
import subprocess
import threading
import time
import traceback
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

import bnstudy
from bnstudy import data, entry, models, norms
from bnstudy.config import RESULTS_VERSION, Config, NormConfig
from bnstudy.data.samplers import generator
from bnstudy.engine.train import train
from bnstudy.engine.vectorize import Stack
from bnstudy.errors import UserError, unknown
from bnstudy.pack import Pack, StackPlan, Status, stop_file
from bnstudy.store import Store, stack_id
from bnstudy.tracking import Tracker

DATASETS_KEPT = 4  # in one process; a sweep's cells come ordered by data set


class Stopped(Exception):
    """The planner asked this worker to stop, or is gone."""


@dataclass(frozen=True)
class Anatomy:
    """What a config's network is made of, found on the meta device without any arithmetic."""

    layers: list[dict[str, Any]]  # one per norm layer: name, norm, channels, positions, m, ...
    modules: int  # leaf modules that a forward calls
    macs: int  # multiply-accumulates of one example's forward
    train_size: int
    test_size: int
    parameters: int


# --- building -----------------------------------------------------------------------------------


def norm_factory(config: NormConfig) -> models.NormFactory:
    """channels -> norm layer, marked `is_norm`.

    Raises:
        UserError: unknown name, or a setting that this norm does not have.
    """
    if config.name == "custom":
        make = entry.locate(config.entry, "norm.entry")
    else:
        if config.name not in norms.NORMS:
            raise unknown("norm", config.name, [*norms.NORMS, "custom"])
        allowed = norms.parameters_of(norms.NORMS[config.name])
        for key in ("group_size", "num_groups", "channels_per_group"):
            if getattr(config, key) is not None and key not in allowed:
                raise UserError(
                    f"norm.{key}={getattr(config, key)}: {config.name} norm has no {key}"
                )
        if config.freeze_at < 1 and "frozen" not in allowed:
            raise UserError(
                f"norm.freeze_at={config.freeze_at}: {config.name} norm has no population "
                "statistics to freeze"
            )
        given = {k: getattr(config, k) for k in allowed if k in NormConfig.model_fields}
        try:
            make = norms.make(config.name, **given)
        except ValueError as error:
            raise UserError(f"norm={config.name}: {error}") from None

    def marked(channels: int) -> nn.Module:
        layer = make(channels)
        layer.is_norm = True
        return layer

    return marked


def build(config: Config, shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """The network of a config with the initial weights of its seed.

    Weights are drawn from (seed, "init"), so arms that differ in their norm start alike.
    """
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator(config.seed, "init").get_state())
        return models.build(config.model, shape, num_classes, norm_factory(config.norm))


class _Placeholder(nn.Identity):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels


def _refusing_layer(config: Config, shape: tuple[int, ...], num_classes: int) -> str:
    """The first layer whose norm cannot be built; its name and channels."""
    make = norm_factory(config.norm)
    net = models.build(config.model, shape, num_classes, _Placeholder)
    for name, layer in net.named_modules():
        if isinstance(layer, _Placeholder):
            try:
                make(layer.channels)
            except ValueError:
                return f"layer '{name}' ({layer.channels} channels)"
    return "a layer"


def preflight(config: Config, dataset: Any) -> Anatomy:
    """Build and call the network on the meta device; refuse what cannot train.

    Raises:
        UserError: a batch larger than the training set; a norm that a layer cannot have (the layer
            is named); statistics of one value; a size the model does not have.
    """
    size, n, shape = config.train.batch_size, len(dataset.train_y), tuple(dataset.shape)
    if size > n:
        raise UserError(
            f"train.batch_size={size} is larger than the training set ({n} examples of "
            f"{config.data.name}): use at most {n}"
        )
    arm = f"model={config.model.name} norm={config.norm.name} train.batch_size={size}"
    with torch.device("meta"):
        try:
            net = models.build(config.model, shape, dataset.num_classes, norm_factory(config.norm))
        except UserError:
            raise
        except ValueError as error:
            where = _refusing_layer(config, shape, dataset.num_classes)
            raise UserError(f"{arm}: {where}: {error}") from None
        layers: list[dict[str, Any]] = []
        cost = {"modules": 0, "macs": 0}
        current = ""

        def before(name):
            def hook(module, inputs):
                nonlocal current
                current = name
                cost["modules"] += 1
                if getattr(module, "is_norm", False):
                    layers.append(_describe(name, module, config, inputs[0]))

            return hook

        def after(module, inputs, output):
            weight = getattr(module, "weight", None)
            if isinstance(module, nn.Linear | nn.Conv2d):
                cost["macs"] += weight.numel() * output.shape[2:].numel()

        for name, module in net.named_modules():
            if not list(module.children()):
                module.register_forward_pre_hook(before(name))
                module.register_forward_hook(after)
        try:
            logits = net.train()(torch.empty(size, *shape))
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{arm}: layer '{current}': {error}") from None
    if tuple(logits.shape) != (size, dataset.num_classes):
        raise UserError(
            f"model={config.model.name} gives {tuple(logits.shape)}, "
            f"not logits ({size}, {dataset.num_classes})"
        )
    parameters = sum(p.numel() for p in net.parameters())
    return Anatomy(layers, cost["modules"], cost["macs"], n, len(dataset.test_y), parameters)


def _describe(name: str, layer: nn.Module, config: Config, x: torch.Tensor) -> dict[str, Any]:
    """One norm layer: its channels C, positions H*W, and m, the values behind one statistic."""
    channels, positions = x.shape[1], math.prod(x.shape[2:])
    groups = getattr(layer, "num_groups", None)
    examples = config.norm.group_size or config.train.batch_size
    m = channels // groups * positions if groups else examples * positions
    if config.norm.name in ("none", "custom"):
        m = 0
    return {
        "name": name,
        "norm": config.norm.name,
        "channels": channels,
        "positions": positions,
        "num_groups": groups,
        "m": m,
    }


# --- running ------------------------------------------------------------------------------------

_loaded: OrderedDict[str, Any] = OrderedDict()


def dataset_of(config: Config, runs: Path) -> Any:
    """The data of a config, kept in memory for the next cells that use them."""
    key = config.data.model_dump_json()
    if key not in _loaded:
        while len(_loaded) >= DATASETS_KEPT:
            _loaded.popitem(last=False)
        _loaded[key] = data.load(config.data, runs / "cache")
    return _loaded[key]


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
    torch.use_deterministic_algorithms(True)
    status = Status()
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
                    "error": str(error) if isinstance(error, UserError) else traceback.format_exc(),
                }
            )
        self.status.done_seconds += plan.seconds
        self.status.write(Path(self.pack.folder), self.pack.index)

    def _train(self, plan: StackPlan) -> None:
        begin = time.perf_counter()
        config, seeds = plan.configs[0], tuple(c.seed for c in plan.configs)
        dataset = dataset_of(config, self.runs).to(self.device)
        anatomy = preflight(config, dataset)
        nets = [build(c, tuple(dataset.shape), dataset.num_classes) for c in plan.configs]
        stack = Stack(nets, self.device)
        tags = [config.norm.name, git_state()["commit"][:7] or "no-commit"]
        folder = Path(self.pack.results_dir) / "wandb"
        tracker = Tracker(self.pack.tracker, folder, group=self.pack.study or "ad-hoc", tags=tags)
        addresses = [c.address for c in plan.configs]
        tracker.start(config.cell, stack_id(addresses), config.canonical(), plan.label)
        history: list[dict[str, Any]] = []
        before = self.status.done_seconds

        def on_step(step: int, total: int) -> None:
            now = time.monotonic()
            if now - self.looked < 0.5:
                return
            self.looked = now
            self.status.started = self.status.started or time.time()
            self.status.done_seconds = before + plan.seconds * step / total
            self._look()

        try:
            for rows in train(stack, dataset, config, seeds, on_step):
                history += rows
                tracker.log(rows)
                error = sum(r["test_error"] for r in rows) / len(rows)
                self.status.metric = f"test error {100 * error:.1f} %"
        finally:
            self.status.done_seconds = before
            tracker.finish(summaries(history[-len(seeds) :], history))
        seconds = time.perf_counter() - begin
        self.status.tracker = tracker.status
        provenance = {
            **environment(self.device),
            "command": self.pack.command,
            "study": self.pack.study,
            "wall_seconds": seconds / len(seeds),  # a run's share of its stack
            "stack_seconds": seconds,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "tracker": tracker.status,
        }
        final = summaries(history[-len(seeds) :], history)
        size = config.train.batch_size
        steps = history[-1]["step"]
        records = [
            {
                "address": c.address,
                "cell": c.cell,
                "results_version": RESULTS_VERSION,
                "seed": c.seed,
                "config": c.canonical(),
                "summary": {
                    **final[c.seed],
                    "parameters": anatomy.parameters,
                    "train_size": anatomy.train_size,
                    "dropped_per_epoch": anatomy.train_size % size,
                    "smallest_m": min((la["m"] for la in anatomy.layers), default=0),
                    "lr_initial": config.optimizer.lr_at(size),
                    "steps": steps,
                },
                "layers": anatomy.layers,
                "provenance": provenance,
                "stack": {"seeds": list(seeds), "mapped": stack.size > 1},
            }
            for c in plan.configs
        ]
        weights = None
        if self.pack.save_weights:
            states = {c.address: stack.state(i) for i, c in enumerate(plan.configs)}
            weights = lambda path: torch.save(states, path)  # noqa: E731
        self.store.put(records, history, write_weights=weights)

    def _look(self) -> None:
        """Say how far this worker is; stop if that is wanted."""
        self.status.write(Path(self.pack.folder), self.pack.index)
        if self.parent is not None and os.getppid() != self.parent:
            os._exit(1)  # the planner was killed: nobody would give this process work or end it
        if stop_file(self.pack.folder).exists():
            raise Stopped


def summaries(last: list[dict], history: list[dict]) -> dict[int, dict[str, Any]]:
    """By seed: the last evaluation (headline) and `_last5`, the median of the last five."""
    result = {}
    for row in last:
        own = [r for r in history if r["seed"] == row["seed"]][-5:]
        summary = {k: v for k, v in row.items() if k not in ("seed", "step")}
        for key in row:
            if key.startswith(("test_", "val_", "train_")):
                summary[f"{key}_last5"] = _median([r[key] for r in own])
        result[row["seed"]] = summary
    return result


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
