"""What things cost: estimates for plans, and the measured table that decides how stacks train.

`seconds` is a small model with constants of a 2-core machine, for plans and progress bars only.
`stack_size` and `compiles` read the committed table: bits depend on them, so they ask the config
and that file, never a clock.
"""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

from bnstudy.config import Config, capabilities
from bnstudy.probes import PROBES

# one thread of a 2-core x86-64 virtual machine (AMD EPYC), torch 2.15, its other core busy
STEP = 0.4e-3  # seconds: sampling, loss, optimiser
MODULE = 0.06e-3  # seconds for each leaf module, forward and backward, whatever its size
SPATIAL = 0.07e-3  # more, for a module that sees maps
MAC = 1.2e-11  # seconds for each multiply-accumulate of a forward; a step is about 3 forwards
GATED = 6e-11  # the same in a recurrent network: products are small, and gates come with them
# seconds for each normalized value of a forward: norms, ReLUs and narrow convolutions are bound by
# memory, so a network twice as wide costs twice as much, not four times
VALUE = 3.2e-9
WEIGHT = 2e-9  # seconds for each parameter in a step: gradient, optimiser
CALLS = 20  # forwards of an evaluation, whatever their size, in overheads of a step
MAPPED = 3.0  # overhead of a stack under vmap, in that of a widened one
STACK = 0.1  # seconds for each stack: building, data, record, tracker
START = 1.0  # seconds until the workers, forked from the planner, make their first step
SPAWN = 12.0  # seconds until a fresh process does
FORK = 0.5  # seconds that forking costs: a shorter plan is sooner done in the planner
BYTES = 3e4  # of a record on disk, and as much again for its mirror


def seconds(config: Config, anatomy: Any, size: int) -> float:
    """Estimated seconds for a stack of `size` seeds on one core.

    Overhead for each module, arithmetic by multiply-accumulates, memory by normalized values. Of
    507 stacks of the committed studies 96 % took between half and twice as long.
    """
    model = capabilities.MODELS[config.model.name]
    norm = capabilities.NORMS[config.norm.name]
    steps = config.train.total_steps(anatomy.train_size)
    per_epoch = max(anatomy.train_size // config.train.batch_size, 1)
    every = config.evaluate.steps or per_epoch * config.evaluate.every
    evaluations = max(-(-steps // every), 1)  # what does not train is measured all the same
    modules = MODULE * anatomy.modules
    modules += SPATIAL * anatomy.modules * any(la["positions"] > 1 for la in anatomy.layers)
    mapped = size > 1 and not model.widens
    overhead = STEP + modules * (MAPPED if mapped else 1)
    if not (model.stackable and norm.stackable):  # one network after another
        overhead *= size
    mac = GATED if model.recurrent else MAC
    forward = (mac * anatomy.macs + VALUE * anatomy.values) * size
    step = overhead + 3 * forward * config.train.batch_size + WEIGHT * anatomy.parameters * size
    batch = any(layer["norm"] in ("batch", "ghost") for layer in anatomy.layers)
    scored = anatomy.test_size * (4 if batch else 1)
    precise = min(config.evaluate.precise_examples, anatomy.train_size) if batch else 0
    measuring = forward * (scored + precise) + CALLS * overhead
    asked = [PROBES[name] for name in config.evaluate.probes if name in PROBES]
    passes = sum(probe.passes * (evaluations if probe.always else 1) for probe in asked)
    probing = passes * (forward * anatomy.test_size + 2 * overhead)
    processes = config.train.processes
    if processes > 1:  # each starts from scratch, and they wait for each other at every step
        step, measuring = 4 * processes * step, measuring + SPAWN
    return STACK + steps * step + evaluations * measuring + probing


TABLE = Path(__file__).with_name("costs.json")  # written by `bnstudy bench engine --adopt`
WORTH = 2.0  # compiling must save this many times what it costs: the table is another machine's
STACK_GAIN = 1.1  # a larger stack must be this much cheaper for each network


@cache
def table() -> list[dict[str, Any]]:
    """Measured milliseconds a step by model, image side, batch and device, eager and compiled.

    The only measurements that a run's bits depend on: the same file decides alike everywhere.
    """
    return json.loads(TABLE.read_text())["rows"]


def nearest(config: Config, device: str) -> dict[str, Any] | None:
    """The row of the table for this model on this device, nearest in batch size."""
    small = capabilities.DATA[config.data.name].tiny
    rows = [
        row
        for row in table()
        if row["model"] == config.model.name
        and row["device"] == device
        and (row["image"] <= 8) == small
    ]
    distance = lambda row: abs(math.log2(row["batch"] / config.train.batch_size))  # noqa: E731
    return min(rows, key=distance, default=None)


def stack_size(config: Config, device: str = "cpu") -> int:
    """How many networks train as one stack: the size whose step costs least for each network.

    One where each would need a copy of data that are not small. A federation is as many networks as
    it has clients.
    """
    clients = config.federation.clients
    if capabilities.own_copy(config.data) and not capabilities.DATA[config.data.name].embedded:
        return 1
    row = nearest(config, device)
    return max((8 if row is None else cheapest_stack(row)) // clients, 1)


def cheapest_stack(row: dict[str, Any]) -> int:
    """The number of networks whose eager step is cheapest for each; a larger one must gain."""
    best, least = 1, math.inf
    for size, milliseconds in sorted((int(s), t) for s, t in row["eager"].items()):
        if milliseconds / size * STACK_GAIN < least:
            best, least = size, milliseconds / size
    return best


def saved(row: dict[str, Any], steps: int, networks: int) -> float:
    """Seconds that compiled steps save a stack."""
    size = min(row["compiled"], key=lambda s: abs(math.log2(int(s) / networks)))
    # what is saved grows with the stack
    return (row["eager"][size] - row["compiled"][size]) / int(size) * networks * steps / 1e3


def compiles(config: Config, steps: int, networks: int, device: str) -> tuple[bool, str]:
    """Whether compiled steps pay for a stack, and why; from the config and the table alone."""
    row = nearest(config, device)
    if row is None:
        return False, f"eager: no measurement of model {config.model.name} on {device}"
    gain, spent = saved(row, steps, networks), row["compile_seconds"]
    said = f"{steps} steps would save {max(gain, 0):.3g} s, compiling costs {spent:.3g} s"
    return (True, f"compiled: {said}") if gain > WORTH * spent else (False, f"eager: {said}")
