"""What every norm shares: channels first, an affine map per channel, and checks that explain."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Self

import torch
from torch import Tensor, nn

from bnstudy.errors import nearest

AFFINE = ("both", "gamma", "beta", "none")
BACKENDS = ("fused", "reference")


class TooFewValues(ValueError):
    """Statistics were asked of fewer values than make one."""


class CannotWiden(TypeError):
    """A layer without a form for several networks side by side that keeps them apart."""


class Norm(nn.Module):
    """A normalization of (N, C, *) with 0 to 3 axes after the channels.

    num_features: C.  eps: added to the variance, inside the root.
    affine: which of gamma (`weight`) and beta (`bias`) are learned: both, gamma, beta or none.
    gamma_init: initial gamma (0 makes a residual branch start as the identity).
    backend: "fused" (one ATen kernel) or "reference" (the formula in plain tensor operations).
    Raises ValueError for an input that is not (N, C, *) with C = num_features.
    """

    weight: nn.Parameter | None  # gamma
    bias: nn.Parameter | None  # beta
    stackable = True  # trains as one of a stack of networks, under torch.func.vmap

    def __init__(
        self,
        num_features: int,
        *,
        eps: float = 1e-5,
        affine: str = "both",
        gamma_init: float = 1.0,
        backend: str = "fused",
    ):
        super().__init__()
        if num_features < 1:
            raise ValueError(f"num_features={num_features}: a norm needs at least one channel")
        if not eps > 0:
            raise ValueError(f"eps={eps}: must be positive, a constant channel would divide by 0")
        one_of("affine", affine, AFFINE)
        one_of("backend", backend, BACKENDS)
        self.num_features, self.eps, self.backend = num_features, eps, backend
        self.affine, self.gamma_init = affine, gamma_init
        for name, part in (("weight", "gamma"), ("bias", "beta")):
            learned = affine in ("both", part)
            parameter = nn.Parameter(torch.empty(num_features)) if learned else None
            self.register_parameter(name, parameter)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """gamma = gamma_init, beta = 0."""
        if self.weight is not None:
            nn.init.constant_(self.weight, self.gamma_init)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def check(self, x: Tensor) -> None:
        """Raise unless x is (N, C, *) with as many channels as this layer has."""
        if not 2 <= x.dim() <= 5:
            raise ValueError(
                f"{type(self).__name__} takes (N, C) up to (N, C, D, H, W), 2 to 5 axes; "
                f"got {x.dim()}: {tuple(x.shape)}"
            )
        if x.shape[1] != self.num_features:
            raise ValueError(
                f"{type(self).__name__} has num_features={self.num_features}, but the input "
                f"{tuple(x.shape)} has {x.shape[1]} channels (axis 1; channels come first)"
            )

    def widened(self, size: int) -> Self:
        """`size` of this layer as one layer: (N, size * C, *), each network's channels in turn.

        Raises CannotWiden where statistics would mix networks, and by default.
        """
        raise CannotWiden(f"{type(self).__name__} has no form in which {size} networks stay apart")

    def _repeated(self, size: int) -> Self:
        """`widened` of a norm whose statistics stay within a channel or a group of channels.

        The same layer, marks included, its groups and its tensors over channels (axis -1) repeated.
        """
        wide = copy.deepcopy(self)
        wide.num_features *= size
        if hasattr(wide, "num_groups"):
            wide.num_groups *= size
        for tensors in (wide._parameters, wide._buffers):
            for name, value in tensors.items():
                if value is not None and value.dim():  # a counter is one for all
                    repeated = value.detach().repeat(*[1] * (value.dim() - 1), size)
                    learned = isinstance(value, nn.Parameter)
                    tensors[name] = nn.Parameter(repeated) if learned else repeated
        return wide

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, affine={self.affine}, backend={self.backend}"


class NoNorm(Norm):
    """No normalization: the input itself, so that models take `none` like any other norm."""

    def __init__(self, num_features: int):
        super().__init__(num_features, affine="none")

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        return x

    def widened(self, size: int) -> Self:
        return self._repeated(size)


def one_of(what: str, value: object, allowed: Iterable[str]) -> None:
    """Raise ValueError, naming the nearest match, unless value is among the allowed names."""
    allowed = list(allowed)
    if value not in allowed:
        near = nearest(str(value), allowed)
        hint = f"; did you mean {near!r}?" if near else ""
        raise ValueError(f"{what}={value!r}: choose one of {', '.join(allowed)}{hint}")


@contextmanager
def attributes(layers: Iterable[nn.Module], **values) -> Iterator[None]:
    """Set attributes, on layers that have them, for the duration, also through exceptions."""
    layers = list(layers)
    before = [{n: getattr(layer, n) for n in values if hasattr(layer, n)} for layer in layers]
    try:
        for layer, own in zip(layers, before, strict=True):
            for name in own:
                setattr(layer, name, values[name])
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            for name, value in old.items():
                setattr(layer, name, value)


@contextmanager
def debug(model: nn.Module) -> Iterator[None]:
    """Within the block, a NaN or infinity that reaches a norm layer is an error naming the layer.

    Costs a pass over every input and reads its values, so not for stacks under vmap.
    Raises ValueError with the layer's qualified name and where in the input the first one is.
    """

    def watch(name: str):
        def look(layer, inputs):
            bad = (~torch.isfinite(inputs[0])).nonzero()
            if len(bad):
                raise ValueError(
                    f"not finite: the input of norm layer {name!r} ({layer}) holds "
                    f"{inputs[0][tuple(bad[0])].item()} at {tuple(bad[0].tolist())}, "
                    f"{len(bad)} such values in {tuple(inputs[0].shape)}"
                )

        return look

    hooks = [
        layer.register_forward_pre_hook(watch(name))
        for name, layer in model.named_modules()
        if isinstance(layer, Norm)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
