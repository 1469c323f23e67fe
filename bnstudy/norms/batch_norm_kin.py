"""Norms built on batch normalization: ghost groups, continual, and noisy batch normalization."""

from math import prod
from typing import Any

import torch
from torch import Tensor

from .base import Norm
from .batch_norm import BatchNorm
from .per_example import groups_of


class GhostBatchNorm(BatchNorm):
    """Batch normalization over ghost groups of `group_size` examples (Hoffer et al. 2017).

    >>> GhostBatchNorm(8, group_size=16)(torch.randn(64, 8, 5, 5)).shape
    torch.Size([64, 8, 5, 5])
    """

    def __init__(self, num_features: int, *, group_size: int, **batch_norm: Any):
        super().__init__(num_features, group_size=group_size, **batch_norm)


class ContinualNorm(BatchNorm):
    """Continual normalization: group normalization, then batch normalization (Pham et al. 2022).

    y = gamma * BN(GN(x)) + beta, the group norm without affine map: each example is normalized by
    itself first, so that the running moments are less biased towards the current task.

    Takes what group norm and batch norm take: num_groups (the paper: 32) or channels_per_group,
    and every argument of BatchNorm. `torch.jit.script` does not support it.

    >>> ContinualNorm(64, num_groups=32)(torch.randn(16, 64, 5, 5)).shape
    torch.Size([16, 64, 5, 5])
    """

    def __init__(
        self,
        num_features: int,
        *,
        num_groups: int | None = None,
        channels_per_group: int | None = None,
        **batch_norm: Any,
    ):
        super().__init__(num_features, **batch_norm)
        self.num_groups = groups_of(num_features, num_groups, channels_per_group)

    widened = Norm.widened  # wider groups would serve, with other bits than stored results have

    def _beyond_plain(self) -> str:
        return "ContinualNorm"

    def _checked(self, x: Tensor) -> Tensor:
        self.check(x)
        if self.num_features * prod(x.shape[2:]) == self.num_groups:
            raise ValueError(
                f"ContinualNorm on {tuple(x.shape)}: each of the {self.num_groups} groups holds "
                "one value, so the group norm inside gives a constant; use fewer groups"
            )
        if x.numel():
            x = torch.group_norm(x, self.num_groups, None, None, self.eps)
        return super()._checked(x)


class NoisyBatchNorm(BatchNorm):
    """Batch normalization with noise that undoes the stability of distributions, in training only.

    y = scale * BN(x) + shift. At every step each activation j (channel and position) redraws
    mu_j ~ U(-noise_mean, noise_mean) and sigma_j ~ U(1, noise_std); then each example draws
    shift ~ U(mu_j - jitter, mu_j + jitter) and scale ~ N(sigma_j, jitter), standard deviation
    jitter (Santurkar et al. 2018, section 2.2: not zero-mean, not unit-variance, not i.i.d. in
    time). The default constants are quoted from memory of their appendix, unconfirmed.

    The noise comes from torch's global generator, or from the attribute `generator` when set.
    It is drawn inside the forward, so a stack of networks under vmap cannot reproduce it seed by
    seed: not stackable. While the attribute `noisy` is False training adds none and draws nothing:
    population statistics are estimated so (`Calibrator`). `torch.jit.script` supports it in
    evaluation only.

    >>> layer, x = NoisyBatchNorm(8), torch.randn(16, 8)
    >>> torch.equal(layer(x), layer(x)), torch.equal(layer.eval()(x), layer(x))
    (False, True)
    """

    stackable = False
    widened = Norm.widened  # one stream of noise would serve all networks

    def __init__(
        self,
        num_features: int,
        *,
        noise_mean: float = 0.5,
        noise_std: float = 1.25,
        jitter: float = 0.1,
        **batch_norm: Any,
    ):
        super().__init__(num_features, **batch_norm)
        if noise_mean < 0 or noise_std < 1 or jitter < 0:
            raise ValueError(
                f"noise_mean={noise_mean}, noise_std={noise_std}, jitter={jitter}: need "
                "noise_mean >= 0, noise_std >= 1 (1: no rescaling), jitter >= 0"
            )
        self.noise_mean, self.noise_std, self.jitter = noise_mean, noise_std, jitter
        self.generator: torch.Generator | None = None
        self.noisy = True

    def _beyond_plain(self) -> str:
        return "the noise of NoisyBatchNorm" if self.training else ""

    def _checked(self, x: Tensor) -> Tensor:
        y = super()._checked(x)
        if not (self.training and self.noisy):
            return y
        place: dict[str, Any] = {"device": y.device, "dtype": y.dtype, "generator": self.generator}
        activation = y.shape[1:]
        mean = self.noise_mean * (2 * torch.rand(activation, **place) - 1)
        std = 1 + (self.noise_std - 1) * torch.rand(activation, **place)
        shift = mean + self.jitter * (2 * torch.rand(y.shape, **place) - 1)
        scale = std + self.jitter * torch.randn(y.shape, **place)
        return scale * y + shift
