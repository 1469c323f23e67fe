"""Exchange the norm layers of any torch module for others, and back."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bnstudy.norms.base import Norm
from bnstudy.norms.batch_norm import BatchNorm
from bnstudy.norms.batch_norm_kin import ContinualNorm
from bnstudy.norms.choose import NORMS, make, parameters_of
from bnstudy.norms.per_example import FilterResponseNorm, InstanceNorm, RMSNorm

TORCH_BATCH = (nn.SyncBatchNorm, nn.modules.batchnorm._BatchNorm)  # the lazy ones included
TORCH_OTHER = (nn.modules.instancenorm._InstanceNorm, nn.GroupNorm)
INSTANCE = (nn.modules.instancenorm._InstanceNorm, InstanceNorm)
CHANNELS_LAST = (nn.LayerNorm, nn.RMSNorm)
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
    """What was done with one norm layer."""

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


class Swaps:
    """The report of `swap_norms`, layer by layer; `undo` puts the original layers back."""

    def __init__(self, swaps: list[Swap], places: list[tuple[nn.Module, str, nn.Module]]):
        self.swaps, self._places = swaps, places

    def undo(self) -> None:
        """Put the very layers back that were replaced, as they were."""
        for parent, key, layer in self._places:
            parent._modules[key] = layer

    @property
    def replaced(self) -> list[Swap]:
        return [swap for swap in self.swaps if swap.after is not None]

    @property
    def left(self) -> list[Swap]:
        return [swap for swap in self.swaps if swap.after is None]

    def __iter__(self) -> Iterator[Swap]:
        return iter(self.swaps)

    def __len__(self) -> int:
        return len(self.swaps)

    def __str__(self) -> str:
        return "\n".join(map(str, self.swaps))


def swap_norms(model: nn.Module, norm: str, **params: Any) -> Swaps:
    """Replace every norm layer of a model, in place, by the named norm; returns a report.

    norm, params: as in `make`; eps, momentum and which of gamma and beta are learned are taken
    over from each old layer where params do not say otherwise. gamma and beta keep their values
    where they still scale and shift a centred, normalized channel; population statistics where the
    new layer normalizes with the same ones. Device, dtype, requires_grad, training state and hooks
    (their handles still work) carry over; a layer used in several places stays one layer.

    Left as they are, with the reason in the report: norms of the last axis (torch's LayerNorm:
    channels come first here), layers of unknown channels, subclasses with their own forward.
    Raises ValueError, with the model unchanged, when there is no norm layer, or when one refuses
    the parameters (named).
    """
    make(norm, **params)  # refuses wrong names before anything is touched
    places = [
        (f"{prefix}.{key}" if prefix else key, parent, key, layer)
        for prefix, parent in model.named_modules()
        for key, layer in parent._modules.items()
        if layer is not None and _is_norm(layer)
    ]
    if not places:
        what = "is itself a norm layer" if _is_norm(model) else "has no norm layers"
        raise ValueError(f"nothing to swap: the model {what}")
    built: dict[int, nn.Module | None] = {}
    swaps = []
    for name, _, _, layer in places:
        if id(layer) not in built:
            built[id(layer)], swap = _replace(name, layer, norm, params)
            swaps.append(swap)
    done = []
    for _, parent, key, layer in places:
        replacement = built[id(layer)]
        if replacement is not None:
            parent._modules[key] = replacement
            done.append((parent, key, layer))
    return Swaps(swaps, done)


def _is_norm(layer: nn.Module) -> bool:
    kinds = (*TORCH_BATCH, *TORCH_OTHER, *CHANNELS_LAST, Norm)
    return isinstance(layer, kinds) or type(layer).__name__ == "FrozenBatchNorm2d"


def _why_not(layer: nn.Module) -> str:
    if isinstance(layer, CHANNELS_LAST):
        return "normalizes the last axis of every position; norms here have channels first"
    if isinstance(layer, nn.modules.lazy.LazyModuleMixin) and layer.has_uninitialized_params():
        return "its number of channels is not known yet; run the model once first"
    known = next((k for k in (*TORCH_BATCH, *TORCH_OTHER) if isinstance(layer, k)), None)
    if known is not None and type(layer).forward is not known.forward:
        return f"a {known.__name__.strip('_')} with its own forward"
    return ""


def _replace(
    name: str, old: nn.Module, norm: str, params: dict[str, Any]
) -> tuple[nn.Module | None, Swap]:
    before = type(old).__name__
    why = _why_not(old)
    if why:
        return None, Swap(name, before, None, why=why)
    allowed = parameters_of(NORMS[norm])
    # a torchvision FrozenBatchNorm2d has neither num_features nor parameters: all are buffers
    weight, bias = getattr(old, "weight", None), getattr(old, "bias", None)
    channels: Any = getattr(old, "num_features", None) or getattr(old, "num_channels", None)
    if channels is None and weight is not None:
        channels = len(weight)
    taken = {
        "affine": {3: "both", 1: "gamma", 2: "beta", 0: "none"}[
            (weight is not None) + 2 * (bias is not None)
        ],
        "momentum": getattr(old, "momentum", None),
        "frozen": before == "FrozenBatchNorm2d" or getattr(old, "frozen", False),
        "process_group": _process_group(old),
        "evaluation": _evaluation(old),
    }
    if norm == "instance" and isinstance(old, INSTANCE):
        taken["track_running_stats"] = _tracks_instances(old)
        taken["spatial_dims"] = _spatial_dims(old)
    if norm != "filter_response":  # whose eps bounds a mean square from 1e-6 up, not a variance
        taken["eps"] = old.eps
    if not _is_batch(old):  # no population; statistics of instance norms where they stay such
        own = ("momentum", "track_running_stats", "spatial_dims")
        same = own if "track_running_stats" in taken else ()
        taken = {key: taken[key] for key in ("affine", "eps", *same) if key in taken}
    if params.get("group_size") is not None:
        taken.pop("process_group", None)
    settings = {key: value for key, value in taken.items() if key in allowed} | params
    try:
        new = make(norm, **settings)(channels)
    except ValueError as error:
        raise ValueError(f"norm layer {name!r}: {error}") from None
    kept, lost = _carry(old, new)
    for attribute in HOOKS:
        setattr(new, attribute, getattr(old, attribute))
    new.train(old.training)
    detail = f"{type(new).__name__}({new.extra_repr()})"
    return new, Swap(name, before, detail, tuple(kept), lost)


def _carry(old: nn.Module, new: nn.Module) -> tuple[list[str], str]:
    """Copy what keeps its meaning; returns its names, and what was lost."""
    tensors = [*old.parameters(recurse=False), *old.buffers(recurse=False)]
    floats = [tensor for tensor in tensors if tensor.is_floating_point()]
    if floats:
        new.to(device=floats[0].device, dtype=floats[0].dtype)
    same = ["weight", "bias"]
    if isinstance(new, RMSNorm | FilterResponseNorm):
        same = ["weight"]  # not centred: beta no longer is the mean of the channel
    kept, lost = [], []
    with torch.no_grad():
        for attribute, label in (("weight", "gamma"), ("bias", "beta")):
            source, target = getattr(old, attribute, None), getattr(new, attribute)
            if source is None:
                continue
            if target is None or attribute not in same:
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
            if isinstance(new, BatchNorm) and of_one_kind:
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
