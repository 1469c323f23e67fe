"""Federated averaging: clients are networks of a stack that share weights now and then."""

from collections.abc import Sequence
from typing import Any

import torch

from bnstudy.config import Config, FederationConfig
from bnstudy.engine.stack import Stack

SAME = ("seed", "step", "epoch", "examples", "lr")  # of all clients of a federation


class Rounds:
    """Averages what clients share after every `local_steps` steps, and after the last.

    Federated averaging (McMahan et al. 2017) of clients with equally many examples; with
    shared="all_but_norms" FedBN (Li et al. 2021). Clients keep an optimizer's momentum as it is.
    The clients of a federation are side by side in the stack.
    """

    def __init__(self, stack: Stack, config: FederationConfig, total: int) -> None:
        self.stack, self.config, self.total = stack, config, total
        self.idle = config.clients == 1 or config.shared == "none"
        self.own: set[str] = set()  # modules whose parameters and buffers a client keeps
        if config.shared == "all_but_norms":
            modules = stack.net.named_modules()
            self.own = {name for name, m in modules if getattr(m, "is_norm", False)}

    @torch.no_grad()
    def __call__(self, steps: int) -> None:
        """After so many steps of training."""
        if self.idle or (steps % self.config.local_steps and steps != self.total):
            return
        stack, count = self.stack, self.config.clients
        for name, block in stack.blocks(stack.flat).items():
            if name.rpartition(".")[0] not in self.own:
                clients = block.unflatten(0, (-1, count))
                clients.copy_(clients.mean(1, keepdim=True).expand_as(clients))
        for first in range(0, stack.size, count):
            buffers = [stack.buffers_of(first + k) for k in range(count)]  # views
            for name, value in buffers[0].items():
                if value.is_floating_point() and name.rpartition(".")[0] not in self.own:
                    mean = torch.stack([own[name] for own in buffers]).mean(0)
                    for own in buffers:
                        own[name].copy_(mean)


def each_client(configs: Sequence[Config]) -> list[Config]:
    """A config for each network of a stack: that of a federation for each of its clients."""
    return [config for config in configs for _ in range(config.federation.clients)]


def together(rows: Sequence[dict[str, Any]], clients: int) -> list[dict[str, Any]]:
    """A row for each federation from those of its clients.

    Measurements are means over the clients, each measured as it is on what it sees; beside them the
    test error of each as `client_error/01`, ... It has diverged when a client
    has, and when the first of them has.
    """
    if clients == 1:
        return list(rows)
    found = []
    for first in range(0, len(rows), clients):
        own = rows[first : first + clients]
        row = {name: sum(r[name] for r in own) / clients for name in own[0] if name not in SAME
               and name != "diverged_at"}  # fmt: skip
        errors = {f"client_error/{k:02d}": r["test_error"] for k, r in enumerate(own, start=1)}
        steps = [r["diverged_at"] for r in own if r["diverged_at"] is not None]
        same = {name: own[0][name] for name in SAME}
        found.append({**same, "diverged_at": min(steps, default=None), **row, **errors})
    return found
