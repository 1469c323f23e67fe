"""Seeds as an array axis: S networks of one architecture train as one.

Two ways, chosen by what the network is made of, never by load or timing:

`Folded`: seed s of S owns its slice of the channels of one S times wider network: convolutions get
S times the groups, linear layers become batched products, norms see S times the channels (which
leaves every statistic within its seed). One ordinary network, plain autograd, no overhead beyond
that of a single one; a stack of one is the network itself.

`Mapped`: torch.func.vmap over stacked parameters, for networks whose forward this package does not
know. The same mathematics, about three times the overhead.

In both, all parameters of a stack lie in one tensor, block by block, each block (S, *shape): an
optimiser step is a handful of operations, whatever the number of layers.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parametrize

from bnstudy.config import IGNORED
from bnstudy.norms import (
    BatchNorm,
    Calibrator,
    GhostBatchNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    NoNorm,
    StepBatchNorm,
    batch_norms,
)

# norms whose statistics stay within a channel, or a group of channels: wider is the same norm
WIDENED = (
    NoNorm, BatchNorm, GhostBatchNorm, StepBatchNorm, GroupNorm, LayerNorm, InstanceNorm,
)  # fmt: skip

GRAPHS = 10_000  # compiled in one process, at most


def score(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy and fraction misclassified of each network, (S,), over what has a label.

    Args:
        logits: (B, S, *, K).
        y: (B, S, *).
    """
    loss = F.cross_entropy(logits.flatten(0, -2), y.flatten(), reduction="none").view(y.shape)
    wrong = (logits.detach().argmax(-1) != y).float()
    if y.dim() == 2:
        return loss.mean(0), wrong.mean(0)
    labelled = y != IGNORED
    count = labelled.sum((0, 2)).clamp(min=1)
    return loss.sum((0, 2)) / count, (wrong * labelled).sum((0, 2)) / count


