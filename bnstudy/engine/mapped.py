"""Networks as a map: for those whose forward this package does not know, or cannot widen."""

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from bnstudy.engine.stack import Stack
from bnstudy.engine.tasks import Score
from bnstudy.norms import Calibrator


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
