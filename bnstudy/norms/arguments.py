"""The arguments that norms take, checked by messages that say what is allowed."""

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from bnstudy.errors import did_you_mean

if TYPE_CHECKING:
    from .base import Norm

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


def parameters_of(norm: "type[Norm]") -> dict[str, inspect.Parameter]:
    """The arguments a norm takes beyond the number of channels.

    >>> list(parameters_of(GroupNorm))[:2]
    ['num_groups', 'channels_per_group']
    """
    found: dict[str, inspect.Parameter] = {}
    for cls in norm.__mro__[: norm.__mro__.index(nn.Module)]:
        own = inspect.signature(cls).parameters
        for name, parameter in own.items():
            if name != "num_features" and parameter.kind is not parameter.VAR_KEYWORD:
                found.setdefault(name, parameter)
        if not any(p.kind is p.VAR_KEYWORD for p in own.values()):
            break
    return found


def one_of(what: str, value: object, allowed: Iterable[str]) -> None:
    """Raise ValueError, naming the nearest match, unless value is among the allowed names."""
    allowed = list(allowed)
    if value not in allowed:
        hint = did_you_mean(str(value), allowed)
        raise ValueError(f"{what}={value!r}: choose one of {', '.join(allowed)}.{hint}")


def require(condition: bool, message: str) -> None:
    """Raise ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def learned(affine: bool | str, bias: bool) -> str:
    """Which of gamma and beta are learned, by name; torch's booleans mean both and none."""
    if isinstance(affine, bool):
        affine = "both" if affine else "none"
    one_of("affine", affine, AFFINE)
    if not bias and affine == "beta":
        raise ValueError("affine='beta' learns beta alone and bias=False leaves it out: give one")
    return "gamma" if affine == "both" and not bias else affine


def no_argument(norm: "type[Norm]", name: str) -> TypeError:
    """The error for an argument that a norm does not have: says why, or names the nearest."""
    allowed = parameters_of(norm)
    why = REFUSED.get(name)
    text = f": {why}." if why else f".{did_you_mean(name, allowed)}"
    return TypeError(f"{norm.__name__} has no argument {name!r}{text} It has {', '.join(allowed)}.")


def check_renormalization(
    r_max: float | None, d_max: float | None, warmup: tuple[int, int, int] | None
) -> None:
    """Raise unless the bounds of Batch Renormalization, and their warm-up, make sense."""
    require(
        (r_max is None) == (d_max is None),
        f"Batch Renormalization takes both r_max and d_max; got r_max={r_max}, d_max={d_max}",
    )
    if r_max is None or d_max is None:
        require(warmup is None, "renorm_warmup needs r_max and d_max")
        return
    require(r_max >= 1, f"r_max={r_max}: at least 1 (no rescaling)")
    require(d_max >= 0, f"d_max={d_max}: at least 0 (no shift)")
    if warmup is None:
        return
    require(
        max(r_max, d_max) < float("inf"),
        "renorm_warmup: a linear rise to an infinite r_max or d_max is not defined",
    )
    require(
        len(warmup) == 3 and 0 <= warmup[0] <= min(warmup[1:]),
        f"renorm_warmup={warmup}: (hold, r_full, d_full) in updates, 0 <= hold <= r_full, d_full",
    )


def one_value(x: Tensor, examples: int) -> str:
    """The message for batch statistics of a single value per channel."""
    return (
        f"batch statistics of {examples} example without spatial extent, input {tuple(x.shape)}: "
        "one value per channel has no variance; use larger batches or groups, layer or group norm, "
        "or population statistics (eval() or frozen)"
    )
