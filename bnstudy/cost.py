"""How long a stack will take: a small model with constants measured on a 2-core machine.

An estimate for plans and progress bars only: no decision that touches a result depends on it.
"""

from typing import Any

from bnstudy.config import KNOWN, Config

# one thread of a 2-core x86-64 virtual machine (AMD EPYC), torch 2.15
STEP = 0.1e-3  # seconds: sampling, loss, optimiser
MODULE = 0.06e-3  # seconds for each leaf module, forward and backward, whatever its size
SPATIAL = 0.06e-3  # more, for a module that sees maps
MAC = 6e-11  # seconds for each multiply-accumulate in training; a step is about 3 forwards
MAPPED = 3.0  # overhead of a stack under vmap, in that of a folded one
STACK = 0.1  # seconds for each stack: building, data, record, tracker
START = 12.0  # seconds until a worker makes its first step
BYTES = 3e4  # of a record on disk, and as much again for its mirror


def seconds(config: Config, anatomy: Any, size: int) -> float:
    """Estimated seconds for a stack of `size` seeds on one core."""
    steps = config.train.total_steps(anatomy.train_size)
    per_epoch = max(anatomy.train_size // config.train.batch_size, 1)
    evaluations = -(-steps // (per_epoch * config.evaluate.every))
    modules = MODULE * anatomy.modules
    modules += SPATIAL * anatomy.modules * any(la["positions"] > 1 for la in anatomy.layers)
    overhead = STEP + modules * (MAPPED if size > 1 and config.model.name not in KNOWN else 1)
    forward = MAC * anatomy.macs * size
    step = overhead + 3 * forward * config.train.batch_size
    batch = any(layer["norm"] in ("batch", "ghost") for layer in anatomy.layers)
    scored = anatomy.test_size * (4 if batch else 1)
    precise = min(config.evaluate.precise_examples, anatomy.train_size) if batch else 0
    # evaluation is bound by memory, not by arithmetic: 1.5 times a training forward's price
    measuring = 1.5 * forward * (scored + precise) + 10 * overhead
    return STACK + steps * step + evaluations * measuring


def stack_size(config: Config) -> int:
    """How many networks train as one stack."""
    return 8
