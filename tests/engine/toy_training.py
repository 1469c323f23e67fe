"""Small data, configs, and the stacks that they train."""

import torch

from bnstudy.config import Config
from bnstudy.data import Dataset
from bnstudy.engine.stack import make_stack
from bnstudy.engine.train import train
from bnstudy.engine.widen import Widened
from bnstudy.work import build as run

CPU = torch.device("cpu")
# float32 rounding (6e-8) through three steps of a network with about a thousand operations each,
# differences amplified by 1 / std of a batch of four: measured a few 1e-6, bounded here by 1e-4
THREE_STEPS = 1e-4


def data(n=24, classes=3, side=8, seed=0) -> Dataset:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(3 * n, 1, side, side, generator=g)
    y = torch.randint(0, classes, (3 * n,), generator=g)
    parts = (x[:n], y[:n], x[n : 2 * n], y[n : 2 * n], x[2 * n :], y[2 * n :])
    return Dataset(*parts, num_classes=classes)


def config(**overrides) -> Config:
    plain = {
        "model": {"name": "mlp", "hidden": (6, 5)},
        "optimizer": {"lr_rule": "none", "schedule": "constant", "lr": 0.1},
        "train": {"batch_size": 4, "steps": 3},
    }
    for key, value in overrides.items():
        part, _, name = key.partition("__")
        if name:
            plain.setdefault(part, {})[name] = value
        else:
            plain[part] = value
    if "train__epochs" in overrides or "train__examples" in overrides:
        del plain["train"]["steps"]
    return Config.model_validate(plain)


def stack_of(cfg, dataset, seeds, kind=Widened):
    shape = tuple(dataset.shape)
    nets = [
        run.build(cfg.model_copy(update={"seed": s}), shape, dataset.num_classes) for s in seeds
    ]
    return kind(nets, CPU)


def seeded(cfg, seeds):
    return [cfg.model_copy(update={"seed": s}) for s in seeds]


def trained(cfg, dataset, seeds, on_step=lambda step, total: None, kind=Widened):
    stack = stack_of(cfg, dataset, seeds, kind)
    history = [
        row for rows in train(stack, dataset, seeded(cfg, seeds), (), on_step) for row in rows
    ]
    return stack, history


def side_by_side(dataset, configs):
    """The networks of some configs as one stack, trained: final weights and last rows."""
    nets = [run.build(c, tuple(dataset.shape), dataset.num_classes) for c in configs]
    stack = make_stack(nets, CPU, known=True)
    *_, last = train(stack, dataset, configs)
    return stack, last
