"""What every norm shares: channels first, an affine map per channel, and checks that explain."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, fx, nn

from .arguments import BACKENDS, learned, no_argument, one_of


class TooFewValues(ValueError):
    """Statistics were asked of fewer values than make one.

    >>> StepBatchNorm(3, time_steps=2)(torch.zeros(1, 3), 0)
    Traceback (most recent call last):
    bnstudy.norms.base.TooFewValues: statistics of 1 example at each time step, ...
    """


class CannotWiden(TypeError):
    """A layer without a form for several networks side by side that keeps them apart.

    >>> OnlineNorm(3).widened(2)
    Traceback (most recent call last):
    bnstudy.norms.base.CannotWiden: OnlineNorm has no form in which 2 networks stay apart
    """


class Norm(nn.Module):
    """A normalization of (N, C, *) with 0 to 3 axes after the channels.

    num_features: C.  eps: added to the variance, inside the root; 0 for backend="reference" only.
    affine: which of gamma (`weight`) and beta (`bias`) are learned: both (True), gamma, beta or
    none (False).  bias: False leaves beta out, as in torch.nn.
    gamma_init: initial gamma (0 makes a residual branch start as the identity).
    backend: "fused" (one ATen kernel) or "reference" (the formula in plain tensor operations).
    device, dtype: of parameters and buffers, as in torch.nn.

    `torch.compile`, `torch.export`, `torch.jit.trace` and `torch.fx` take every norm; in an fx
    graph a norm is one node, with its checks. `torch.jit.script` takes none, batch, group, layer,
    instance and RMS norm; a setting beyond their plain form makes the script raise, naming it.
    Input whose channels lie last in memory (`torch.channels_last`) gives such output.

    An empty batch gives an empty output, gradients of zero, and leaves every statistic alone.
    Raises ValueError for an input that is not (N, C, *) with C = num_features, and TypeError for
    an argument that the norm does not have.

    >>> LayerNorm(8, affine="gamma")
    LayerNorm(8, eps=1e-05, affine=gamma, backend=fused)
    >>> sum(isinstance(m, Norm) for m in nn.Sequential(nn.Linear(4, 8), RMSNorm(8)).modules())
    1
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
            raise no_argument(type(self), name)
        if num_features < 1:
            raise ValueError(f"num_features={num_features}: a norm needs at least one channel")
        one_of("backend", backend, BACKENDS)
        if not (eps > 0 or (eps == 0 and backend == "reference")):
            raise ValueError(
                f"eps={eps}: must be positive, a constant channel would divide by 0 "
                '(backend="reference" takes 0, too)'
            )
        self.num_features, self.eps, self.backend = num_features, eps, backend
        self.affine, self.gamma_init = learned(affine, bias), gamma_init
        self._factory: dict[str, Any] = {"device": device, "dtype": dtype}
        for parameter, part in (("weight", "gamma"), ("bias", "beta")):
            value = nn.Parameter(self._filled(math.nan)) if self.affine in ("both", part) else None
            self.register_parameter(parameter, value)
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

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return self._plain(x)
        if isinstance(x, fx.Proxy):
            return as_one_node(self, x)
        if torch.jit.is_tracing() and not self._beyond_plain():
            return self._plain(x)
        return self._checked(x)

    def _checked(self, x: Tensor) -> Tensor:
        """The norm with all its variants, on an input that is checked."""
        raise NotImplementedError

    def _plain(self, x: Tensor) -> Tensor:
        """The norm in its plain form without checks, which TorchScript compiles and traces."""
        raise NotImplementedError("TorchScript does not support " + self._beyond_plain())

    def _beyond_plain(self) -> str:
        """The settings of this layer that `_plain` does not have; empty for a plain one."""
        return ""

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
    """No normalization: the input itself, so that models take `none` like any other norm.

    >>> x = torch.randn(2, 8)
    >>> NoNorm(8)(x) is x
    True
    """

    def __init__(
        self,
        num_features: int,
        *,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(num_features, affine=False, device=device, dtype=dtype)

    def _checked(self, x: Tensor) -> Tensor:
        self.check(x)
        return x

    def _plain(self, x: Tensor) -> Tensor:
        return x

    def widened(self, size: int) -> Self:
        return self._repeated(size)


def as_one_node(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """One call of the whole layer in the graph that torch.fx is tracing: it keeps its checks."""
    tracer: Any = next(x for x in (*args, *kwargs.values()) if isinstance(x, fx.Proxy)).tracer
    path = tracer.path_of_module(layer)
    if not path:
        raise ValueError(
            f"torch.fx cannot trace a {type(layer).__name__} alone, which is one node of a graph: "
            "trace the model that has it, or torch.nn.Sequential(layer)"
        )
    return tracer.create_proxy("call_module", path, args, kwargs)


def _side_by_side(tensor: Tensor, size: int) -> Tensor:
    """A tensor over channels (axis -1), `size` times."""
    return tensor.detach().repeat(*[1] * (tensor.dim() - 1), size)


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

    >>> model = nn.Sequential(nn.Linear(2, 3), LayerNorm(3))
    >>> with debug(model):
    ...     y = model(torch.full((1, 2), torch.inf))
    Traceback (most recent call last):
    ValueError: not finite: the input of norm layer '1' ...
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
