"""Runs as a plain script would train them: torch.nn norms, torch.optim, one after the other.

    python -m bnstudy.bench.plain CONFIG.json [CONFIG.json ...]

The baselines of `bnstudy bench sweep`: they share no code of the engine. Tensors in memory, a fused
optimiser, one thread; after each epoch the test error in evaluation mode and nothing else, which is
less than what bnstudy measures.
"""

import json
import math
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from bnstudy import data, models
from bnstudy.config import Config


def norm_of(config: Config, images: bool):
    """channels -> torch.nn's norm layer."""

    def make(channels: int) -> nn.Module:
        vector = not images
        if config.norm.name == "batch":
            return nn.BatchNorm1d(channels) if vector else nn.BatchNorm2d(channels)
        if config.norm.name == "group":
            wanted = config.norm.channels_per_group or channels / config.norm.num_groups
            size = min((d for d in range(1, channels + 1) if channels % d == 0),
                       key=lambda d: (abs(d - wanted), -d))  # fmt: skip
            return nn.GroupNorm(channels // size, channels)
        if config.norm.name == "layer":
            return nn.GroupNorm(1, channels)
        if config.norm.name == "instance":
            return nn.InstanceNorm2d(channels, affine=True)
        if config.norm.name == "none":
            return nn.Identity()
        raise ValueError(f"the plain baseline has no {config.norm.name} norm")

    return make


def train(config: Config) -> float:
    """The final test error."""
    torch.set_num_threads(1)
    torch.manual_seed(config.seed)
    d = data.load(config.data, seed=config.seed)
    net = models.build(
        config.model, d.shape, d.num_classes, norm_of(config, config.model.name != "mlp")
    )
    o, size, n = config.optimizer, config.train.batch_size, d.size("train")
    optimizer = torch.optim.SGD(
        net.parameters(), o.lr_at(size), o.momentum, weight_decay=o.weight_decay, fused=True
    )
    total, step, error = config.train.total_steps(n), 0, math.nan
    while step < total:
        net.train()
        for index in torch.randperm(n)[: n // size * size].view(-1, size):
            if step == total:
                break
            passed = sum(step / total >= m - 1e-9 for m in o.milestones)
            factor = o.decay**passed if o.schedule == "step" else 1.0
            for group in optimizer.param_groups:
                group["lr"] = o.lr_at(size) * factor
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(net(d.train_x[index]), d.train_y[index]).backward()
            optimizer.step()
            step += 1
        net.eval()
        with torch.no_grad():
            error = (net(d.test_x).argmax(1) != d.test_y).float().mean().item()
    return error


def main(paths: list[str]) -> None:
    """Train each config; print its wall seconds and test error, a line each."""
    for path in paths:
        begin = time.perf_counter()
        error = train(Config.model_validate(json.loads(Path(path).read_text())))
        print(time.perf_counter() - begin, error, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
