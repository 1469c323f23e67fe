"""Normalization layers: one formula, every variant a visible argument; usable alone.

Every norm takes the number of channels first and an input (N, C, *). Choose by name:

    norm = make("group", channels_per_group=8)    # a factory
    layer = norm(64)                              # a layer for 64 channels

Examples in docstrings suppose `import torch`, `from torch import nn` and the names offered here.
docs/norms.md is the guide.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from bnstudy.errors import did_you_mean

from .base import CannotWiden, NoNorm, Norm, TooFewValues, debug
from .batch_norm import EVALUATIONS, BatchNorm
from .batch_norm_kin import ContinualNorm, GhostBatchNorm, NoisyBatchNorm
from .calibrate import ESTIMATORS, Calibrator, calibrate
from .choose import NORMS, PRESETS, make, parameters_of
from .dynamic_tanh import DynamicTanh
from .functional import Moments
from .modes import batch_norms, evaluation_mode, freeze, synchronize
from .online import OnlineNorm
from .per_example import FilterResponseNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from .power import PowerNorm
from .step_batch_norm import StepBatchNorm
from .torch_batch import TorchBatchNorm
from .weight_standardization import WeightStandardization, standardize_weights

if TYPE_CHECKING:
    from bnstudy.normtools.audit import Finding, audit
    from bnstudy.normtools.fold import Folded, fold, fold_pair, inference_speedup
    from bnstudy.normtools.replacement import PerPosition, Swap
    from bnstudy.normtools.swap import Swaps, swap_norms

__all__ = [
    "ESTIMATORS",
    "EVALUATIONS",
    "NORMS",
    "PRESETS",
    "PerPosition",
    "BatchNorm",
    "Calibrator",
    "CannotWiden",
    "ContinualNorm",
    "DynamicTanh",
    "FilterResponseNorm",
    "Finding",
    "Folded",
    "GhostBatchNorm",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "Moments",
    "NoNorm",
    "NoisyBatchNorm",
    "Norm",
    "OnlineNorm",
    "PowerNorm",
    "RMSNorm",
    "StepBatchNorm",
    "Swap",
    "Swaps",
    "TooFewValues",
    "TorchBatchNorm",
    "WeightStandardization",
    "audit",
    "batch_norms",
    "calibrate",
    "debug",
    "evaluation_mode",
    "fold",
    "fold_pair",
    "freeze",
    "inference_speedup",
    "make",
    "parameters_of",
    "standardize_weights",
    "swap_norms",
    "synchronize",
]

# The tools for anybody's network stand on the norms, so they are imported when they are asked for.
_TOOLS = {
    "audit": ("Finding", "audit"),
    "fold": ("Folded", "fold", "fold_pair", "inference_speedup"),
    "replacement": ("PerPosition", "Swap"),
    "swap": ("Swaps", "swap_norms"),
}


def __getattr__(name: str) -> object:
    for module, names in _TOOLS.items():
        if name in names:
            return getattr(import_module(f"bnstudy.normtools.{module}"), name)
    raise AttributeError(
        f"module {__name__!r} has no attribute {name!r}.{did_you_mean(name, __all__)}"
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
