"""Exchange the norm layers of any torch module for others, and back."""

from collections import Counter
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from bnstudy.errors import did_you_mean
from bnstudy.norms.choose import make, resolved
from bnstudy.norms.weight_standardization import WeightStandardization, standardize_weights

from .replacement import Swap, is_norm, replacement


class Swaps:
    """The report of `swap_norms`, layer by layer; `undo` puts the original layers back.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    >>> report = swap_norms(model, "rms")
    >>> len(report.replaced), len(report.left), type(model[1]).__name__
    (1, 0, 'RMSNorm')
    >>> report.undo()
    >>> type(model[1]).__name__
    'BatchNorm2d'
    """

    def __init__(
        self,
        swaps: list[Swap],
        places: list[tuple[nn.Module, str, nn.Module]],
        standardized: list[nn.Module] | None = None,
    ):
        self.swaps, self._places, self._standardized = swaps, places, standardized or []

    def undo(self) -> None:
        """Put the very layers back that were replaced, as they were; weights learn on raw."""
        for parent, key, layer in self._places:
            parent._modules[key] = layer
        while self._standardized:
            layer = self._standardized.pop()
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)

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


def swap_norms(
    model: nn.Module,
    norm: str | Callable[[int], nn.Module],
    *,
    layers: str | Callable[[str], bool] | None = None,
    per_position: bool = False,
    **params: Any,
) -> Swaps:
    """Replace every norm layer of a model, in place, by the chosen norm; returns a report.

    norm, params: as in `make`; eps, momentum and which of gamma and beta are learned are taken
    over from each old layer where params do not say otherwise. "ws_group" also standardizes the
    weights of all convolutions and linear layers. Or norm is a function of the number of channels
    that returns a layer, to which values are carried over, but no settings.
    layers: which norm layers, by qualified name: a pattern ("layer4.*") or a predicate; None: all.
    A layer used in several places stays one layer, chosen by any of its names.
    per_position: also replace torch's LayerNorm and RMSNorm over the channels (transformers, Swin,
    ConvNeXt), through `PerPosition`: each position counts as an example.
    Groups: channels_per_group=k takes in each layer the divisor of C nearest to C / k, and the
    report says how many groups that makes; num_groups must divide every C.

    gamma and beta keep their values where they still scale and shift a centred, normalized
    channel; population statistics where the new layer normalizes with the same ones. Device,
    dtype, requires_grad, training state and hooks (their handles still work) carry over.

    torch.optim.swa_utils.update_bn and torch.nn.SyncBatchNorm.convert_sync_batchnorm pass over the
    new batch norms in silence: call `calibrate` and `synchronize` instead.

    Left as they are, with the reason in the report: norms of each position unless per_position,
    layers of unknown channels, subclasses with their own forward.
    Raises ValueError, with the model unchanged, when there is no norm layer, when none is chosen or
    replaced (with what there is), or when a layer refuses the norm or its parameters (named).

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.BatchNorm2d(8))
    >>> print(swap_norms(model, "group", num_groups=2, layers="1"))
    1: BatchNorm2d -> GroupNorm(8, ..., num_groups=2), keeps gamma, beta (not kept: population)
    """
    standardize = False
    if isinstance(norm, str):
        norm, params = resolved(norm, params)
        standardize = params.pop("weight_standardization", False)
        make(norm, **params)  # refuses wrong names before anything is touched
    elif params:
        raise TypeError(
            f"{', '.join(params)}: parameters belong to a norm by name; a function of the number "
            "of channels, as given, makes its layers itself"
        )
    places = _chosen(model, layers)
    built: dict[int, nn.Module | None] = {}
    swaps = []
    for name, _, _, layer in places:
        if id(layer) not in built:
            built[id(layer)], swap = replacement(name, layer, norm, params, per_position)
            swaps.append(swap)
    if all(swap.after is None for swap in swaps):
        reasons = "\n".join(map(str, swaps))
        hint = " (per_position=True replaces LayerNorm and RMSNorm)" * (not per_position)
        raise ValueError(f"nothing swapped: every norm layer would be left{hint}\n{reasons}")
    standardized = []
    if standardize:  # may refuse
        standardized = [m for m in standardize_weights(model).modules() if _is_standardized(m)]
    done = []
    for _, parent, key, layer in places:
        new = built[id(layer)]
        if new is not None:
            parent._modules[key] = new
            done.append((parent, key, layer))
    return Swaps(swaps, done, standardized)


def _chosen(
    model: nn.Module, layers: str | Callable[[str], bool] | None
) -> list[tuple[str, nn.Module, str, nn.Module]]:
    """(qualified name, parent, its key, layer) of every place of the norm layers to replace."""
    places = [
        (f"{prefix}.{key}" if prefix else key, parent, key, layer)
        for prefix, parent in model.named_modules()
        for key, layer in parent._modules.items()
        if layer is not None and is_norm(layer)
    ]
    if not places:
        leaves = Counter(type(m).__name__ for m in model.modules() if not [*m.children()])
        seen = ", ".join(f"{number} {name}" for name, number in leaves.most_common())
        what = "is itself a norm layer" if is_norm(model) else f"has no norm layers, only {seen}"
        raise ValueError(f"nothing to swap: the model {what}")
    if layers is None:
        return places
    names = [name for name, *_ in places]
    if isinstance(layers, str):
        pattern = layers
        chosen = {id(layer) for name, *_, layer in places if fnmatchcase(name, pattern)}
    else:
        chosen = {id(layer) for name, *_, layer in places if layers(name)}
    if not chosen:
        hint = did_you_mean(layers, names) if isinstance(layers, str) else ""
        raise ValueError(
            f"nothing to swap: layers={layers!r} chooses none of the model's {len(names)} norm "
            f"layers: {', '.join(names)}.{hint}"
        )
    return [place for place in places if id(place[3]) in chosen]


def _is_standardized(layer: nn.Module) -> bool:
    return parametrize.is_parametrized(layer, "weight") and any(
        isinstance(one, WeightStandardization)
        for one in layer.parametrizations["weight"]  # type: ignore[index]
    )
