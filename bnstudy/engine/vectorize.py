"""Seeds as an array axis: S networks of one architecture as one set of stacked tensors.

All parameters of a stack live in one tensor `flat` (S, P); what the network sees are views of it.
An optimiser step is then a handful of operations, whatever the number of layers, and anything that
differs between networks only in value (a learning rate) can be a column (S, 1).

A stack of one runs unmapped: the same mathematics by plain autograd, without torch.func.vmap.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap


class Stack:
    """S networks that train side by side.

    Args:
        nets: networks of one architecture; the first also serves as the template that is called.
        device: where the stacked tensors live.

    Attributes:
        flat: parameters, (S, P).
        buffers: name -> (S, ...); updated in place by the norms.
    """

    def __init__(self, nets: list[nn.Module], device: torch.device) -> None:
        self.net = nets[0].to(device)
        self.size = len(nets)
        self.shapes = {name: p.shape for name, p in self.net.named_parameters()}
        flat = [torch.cat([p.detach().reshape(-1) for p in n.parameters()]) for n in nets]
        self.flat = torch.stack([f.to(device) for f in flat])
        all_buffers = [dict(n.named_buffers()) for n in nets]
        self.buffers = {
            name: torch.stack([b[name].to(device) for b in all_buffers]) for name in all_buffers[0]
        }

    def parameters(self, flat: Tensor | None = None) -> dict[str, Tensor]:
        """Views of the parameters by name, (S, *shape)."""
        flat = self.flat if flat is None else flat
        sizes = [shape.numel() for shape in self.shapes.values()]
        pieces = flat.split(sizes, dim=1)
        return {
            name: piece.view(len(flat), *shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    def gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient of the mean cross-entropy of each network on its own batch.

        Args:
            x: (S, B, C, H, W).
            y: (S, B) class numbers.

        Returns:
            gradient (S, P), loss (S,), fraction misclassified in the batch (S,).
        """

        def loss(parameters, buffers, x, y):
            logits = functional_call(self.net, (parameters, buffers), (x,))
            return F.cross_entropy(logits, y), logits.detach()

        def with_value(parameters, buffers, x, y):
            def keep(*args):
                value, logits = loss(*args)
                return value, (value.detach(), logits)

            return grad(keep, has_aux=True)(parameters, buffers, x, y)

        if self.size > 1:
            grads, (value, logits) = vmap(with_value)(self.parameters(), self.buffers, x, y)
            pieces = [grads[name].flatten(1) for name in self.shapes]
        else:
            leaves = {k: v[0].detach().requires_grad_() for k, v in self.parameters().items()}
            value, logits = loss(leaves, self._single(), x[0], y[0])
            found = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
            pieces = [g.reshape(1, -1) for g in found]
            value, logits = value.detach()[None], logits[None]
        wrong = (logits.argmax(-1) != y).float().mean(-1)
        return torch.cat(pieces, dim=1), value, wrong

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Logits (S, N, K) of each network on its own inputs (S, N, C, H, W)."""

        def call(parameters, buffers, x):
            return functional_call(self.net, (parameters, buffers), (x,))

        if self.size > 1:
            return vmap(call)(self.parameters(), self.buffers, x)
        parameters = {k: v[0] for k, v in self.parameters().items()}
        return call(parameters, self._single(), x[0])[None]

    def _single(self) -> dict[str, Tensor]:
        """Views of the buffers without the stack axis: in-place updates reach the stack."""
        return {name: b[0] for name, b in self.buffers.items()}

    @contextmanager
    def training(self, training: bool) -> Iterator[None]:
        """Training or evaluation mode within the block, as before after it."""
        before = self.net.training
        self.net.train(training)
        try:
            yield
        finally:
            self.net.train(before)

    @contextmanager
    def with_buffers(self, replacement: dict[str, Tensor]) -> Iterator[None]:
        """Other buffer values within the block, (S, ...) by name; bits as before after it."""
        before = self.buffers
        self.buffers = {name: replacement.get(name, b).clone() for name, b in before.items()}
        try:
            yield
        finally:
            self.buffers = before

    def state(self, index: int) -> dict[str, Tensor]:
        """The state_dict of one network, copied to the CPU."""
        tensors = {**self.parameters(), **self.buffers}
        return {name: t[index].detach().clone().cpu() for name, t in tensors.items()}
