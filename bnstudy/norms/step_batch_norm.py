"""Batch normalization inside a recurrent network: statistics for each time step, with masks."""

from typing import Any

import torch
from torch import Tensor, fx

from .arguments import one_of
from .base import TooFewValues, as_one_node
from .batch_norm import BatchNorm
from .functional import MaskedMoments, masked_moments, of_nothing

SCOPES = ("step", "shared", "sequence")
BELOW_MIN = ("last_step", "error")


class StepBatchNorm(BatchNorm):
    """Batch normalization of one term of a recurrent network (Cooijmans et al. 2017, section 3).

    Two calls. `norm(x, t, mask)` normalizes time step t alone: x (N, C), mask (N, G).
    `norm(x, mask=mask)` normalizes whole sequences: x (N, T, C), mask (N, T, G). The mask is true
    where an example is valid; each of its G columns holds for C / G consecutive channels (the
    networks of a stack differ in their lengths); None: everything is valid, then at all steps of a
    sequence. Values at padded places must be finite and enter no statistic. Sequences begin at step
    0; padding lies at the end.

    gamma and beta are shared over time, statistics are not:

    scope: "step": each step t < time_steps keeps its own; in evaluation later steps use those of
    the last (Cooijmans et al. 2017). "shared": training as "step", evaluation with the moments of
    all steps together. "sequence": `norm(x, mask=mask)` takes one mean and variance over examples
    and time (Laurent et al. 2016; "sequence-wise" in Cooijmans et al. 2017, section 5.4), single
    steps as "step".
    time_steps: T_max, the length of the longest training sequence; steps that training has not
    reached are read as the last one that it has.
    truncate: in evaluation, the number of steps whose statistics are used (None: time_steps).
    min_count: fewest valid examples that make a statistic, at least 2.
    below_min: what happens where there are fewer. "last_step": the statistics of the last step that
    had enough, as constants; the population estimate of this step stays; `reused` counts such
    steps.
    "error": ValueError.

    Buffers: running_mean and running_var (time_steps, C); num_batches_tracked and `examples`, the
    running number of valid examples behind the statistics, (time_steps, G); `reused` (G,).

    evaluation: "population" or "batch". Ghost groups, several processes and Batch Renormalization
    are not supported, nor is `torch.jit.script`. Raises ValueError for those and for a step that
    training may not reach, TooFewValues where no step up to one has `min_count` valid examples.

    >>> norm = StepBatchNorm(8, time_steps=20)
    >>> norm(torch.randn(16, 8), 0).shape, norm(torch.randn(16, 20, 8)).shape
    (torch.Size([16, 8]), torch.Size([16, 20, 8]))
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    examples: Tensor
    reused: Tensor

    def __init__(
        self,
        num_features: int,
        *,
        time_steps: int,
        scope: str = "step",
        truncate: int | None = None,
        min_count: int = 2,
        below_min: str = "last_step",
        **batch_norm: Any,
    ):
        super().__init__(num_features, **batch_norm)
        one_of("scope", scope, SCOPES)
        one_of("below_min", below_min, BELOW_MIN)
        if time_steps < 1 or min_count < 2:
            raise ValueError(
                f"time_steps={time_steps}, min_count={min_count}: need time_steps >= 1, "
                "min_count >= 2 (a single value has no variance)"
            )
        if self.group_size or self.process_group or self.r_max is not None:
            raise ValueError(
                "statistics per time step support neither group_size, process_group nor r_max"
            )
        if self.running_mean is None:
            raise ValueError("statistics per time step need track_running_stats=True")
        if self.evaluation not in ("population", "batch"):
            raise ValueError(
                f"evaluation={self.evaluation}: statistics per time step are read as population "
                "or batch"
            )
        self.time_steps, self.scope, self.truncate = time_steps, scope, truncate
        self.min_count, self.below_min = min_count, below_min
        counts = {"dtype": torch.long, "device": self._factory["device"]}
        self.register_buffer("running_mean", self._filled(0.0, time_steps, num_features))
        self.register_buffer("running_var", self._filled(1.0, time_steps, num_features))
        self.register_buffer("num_batches_tracked", torch.zeros(time_steps, 1, **counts))
        self.register_buffer("examples", self._filled(0.0, time_steps, 1))
        self.register_buffer("reused", torch.zeros(1, **counts))
        self._last: MaskedMoments | None = None

    def reset_running_stats(self) -> None:
        """Forget the population estimate of every step."""
        super().reset_running_stats()
        self.examples.zero_()
        self.reused.zero_()

    def check(self, x: Tensor) -> None:
        """Raise unless x is (N, C) or (N, T, C)."""
        if x.dim() not in (2, 3) or x.shape[-1] != self.num_features:
            raise ValueError(
                f"StepBatchNorm takes (N, C), or (N, T, C), with C = {self.num_features} channels "
                f"last; got {tuple(x.shape)}"
            )

    def forward(self, x: Tensor, step: int | None = None, mask: Tensor | None = None) -> Tensor:
        if torch.jit.is_scripting():
            return self._plain(x)
        if isinstance(x, fx.Proxy):
            return as_one_node(self, x, step, mask)
        return self._in_time(x, step, mask)

    def _beyond_plain(self) -> str:
        return "StepBatchNorm"

    def _in_time(self, x: Tensor, step: int | None, mask: Tensor | None) -> Tensor:
        self.check(x)
        if step is None and x.dim() == 2:
            raise ValueError("statistics per time step: call norm(x, t) with t from 0, not norm(x)")
        if step is not None and (step < 0 or x.dim() == 3):
            raise ValueError(f"time step {step}: norm(x, t) takes t from 0 and x (N, C)")
        if x.numel() == 0:  # no example, at no step
            return of_nothing(x.reshape(0, self.num_features), self.weight, self.bias).view(x.shape)
        shape = x.shape
        if step is None and self.scope == "sequence":
            size = shape[1]  # positions of one example share its statistics
            x = x.reshape(-1, self.num_features)
            mask = None if mask is None else mask.reshape(-1, mask.shape[-1])
            return self._normalized(x, 0, 1, size, mask).view(shape)
        first, steps = (0, shape[1]) if step is None else (step, 1)
        x = x.reshape(len(x), -1)
        mask = None if mask is None else mask.reshape(len(x), -1)
        return self._normalized(x, first, steps, 1, mask).view(shape)

    def _normalized(
        self, x: Tensor, first: int, steps: int, positions: int, mask: Tensor | None
    ) -> Tensor:
        """x (N * positions, steps * C), the time steps from `first` on side by side."""
        training = self.training and not self.frozen
        if training and first + steps > self.time_steps:
            raise ValueError(
                f"a sequence of {first + steps} steps in training, but time_steps="
                f"{self.time_steps}: give the length of the longest training sequence"
            )
        if self.evaluation not in ("population", "batch"):
            raise ValueError(
                f"evaluation={self.evaluation}: statistics per time step are read as population "
                "or batch"
            )
        if not training and (self.training or self.evaluation == "population"):
            mean, var = self._population(first, steps)
            return self._with(x, mean, var, steps)
        size = len(x)
        if not training and self.evaluation_group_size:
            size = self._examples(x, self.evaluation_group_size * positions)
        if mask is None and size < self.min_count:
            raise TooFewValues(
                f"statistics of {size} example at each time step, fewer than min_count="
                f"{self.min_count}: use larger batches, layer norm, or population statistics"
            )
        if mask is None and size == len(x):
            return self._kernel_steps(x, first, steps, update=training)
        batch = self._moments(x, first, steps, size, mask)
        if training:
            self._update_steps(batch, first, steps)
        y = self._with(x, batch.mean.flatten(1), batch.var_biased.flatten(1), steps)
        mean, var = (part.detach().flatten(1) for part in batch[:2])
        self._kept = MaskedMoments(mean, var, batch.count)
        return y

    def _kernel_steps(self, x: Tensor, first: int, steps: int, update: bool) -> Tensor:
        """All valid: one kernel for all steps, the exponential average included."""
        self._last = None  # of an earlier batch, if anything
        own = slice(first, first + steps)
        weight, bias = (None if p is None else p.repeat(steps) for p in (self.weight, self.bias))
        plain = float(self.momentum) if isinstance(self.momentum, float | int) else None
        if update and plain is not None:
            mean, var = self.running_mean[own].view(-1), self.running_var[own].view(-1)
            momentum = plain
        else:  # into buffers of its own: the exact unbiased variance, as in `normalize_fused`
            dtype = self.running_mean.dtype
            mean, var, momentum = *x.new_zeros(2, x.shape[1], dtype=dtype).unbind(), 1.0
        y = torch.native_batch_norm(x, weight, bias, mean, var, True, momentum, self.eps)[0]
        if update and plain is not None:
            self.num_batches_tracked[own] += 1
            self.examples[own] += (len(x) - self.examples[own]) * momentum
        elif update:
            count = x.new_full((1, steps * self.examples.shape[1], 1), len(x))
            biased = var * ((len(x) - 1) / len(x))
            blocks = self._blocks(mean[None], steps), self._blocks(biased[None], steps)
            self._update_steps(MaskedMoments(*blocks, count), first, steps)
        return y

    def _blocks(self, values: Tensor, steps: int) -> Tensor:
        """(groups, steps * C) to (groups, steps * G, C / G): channels that share a mask."""
        return values.view(len(values), steps * self.examples.shape[1], -1)

    def _moments(
        self, x: Tensor, first: int, steps: int, size: int, mask: Tensor | None
    ) -> MaskedMoments:
        """Moments (groups, steps * G, C / G) and counts (groups, steps * G, 1), few values
        replaced."""
        networks = self.examples.shape[1]
        if mask is None:
            mask = x.new_ones(len(x), 1, dtype=torch.bool).expand(-1, steps * networks)
        found = masked_moments(x, mask, size)
        enough = found.count[..., 0] >= self.min_count  # (groups, steps * G)
        if enough.all():
            mean, var, count = (part[:, -networks:].detach() for part in found)
            self._last = MaskedMoments(mean, var, count)
            return found
        if self.below_min == "error" and self.training:
            bad = int((~enough).any(0).nonzero()[0])
            raise TooFewValues(
                f"time step {first + bad // networks}: {int(found.count[:, bad].min())} valid "
                f"examples, fewer than min_count={self.min_count}; use larger batches, sequences "
                "of like length, or below_min='last_step'"
            )
        return self._repaired(found, enough, first, steps, networks)

    def _repaired(
        self, found: MaskedMoments, enough: Tensor, first: int, steps: int, networks: int
    ) -> MaskedMoments:
        """Where there are too few values, the moments of the last step that had enough."""
        means, variances = [], []
        last = self._last if first else None
        for t in range(steps):
            own = slice(t * networks, (t + 1) * networks)
            mean, var, ok = found.mean[:, own], found.var_biased[:, own], enough[:, own, None]
            if last is not None and last.mean.shape == mean.shape:
                mean = torch.where(ok, mean, last.mean)
                var = torch.where(ok, var, last.var_biased)
            elif not ok.all():
                raise TooFewValues(
                    f"time step {first + t}: {int(found.count[:, own].min())} valid examples, "
                    f"fewer than min_count={self.min_count}, and no earlier step to take "
                    "statistics from; use larger batches"
                )
            last = MaskedMoments(mean.detach(), var.detach(), found.count[:, own])
            means.append(mean)
            variances.append(var)
        self._last = last
        return MaskedMoments(torch.cat(means, 1), torch.cat(variances, 1), found.count)

    @torch.no_grad()
    def _update_steps(self, batch: MaskedMoments, first: int, steps: int) -> None:
        """Move the estimate of each step that had enough values towards the batch's moments."""
        own = slice(first, first + steps)
        count = batch.count.view(steps, -1)  # (steps, G)
        enough = count >= self.min_count
        self.reused += (~enough).sum(0)
        tracked = self.num_batches_tracked[own]
        tracked += enough
        weight = enough.to(self.running_mean.dtype)
        if self.momentum is None:
            weight = weight / tracked.clamp(min=1)
        elif isinstance(self.momentum, Tensor):
            weight = weight * self.momentum.view(count.shape[1], -1)[:, 0]
        else:
            weight = weight * self.momentum
        self.examples[own] += (count - self.examples[own]) * weight
        wide = weight.repeat_interleave(self.num_features // count.shape[1], 1)
        unbiased = batch.var_biased * (batch.count / (batch.count - 1).clamp(min=1))
        for running, now in (
            (self.running_mean[own], batch.mean),
            (self.running_var[own], unbiased),
        ):
            now = now.reshape(steps, -1).nan_to_num()
            running.mul_(1 - wide).add_(now * wide)

    def _population(self, first: int, steps: int) -> tuple[Tensor, Tensor]:
        """Statistics (1, steps * C) of the time steps from `first` on."""
        if self.scope == "shared":
            some = self.examples.sum(0)
            weights = torch.where(some > 0, self.examples, 1.0)  # without any: every step alike
            share = weights / weights.sum(0)
            share = share.repeat_interleave(self.num_features // share.shape[1], 1)
            mean = (share * self.running_mean).sum(0)
            between = (share * (self.running_mean - mean).square()).sum(0)
            var = (share * self.running_var).sum(0) + between
            return mean.repeat(steps)[None], var.repeat(steps)[None]
        last = min(self.time_steps, self.truncate or self.time_steps) - 1
        rows = torch.arange(first, first + steps, device=self.running_mean.device).clamp(max=last)
        seen = self.examples > 0
        if seen.all() or not seen.any():
            return self.running_mean[rows].view(1, -1), self.running_var[rows].view(1, -1)
        every = torch.arange(self.time_steps, device=rows.device)[:, None]
        own = torch.where(seen, every, 0).cummax(0).values[rows]  # (steps, G)
        own = own.repeat_interleave(self.num_features // own.shape[1], 1)
        return (self.running_mean.gather(0, own).view(1, -1),
                self.running_var.gather(0, own).view(1, -1))  # fmt: skip

    def _with(self, x: Tensor, mean: Tensor, var: Tensor, steps: int) -> Tensor:
        """Each group of rows of x by its moments (groups, steps * C)."""
        scale = (var + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight.repeat(steps)
        shift = -mean * scale
        if self.bias is not None:
            shift = shift + self.bias.repeat(steps)
        groups = len(mean)
        y = x.view(groups, -1, x.shape[1]) * scale[:, None] + shift[:, None]
        return y.view(x.shape)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, time_steps={self.time_steps}, scope={self.scope}"
