"""How long a stack will take: a small model with constants measured on a 2-core machine.

An estimate for plans and progress bars only: no decision that touches a result depends on it.
"""

from typing import Any

from bnstudy.config import Config

# one thread of an x86-64 server core at about 2.5 GHz
STEP = 0.35e-3  # seconds: sampling, loss, optimiser
MODULE = 0.1e-3  # seconds for each leaf module, forward and backward, whatever its size
STACKED = 1.6  # a mapped module costs this many unmapped ones in overhead
MAC = 1.2e-9  # seconds for each multiply-accumulate of a forward; a step has about 3 forwards
STACK = 1.0  # seconds for each stack: building, data, record, tracker
BYTES = 3e4  # of a record on disk, and as much again for its mirror


def seconds(config: Config, anatomy: Any, size: int) -> float:
    """Estimated seconds for a stack of `size` seeds on one core."""
    steps = config.train.total_steps(anatomy.train_size)
    per_epoch = max(anatomy.train_size // config.train.batch_size, 1)
    evaluations = -(-steps // (per_epoch * config.evaluate.every))
    overhead = STEP + MODULE * anatomy.modules * (STACKED if size > 1 else 1)
    forward = MAC * anatomy.macs * size
    step = overhead + 3 * forward * config.train.batch_size
    batch = any(layer["norm"] in ("batch", "ghost") for layer in anatomy.layers)
    scored = anatomy.test_size * (4 if batch else 1)
    precise = min(config.evaluate.precise_examples, anatomy.train_size) if batch else 0
    return STACK + steps * step + evaluations * (forward * (scored + precise) + 10 * overhead)
