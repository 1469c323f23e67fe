"""Batch normalization as four independent decisions, each a visible argument."""

from typing import Self

import torch
from torch import Tensor

from .base import Norm, one_of
from .distributed import moments_across, processes
from .functional import Moments, affine, moments, normalize, normalize_fused, normalize_with, pool

EVALUATIONS = ("population", "batch", "mixture", "example")


class BatchNorm(Norm):
    """Batch normalization (Ioffe & Szegedy 2015, algorithms 1 and 2) and what became of it.

    y = gamma * (x - mean) / sqrt(var_biased + eps) + beta, moments per channel over (N, *).

    1. Scope: which examples share statistics in training.
       By default the batch.
       group_size = n: each ghost group of n consecutive examples (Hoffer et al. 2017); n must
       divide the batch.
       process_group = "world" or a torch.distributed group: the batches of all its processes,
       which may differ in size (in one process: the batch).
       Statistics for each time step of a sequence: `StepBatchNorm`.

    2. Population estimate: running_mean, and running_var, Bessel-corrected.
       momentum: weight of the newest batch (torch's sense, 1 - lambda in the papers); None: all
       batches weigh the same. One update per forward; ghost groups are first pooled to the moments
       of the whole batch, the variance between group means included, because the estimate is to
       serve all examples at once. To estimate afterwards instead, see `calibrate`.

    3. Evaluation: which statistics are used when not training; never updates the estimate.
       "population";
       "batch": the batch's own, or those of each evaluation_group_size consecutive examples;
       "mixture": (N * population + n * batch) / (N + n), mean and variance alike, with
       N = prior_examples and n the examples of the batch or group (Schneider et al. 2020);
       "example": moments of the mixture, in parts 1 - alpha and alpha, of population and the
       example itself (Singh & Shrivastava 2019; Summers & Dinneen 2020); alpha = 1: instance norm.

    4. Affine (as in every norm), and correction in training.
       r_max, d_max: Batch Renormalization (Ioffe 2017): the normalized value becomes
       r * value + d, with r = std_batch / std_population within [1 / r_max, r_max] and
       d = (mean_batch - mean_population) / std_population within [-d_max, d_max], both taken as
       constants by the gradient. renorm_warmup = (hold, r_full, d_full): r_max = 1 and d_max = 0
       up to update `hold`, then linear in time up to their values at updates r_full and d_full.

    frozen: training normalizes with population statistics and does not update them (Wu & Johnson
    2021, FrozenBN); gamma and beta still learn. May be set at any step.
    keep_moments: the property `moments` gives the last batch statistics, detached, taken from the
    pass that normalized; holds on to the last input until it is read. Inside vmap it is valid
    inside the map only.

    Raises ValueError for batch statistics of a single value per channel, and for a batch that the
    group size does not divide.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        *,
        group_size: int | None = None,
        process_group: object | None = None,
        momentum: float | None = 0.1,
        evaluation: str = "population",
        evaluation_group_size: int | None = None,
        prior_examples: float | None = None,
        alpha: float | None = None,
        r_max: float | None = None,
        d_max: float | None = None,
        renorm_warmup: tuple[int, int, int] | None = None,
        frozen: bool = False,
        keep_moments: bool = False,
        **common,
    ):
        super().__init__(num_features, **common)
        one_of("evaluation", evaluation, EVALUATIONS)
        _check(momentum is None or 0 <= momentum <= 1, f"momentum={momentum}: 0 to 1, or None")
        sizes = {"group_size": group_size, "evaluation_group_size": evaluation_group_size}
        for name, size in sizes.items():
            _check(size is None or size >= 1, f"{name}={size}: at least 1, or None")
        _check(
            group_size is None or process_group is None,
            "group_size is a scope within one process, process_group one of several: give one",
        )
        _check(
            (r_max is None) == (d_max is None),
            f"Batch Renormalization takes both r_max and d_max; got r_max={r_max}, d_max={d_max}",
        )
        _check(r_max is None or r_max >= 1, f"r_max={r_max}: at least 1 (no rescaling)")
        _check(d_max is None or d_max >= 0, f"d_max={d_max}: at least 0 (no shift)")
        _check(renorm_warmup is None or r_max is not None, "renorm_warmup needs r_max and d_max")
        if renorm_warmup is not None:
            _check(
                max(r_max, d_max) < float("inf"),
                "renorm_warmup: a linear rise to an infinite r_max or d_max is not defined",
            )
            _check(
                len(renorm_warmup) == 3 and 0 <= renorm_warmup[0] <= min(renorm_warmup[1:]),
                f"renorm_warmup={renorm_warmup}: (hold, r_full, d_full) in updates, "
                "0 <= hold <= r_full, d_full",
            )
        self.group_size, self.process_group = group_size, process_group
        self.momentum = momentum
        self.evaluation, self.evaluation_group_size = evaluation, evaluation_group_size
        self.prior_examples, self.alpha = prior_examples, alpha
        self.r_max, self.d_max, self.renorm_warmup = r_max, d_max, renorm_warmup
        self.frozen, self.keep_moments = frozen, keep_moments
        self._kept: Moments | tuple[Tensor, Tensor, Tensor] | None = None
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long))

    @property
    def stackable(self) -> bool:
        return self.process_group is None

    def widened(self, size: int) -> Self:
        return self._repeated(size)

    def reset_running_stats(self) -> None:
        """Forget the population estimate: mean 0, variance 1, no batches."""
        self.running_mean.zero_()
        self.running_var.fill_(1)
        self.num_batches_tracked.zero_()

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        if self.training and not self.frozen:
            if self._is_plain():
                return self._kernel(x, self.running_mean, self.running_var, update=True)
            return self._train(x)
        mean, var = self.running_mean, self.running_var
        if self.training or self.evaluation == "population":
            if self.backend == "fused":
                return self._kernel(x, mean, var, update=False)
            return normalize_with(x, mean, var, self.weight, self.bias, self.eps)
        if self.evaluation == "batch":
            size = self._examples(x, self.evaluation_group_size)
            y, batch = self._normalize(x, size, self.weight, self.bias)
            self._keep(batch)
            return y
        mean, var = self._mixed(x, mean, var)
        return normalize_with(x, mean, var, self.weight, self.bias, self.eps)

    # --- training ------------------------------------------------------------------------------

    def _is_plain(self) -> bool:
        """Whether one kernel does everything, the exponential average included."""
        return (
            self.backend == "fused"
            and isinstance(self.momentum, float | int)
            and self.group_size is None
            and self.process_group is None
            and self.r_max is None
        )

    def _kernel(self, x: Tensor, mean: Tensor, var: Tensor, update: bool) -> Tensor:
        if update:
            self._check_count(x, x.shape[0])
            self.num_batches_tracked.add_(1)
        momentum = self.momentum if update else 0.0
        if x.is_cuda and not self.keep_moments:  # lets cuDNN in, which hands out no moments
            parameters = (self.weight, self.bias, mean, var)
            settings = (update, momentum, self.eps, torch.backends.cudnn.enabled)
            return torch.batch_norm(x, *parameters, *settings)
        y, mean, invstd = torch.native_batch_norm(
            x, self.weight, self.bias, mean, var, update, momentum, self.eps
        )
        if update and self.keep_moments:  # past nn.Module's slow setattr
            self.__dict__["_kept"] = (mean.detach(), invstd.detach(), x.detach())
        return y

    def _train(self, x: Tensor) -> Tensor:
        population = (self.running_mean, self.running_var, self.num_batches_tracked)
        gamma, beta = self.weight, self.bias
        inner = (gamma, beta) if self.r_max is None else (None, None)
        if processes(self.process_group) > 1:
            batch = moments_across(x, self.process_group)
            if batch.count < 2:
                raise ValueError(_one_value(x, 1))
            y = normalize_with(x, batch.mean, batch.var_biased, *inner, self.eps)
        else:
            y, batch = self._normalize(x, self._examples(x, self.group_size), *inner)
        batch = self._keep(batch)
        if self.r_max is not None:
            r, d = self._correction(batch, *population)
            y = affine(affine(y, _each(r, x), _each(d, x)), gamma, beta).to(x.dtype)
        self._update(*population, pool(batch))
        return y

    def _normalize(self, x: Tensor, examples: int, gamma, beta) -> tuple[Tensor, Moments]:
        """Each group of consecutive examples by its own moments."""
        self._check_count(x, examples)
        if self.backend == "reference":
            return normalize(x, examples, 1, gamma, beta, self.eps)
        return normalize_fused(x, examples, gamma, beta, self.eps, self.running_mean.dtype)

    def _keep(self, batch: Moments) -> Moments:
        detached = Moments(batch.mean.detach(), batch.var_biased.detach(), batch.count)
        if self.keep_moments:
            self._kept = detached
        return detached

    @property
    def moments(self) -> Moments | None:
        """The last batch statistics, each (groups, C), while `keep_moments` is set."""
        if self._kept is None or isinstance(self._kept, Moments):
            return self._kept
        mean, invstd, x = self._kept
        var = invstd**-2 - self.eps
        tiny = var < self.eps  # there the difference cancels: to 1e-7 * eps, whatever var is
        try:
            exact = not tiny.any()
        except RuntimeError:  # under vmap no value may be read
            exact = False
        if not exact:
            var = torch.where(tiny, moments(x, x.shape[0], 1).var_biased[0], var)
        self._kept = Moments(mean[None], var[None], x.numel() // x.shape[1])
        return self._kept

    def _correction(self, batch: Moments, mean, var, updates) -> tuple[Tensor, Tensor]:
        """Batch Renormalization's r and d (groups, C), from the estimate before this update."""
        r_max, d_max = self.r_max, self.d_max
        if self.renorm_warmup is not None:
            hold, r_full, d_full = self.renorm_warmup
            r_max = 1 + (r_max - 1) * ((updates - hold) / max(r_full - hold, 1)).clamp(0, 1)
            d_max = d_max * ((updates - hold) / max(d_full - hold, 1)).clamp(0, 1)
        std = torch.sqrt(var + self.eps)
        r = torch.sqrt(batch.var_biased + self.eps) / std
        d = (batch.mean - mean) / std
        return r.clamp(1 / r_max, r_max), d.clamp(-d_max, d_max)

    @torch.no_grad()
    def _update(self, mean: Tensor, var: Tensor, updates: Tensor, batch: Moments) -> None:
        """Move the population estimate towards the batch's moments (C,), in place."""
        var_unbiased = batch.var_biased * (batch.count / (batch.count - 1))
        updates.add_(1)
        weight = 1 / updates.to(mean.dtype) if self.momentum is None else self.momentum
        # in place, because functional_call and vmap lose a rebound buffer; not lerp_, which has no
        # batching rule; and not old + (new - old) * weight, which cancels when the two differ much
        mean.mul_(1 - weight).add_(batch.mean * weight)
        var.mul_(1 - weight).add_(var_unbiased * weight)

    # --- evaluation ----------------------------------------------------------------------------

    def _mixed(self, x: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """Population statistics mixed with the batch's or the example's own."""
        if self.evaluation == "mixture":
            _check(
                self.prior_examples is not None and self.prior_examples >= 0,
                f"prior_examples={self.prior_examples}: evaluation='mixture' needs how many "
                "examples the population statistics count for, 0 (batch) up (16 is usual)",
            )
            size = self._examples(x, self.evaluation_group_size)
            own = moments(x, size, 1)
            share = size / (size + self.prior_examples)
            mean = (1 - share) * mean + share * own.mean
            var = (1 - share) * var + share * own.var_biased
            return _each(mean, x), _each(var, x)
        _check(
            self.alpha is not None and 0 <= self.alpha <= 1,
            f"alpha={self.alpha}: evaluation='example' needs the example's share of its own "
            "statistics, 0 (population) to 1 (instance norm)",
        )
        own, share = moments(x, 1, 1), self.alpha
        between = share * (1 - share) * (own.mean - mean).square()
        var = (1 - share) * var + share * own.var_biased + between
        return (1 - share) * mean + share * own.mean, var

    # --- shapes --------------------------------------------------------------------------------

    def _examples(self, x: Tensor, group_size: int | None) -> int:
        size = x.shape[0] if group_size is None else group_size
        _check(
            size >= 1 and x.shape[0] % size == 0,
            f"groups of {size} examples do not divide a batch of {x.shape[0]}; choose a "
            "divisor of the batch size, and drop or complete a short last batch",
        )
        return size

    def _check_count(self, x: Tensor, examples: int) -> None:
        if examples < 2 and x.numel() <= x.shape[0] * x.shape[1]:
            raise ValueError(_one_value(x, examples))

    def extra_repr(self) -> str:
        shown = ("momentum", "group_size", "process_group", "r_max", "d_max")
        parts = [f"{name}={getattr(self, name)}" for name in shown if getattr(self, name)]
        if self.evaluation != "population":
            parts.append(f"evaluation={self.evaluation}")
        return ", ".join([super().extra_repr(), *parts]) + (", frozen" if self.frozen else "")


def _each(value: Tensor, x: Tensor) -> Tensor:
    """(groups, C) to (N, C): every example its group's value."""
    if value.shape[0] == 1:
        return value
    return value.repeat_interleave(x.shape[0] // value.shape[0], 0)


def _one_value(x: Tensor, examples: int) -> str:
    return (
        f"batch statistics of {examples} example without spatial extent, input {tuple(x.shape)}: "
        "one value per channel has no variance; use larger batches or groups, layer or group norm, "
        "or population statistics (eval() or frozen)"
    )


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
