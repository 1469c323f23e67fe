"""Batch, layer, instance and group normalization are one formula over different sets of values.

Every value x of an input (N, C, *) is centred and scaled by the moments of the set S it belongs to,
then each channel is mapped affinely (Wu & He 2018, section 3, equations 1 to 6):

    y = gamma * (x - mean_S) / sqrt(var_S + eps) + beta          var_S biased: divided by |S|

All positions `*` of an example always share statistics. The norms differ in two integers only:
how many consecutive examples, and how many consecutive channels, share them too.

    norm               examples    channels    one mean and variance for each
    batch              N           1           channel
    ghost              n < N       1           group of n examples and channel
    group              1           C / G       example and group of channels
    layer              1           C           example
    instance           1           1           example and channel
    rms                1           C           as layer, but mean_S = 0 (not centred)
    filter response    1           1           as instance, but mean_S = 0 (not centred)
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Mean and biased variance of each set, both shaped (N / examples, C / channels).

    >>> layer = BatchNorm(1, keep_moments=True)
    >>> y = layer(torch.tensor([[0.0], [2.0]]))
    >>> layer.moments.mean.item(), layer.moments.var_biased.item(), layer.moments.count
    (1.0, 1.0, 2)
    """

    mean: Tensor
    var_biased: Tensor
    count: int  # type: ignore[assignment]  # values in each set (a tuple has a method count)


class MaskedMoments(NamedTuple):
    """Mean and biased variance of sets that differ in size."""

    mean: Tensor
    var_biased: Tensor
    count: Tensor  # type: ignore[assignment]  # values in each set


def normalize(
    x: Tensor,
    examples: int,
    channels: int,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    eps: float = 1e-5,
    centred: bool = True,
) -> tuple[Tensor, Moments]:
    """The formula above in plain tensor operations: (y, moments).

    x (N, C, *); gamma, beta (C,) or None. Statistics are taken in float32 when x has less.
    """
    sets = _sets(x, examples, channels)
    mean, var = _mean_and_variance(sets, centred)
    y = ((sets - mean) / torch.sqrt(var + eps)).reshape(x.shape)
    return affine(y, gamma, beta).to(x.dtype), _moments(sets, mean, var)


def moments(x: Tensor, examples: int, channels: int) -> Moments:
    """The moments alone, differentiable."""
    sets = _sets(x, examples, channels)
    return _moments(sets, *_mean_and_variance(sets, centred=True))


def masked_moments(x: Tensor, mask: Tensor, examples: int) -> MaskedMoments:
    """Moments of the valid values in each group of `examples` consecutive rows, differentiable.

    x (N, C); mask (N, G), true where valid, each column for C / G consecutive channels. Shapes of
    mean and variance (groups, G, C / G), of the count (groups, G, 1). Where nothing is valid: 0, 0
    and 0.
    """
    groups, blocks = len(x) // examples, mask.shape[1]
    sets = at_least_float32(x).reshape(groups, examples, blocks, -1)
    valid = mask.reshape(groups, examples, blocks, 1)
    count = valid.sum(1).to(sets.dtype)
    some = count.clamp(min=1)
    # not a product with the mask: padding may hold anything, infinity too
    mean = sets.masked_fill(~valid, 0).sum(1) / some
    deviation = (sets - mean[:, None]).masked_fill(~valid, 0)
    return MaskedMoments(mean, deviation.square().sum(1) / some, count)


