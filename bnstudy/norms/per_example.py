"""Norms of one example at a time: group, layer, instance, RMS and filter response normalization.

They have no running statistics and do the same in training and evaluation, at any batch size.
"""

from typing import Self

import torch
from torch import Tensor, nn

from .base import Norm
from .functional import affine, normalize, per_channel


class _PerExample(Norm):
    """Normalize each example's channels in `num_groups` groups."""

    num_groups: int

    def widened(self, size: int) -> Self:
        return self._repeated(size)

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        if x.numel() <= x.shape[0] * self.num_groups:
            raise ValueError(
                f"{type(self).__name__} on {tuple(x.shape)}: a layer without spatial extent; each "
                f"of the {self.num_groups} groups holds one value, so the output would be a "
                "constant; use fewer groups, layer or batch norm"
            )
        if self.backend == "fused":
            if x.device.type == "cpu":  # torch's kernel for channels last forms E[x^2] - E[x]^2
                x = x.contiguous()
            return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        channels = self.num_features // self.num_groups
        return normalize(x, 1, channels, self.weight, self.bias, self.eps)[0]


class GroupNorm(_PerExample):
    """Group normalization: each example's channels are normalized in groups (Wu & He 2018).

    y = gamma * (x - mean) / sqrt(var_biased + eps) + beta, moments over (C / G, *) of one example.

    Exactly one of: num_groups = G, which must divide C; or channels_per_group = k with the rule
    `nearest`: G is the divisor of C nearest to C / k, ties to the larger G.
    The attribute `num_groups` holds G. One group is layer norm, C groups are instance norm.
    Raises ValueError when each group holds a single value: the output would be constant.
    """

    def __init__(
        self,
        num_features: int,
        *,
        num_groups: int | None = None,
        channels_per_group: int | None = None,
        **common,
    ):
        super().__init__(num_features, **common)
        self.num_groups = groups_of(num_features, num_groups, channels_per_group)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_groups={self.num_groups}"


class LayerNorm(_PerExample):
    """Layer normalization: statistics over (C, *) of one example, affine per channel.

    Ba et al. 2016 on (N, C); on images the convention of Wu & He 2018 (group norm with one group),
    which differs from torch.nn.LayerNorm over (C, H, W) in its affine map: per channel.
    """

    num_groups = 1  # of several networks side by side (`widened`): one for each

    def forward(self, x: Tensor) -> Tensor:
        single = self.num_groups == 1 and x.dim() == 2 and x.shape[1] == self.num_features > 1
        if self.backend == "fused" and single:
            return torch.layer_norm(x, x.shape[1:], self.weight, self.bias, self.eps)
        return super().forward(x)


class InstanceNorm(_PerExample):
    """Instance normalization: statistics over the positions of one channel of one example.

    Ulyanov et al. 2016; the same in training and evaluation. Raises ValueError on a layer without
    spatial extent, (N, C) or one position, where the output would be the constant beta.
    """

    def __init__(self, num_features: int, **common):
        super().__init__(num_features, **common)
        self.num_groups = num_features


class RMSNorm(Norm):
    """Root-mean-square normalization: layer norm that does not centre (Zhang & Sennrich 2019).

    y = gamma * x / sqrt(mean(x^2) + eps) + beta, the mean over (C, *) of one example; the paper
    has no beta (affine="gamma"). Keeps the sign of the mean activation, unlike layer norm.
    """

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        if self.backend == "fused":
            y = torch.rms_norm(x, x.shape[1:], None, self.eps)
            return affine(y, self.weight, self.bias)
        return normalize(x, 1, x.shape[1], self.weight, self.bias, self.eps, centred=False)[0]


class FilterResponseNorm(Norm):
    """Filter response normalization with its thresholded activation (Singh & Krishnan 2019).

    y = max(gamma * x / sqrt(nu2 + |eps|) + beta, tau), nu2 the mean of x^2 over the positions of
    one channel of one example: not centred, so tau, learned per channel, replaces ReLU's zero.

    tlu: apply the threshold max(., tau), tau = 0 at first.  eps: 1e-6 by default.
    learn_eps: eps is a parameter per channel, as the paper advises for layers of few positions.
    Raises ValueError on a layer without spatial extent unless eps is learned: the output would be
    the sign of the input.
    """

    def __init__(
        self,
        num_features: int,
        *,
        tlu: bool = True,
        learn_eps: bool = False,
        eps: float = 1e-6,
        **common,
    ):
        super().__init__(num_features, eps=eps, **common)
        self.tau = nn.Parameter(torch.zeros(num_features)) if tlu else None
        self.learned_eps = nn.Parameter(torch.full((num_features,), eps)) if learn_eps else None

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        if self.learned_eps is not None:
            nu2 = x.square().flatten(2).mean(2) if x.dim() > 2 else x.square()
            y = x * per_channel(torch.rsqrt(nu2 + self.learned_eps.abs()), x)
            y = affine(y, self.weight, self.bias)
        elif x.numel() <= x.shape[0] * x.shape[1]:
            raise ValueError(
                f"FilterResponseNorm on {tuple(x.shape)}: without spatial extent the output is the "
                "sign of the input; set learn_eps=True, or use layer or RMS norm"
            )
        elif self.backend == "fused":
            y = torch.rms_norm(x, x.shape[2:], None, self.eps)
            y = affine(y, self.weight, self.bias)
        else:
            y, _ = normalize(x, 1, 1, self.weight, self.bias, self.eps, centred=False)
        return y if self.tau is None else torch.maximum(y, per_channel(self.tau, y))


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
    if num_groups not in divisors:
        raise ValueError(
            f"num_groups={num_groups} does not divide C={channels} channels; "
            f"the divisors are {', '.join(map(str, divisors))}"
        )
    return num_groups
