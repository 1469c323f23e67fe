"""Batch normalization as four independent decisions, each a visible argument."""

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from .arguments import check_renormalization, one_of, one_value, require
from .base import Norm
from .distributed import moments_across, processes
from .functional import (
    MaskedMoments,
    Moments,
    affine,
    average_in,
    for_each,
    mixed,
    moments,
    normalize,
    normalize_fused,
    normalize_with,
    of_nothing,
    opened,
    pool,
    renormalization,
    shrunk,
)

EVALUATIONS = ("population", "batch", "mixture", "example")


class BatchNorm(Norm):
    """Batch normalization (Ioffe & Szegedy 2015, algorithms 1 and 2) and its variants.

    y = gamma * (x - mean) / sqrt(var_biased + eps) + beta, moments per channel over (N, *).

    A drop-in for torch.nn.BatchNorm1d, 2d and 3d, whose arguments come first, in their order.
    Four decisions make the variants:

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
       track_running_stats = False: no estimate, no buffers; evaluation uses the batch.

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

    `torch.jit.script` supports the arguments up to track_running_stats, and momentum as a number.
    Two functions of torch look for torch's own class and pass this one by in silence: instead of
    `torch.optim.swa_utils.update_bn(loader, model)` call `calibrate(model, loader)`, instead of
    `torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)` call `synchronize(model)`.

    Raises ValueError for batch statistics of a single value per channel, and for a batch that the
    group size does not divide.

    >>> layer = BatchNorm(64, group_size=8)  # ghost groups
    >>> layer(torch.randn(32, 64, 7, 7)).shape
    torch.Size([32, 64, 7, 7])
    """

    __jit_unused_properties__ = ("moments", "stackable")  # what TorchScript does not compile
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool | str = True,
        track_running_stats: bool = True,
        *,
        group_size: int | None = None,
        process_group: object | None = None,
        evaluation: str = "population",
        evaluation_group_size: int | None = None,
        prior_examples: float | None = None,
        alpha: float | None = None,
        r_max: float | None = None,
        d_max: float | None = None,
        renorm_warmup: tuple[int, int, int] | None = None,
        frozen: bool = False,
        keep_moments: bool = False,
        **common: Any,
    ):
        super().__init__(num_features, eps, affine=affine, **common)
        one_of("evaluation", evaluation, EVALUATIONS)
        require(momentum is None or 0 <= momentum <= 1, f"momentum={momentum}: 0 to 1, or None")
        sizes = {"group_size": group_size, "evaluation_group_size": evaluation_group_size}
        for name, size in sizes.items():
            require(size is None or size >= 1, f"{name}={size}: at least 1, or None")
        require(
            group_size is None or process_group is None,
            "group_size is a scope within one process, process_group one of several: give one",
        )
        check_renormalization(r_max, d_max, renorm_warmup)
        # 1. scope
        self.group_size, self.process_group = group_size, process_group
        # 2. population estimate; momentum may be a tensor, (C,), where seeds lie side by side
        self.momentum: float | Tensor | None = momentum
        self.frozen, self.keep_moments = frozen, keep_moments
        self._kept: Moments | MaskedMoments | _Kernel | None = None
        # 3. evaluation
        self.evaluation, self.evaluation_group_size = evaluation, evaluation_group_size
        self.prior_examples, self.alpha = prior_examples, alpha
        # 4. correction
        self.r_max, self.d_max, self.renorm_warmup = r_max, d_max, renorm_warmup
        if track_running_stats:
            count = torch.zeros((), dtype=torch.long, device=self._factory["device"])
            self.register_buffer("running_mean", self._filled(0.0))
            self.register_buffer("running_var", self._filled(1.0))
            self.register_buffer("num_batches_tracked", count)
        else:
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                self.register_buffer(name, None)
            if frozen or r_max is not None or evaluation in ("mixture", "example"):
                self._estimate()  # raises
            self.evaluation = "batch"

    @property
    def stackable(self) -> bool:  # type: ignore[override]
        return self.process_group is None

    def widened(self, size: int) -> Self:
        return self._repeated(size)

    def _checked(self, x: Tensor) -> Tensor:
        self.check(x)
        training = self.training and not self.frozen
        if x.numel() == 0 and not (training and processes(self.process_group) > 1):
            return self._nothing(x, training)
        if not training:
            return self._evaluate(x)
        if self._is_plain():
            return self._kernel(x, self.running_mean, self.running_var, update=True)
        return self._train(x)

    def _beyond_plain(self) -> str:
        """Settings that TorchScript would pass over."""
        if self.keep_moments:
            return "keep_moments"
        if not self.training or self.frozen:
            if self.evaluation_group_size is not None:
                return "evaluation_group_size"
            plain = self.training or self.evaluation == "population" or self.running_mean is None
            return "" if plain else "evaluation=" + self.evaluation
        if self.group_size is not None:
            return "group_size"
        if self.process_group is not None:
            return "process_group"
        if self.r_max is not None:
            return "r_max"
        return "momentum=None" if self.momentum is None else ""

    def _plain(self, x: Tensor) -> Tensor:
        unsupported = self._beyond_plain()
        if unsupported != "":
            raise ValueError("TorchScript supports plain BatchNorm only, not " + unsupported)
        training = self.training and not self.frozen
        updates, momentum = self.num_batches_tracked, self.momentum
        if training and updates is not None:
            updates.add_(1)
        return torch.batch_norm(
            x,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            training or self.running_mean is None,
            0.0 if momentum is None else momentum,  # type: ignore[arg-type]
            self.eps,
            torch.backends.cudnn.enabled,
        )

    # --- 1. scope --------------------------------------------------------------------------------

    def _is_plain(self) -> bool:
        """Whether one kernel does everything, the exponential average included."""
        return (
            self.backend == "fused"
            and isinstance(self.momentum, float | int)
            and self.running_mean is not None
            and self.group_size is None
            and self.process_group is None
            and self.r_max is None
        )

    def _kernel(self, x: Tensor, mean: Tensor | None, var: Tensor | None, update: bool) -> Tensor:
        if update:
            self._check_count(x, x.shape[0])
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        momentum: float = self.momentum if update else 0.0  # type: ignore[assignment]
        if x.is_cuda and not self.keep_moments:  # lets cuDNN in, which hands out no moments
            parameters = (self.weight, self.bias, mean, var)
            settings = (update, momentum, self.eps, torch.backends.cudnn.enabled)
            return torch.batch_norm(x, *parameters, *settings)
        y, mean, invstd = torch.native_batch_norm(
            x, self.weight, self.bias, mean, var, update, momentum, self.eps
        )
        if update and self.keep_moments:  # past nn.Module's slow setattr
            self.__dict__["_kept"] = _Kernel(mean.detach(), invstd.detach(), x.detach())
        return y

    def _train(self, x: Tensor) -> Tensor:
        inner = (self.weight, self.bias) if self.r_max is None else (None, None)
        if processes(self.process_group) > 1:
            batch = moments_across(x, self.process_group)
            if batch.count < 2:
                raise ValueError(one_value(x, 1))
            y = normalize_with(x, batch.mean, batch.var_biased, *inner, self.eps)
        else:
            y, batch = self._normalize(x, self._examples(x, self.group_size), *inner)
        batch = self._keep(batch)
        if self.r_max is not None:
            y = self._corrected(x, y, batch)
        if self.running_mean is not None:
            self._update(pool(batch))
        return y

    def _normalize(
        self, x: Tensor, examples: int, gamma: Tensor | None, beta: Tensor | None
    ) -> tuple[Tensor, Moments]:
        """Each group of consecutive examples by its own moments."""
        self._check_count(x, examples)
        if self.backend == "reference":
            return normalize(x, examples, 1, gamma, beta, self.eps)
        dtype = None if self.running_mean is None else self.running_mean.dtype
        return normalize_fused(x, examples, gamma, beta, self.eps, dtype)

    def _nothing(self, x: Tensor, training: bool) -> Tensor:
        """An empty batch is counted as torch.nn counts it, and changes no statistic."""
        self._kept = None
        if training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return of_nothing(x, self.weight, self.bias)

    def _examples(self, x: Tensor, group_size: int | None) -> int:
        size = x.shape[0] if group_size is None else group_size
        require(
            size >= 1 and x.shape[0] % size == 0,
            f"groups of {size} examples do not divide a batch of {x.shape[0]}; choose a "
            "divisor of the batch size, and drop or complete a short last batch",
        )
        return size

    def _check_count(self, x: Tensor, examples: int) -> None:
        if examples < 2 and x.numel() <= x.shape[0] * x.shape[1]:
            raise ValueError(one_value(x, examples))

    # --- 2. population estimate ------------------------------------------------------------------

    def reset_running_stats(self) -> None:
        """Forget the population estimate: mean 0, variance 1, no batches."""
        if self.running_mean is None:
            return
        mean, var, updates = self._estimate()
        mean.zero_()
        var.fill_(1)
        updates.zero_()

    def _estimate(self) -> tuple[Tensor, Tensor, Tensor]:
        """running_mean, running_var and num_batches_tracked."""
        mean, var, updates = self.running_mean, self.running_var, self.num_batches_tracked
        if mean is None or var is None or updates is None:
            raise ValueError(
                "track_running_stats=False: this batch norm keeps no population statistics, so it "
                "can neither be frozen, nor mixed with them, nor corrected by them"
            )
        return mean, var, updates

    @torch.no_grad()
    def _update(self, batch: Moments) -> None:
        """Move the population estimate towards the batch's moments (C,), in place."""
        mean, var, updates = self._estimate()
        var_unbiased = batch.var_biased * (batch.count / (batch.count - 1))
        updates.add_(1)
        weight = 1 / updates.to(mean.dtype) if self.momentum is None else self.momentum
        average_in(mean, batch.mean, weight)
        average_in(var, var_unbiased, weight)

    def _keep(self, batch: Moments) -> Moments:
        detached = Moments(batch.mean.detach(), batch.var_biased.detach(), batch.count)
        if self.keep_moments:
            self._kept = detached
        return detached

    @property
    def moments(self) -> Moments | MaskedMoments | None:
        """The last batch statistics, each (groups, C), while `keep_moments` is set."""
        if not isinstance(self._kept, _Kernel):
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

    # --- 3. evaluation ---------------------------------------------------------------------------

    def _evaluate(self, x: Tensor) -> Tensor:
        evaluation = "population" if self.training else self.evaluation  # in training: frozen
        if evaluation == "population" and self.running_mean is None and not self.training:
            evaluation = "batch"
        if evaluation == "batch":
            size = self._examples(x, self.evaluation_group_size)
            y, batch = self._normalize(x, size, self.weight, self.bias)
            self._keep(batch)
            return y
        mean, var, _ = self._estimate()
        if evaluation == "population" and self.backend == "fused":
            return self._kernel(x, mean, var, update=False)
        if evaluation == "mixture":
            mean, var = self._mixture(x, mean, var)
        elif evaluation == "example":
            mean, var = self._with_the_example(x, mean, var)
        return normalize_with(x, mean, var, self.weight, self.bias, self.eps)

    def _mixture(self, x: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """Population statistics averaged with those of the batch, or of each group of it."""
        prior = self.prior_examples
        if prior is None or prior < 0:
            raise ValueError(
                f"prior_examples={prior}: evaluation='mixture' needs how many examples the "
                "population statistics count for, 0 (batch) up (16 is usual)"
            )
        size = self._examples(x, self.evaluation_group_size)
        mean, var = shrunk(mean, var, moments(x, size, 1), size / (size + prior))
        return for_each(mean, x), for_each(var, x)

    def _with_the_example(self, x: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """Population statistics mixed with the example's own, for each example."""
        alpha = self.alpha
        if alpha is None or not 0 <= alpha <= 1:
            raise ValueError(
                f"alpha={alpha}: evaluation='example' needs the example's share of its own "
                "statistics, 0 (population) to 1 (instance norm)"
            )
        return mixed(mean, var, moments(x, 1, 1), alpha)

    # --- 4. correction in training ---------------------------------------------------------------

    def _corrected(self, x: Tensor, y: Tensor, batch: Moments) -> Tensor:
        """Batch Renormalization of y, from the population estimate before this update."""
        mean, var, updates = self._estimate()
        r_max, d_max = opened(updates, self.r_max, self.d_max, self.renorm_warmup)
        r, d = renormalization(batch, mean, var, r_max, d_max, self.eps)
        return affine(affine(y, for_each(r, x), for_each(d, x)), self.weight, self.bias).to(x.dtype)

    def extra_repr(self) -> str:
        shown = ("momentum", "group_size", "process_group", "r_max", "d_max")
        parts = [f"{name}={getattr(self, name)}" for name in shown if getattr(self, name)]
        if self.evaluation != "population":
            parts.append(f"evaluation={self.evaluation}")
        return ", ".join([super().extra_repr(), *parts]) + (", frozen" if self.frozen else "")


class _Kernel(NamedTuple):
    """What the fused kernel hands out, and its input: moments are worked out when asked for."""

    mean: Tensor
    invstd: Tensor
    x: Tensor