def affine(x: Tensor, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
    """Scale and shift each channel of x (N, C, *); gamma, beta (C,), or (N, C) for each example."""
    if gamma is not None:
        x = x * per_channel(gamma, x)
    if beta is not None:
        x = x + per_channel(beta, x)
    return x


def of_nothing(x: Tensor, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
    """What any norm makes of an empty batch (N, C, *): an empty batch, gradients of zero.

    The kernels divide by the number of values, some of them in integers, which ends the process.
    """
    return affine(x.clone(), gamma, beta).to(x.dtype)


def per_channel(value: Tensor, x: Tensor) -> Tensor:
    """View a (C,) or (N, C) tensor so that it broadcasts over x (N, C, *)."""
    return value.reshape([-1, x.shape[1]] + [1] * (x.dim() - 2))


def for_each(value: Tensor, x: Tensor) -> Tensor:
    """(groups, C) to (N, C): every example of x its group's value; (1, C) broadcasts as it is."""
    if value.shape[0] == 1:
        return value
    return value.repeat_interleave(x.shape[0] // value.shape[0], 0)


def in_layout_of(x: Tensor, y: Tensor) -> Tensor:
    """y with its channels last in memory where those of x (N, C, *) are: no value changes."""
    if x.dim() < 4 or x.is_contiguous() or not x.movedim(1, -1).is_contiguous():
        return y
    return y.movedim(1, -1).contiguous().movedim(-1, 1)


def at_least_float32(x: Tensor) -> Tensor:
    """Widen half precision: sums of thousands of values need more than its 8 or 11 bits."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _sets(x: Tensor, examples: int, channels: int) -> Tensor:
    n, c = x.shape[:2]
    return at_least_float32(x).reshape(n // examples, examples, c // channels, channels, -1)


def _mean_and_variance(sets: Tensor, centred: bool) -> tuple[Tensor, Tensor]:
    if not centred:
        var = sets.square().mean((1, 3, 4), keepdim=True)
        return torch.zeros_like(var), var
    var, mean = torch.var_mean(sets, (1, 3, 4), correction=0, keepdim=True)
    return mean, var


def _moments(sets: Tensor, mean: Tensor, var: Tensor) -> Moments:
    groups, examples, blocks, channels, positions = sets.shape
    return Moments(
        mean.reshape(groups, blocks), var.reshape(groups, blocks), examples * channels * positions
    )


# --- batch normalization, the four decisions -----------------------------------------------------
# 1. scope: `normalize` with groups of examples, `pool`; 2. population estimate: `average_in`;
# 3. evaluation: `normalize_with` population statistics, `shrunk` or `mixed`; 4. `renormalization`


def pool(groups: Moments) -> Moments:
    """Moments (C,) of the union of all groups of examples.

    Their mean is the mean of the group means; their variance is that of the whole batch: the mean
    variance within groups plus the variance between the group means.
    """
    mean, var, count = groups
    if mean.shape[0] == 1:
        return Moments(mean[0], var[0], count)
    between = mean.var(0, correction=0)
    return Moments(mean.mean(0), var.mean(0) + between, count * mean.shape[0])


def average_in(running: Tensor, now: Tensor, weight: float | Tensor) -> None:
    """running = (1 - weight) * running + weight * now, in place.

    In place, because functional_call and vmap lose a rebound buffer; not lerp_, which has no
    batching rule; and not old + (new - old) * weight, which cancels when the two differ much.
    """
    running.mul_(1 - weight).add_(now * weight)


def normalize_with(
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """The formula with given moments, (C,) for all examples or (N, C) for each."""
    y = (at_least_float32(x) - per_channel(mean, x)) / torch.sqrt(per_channel(var, x) + eps)
    return affine(y, gamma, beta).to(x.dtype)


def shrunk(mean: Tensor, var: Tensor, own: Moments, share: float) -> tuple[Tensor, Tensor]:
    """Population statistics (C,) and a batch's own, averaged: mean and variance alike.

    share: the weight of the batch's own, n / (N + n) with n its examples and N the number of
    examples that the population counts for (Schneider et al. 2020, section 3).
    """
    return (
        (1 - share) * mean + share * own.mean,
        (1 - share) * var + share * own.var_biased,
    )


def mixed(mean: Tensor, var: Tensor, own: Moments, share: float) -> tuple[Tensor, Tensor]:
    """Moments of a distribution that is `share` the example's own values, the rest the population.

    Singh & Shrivastava 2019; Summers & Dinneen 2020. Unlike `shrunk`, the variance includes the
    distance between the two means.
    """
    between = share * (1 - share) * (own.mean - mean).square()
    shrunk_mean, within = shrunk(mean, var, own, share)
    return shrunk_mean, within + between


def renormalization(
    batch: Moments,
    mean: Tensor,
    var: Tensor,
    r_max: Any,
    d_max: Any,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """Batch Renormalization's r and d, each (groups, C) (Ioffe 2017, algorithm 1).

    r = std_batch / std within [1 / r_max, r_max], d = (mean_batch - mean) / std within
    [-d_max, d_max], with the population's mean and variance (C,); both bounds a number or a tensor.
    Where neither is met, r * x_hat + d is x normalized by the population. Constants to the
    gradient: give detached moments.
    """
    std = torch.sqrt(var + eps)
    r = torch.sqrt(batch.var_biased + eps) / std
    d = (batch.mean - mean) / std
    return torch.clamp(r, 1 / r_max, r_max), torch.clamp(d, -d_max, d_max)


def opened(
    updates: Tensor,
    r_max: float | None,
    d_max: float | None,
    warmup: tuple[int, int, int] | None,
) -> tuple[Any, Any]:
    """Batch Renormalization's r_max and d_max after so many updates.

    warmup = (hold, r_full, d_full): 1 and 0 up to update `hold`, then linear in time.
    """
    if warmup is None or r_max is None or d_max is None:
        return r_max, d_max
    hold, r_full, d_full = warmup
    return (
        1 + (r_max - 1) * ((updates - hold) / max(r_full - hold, 1)).clamp(0, 1),
        d_max * ((updates - hold) / max(d_full - hold, 1)).clamp(0, 1),
    )


def normalize_fused(
    x: Tensor,
    examples: int,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    eps: float = 1e-5,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Moments]:
    """`normalize(x, examples, channels=1)` by one fused kernel that hands out the moments too.

    dtype: of gamma, beta and the moments; by default x's, float32 where x has less.
    The kernel's inverse standard deviation would give the variance as invstd**-2 - eps, which
    cancels when the variance is far below eps. Its running variance is updated from the variance
    itself: a buffer of zeros updated with momentum 1 receives it exactly (Bessel-corrected).
    """
    n, c = x.shape[:2]
    groups = n // examples
    z = x
    if groups > 1:  # groups become channels of their own: (examples, groups * C, L)
        z = x.reshape(groups, examples, c, -1).transpose(0, 1).reshape(examples, groups * c, -1)
        gamma = None if gamma is None else gamma.repeat(groups)
        beta = None if beta is None else beta.repeat(groups)
    dtype = dtype or at_least_float32(x.new_empty(0)).dtype
    mean = x.new_zeros(groups * c, dtype=dtype)  # not two views of one: vmap loses their update
    var_unbiased = x.new_zeros(groups * c, dtype=dtype)
    y = torch.native_batch_norm(z, gamma, beta, mean, var_unbiased, True, 1.0, eps)[0]
    if groups > 1:
        y = y.reshape(examples, groups, c, -1).transpose(0, 1).reshape(x.shape)
    count = z.numel() // (groups * c)
    var_biased = var_unbiased * ((count - 1) / count)
    return y, Moments(mean.view(groups, c), var_biased.view(groups, c), count)