class Stack:
    """S networks that train side by side.

    Attributes:
        net: the module that is called.
        size: S.
        flat: all parameters, one vector: a block of S * numel for each name in `shapes`.
        grad: the gradient of `flat`, filled by `gradient`.
        shapes: name -> shape of a parameter of one network.
        buffers: name -> tensor, with the seeds where the subclass has them.
    """

    net: nn.Module
    buffers: dict[str, Tensor]
    precision = "float32"  # of the forward and backward pass: float32, tf32 or bf16

    def __init__(self, nets: list[nn.Module], device: torch.device) -> None:
        self.size = len(nets)
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

    def buffers_of(self, index: int) -> dict[str, Tensor]:
        """The buffers of one network."""
        raise NotImplementedError

    def gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Fill `grad` with the gradient of each network's mean cross-entropy on its own batch.

        Args:
            x: (B, S, C, *).
            y: class numbers (B, S), or (B, S, T) for each step of a sequence, IGNORED where there
                is none.

        Returns:
            loss (S,), fraction misclassified in the batch (S,).
        """
        raise NotImplementedError

    def predict(self, x: Tensor) -> Tensor:
        """Logits (N, S, K) of each network on its own inputs (N, S, C, H, W)."""
        raise NotImplementedError

    def observe(self, calibrator: Calibrator, x: Tensor) -> None:
        """Show a batch (N, S, C, H, W) to a calibrator of `net`."""
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
    def training(self, training: bool) -> Iterator[None]:
        """Training or evaluation mode within the block, as before after it."""
        before = self.net.training
        self.net.train(training)
        try:
            yield
        finally:
            self.net.train(before)

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


class Unfoldable(TypeError):
    """A layer that has no S times wider form that keeps the seeds apart."""


class Folded(Stack):
    """S networks as one S times wider network.

    Raises:
        Unfoldable: S > 1 and a layer has parameters that this class does not know how to widen.
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
        single = any(isinstance(m, GroupNorm | InstanceNorm) for m in self.net.modules())
        self._last = self.size > 1 and self.flat.device.type == "cpu" and not single
        self._gradients = self.gradients

    def buffers_of(self, index: int) -> dict[str, Tensor]:
        # a counter is one for all seeds; everything else has their channels side by side, last
        return {
            name: b if b.dim() == 0 else b.unflatten(-1, (self.size, -1))[..., index, :]
            for name, b in self.buffers.items()
        }

    def gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with self.autocast():
            found, loss, wrong = self._gradients(x, y)
        torch.cat([g.reshape(-1) for g in found], out=self.grad)
        return loss, wrong

    def gradients(self, x: Tensor, y: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """As `gradient`, which it is the graph of: a gradient for each leaf, loss, errors."""
        loss, wrong = self.loss(x, y)
        # each operation's derivative has its precision, whatever is cast on the way there
        plain = torch.autocast(self.flat.device.type, enabled=False)
        with plain if self.precision == "bf16" else nullcontext():
            # not backward(), which adds to .grad: two more passes over memory
            found = torch.autograd.grad(loss.sum(), self._leaves, materialize_grads=True)
        return found, loss.detach(), wrong

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """`score` of the networks on their own batches."""
        logits = self.net(self._side_by_side(x)).view(*y.shape, -1)
        return score(logits, y)

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

    def _side_by_side(self, x: Tensor) -> Tensor:
        """(N, S, C, *) as the wide network's input (N, S * C, *)."""
        x = x.flatten(1, 2)
        if self._last and x.dim() == 4:
            return x.contiguous(memory_format=torch.channels_last)
        return x

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        logits = self.net(self._side_by_side(x))
        steps = logits.shape[-2:-1] if logits.dim() > 2 else ()
        return logits.view(len(x), self.size, *steps, -1)

    def observe(self, calibrator: Calibrator, x: Tensor) -> None:
        self.predict(x)
        calibrator.update()


class Mapped(Stack):
    """S networks by torch.func.vmap over their stacked parameters and buffers."""

    def __init__(self, nets: list[nn.Module], device: torch.device) -> None:
        super().__init__(nets, device)
        self.net = copy.deepcopy(nets[0]).to(device)
        named = [dict(net.named_buffers()) for net in nets]
        self.buffers = {n: torch.stack([b[n] for b in named]).to(device) for n in named[0]}

        def loss(parameters, buffers, x, y):
            logits = functional_call(self.net, (parameters, buffers), (x,))
            value, wrong = (part[0] for part in score(logits[:, None], y[:, None]))
            return value, (value.detach(), wrong)

        def call(parameters, buffers, x):
            return functional_call(self.net, (parameters, buffers), (x,))

        self._gradient = vmap(grad(loss, has_aux=True), in_dims=(0, 0, 1, 1))
        self._predict = vmap(call, in_dims=(0, 0, 1), out_dims=1)

    def buffers_of(self, index: int) -> dict[str, Tensor]:
        return {name: b[index] for name, b in self.buffers.items()}

    def gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with self.autocast():
            blocks = self.blocks(self.flat)
            found, (loss, wrong) = self._gradient(blocks, self.buffers, x, y)
        torch.cat([found[name].reshape(-1) for name in self.shapes], out=self.grad)
        return loss, wrong

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        return self._predict(self.blocks(self.flat), self.buffers, x)

    def observe(self, calibrator: Calibrator, x: Tensor) -> None:
        self.predict(x)
        calibrator.update(self.buffers)


class SeedLinear(nn.Module):
    """S linear layers side by side: (N, S * inputs) -> (N, S * outputs)."""

    def __init__(self, size: int, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.empty(size, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(size, outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(len(x), self.size, -1).transpose(0, 1)  # (S, N, inputs)
        weight = self.weight
        if torch.is_autocast_enabled(x.device.type):  # which looks into no autograd.Function
            lower = torch.get_autocast_dtype(x.device.type)
            x, weight = x.to(lower), weight.to(lower)
        y = Product.apply(x, weight)
        if self.bias is not None:
            y = y + self.bias[:, None].to(y.dtype)
        return y.transpose(0, 1).flatten(1)


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


def foldable(net: nn.Module) -> bool:
    """Whether networks like this one fold."""
    try:
        widened(net, 2)
    except Unfoldable:
        return False
    return True


def widened(net: nn.Module, size: int) -> nn.Module:
    """A network with `size` times the channels, parameters still to be filled in.

    Raises:
        Unfoldable: as `Folded`.
    """
    replacement = _wider(net, size)
    if replacement is not None:
        return replacement
    # a network of this package may know how to widen its own parameters
    wide = net.widened(size) if hasattr(net, "widened") else copy.copy(net)
    wide._modules = {name: widened(child, size) for name, child in net._modules.items()}
    return wide


def _wider(layer: nn.Module, size: int) -> nn.Module | None:
    """The wider form of one layer; None where only its children change."""
    if type(layer) is nn.Conv2d and layer.padding_mode == "zeros":
        return nn.Conv2d(
            layer.in_channels * size,
            layer.out_channels * size,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups * size,
            layer.bias is not None,
        )
    if type(layer) is nn.Linear:
        return SeedLinear(size, layer.in_features, layer.out_features, layer.bias is not None)
    if type(layer) in WIDENED:
        wide = copy.deepcopy(layer)
        if type(layer) is LayerNorm:  # one group a seed: group norm by another name
            wide = GroupNorm(
                layer.num_features,
                num_groups=1,
                eps=layer.eps,
                affine=layer.affine,
                backend=layer.backend,
            )
            wide.load_state_dict(layer.state_dict())
        wide.num_features *= size
        if hasattr(wide, "num_groups"):
            wide.num_groups *= size
        for tensors in (wide._parameters, wide._buffers):
            for name, value in tensors.items():
                if value is not None and value.dim():
                    repeated = value.detach().repeat(*[1] * (value.dim() - 1), size)
                    tensors[name] = (
                        nn.Parameter(repeated) if isinstance(value, nn.Parameter) else repeated
                    )
        return wide
    own = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
    if (own and not hasattr(layer, "widened")) or parametrize.is_parametrized(layer):
        raise Unfoldable(f"{type(layer).__name__} has no form in which {size} seeds stay apart")
    return None


def make_stack(nets: list[nn.Module], device: torch.device, known: bool) -> Stack:
    """Folded where it can be, else mapped.

    Args:
        known: whether the forward of these networks treats channels alike, so that folding is right
            (this package's own networks; not one that concatenates or reorders channels).
    """
    if known or len(nets) == 1:
        try:
            return Folded(nets, device)
        except Unfoldable:
            pass
    return Mapped(nets, device)
