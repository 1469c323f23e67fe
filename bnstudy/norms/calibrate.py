"""Population statistics estimated again, by forward passes with fixed weights (PreciseBN)."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from .arguments import one_of
from .base import attributes
from .batch_norm import BatchNorm
from .modes import batch_norms_to
from .step_batch_norm import StepBatchNorm

STATISTICS = ("running_mean", "running_var")
ESTIMATORS = ("population", "mean_of_batches")


class PooledMoments:
    """Mean and biased variance of everything seen, merged batch by batch in float64.

    Chan et al. 1983: the result does not depend on how the values were cut into batches.
    """

    def __init__(self) -> None:
        zero = torch.zeros((), dtype=torch.float64)
        self.count, self.mean, self.squares = zero, zero, zero

    def add(self, mean: Tensor, var_unbiased: Tensor, count: Tensor) -> None:
        mean, var = mean.double(), var_unbiased.double()
        count = count.double()  # 0 where this batch had no value
        total = self.count + count
        delta, share = mean - self.mean, count / total.clamp(min=1)
        self.squares = self.squares + var * (count - 1).clamp(min=0) + delta**2 * self.count * share
        self.mean = self.mean + delta * share
        self.count = total

    def result(self) -> tuple[Tensor, Tensor]:
        return self.mean, self.squares / self.count.clamp(min=1)

    def weight(self) -> Tensor:
        return self.count


class MeanOfBatches:
    """Mean over batches of the batch mean and of the Bessel-corrected batch variance.

    Ioffe & Szegedy 2015, algorithm 2, step 10. Misses the variance between batches.
    """

    def __init__(self) -> None:
        zero = torch.zeros((), dtype=torch.float64)
        self.batches, self.mean, self.var = zero, zero, zero

    def add(self, mean: Tensor, var_unbiased: Tensor, count: Tensor) -> None:
        seen = (count > 0).double()
        self.batches = self.batches + seen
        self.mean = self.mean + mean.double() * seen
        self.var = self.var + var_unbiased.double() * seen

    def result(self) -> tuple[Tensor, Tensor]:
        batches = self.batches.clamp(min=1)
        return self.mean / batches, self.var / batches

    def weight(self) -> Tensor:
        return self.batches


class Calibrator:
    """Estimate population statistics of the BatchNorm layers from forward passes (PreciseBN).

    Within the block these layers (and no others) are in training mode with momentum 1, so that
    after each forward the buffers hold that batch's own moments, over the whole batch even where
    training uses ghost groups (errors of small groups add up over layers, Wu & Johnson 2021), and
    without Batch Renormalization and without the noise of `NoisyBatchNorm`, whose generator stays
    where it was; layers that share statistics between processes use their own process's batch. On
    leaving, every layer and buffer is as it was, exceptions or not; write
    `statistics()` back yourself, or use `calibrate`. The first layer's result does not depend on
    the batch size; deeper layers see inputs normalized per batch.

    estimator: "population" (pooled moments, Bessel's correction undone: Wu & Johnson 2021, biased
    variance of all values seen) or "mean_of_batches" (Ioffe & Szegedy 2015).

    >>> model, batches = nn.Sequential(BatchNorm(1)), torch.arange(12.0).view(-1, 1).split(4)
    >>> with Calibrator(model) as calibrator:
    ...     for batch in batches:
    ...         y = model(batch)
    ...         calibrator.update()
    >>> calibrator.statistics()["0.running_mean"]
    tensor([5.5000])
    """

    def __init__(self, model: nn.Module, estimator: str = "population"):
        one_of("estimator", estimator, ESTIMATORS)
        every = batch_norms_to("calibrate", model)
        self.layers = {name: layer for name, layer in every.items() if _estimates(layer)}
        if not self.layers:
            raise ValueError(
                "nothing to calibrate: every BatchNorm layer has track_running_stats=False"
            )
        self._kind = PooledMoments if estimator == "population" else MeanOfBatches
        self._estimates: dict[str, PooledMoments | MeanOfBatches] = {}
        # by (layer, time step), the step None where a layer keeps one set of statistics
        self._counts: dict[tuple[str, int | None], int] = {}

    def __enter__(self) -> Self:
        layers = list(self.layers.values())
        self._buffers = [(b, b.clone()) for layer in layers for b in layer.buffers()]
        self._hooks = [
            layer.register_forward_pre_hook(self._counter(name), with_kwargs=True)
            for name, layer in self.layers.items()
        ]
        for layer in layers:
            if isinstance(layer, StepBatchNorm):
                layer.examples.zero_()
        self._mode = attributes(
            layers,
            below_min="last_step",
            training=True,
            momentum=1.0,
            group_size=None,
            process_group=None,
            r_max=None,
            frozen=False,
            noisy=False,
        )
        self._mode.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._mode.__exit__(None, None, None)
        for hook in self._hooks:
            hook.remove()
        with torch.no_grad():
            for buffer, before in self._buffers:
                buffer.copy_(before)

    def _counter(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def note(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x, step = (*args, *kwargs.values(), None)[:2]
            if (name, step) in self._counts:
                raise ValueError(
                    f"BatchNorm layer {name!r} ran twice before update(): a layer used in two "
                    "places has no single population; call update() once after every forward"
                )
            self._counts[name, step] = x.numel() // x.shape[1]

        return note

    def update(self, buffers: Mapping[str, Tensor] | None = None) -> None:
        """Take in the forward just made.

        buffers: by qualified name, after that forward, possibly with leading stack axes; None:
        the model's own.
        """
        if not self._counts:
            raise ValueError("update() before any forward through a BatchNorm layer")
        for name, count in {name: count for (name, _), count in self._counts.items()}.items():
            mean, var = (
                self.layers[name].get_buffer(key) if buffers is None else buffers[_join(name, key)]
                for key in STATISTICS
            )
            layer, behind = self.layers[name], torch.as_tensor(count)
            if isinstance(layer, StepBatchNorm):  # with momentum 1, of this batch alone
                networks = layer.examples.shape[1]
                behind = layer.examples.repeat_interleave(layer.num_features // networks, 1)
                layer.examples.zero_()
            estimate = self._estimates.setdefault(name, self._kind())
            estimate.add(mean.detach(), var.detach(), behind)
        self._last = {name: count for (name, _), count in self._counts.items()}
        self._counts.clear()

    @property
    def counts(self) -> dict[str, int]:
        """Values behind one statistic of each layer, in the last forward that was taken in."""
        return self._last

    def statistics(self) -> dict[str, Tensor]:
        """running_mean and running_var by buffer name, in the buffers' dtype.

        Of a StepBatchNorm also `examples`, the values behind each step.
        Layers that never ran are left out; a time step that no sequence reached has the statistics
        of the last one that was reached. Raises ValueError when no batch was seen.
        """
        if not any(estimate.weight().any() for estimate in self._estimates.values()):
            raise ValueError("no batches: population statistics need at least one forward")
        found = {}
        for name, estimate in self._estimates.items():
            layer = self.layers[name]
            for key, value in zip(STATISTICS, estimate.result(), strict=True):
                if isinstance(layer, StepBatchNorm):
                    value = _carried(value, estimate.weight() > 0)
                found[_join(name, key)] = value.to(layer.get_buffer(key).dtype)
            if isinstance(layer, StepBatchNorm):  # which steps have statistics: read by the layer
                each = layer.num_features // layer.examples.shape[1]
                behind = estimate.weight()[:, ::each]
                found[_join(name, "examples")] = behind.to(layer.examples.dtype)
        return found


def _carried(values: Tensor, seen: Tensor) -> Tensor:
    """(T, C) with each row that was not seen replaced by the last one before it that was."""
    rows = torch.arange(len(values), device=values.device)[:, None]
    last = torch.where(seen, rows, 0).cummax(0).values
    return values.gather(0, last)


def _estimates(layer: BatchNorm) -> bool:
    return layer.running_mean is not None


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[Any], estimator: str = "population") -> nn.Module:
    """Replace a model's population statistics by those of the given inputs, in place (PreciseBN).

    batches: inputs of model(...); a tuple or list is taken as (input, ...). Other data than the
    training set's gives AdaBN (Li et al. 2016). An exception leaves the model as it was. Only
    batch norms change their mode: call model.eval() first, or dropout drops.
    Raises ValueError where there are no values to estimate from, or where they make a statistic
    NaN or infinite: names the first such layer.

    >>> model = nn.Sequential(BatchNorm(1)).eval()
    >>> batches = torch.arange(12.0).view(-1, 1).split(4)
    >>> calibrate(model, batches)[0].running_mean
    tensor([5.5000])
    """
    with Calibrator(model, estimator) as calibrator:
        for batch in batches:
            model(batch[0] if isinstance(batch, tuple | list) else batch)
            calibrator.update()
    found = calibrator.statistics()
    for name, value in found.items():
        if not value.isfinite().all():
            layer, _, statistic = name.rpartition(".")
            raise ValueError(
                f"calibrate: {statistic} of BatchNorm layer {layer!r} would not be finite "
                f"({value[~value.isfinite()][0].item()}): NaN or infinity reached it from the "
                "inputs or the weights; `with debug(model):` shows where. Nothing was changed"
            )
    for name, value in found.items():
        model.get_buffer(name).copy_(value)
    return model
