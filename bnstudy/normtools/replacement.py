"""What replaces one norm layer: built with its settings, given its values."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bnstudy.norms.base import Norm
from bnstudy.norms.batch_norm import BatchNorm
from bnstudy.norms.batch_norm_kin import ContinualNorm
from bnstudy.norms.choose import NORMS, make, parameters_of
from bnstudy.norms.per_example import FilterResponseNorm, InstanceNorm, RMSNorm

TORCH_BATCH = (nn.SyncBatchNorm, nn.modules.batchnorm._BatchNorm)  # the lazy ones included
TORCH_OTHER = (nn.modules.instancenorm._InstanceNorm, nn.GroupNorm)
INSTANCE = (nn.modules.instancenorm._InstanceNorm, InstanceNorm)
PER_POSITION = (nn.LayerNorm, nn.RMSNorm)
UNCENTRED = (RMSNorm, FilterResponseNorm, nn.RMSNorm)  # beta is not the mean of the channel
NOT_PER_POSITION = {  # norms that a single position does not define
    "instance": "one value of one channel has no statistics",
    "filter_response": "one value of one channel has no statistics",
    "ghost": "its groups are of examples, not of positions",
    "online": "it goes through examples in order, which positions are not",
}
HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
)


@dataclass(frozen=True)
class Swap:
    """What was done with one norm layer.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    >>> (swap,) = swap_norms(model, "layer")
    >>> swap.before, swap.kept, swap.why
    ('BatchNorm2d', ('gamma', 'beta'), 'not kept: population')
    """

    name: str  # qualified name of its first place in the model
    before: str
    after: str | None  # None: left as it was
    kept: tuple[str, ...] = ()  # gamma, beta, population, statistics (of an instance norm)
    why: str = ""  # why it was left, or what was not kept

    def __str__(self) -> str:
        if self.after is None:
            return f"{self.name}: {self.before} left: {self.why}"
        kept = f"keeps {', '.join(self.kept)}" if self.kept else "keeps nothing"
        return f"{self.name}: {self.before} -> {self.after}, {kept}" + (
            f" ({self.why})" if self.why else ""
        )


class PerPosition(nn.Module):
    """A norm that takes every position as an example of its own, as torch.nn.LayerNorm does.

    norm: of (N, C) inputs.  axis: of the input's channels: the last, (N, *, C), or 1, (N, C, *).
    With layer norm this is torch.nn.LayerNorm(C), with RMS norm torch.nn.RMSNorm(C); batch norm
    takes its statistics over examples and positions.

    >>> x = torch.randn(2, 5, 8)
    >>> torch.allclose(PerPosition(LayerNorm(8))(x), nn.LayerNorm(8)(x), atol=1e-6)
    True
    """

    def __init__(self, norm: nn.Module, axis: int = -1):
        super().__init__()
        self.norm, self.axis = norm, axis

    def forward(self, x: Tensor) -> Tensor:
        last = x.movedim(self.axis, -1)
        y = self.norm(last.reshape(-1, last.shape[-1])).reshape(last.shape)
        return y.movedim(-1, self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


def is_norm(layer: nn.Module) -> bool:
    """Whether this is a norm layer of torch.nn, torchvision or this package."""
    kinds = (*TORCH_BATCH, *TORCH_OTHER, *PER_POSITION, Norm)
    return isinstance(layer, kinds) or type(layer).__name__ == "FrozenBatchNorm2d"


def _why_not(layer: nn.Module, per_position: bool) -> str:
    if isinstance(layer, PER_POSITION):
        if len(layer.normalized_shape) > 1:
            return (
                f"normalizes over {len(layer.normalized_shape)} axes, with a gamma for each value"
            )
        if not per_position:
            return "normalizes the channels of each position; replaced with per_position=True"
    if isinstance(layer, nn.modules.lazy.LazyModuleMixin) and layer.has_uninitialized_params():
        return "its number of channels is not known yet; run the model once first"
    kinds = (*TORCH_BATCH, *TORCH_OTHER, *PER_POSITION)
    known = next((kind for kind in kinds if isinstance(layer, kind)), None)
    if known and type(layer).forward is not known.forward and not _is_channels_first(layer):
        return f"a {known.__name__.strip('_')} with its own forward"
    return ""


def _is_channels_first(layer: nn.Module) -> bool:
    """Whether this is torchvision's LayerNorm of each position of (N, C, H, W) (ConvNeXt)."""
    kind = type(layer)
    return kind.__name__ == "LayerNorm2d" and kind.__module__.startswith("torchvision.")


def replacement(
    name: str,
    old: nn.Module,
    norm: str | Callable[[int], nn.Module],
    params: dict[str, Any],
    per_position: bool,
) -> tuple[nn.Module | None, Swap]:
    """The new layer, None where the old one is left, and what was done."""
    before = type(old).__name__
    why = _why_not(old, per_position)
    if why:
        return None, Swap(name, before, None, why=why)
    positions = isinstance(old, PER_POSITION)
    if positions and norm in NOT_PER_POSITION:
        raise ValueError(
            f"norm layer {name!r}, a {before} of each position, cannot become {norm!r}: "
            f"{NOT_PER_POSITION[str(norm)]}; choose others with layers=..."
        )
    try:
        new = _made(old, norm, params)
    except ValueError as error:
        raise ValueError(f"norm layer {name!r}: {error}") from None
    if not isinstance(new, nn.Module):
        raise TypeError(f"norm layer {name!r}: the function made a {type(new).__name__}, no module")
    kept, lost = _carry(old, new)
    detail = f"{type(new).__name__}({new.extra_repr()})"
    if positions:
        new, detail = (
            PerPosition(new, 1 if _is_channels_first(old) else -1),
            f"per-position {detail}",
        )
    for attribute in HOOKS:
        setattr(new, attribute, getattr(old, attribute))
    new.train(old.training)
    return new, Swap(name, before, detail, tuple(kept), lost)


