"""Norms of one example at a time: group, layer, instance, RMS and filter response normalization.

They do the same in training and evaluation, at any batch size, and keep no running statistics
(instance normalization does so on request, as torch.nn's).
"""

from math import prod
from typing import Any, Self

import torch
from torch import Tensor, nn

from .base import Norm
from .functional import (
    affine,
    average_in,
    in_layout_of,
    moments,
    normalize,
    normalize_with,
    of_nothing,
    per_channel,
)


class _PerExample(Norm):
    """Normalize each example's channels in `num_groups` groups."""

    num_groups: int

    def widened(self, size: int) -> Self:
        return self._repeated(size)

    def _checked(self, x: Tensor) -> Tensor:
        self.check(x)
        if self.num_features * prod(x.shape[2:]) == self.num_groups:
            raise ValueError(
                f"{type(self).__name__} on {tuple(x.shape)}: a layer without spatial extent; each "
                f"of the {self.num_groups} groups holds one value, so the output would be a "
                "constant; use fewer groups, layer or batch norm" + self._hint(x)
            )
        if x.numel() == 0:
            return of_nothing(x, self.weight, self.bias)
        if self.backend == "fused":
            return self._fused(x)
        channels = self.num_features // self.num_groups
        return normalize(x, 1, channels, self.weight, self.bias, self.eps)[0]

    def _plain(self, x: Tensor) -> Tensor:
        return self._fused(x)

    def _fused(self, x: Tensor) -> Tensor:
        return _group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def _hint(self, x: Tensor) -> str:
        return ""


class GroupNorm(_PerExample):
    """Group normalization: each example's channels are normalized in groups (Wu & He 2018).

    y = gamma * (x - mean) / sqrt(var_biased + eps) + beta, moments over (C / G, *) of one example.

    Exactly one of: num_groups = G, which must divide C; or channels_per_group = k with the rule
    `nearest`: G is the divisor of C nearest to C / k, ties to the larger G.
    The attribute `num_groups` holds G. One group is layer norm, C groups are instance norm.
    torch.nn.GroupNorm takes (num_groups, num_channels); here the channels come first and everything
    else is named. Raises ValueError when each group holds a single value, where the output would
    be constant, and, as torch.nn's, for examples of no positions.

    >>> GroupNorm(64, num_groups=32).num_groups, GroupNorm(20, channels_per_group=8).num_groups
    (32, 2)
    """

    def __init__(
        self,
        num_features: int,
        *,
        num_groups: int | None = None,
        channels_per_group: int | None = None,
        **common: Any,
    ):
        super().__init__(num_features, **common)
        self.num_groups = groups_of(num_features, num_groups, channels_per_group)

    def _checked(self, x: Tensor) -> Tensor:
        if 0 in x.shape[2:]:
            raise ValueError(
                f"GroupNorm on {tuple(x.shape)}: examples of no positions have no statistics; "
                "check what cut the input down to nothing"
            )
        return super()._checked(x)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_groups={self.num_groups}"


