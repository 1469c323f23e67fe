"""What every norm shares: channels first, an affine map per channel, and checks that explain."""

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from bnstudy.errors import did_you_mean

AFFINE = ("both", "gamma", "beta", "none")
BACKENDS = ("fused", "reference")
# arguments of torch.nn's norms that have no counterpart here, each with the reason
REFUSED = {
    "elementwise_affine": "norms here learn one gamma and one beta per channel, not one for every "
    "element as torch.nn.LayerNorm and RMSNorm do; give affine=True or affine=False",
    "normalized_shape": "the first argument is the number of channels; statistics are always taken "
    "over all channels and positions of an example",
    "num_channels": "the number of channels is the first argument, num_features, of every norm",
}


class TooFewValues(ValueError):
    """Statistics were asked of fewer values than make one."""


class CannotWiden(TypeError):
    """A layer without a form for several networks side by side that keeps them apart."""


class Norm(nn.Module):
    """A normalization of (N, C, *) with 0 to 3 axes after the channels.

    num_features: C.  eps: added to the variance, inside the root.
    affine: which of gamma (`weight`) and beta (`bias`) are learned: both (True), gamma, beta or
    none (False).  bias: False leaves beta out, as in torch.nn.
    gamma_init: initial gamma (0 makes a residual branch start as the identity).
    backend: "fused" (one ATen kernel) or "reference" (the formula in plain tensor operations).
    device, dtype: of parameters and buffers, as in torch.nn.

    An empty batch gives an empty output, gradients of zero, and leaves every statistic alone.
    Raises ValueError for an input that is not (N, C, *) with C = num_features, and TypeError for
    an argument that the norm does not have.
    """

    weight: nn.Parameter | None  # gamma
    bias: nn.Parameter | None  # beta
    stackable: bool = True  # trains as one of a stack of networks, under torch.func.vmap
    # `module(x)` of nn.Module is typed Any; a norm gives a tensor
    __call__: Callable[..., Tensor]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        *,
        affine: bool | str = True,
        bias: bool = True,
        gamma_init: float = 1.0,
        backend: str = "fused",
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        **unknown: Any,
    ):
        super().__init__()
        for name in unknown:
            raise _no_argument(type(self), name)
        if num_features < 1:
            raise ValueError(f"num_features={num_features}: a norm needs at least one channel")
        if not eps > 0:
            raise ValueError(f"eps={eps}: must be positive, a constant channel would divide by 0")
        one_of("backend", backend, BACKENDS)
        self.num_features, self.eps, self.backend = num_features, eps, backend
        self.affine, self.gamma_init = _learned(affine, bias), gamma_init
        self._factory: dict[str, Any] = {"device": device, "dtype": dtype}
        for parameter, part in (("weight", "gamma"), ("bias", "beta")):
            learned = self.affine in ("both", part)
            values = torch.empty(num_features, **self._factory)
            self.register_parameter(parameter, nn.Parameter(values) if learned else None)
        self.reset_parameters()

    def _filled(self, value: float, *shape: int) -> Tensor:
        """A new tensor, by default (C,), of the device and type asked for."""
        return torch.full(shape or (self.num_features,), value, **self._factory)

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
        groups = getattr(wide, "num_groups", None)
        if isinstance(groups, int):
            vars(wide)["num_groups"] = groups * size
        for name, parameter in wide._parameters.items():
            if parameter is not None:
                wide._parameters[name] = nn.Parameter(_side_by_side(parameter, size))
        for name, buffer in wide._buffers.items():
            if buffer is not None and buffer.dim():  # a counter is one for all
                wide._buffers[name] = _side_by_side(buffer, size)
        return wide

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, affine={self.affine}, backend={self.backend}"


class NoNorm(Norm):
    """No normalization: the input itself, so that models take `none` like any other norm."""

    def __init__(
        self,
        num_features: int,
        *,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(num_features, affine=False, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        return x

    def widened(self, size: int) -> Self:
        return self._repeated(size)


def parameters_of(norm: type[Norm]) -> dict[str, inspect.Parameter]:
    """The arguments a norm takes beyond the number of channels."""
    found: dict[str, inspect.Parameter] = {}
    for cls in norm.__mro__:
        own = inspect.signature(cls).parameters
        for name, parameter in own.items():
            if name != "num_features" and parameter.kind is not parameter.VAR_KEYWORD:
                found.setdefault(name, parameter)
        if cls is Norm or not any(p.kind is p.VAR_KEYWORD for p in own.values()):
            break
    return found


def one_of(what: str, value: object, allowed: Iterable[str]) -> None:
    """Raise ValueError, naming the nearest match, unless value is among the allowed names."""
    allowed = list(allowed)
    if value not in allowed:
        hint = did_you_mean(str(value), allowed)
        raise ValueError(f"{what}={value!r}: choose one of {', '.join(allowed)}.{hint}")


def _side_by_side(tensor: Tensor, size: int) -> Tensor:
    """A tensor over channels (axis -1), `size` times."""
    return tensor.detach().repeat(*[1] * (tensor.dim() - 1), size)


def _learned(affine: bool | str, bias: bool) -> str:
    """Which of gamma and beta are learned, by name; torch's booleans mean both and none."""
    if isinstance(affine, bool):
        affine = "both" if affine else "none"
    one_of("affine", affine, AFFINE)
    if not bias and affine == "beta":
        raise ValueError("affine='beta' learns beta alone and bias=False leaves it out: give one")
    return "gamma" if affine == "both" and not bias else affine


def _no_argument(norm: type[Norm], name: str) -> TypeError:
    allowed = parameters_of(norm)
    why = REFUSED.get(name)
    text = f": {why}." if why else f".{did_you_mean(name, allowed)}"
    return TypeError(f"{norm.__name__} has no argument {name!r}{text} It has {', '.join(allowed)}.")


@contextmanager
def attributes(layers: Iterable[nn.Module], **values: Any) -> Iterator[None]:
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

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def look(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
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
