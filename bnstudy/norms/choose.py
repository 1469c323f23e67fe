"""Norms by name."""

from collections.abc import Callable
from functools import partial
from typing import Any

from .arguments import one_of, parameters_of
from .base import NoNorm, Norm
from .batch_norm import BatchNorm
from .batch_norm_kin import ContinualNorm, GhostBatchNorm, NoisyBatchNorm
from .dynamic_tanh import DynamicTanh
from .online import OnlineNorm
from .per_example import FilterResponseNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from .power import PowerNorm
from .torch_batch import TorchBatchNorm

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
    "dyt": DynamicTanh,
    "power": PowerNorm,
    "continual": ContinualNorm,
    "noisy": NoisyBatchNorm,
    "torch_batch": TorchBatchNorm,
}

# names for a norm with settings, as `norm=renorm` on the command line (configs/norm/renorm.yaml)
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "renorm": ("batch", {"r_max": 3.0, "d_max": 5.0}),  # Ioffe 2017
    "recurrent_batch": ("batch", {"gamma_init": 0.1}),  # Cooijmans et al. 2017
    # Qiao et al. 2019; acts on weights, too
    "ws_group": ("group", {"channels_per_group": 8, "weight_standardization": True}),
}
GROUPS = ("num_groups", "channels_per_group")  # one of them is given


def resolved(name: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The norm behind a name of NORMS or PRESETS, and its settings: params before the preset's."""
    one_of("norm", name, [*NORMS, *PRESETS])
    name, settings = PRESETS.get(name, (name, {}))
    if any(params.get(key) is not None for key in GROUPS):
        settings = {key: value for key, value in settings.items() if key not in GROUPS}
    return name, settings | params


def make(name: str, **params: Any) -> Callable[[int], Norm]:
    """A factory of norm layers, num_features -> layer, by name.

    name: of NORMS or PRESETS. params: arguments of the norm; they replace a preset's.
    Raises ValueError for an unknown name or parameter, a missing one, or a value the norm refuses
    whatever the number of channels; and for "ws_group", which standardizes a model's weights, too.

    >>> norm = make("group", channels_per_group=8)
    >>> norm(64).num_groups
    8
    >>> make("renorm")(64).r_max
    3.0
    """
    name, params = resolved(name, params)
    if params.pop("weight_standardization", False):
        rest = "".join(f", {key}={value!r}" for key, value in params.items())
        raise ValueError(
            "weight_standardization is of a model's weights, which no norm layer has: use "
            f"swap_norms(model, ...), which does both, or make({name!r}{rest}) for the layers and "
            "standardize_weights(model)"
        )
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