def _made(
    old: nn.Module, norm: str | Callable[[int], nn.Module], params: dict[str, Any]
) -> nn.Module:
    """The new layer for the channels of the old one, with its settings unless params say others."""
    # a torchvision FrozenBatchNorm2d has neither num_features nor parameters: all are buffers
    weight, bias = getattr(old, "weight", None), getattr(old, "bias", None)
    channels: Any = getattr(old, "num_features", None) or getattr(old, "num_channels", None)
    if isinstance(old, PER_POSITION):
        channels = old.normalized_shape[0]
    elif channels is None and weight is not None:
        channels = len(weight)
    if not isinstance(norm, str):
        return norm(channels)
    taken = {
        "affine": {3: "both", 1: "gamma", 2: "beta", 0: "none"}[
            (weight is not None) + 2 * (bias is not None)
        ],
        "momentum": getattr(old, "momentum", None),
        "frozen": type(old).__name__ == "FrozenBatchNorm2d" or getattr(old, "frozen", False),
        "process_group": _process_group(old),
        "evaluation": _evaluation(old),
    }
    if norm == "instance" and isinstance(old, INSTANCE):
        taken["track_running_stats"] = _tracks_instances(old)
        taken["spatial_dims"] = _spatial_dims(old)
    if norm != "filter_response":  # whose eps bounds a mean square from 1e-6 up, not a variance
        dtype = torch.float32 if weight is None else weight.dtype
        taken["eps"] = torch.finfo(dtype).eps if old.eps is None else old.eps
    if not _is_batch(old):  # no population; statistics of instance norms where they stay such
        own = ("momentum", "track_running_stats", "spatial_dims")
        same = own if "track_running_stats" in taken else ()
        taken = {key: taken[key] for key in ("affine", "eps", *same) if key in taken}
    if params.get("group_size") is not None:
        taken.pop("process_group", None)
    allowed = parameters_of(NORMS[norm])
    settings = {key: value for key, value in taken.items() if key in allowed} | params
    return make(norm, **settings)(channels)


def _carry(old: nn.Module, new: nn.Module) -> tuple[list[str], str]:
    """Copy what keeps its meaning; returns its names, and what was lost."""
    tensors = [*old.parameters(recurse=False), *old.buffers(recurse=False)]
    floats = [tensor for tensor in tensors if tensor.is_floating_point()]
    if floats:
        new.to(device=floats[0].device, dtype=floats[0].dtype)
    same = ["weight", "bias"] if is_norm(new) else []
    if isinstance(new, UNCENTRED) and not isinstance(old, UNCENTRED):
        same = ["weight"]
    kept, lost = [], []
    with torch.no_grad():
        for attribute, label in (("weight", "gamma"), ("bias", "beta")):
            source, target = getattr(old, attribute, None), getattr(new, attribute, None)
            if source is None:
                continue
            if target is None or target.shape != source.shape or attribute not in same:
                lost.append(label)
                continue
            target.copy_(source)
            target.requires_grad_(source.requires_grad or not isinstance(source, nn.Parameter))
            kept.append(label)
        if _tracks_instances(old):
            if isinstance(new, InstanceNorm) and new.running_mean is not None:
                for key, buffer in old.named_buffers(recurse=False):
                    new.get_buffer(key).copy_(buffer)
                kept.append("statistics")
            else:
                lost.append("statistics")
        if getattr(old, "running_mean", None) is not None and _is_batch(old):
            # continual norm has other statistics: those of the group-normalized input
            of_one_kind = isinstance(new, ContinualNorm) == isinstance(old, ContinualNorm)
            if isinstance(new, BatchNorm | nn.modules.batchnorm._BatchNorm) and of_one_kind:
                for key, buffer in old.named_buffers(recurse=False):
                    if key in dict(new.named_buffers()):
                        new.get_buffer(key).copy_(buffer)
                kept.append("population")
            else:
                lost.append("population")
    return kept, f"not kept: {', '.join(lost)}" if lost else ""


def _is_batch(layer: nn.Module) -> bool:
    frozen = type(layer).__name__ == "FrozenBatchNorm2d"
    return frozen or isinstance(layer, (*TORCH_BATCH, BatchNorm))


def _tracks_instances(layer: nn.Module) -> bool:
    """Whether this is an instance norm with running averages of its examples' statistics."""
    return isinstance(layer, INSTANCE) and layer.running_mean is not None


def _spatial_dims(layer: nn.Module) -> int | None:
    """How many axes follow the channels, where the instance norm takes one number only."""
    kinds = {nn.InstanceNorm1d: 1, nn.InstanceNorm2d: 2, nn.InstanceNorm3d: 3}
    known = (number for kind, number in kinds.items() if isinstance(layer, kind))
    return next(known, getattr(layer, "spatial_dims", None))


def _process_group(old: nn.Module) -> Any:
    if isinstance(old, nn.SyncBatchNorm):
        return old.process_group or "world"
    return getattr(old, "process_group", None)


def _evaluation(old: nn.Module) -> str:
    if isinstance(old, TORCH_BATCH) and old.running_mean is None:
        return "batch"  # track_running_stats=False
    return getattr(old, "evaluation", "population")
