"""Networks side by side as one wider network: S seeds, S times the channels.

Seed s owns its slice of the channels: convolutions get S times the groups, linear layers become
batched products, norms and this package's own modules say themselves how they widen (`widened`).
Every statistic stays within its seed. One ordinary network, plain autograd, no overhead beyond that
of a single one; a stack of one is the network itself.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bnstudy.engine.stack import Stack
from bnstudy.engine.tasks import Score, Task
from bnstudy.norms import (
    Calibrator,
    CannotWiden,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    batch_norms,
)

GRAPHS = 10_000  # compiled in one process, at most


class Widened(Stack):
    """S networks as one S times wider network.

    Raises:
        CannotWiden: S > 1 and a layer has parameters and no wider form.
    """

    def __init__(self, nets: list[nn.Module], device: torch.device) -> None:
        net = nets[0] if len(nets) == 1 else widened(nets[0], len(nets))
        super().__init__(nets, device)
        self.net = net.to(device)
        own = [batch_norms(n) for n in nets]
        for name, layer in batch_norms(self.net).items():
            momenta = [norms[name].momentum for norms in own]
            if len(set(momenta)) > 1:  # a number for each channel
                channels = layer.num_features // self.size
                layer.momentum = torch.tensor(momenta, device=device).repeat_interleave(channels)
        self._leaves = list(self.net.parameters())
        for parameter, value in zip(self._leaves, self.blocks(self.flat).values(), strict=True):
            parameter.data = value.view(parameter.shape)
        self.buffers = dict(self.net.named_buffers())
        # several networks' convolutions have groups, for which oneDNN is faster channels last;
        # norms of single examples are not exact in that layout and would change it back
        per_example = GroupNorm | InstanceNorm | LayerNorm
        single = any(isinstance(m, per_example) for m in self.net.modules())
        self._last = self.size > 1 and self.flat.device.type == "cpu" and not single
        self._gradients = self.gradients

    def buffers_of(self, index: int) -> dict[str, Tensor]:
        # a counter is one for all seeds; everything else has their channels side by side, last
        return {
            name: b if b.dim() == 0 else b.unflatten(-1, (self.size, -1))[..., index, :]
            for name, b in self.buffers.items()
        }

    def gradient(self, x: Tensor, y: Tensor) -> Score:
        with self.autocast():
            found, score = self._gradients(x, y)
        torch.cat([g.reshape(-1) for g in found], out=self.grad)
        return score

    def gradients(self, x: Tensor, y: Tensor) -> tuple[tuple[Tensor, ...], Score]:
        """As `gradient`, which it is the graph of: a gradient for each leaf, and the score."""
        loss, *metrics = self.score(x, y)
        # each operation's derivative has its precision, whatever is cast on the way there
        plain = torch.autocast(self.flat.device.type, enabled=False)
        with plain if self.precision == "bf16" else nullcontext():
            # not backward(), which adds to .grad: two more passes over memory
            found = torch.autograd.grad(loss.sum(), self._leaves, materialize_grads=True)
        return found, (loss.detach(), *metrics)

    def score(self, x: Tensor, y: Tensor) -> Score:
        """The task's score of the networks on their own batches."""
        return self.task.score(self._output(x), y)

    def compile(self) -> None:
        """From now on `gradient` runs as one compiled graph, forward and backward.

        On a GPU with CUDA graphs. The first call compiles: 10 to 30 s, or about 3 s where the
        compiler's cache has the same graph. The same mathematics, other bits.
        """
        # else torch.autograd.grad ends a graph, and every step pays for two and for autograd
        torch._dynamo.config.trace_autograd_ops = True
        # a worker trains many stacks, all through this one function: the default is 8 graphs
        torch._dynamo.config.recompile_limit = GRAPHS
        torch._dynamo.config.accumulated_recompile_limit = GRAPHS
        # static shapes: batches are all of one size
        options = {"triton.cudagraphs": True} if self.flat.is_cuda else None
        self._gradients = torch.compile(
            self.gradients, fullgraph=True, dynamic=False, options=options
        )

    @contextmanager
    def scored_by(self, task: Task) -> Iterator[None]:
        compiled, self._gradients = self._gradients, self.gradients
        try:
            with super().scored_by(task):
                yield
        finally:
            self._gradients = compiled

    def _side_by_side(self, x: Tensor) -> Tensor:
        """(N, S, C, *) as the wide network's input (N, S * C, *)."""
        x = x.flatten(1, 2)
        if self._last and x.dim() == 4:
            return x.contiguous(memory_format=torch.channels_last)
        return x

    def _output(self, x: Tensor) -> Tensor:
        """What the wide network makes of (N, S, C, *): (N, S * K, *) as (N, S, K, *)."""
        return self.net(self._side_by_side(x)).unflatten(1, (self.size, -1))

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        return self._output(x)

    def observe(self, calibrator: Calibrator, x: Tensor) -> None:
        self.predict(x)
        calibrator.update()


class SeedLinear(nn.Module):
    """S linear layers side by side: (N, *, S * inputs) -> (N, *, S * outputs)."""

    def __init__(self, size: int, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.empty(size, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(size, outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[:-1]
        x = x.reshape(lead.numel(), self.size, -1).transpose(0, 1)  # (S, N, inputs)
        weight = self.weight
        if torch.is_autocast_enabled(x.device.type):  # which looks into no autograd.Function
            lower = torch.get_autocast_dtype(x.device.type)
            x, weight = x.to(lower), weight.to(lower)
        y = Product.apply(x, weight)
        if self.bias is not None:
            y = y + self.bias[:, None].to(y.dtype)
        return y.transpose(0, 1).reshape(*lead, -1)


class Product(torch.autograd.Function):
    """x (S, N, inputs) by the transpose of weight (S, outputs, inputs): (S, N, outputs).

    torch.bmm but for one layout: the weight's gradient lies as the weight does, where autograd's
    own is transposed and costs a strided copy of all weights at every step.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return torch.bmm(x, weight.transpose(1, 2))

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        return (
            torch.bmm(grad, weight) if ctx.needs_input_grad[0] else None,
            torch.bmm(grad.transpose(1, 2), x) if ctx.needs_input_grad[1] else None,
        )


def widenable(net: nn.Module) -> bool:
    """Whether networks like this one widen."""
    try:
        widened(net, 2)
    except CannotWiden:
        return False
    return True


def widened(net: nn.Module, size: int) -> nn.Module:
    """A network with `size` times the channels, parameters still to be filled in.

    Raises:
        CannotWiden: as `Widened`.
    """
    if type(net) is nn.Conv2d and net.padding_mode == "zeros":
        return nn.Conv2d(
            net.in_channels * size,
            net.out_channels * size,
            net.kernel_size,
            net.stride,
            net.padding,
            net.dilation,
            net.groups * size,
            net.bias is not None,
        )
    if type(net) is nn.Linear:
        return SeedLinear(size, net.in_features, net.out_features, net.bias is not None)
    own = [*net.parameters(recurse=False), *net.buffers(recurse=False)]
    knows = hasattr(net, "widened")
    if (own and not knows) or parametrize.is_parametrized(net):
        raise CannotWiden(f"{type(net).__name__} has no form in which {size} networks stay apart")
    wide = net.widened(size) if knows else copy.copy(net)
    wide._modules = {name: widened(child, size) for name, child in net._modules.items()}
    return wide
