"""Small records, and stores that hold them."""

import math

from bnstudy.config import RESULTS_VERSION, Config, TrainConfig
from bnstudy.store import stack_id


def record(seed=0, batch_size=4, error=0.25, wall=1.0, **summary):
    config = Config(seed=seed, train=TrainConfig(batch_size=batch_size, epochs=1))
    return {
        "address": config.address,
        "cell": config.cell,
        "results_version": RESULTS_VERSION,
        "seed": seed,
        "config": config.canonical(),
        "summary": {"test_error": error, "diverged_at": math.nan, **summary},
        "layers": [{"name": "norm1", "channels": 8, "groups": None}],
        "provenance": {"wall_seconds": wall, "device": "cpu", "torch": "2", "x": 1},
        "stack": {"seeds": [0, 1]},
    }


def history(seeds=(0, 1)):
    return [
        {"seed": s, "step": 10 * e, "epoch": e, "examples": 40 * e, "train_loss": s + 0.5**e}
        for s in seeds
        for e in (1, 2)
    ]


def put(store, seeds=(0, 1), weights=None, **settings):
    records = [record(seed, **settings) for seed in seeds]
    store.put(records, history(seeds), weights)
    return [r["address"] for r in records]


def two_cells():
    """Stacks of two cells that were trained together, as `put_all` takes them."""
    return [
        ([record(seed, batch_size=size) for seed in (0, 1)], history(), None) for size in (4, 8)
    ]


def folder_of(store, addresses):
    (path,) = store.root.glob(f"cells/*/{stack_id(addresses)}")
    return path


def snapshot(root):
    return {p: p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
