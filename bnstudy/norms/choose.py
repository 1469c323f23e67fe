"""Norms by name."""

from collections.abc import Callable
from functools import partial
from typing import Any

from .arguments import one_of, parameters_of
from .base import NoNorm, Norm
from .batch_norm import BatchNorm
from .batch_norm_kin import ContinualNorm, GhostBatchNorm, NoisyBatchNorm
from .online import OnlineNorm
from .per_example import FilterResponseNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm

NORMS: dict[str, type[Norm]] = {
    "none": NoNorm,
    "batch": BatchNorm,
    "ghost": GhostBatchNorm,
    "group": GroupNorm,
    "layer": LayerNorm,
    "instance": InstanceNorm,
    "rms": RMSNorm,
    "filter_response": FilterResponseNorm,
    "online": OnlineNorm,
    "continual": ContinualNorm,
    "noisy": NoisyBatchNorm,
}


def make(name: str, **params: Any) -> Callable[[int], Norm]:
    """A factory of norm layers, num_features -> layer, by name.

    Raises ValueError for an unknown name or parameter, a missing one, or a value the norm refuses
    whatever the number of channels.
    """
    one_of("norm", name, NORMS)
    norm = NORMS[name]
    allowed = parameters_of(norm)
    for key in params:
        if key not in allowed:
            one_of(f"parameter of norm {name!r}", key, allowed)
    for key, parameter in allowed.items():
        if parameter.default is parameter.empty and key not in params:
            raise ValueError(f"norm {name!r} needs {key}")
    if params.get("num_groups") is None:  # a given number of groups may not divide the probe's C
        norm(1, **params)
    return partial(norm, **params)