class LayerNorm(_PerExample):
    """Layer normalization: statistics over (C, *) of one example, affine per channel.

    Ba et al. 2016 on (N, C); on images the convention of Wu & He 2018 (group norm with one group),
    which differs from torch.nn.LayerNorm over (C, H, W) in its affine map: per channel.

    >>> y = LayerNorm(8)(torch.randn(4, 8, 5, 5))
    >>> bool(y.mean((1, 2, 3)).abs().max() < 1e-5)
    True
    """

    def __init__(self, num_features: int, eps: float = 1e-5, **common: Any):
        super().__init__(num_features, eps, **common)
        self.num_groups = 1  # of several networks side by side (`widened`): one for each

    def _fused(self, x: Tensor) -> Tensor:
        if x.dim() == 2 and self.num_groups == 1:
            return torch.layer_norm(x, x.shape[1:], self.weight, self.bias, self.eps)
        return _group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class InstanceNorm(_PerExample):
    """Instance normalization: statistics over the positions of one channel of one example.

    Ulyanov et al. 2016. A drop-in for torch.nn.InstanceNorm1d, 2d and 3d, whose arguments come
    first, in their order, except that `affine` is True by default, as in every norm here.

    track_running_stats: keep running_mean and running_var (Bessel-corrected), the averages over
    examples of their own moments, updated with weight `momentum` in training, and evaluate with
    them. They are no population statistics in the sense of `calibrate` and `freeze`.
    spatial_dims: 1, 2 or 3 axes after the channels, and then one example without batch, (C, *), is
    taken, too, as torch.nn's do. None: any number of axes, always with the batch, because (C, L)
    and (N, C) cannot be distinguished.

    `torch.jit.script` does not support track_running_stats=True.

    Raises ValueError on a layer without spatial extent, (N, C) or one position, where the output
    would be the constant beta; and, as torch.nn's, on an empty batch where gamma or beta learn.

    >>> y = InstanceNorm(8)(torch.randn(4, 8, 5, 5))
    >>> bool(y.mean((2, 3)).abs().max() < 1e-5)
    True
    """

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None  # stays 0, as in torch.nn

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool | str = True,
        track_running_stats: bool = False,
        *,
        spatial_dims: int | None = None,
        **common: Any,
    ):
        super().__init__(num_features, eps, affine=affine, **common)
        if spatial_dims not in (None, 1, 2, 3):
            raise ValueError(f"spatial_dims={spatial_dims}: 1, 2 or 3, or None for any number")
        if track_running_stats and (momentum is None or not 0 <= momentum <= 1):
            raise ValueError(f"momentum={momentum}: 0 to 1, the weight of the newest batch")
        self.num_groups = num_features
        self.momentum, self.spatial_dims = momentum, spatial_dims
        tracked = track_running_stats
        count = torch.zeros((), dtype=torch.long, device=self._factory["device"])
        self.register_buffer("running_mean", self._filled(0.0) if tracked else None)
        self.register_buffer("running_var", self._filled(1.0) if tracked else None)
        self.register_buffer("num_batches_tracked", count if tracked else None)

    def _beyond_plain(self) -> str:
        return "track_running_stats" if self.running_mean is not None else ""

    def _plain(self, x: Tensor) -> Tensor:
        if self.running_mean is not None:
            raise ValueError("TorchScript supports InstanceNorm without track_running_stats only")
        spatial_dims = self.spatial_dims
        if spatial_dims is not None:  # noqa: SIM102  # TorchScript knows the type within only
            if x.dim() == spatial_dims + 1:
                return self._fused(x[None])[0]
        return self._fused(x)

    def _checked(self, x: Tensor) -> Tensor:
        if self.spatial_dims is not None and x.dim() == self.spatial_dims + 1:
            return self._checked(x[None])[0]
        self.check(x)
        if len(x) == 0 and self.affine != "none":
            raise ValueError(
                f"InstanceNorm with an affine map on an empty batch {tuple(x.shape)}: torch.nn's "
                "refuses it, too; skip empty batches, or give affine=False"
            )
        if self.running_mean is None or self.running_var is None:
            return super()._checked(x)
        if not self.training and x.numel():
            mean, var = self.running_mean, self.running_var
            return normalize_with(x, mean, var, self.weight, self.bias, self.eps)
        if not self.training:
            return of_nothing(x, self.weight, self.bias)
        y = super()._checked(x)
        if x.numel():
            self._update(x.detach(), self.running_mean, self.running_var)
        return y

    def check(self, x: Tensor) -> None:
        if self.spatial_dims is not None and x.dim() != self.spatial_dims + 2:
            raise ValueError(
                f"InstanceNorm with spatial_dims={self.spatial_dims} takes a batch of "
                f"{self.spatial_dims + 2} axes (N, C, *), or one example of "
                f"{self.spatial_dims + 1} (C, *); got {x.dim()}: {tuple(x.shape)}"
            )
        unbatched = 2 <= x.dim() <= 4 and x.shape[0] == self.num_features != x.shape[1]
        if self.spatial_dims is None and unbatched:
            raise ValueError(
                f"InstanceNorm has num_features={self.num_features}, but the input "
                f"{tuple(x.shape)} has {x.shape[1]} channels (axis 1, behind the batch); if it is "
                f"one example without batch, give spatial_dims={x.dim() - 1}"
            )
        super().check(x)

    @torch.no_grad()
    def _update(self, x: Tensor, mean: Tensor, var: Tensor) -> None:
        own, weight = moments(x, 1, 1), self.momentum or 0.0
        positions = prod(x.shape[2:])
        average_in(mean, own.mean.mean(0), weight)
        average_in(var, own.var_biased.mean(0) * (positions / (positions - 1)), weight)

    def _hint(self, x: Tensor) -> str:
        if x.dim() > 2 or self.spatial_dims is not None:
            return ""
        return "; if this is one example (C, L) without batch, give spatial_dims=1"


