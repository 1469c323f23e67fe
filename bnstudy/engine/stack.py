"""Seeds as an array axis: S networks of one architecture train as one.

Two ways, chosen by what the network is made of, never by load or timing: `Widened` (widen.py), one
network S times as wide, and `Mapped` (mapped.py), torch.func.vmap over stacked parameters: the same
mathematics, about three times the overhead.

In both, all parameters of a stack lie in one tensor, block by block, each block (S, *shape): an
optimiser step is a handful of operations, whatever the number of layers.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bnstudy.engine.tasks import CLASSIFICATION, Score, Task
from bnstudy.norms import Calibrator, CannotWiden


class Stack:
    """S networks that train side by side.

    Attributes:
        net: the module that is called.
        task: what its outputs are scored by.
        size: S.
        flat: all parameters, one vector: a block of S * numel for each name in `shapes`.
        grad: the gradient of `flat`, filled by `gradient`.
        shapes: name -> shape of a parameter of one network.
        buffers: name -> tensor, with the seeds where the subclass has them.
    """

    net: nn.Module
    buffers: dict[str, Tensor]
    task: Task = CLASSIFICATION
    precision = "float32"  # of the forward and backward pass; float64: of the weights, too

    def __init__(self, nets: list[nn.Module], device: torch.device) -> None:
        self.size, self._one = len(nets), nets[0]
        named = [dict(net.named_parameters()) for net in nets]
        self.shapes = {name: p.shape for name, p in named[0].items()}
        blocks = [torch.stack([n[name].detach() for n in named]) for name in self.shapes]
        self.flat = torch.cat([b.reshape(-1) for b in blocks]).to(device)
        self.grad = torch.zeros_like(self.flat)

    def blocks(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of a vector like `flat` by name, (S, *shape)."""
        pieces = flat.split([self.size * shape.numel() for shape in self.shapes.values()])
        return {
            name: piece.view(self.size, *shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    def spread(self, values: Sequence[float]) -> float | Tensor:
        """A number for each network as one for each entry of `flat`; a float if they are equal."""
        if len(set(values)) == 1:
            return values[0]
        own = torch.tensor(values, dtype=self.flat.dtype, device=self.flat.device)
        return torch.cat([own.repeat_interleave(shape.numel()) for shape in self.shapes.values()])

    def parameters(self, index: int) -> dict[str, Tensor]:
        """The parameters of one network."""
        return {name: block[index] for name, block in self.blocks(self.flat).items()}

    def state(self, index: int) -> dict[str, Tensor]:
        """The state_dict of one network, copied to the CPU."""
        tensors = {**self.parameters(index), **self.buffers_of(index)}
        return {name: t.detach().clone().cpu() for name, t in tensors.items()}

    def alone(self, index: int) -> nn.Module:
        """A copy of one network as the ordinary module that it was built as, in training mode."""
        net = copy.deepcopy(self._one).to(self.flat.device)
        own = {**dict(net.named_parameters()), **dict(net.named_buffers())}
        with torch.no_grad():  # not load_state_dict, which knows no buffers that are not saved
            for name, value in self.state(index).items():
                own[name].copy_(value)
        return net.train()

    def buffers_of(self, index: int) -> dict[str, Tensor]:
        """The buffers of one network."""
        raise NotImplementedError

    def gradient(self, x: Tensor, y: Tensor) -> Score:
        """Fill `grad` with the gradient of each network's loss on its own batch.

        Args:
            x: (B, S, C, *).
            y: targets (B, S, *), as the task takes them.

        Returns:
            `task.score` of the batch.
        """
        raise NotImplementedError

    def predict(self, x: Tensor) -> Tensor:
        """Output (N, S, *) of each network on its own inputs (N, S, C, *)."""
        raise NotImplementedError

    def observe(self, calibrator: Calibrator, x: Tensor) -> None:
        """Show a batch (N, S, C, *) to a calibrator of `net`."""
        raise NotImplementedError

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """The precision of training within the block; weights and sums stay float32."""
        if self.precision == "bf16":
            with torch.autocast(self.flat.device.type, torch.bfloat16):
                yield
        elif self.precision == "tf32":
            before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
            try:
                yield
            finally:
                torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
        else:
            yield

    @contextmanager
    def scored_by(self, task: Task) -> Iterator[None]:
        """Another loss within the block, computed in float32 and not compiled."""
        before = self.task, self.precision
        self.task, self.precision = task, "float32"
        try:
            yield
        finally:
            self.task, self.precision = before

    @contextmanager
    def training(self, training: bool) -> Iterator[None]:
        """Training or evaluation mode within the block, as before after it."""
        before = self.net.training
        self.net.train(training)
        try:
            yield
        finally:
            self.net.train(before)

    def finite(self) -> Tensor:
        """Whether all weights of a network are finite, (S,)."""
        each = [b.isfinite().flatten(1).all(1) for b in self.blocks(self.flat).values()]
        return torch.stack(each).all(0)

    @contextmanager
    def with_buffers(self, replacement: Mapping[str, Tensor]) -> Iterator[None]:
        """Other buffer values within the block; bits as before after it."""
        before = {name: b.clone() for name, b in self.buffers.items()}
        for name, value in replacement.items():
            self.buffers[name].copy_(value)
        try:
            yield
        finally:
            for name, value in before.items():
                self.buffers[name].copy_(value)


def make_stack(nets: list[nn.Module], device: torch.device, known: bool) -> Stack:
    """`Widened` where that can be, else `Mapped`.

    Args:
        known: whether the forward of these networks treats channels alike, so that widening is
            right (this package's own networks; not one that concatenates or reorders channels).
    """
    from bnstudy.engine.mapped import Mapped  # both are stacks and import this file
    from bnstudy.engine.widen import Widened

    if known or len(nets) == 1:
        try:
            return Widened(nets, device)
        except CannotWiden:
            pass
    return Mapped(nets, device)
