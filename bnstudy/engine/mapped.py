"""Networks as a map: for those whose forward this package does not know, or cannot widen."""

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from bnstudy.engine.randomness import undisturbed
from bnstudy.engine.stack import Stack
from bnstudy.engine.tasks import CLASSIFICATION, Score, Task
from bnstudy.norms import Calibrator

NEAR = 1e-3  # relative: rounding moves an output by 1e-6, a lost or shared state by about 1


class Mapped(Stack):
    """S networks by torch.func.vmap over their stacked parameters and buffers."""

    def __init__(self, nets: list[nn.Module], device: torch.device) -> None:
        super().__init__(nets, device)
        self.net = copy.deepcopy(nets[0]).to(device)
        named = [dict(net.named_buffers()) for net in nets]
        self.buffers = {n: torch.stack([b[n] for b in named]).to(device) for n in named[0]}

        def loss(parameters, buffers, x, y):
            logits = functional_call(self.net, (parameters, buffers), (x,))
            value, *metrics = (part[0] for part in self.task.score(logits[:, None], y[:, None]))
            return value, (value.detach(), *metrics)

        def call(parameters, buffers, x):
            return functional_call(self.net, (parameters, buffers), (x,))

        self._gradient = vmap(grad(loss, has_aux=True), in_dims=(0, 0, 1, 1))
        self._predict = vmap(call, in_dims=(0, 0, 1), out_dims=1)

    def buffers_of(self, index: int) -> dict[str, Tensor]:
        return {name: b[index] for name, b in self.buffers.items()}

    def gradient(self, x: Tensor, y: Tensor) -> Score:
        with self.autocast():
            blocks = self.blocks(self.flat)
            found, score = self._gradient(blocks, self.buffers, x, y)
        torch.cat([found[name].reshape(-1) for name in self.shapes], out=self.grad)
        return score

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        return self._predict(self.blocks(self.flat), self.buffers, x)

    def observe(self, calibrator: Calibrator, x: Tensor) -> None:
        self.predict(x)
        calibrator.update(self.buffers)


class NotMapped(Exception):
    """A network runs as a map, and does something else there than alone."""


def try_map(net: nn.Module, x: Tensor, y: Tensor, task: Task = CLASSIFICATION) -> None:
    """Run two networks like this one as a map, and compare with each of them alone.

    Two training passes, so that a state kept from the first meets the second, then evaluation.
    The network is left as it was.

    Args:
        x: a batch (B, C, *) on the CPU.
        y: its targets (B, *).
        task: that takes them.

    Raises:
        NotMapped: other outputs or buffers than alone.
        Exception: whatever the map raises: of values that Python reads (`.item()`, `if`), of random
            numbers drawn within, of operations without a batching rule.
    """
    cpu, other = torch.device("cpu"), copy.deepcopy(net)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.9)  # another network, so that a state they share shows
    alone = [copy.deepcopy(net), copy.deepcopy(other)]
    both, targets = torch.stack([x, x], 1), torch.stack([y, y], 1)
    with undisturbed(net, cpu):
        stack = Mapped([net, other], cpu)
        stack.task = task
        with stack.training(True):
            for _ in range(2):
                stack.gradient(both, targets)
        with stack.training(False):
            mapped = stack.predict(both)
        for k, own in enumerate(alone):
            with torch.no_grad():
                for _ in range(2):
                    own.train()(x)
                expected = own.eval()(x)
            for name, buffer in own.named_buffers():
                if not _near(stack.buffers[name][k], buffer):
                    raise NotMapped(
                        f"buffer '{name}' has another value than alone; change buffers in place "
                        "(copy_, add_, lerp_): an assigned one is lost"
                    )
            if not _near(mapped[:, k], expected):
                raise NotMapped("evaluation gives other outputs than alone: a state is shared")


def _near(found: Tensor, expected: Tensor) -> bool:
    if not expected.is_floating_point():
        return torch.equal(found, expected)
    scale = expected.abs().max() if expected.numel() else 0.0
    return torch.allclose(found, expected, rtol=0.0, atol=NEAR * float(scale), equal_nan=True)