class RMSNorm(Norm):
    """Root-mean-square normalization: layer norm that does not centre (Zhang & Sennrich 2019).

    y = gamma * x / sqrt(mean(x^2) + eps) + beta, the mean over (C, *) of one example; the paper
    has no beta (affine="gamma"). Keeps the sign of the mean activation, unlike layer norm.

    >>> RMSNorm(2, affine=False)(torch.tensor([[3.0, -3.0]]))
    tensor([[ 1.0000, -1.0000]])
    """

    def _plain(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return self._fused(x)
        if torch.onnx.is_in_onnx_export():  # the legacy exporter has no rms_norm
            square = x.square().mean(list(range(1, x.dim())), keepdim=True)
            return affine(x * torch.rsqrt(square + self.eps), self.weight, self.bias)
        return self._fused(x)

    def _fused(self, x: Tensor) -> Tensor:
        y = torch.rms_norm(x, x.shape[1:], None, self.eps)
        return affine(y, self.weight, self.bias)

    def _checked(self, x: Tensor) -> Tensor:
        self.check(x)
        if x.numel() == 0:
            return of_nothing(x, self.weight, self.bias)
        if self.backend == "fused":
            return self._fused(x)
        return normalize(x, 1, x.shape[1], self.weight, self.bias, self.eps, centred=False)[0]


class FilterResponseNorm(Norm):
    """Filter response normalization with its thresholded activation (Singh & Krishnan 2019).

    y = max(gamma * x / sqrt(nu2 + |eps|) + beta, tau), nu2 the mean of x^2 over the positions of
    one channel of one example: not centred, so tau, learned per channel, replaces ReLU's zero.

    tlu: apply the threshold max(., tau), tau = 0 at first.  eps: 1e-6 by default.
    learn_eps: eps is a parameter per channel, as the paper advises for layers of few positions.
    Raises ValueError on a layer without spatial extent unless eps is learned: the output would be
    the sign of the input. `torch.jit.script` does not support it.

    >>> bool((FilterResponseNorm(8)(torch.randn(4, 8, 5, 5)) >= 0).all())  # thresholded
    True
    """

    def __init__(
        self,
        num_features: int,
        *,
        tlu: bool = True,
        learn_eps: bool = False,
        eps: float = 1e-6,
        **common: Any,
    ):
        super().__init__(num_features, eps, **common)
        self.tau = nn.Parameter(self._filled(0.0)) if tlu else None
        self.learned_eps = nn.Parameter(self._filled(eps)) if learn_eps else None

    def _beyond_plain(self) -> str:
        return "FilterResponseNorm"

    def _checked(self, x: Tensor) -> Tensor:
        self.check(x)
        if self.learned_eps is None and prod(x.shape[2:]) == 1:
            raise ValueError(
                f"FilterResponseNorm on {tuple(x.shape)}: without spatial extent the output is the "
                "sign of the input; set learn_eps=True, or use layer or RMS norm"
            )
        if x.numel() == 0:
            y = affine(of_nothing(x, self.weight, self.bias), self.learned_eps, None)
        elif self.learned_eps is not None:
            nu2 = x.square().flatten(2).mean(2) if x.dim() > 2 else x.square()
            y = x * per_channel(torch.rsqrt(nu2 + self.learned_eps.abs()), x)
            y = affine(y, self.weight, self.bias)
        elif self.backend == "fused":
            y = torch.rms_norm(x, x.shape[2:], None, self.eps)
            y = affine(y, self.weight, self.bias)
        else:
            y, _ = normalize(x, 1, 1, self.weight, self.bias, self.eps, centred=False)
        return y if self.tau is None else torch.maximum(y, per_channel(self.tau, y))


def _group_norm(
    x: Tensor, num_groups: int, gamma: Tensor | None, beta: Tensor | None, eps: float
) -> Tensor:
    # torch's CPU kernel for channels last forms E[x^2] - E[x]^2
    return in_layout_of(x, torch.group_norm(x.contiguous(), num_groups, gamma, beta, eps))


def groups_of(channels: int, num_groups: int | None, channels_per_group: int | None) -> int:
    """The number of groups, given as such or by the rule `nearest`; exactly one is given."""
    if (num_groups is None) == (channels_per_group is None):
        raise ValueError(
            "group norm takes exactly one of num_groups and channels_per_group; got "
            f"num_groups={num_groups}, channels_per_group={channels_per_group}"
        )
    divisors = [d for d in range(1, channels + 1) if channels % d == 0]
    if channels_per_group is not None:
        if channels_per_group < 1:
            raise ValueError(f"channels_per_group={channels_per_group}: must be at least 1")
        return min(divisors, key=lambda d: (abs(d - channels / channels_per_group), -d))
    if num_groups is None or num_groups not in divisors:
        raise ValueError(
            f"num_groups={num_groups} does not divide C={channels} channels; "
            f"the divisors are {', '.join(map(str, divisors))}; channels_per_group=k takes the "
            "divisor nearest to C / k, in every layer"
        )
    return num_groups
