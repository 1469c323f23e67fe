"""All batch norms of a model at once: frozen, synchronized, evaluated with other statistics."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from .arguments import one_of
from .base import attributes
from .batch_norm import EVALUATIONS, BatchNorm
from .step_batch_norm import StepBatchNorm


def batch_norms(model: nn.Module) -> dict[str, BatchNorm]:
    """The BatchNorm layers of a model by their qualified name; torch's own are not among them.

    >>> list(batch_norms(nn.Sequential(nn.Linear(4, 8), BatchNorm(8), nn.ReLU())))
    ['1']
    """
    return {name: m for name, m in model.named_modules() if isinstance(m, BatchNorm)}


def batch_norms_to(purpose: str, model: nn.Module) -> dict[str, BatchNorm]:
    """`batch_norms`, for a purpose that needs some: "freeze".

    Raises ValueError where there is none. Warns where torch's own are passed over.
    """
    found = batch_norms(model)
    theirs = [
        name or "(the model itself)"
        for name, m in model.named_modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]
    shown = ", ".join(theirs[:3]) + (", ..." if len(theirs) > 3 else "")
    how = "swap_norms(model, 'batch') from bnstudy.norms makes them bnstudy's, with their values"
    if not found and theirs:
        raise ValueError(
            f"nothing to {purpose}: the model's {len(theirs)} batch norms ({shown}) are torch.nn's "
            f"and the model has no BatchNorm of bnstudy's; {how}"
        )
    if not found:
        raise ValueError(f"nothing to {purpose}: the model has no BatchNorm of bnstudy's")
    if theirs:
        warnings.warn(
            f"{purpose}: passes over {len(theirs)} batch norms of torch.nn ({shown}); {how}",
            stacklevel=3,
        )
    return found


def freeze(model: nn.Module, frozen: bool = True) -> nn.Module:
    """Freeze every BatchNorm: from here on training uses population statistics and leaves them.

    frozen: False lets them follow the batches again. gamma and beta learn in either case.
    Raises ValueError, with the model unchanged, where the model has no BatchNorm of bnstudy's, or
    where one has no population statistics; warns where torch.nn's own are passed over.

    >>> model = freeze(nn.Sequential(nn.Linear(4, 8), BatchNorm(8)))
    >>> y = model.train()(torch.randn(16, 4))
    >>> int(model[1].num_batches_tracked)
    0
    """
    layers = batch_norms_to("freeze", model)
    for name, layer in layers.items():
        if frozen and layer.running_mean is None:
            raise ValueError(
                f"BatchNorm layer {name!r} has track_running_stats=False: it keeps no population "
                "statistics, so it cannot be frozen"
            )
    for layer in layers.values():
        layer.frozen = frozen
    return model


def synchronize(model: nn.Module, process_group: object = "world") -> nn.Module:
    """Share the batch statistics of every BatchNorm between processes; in one process, a no-op.

    What torch.nn.SyncBatchNorm.convert_sync_batchnorm does for torch's own layers, in place: the
    layers, and references to them, stay. The processes' batches may differ in size.

    process_group: "world" (all processes), a torch.distributed group, or None (each its own).
    Raises ValueError, with the model unchanged, where the model has no BatchNorm of bnstudy's, or
    one with ghost groups or statistics per time step; warns where torch.nn's are passed over.

    >>> model = synchronize(nn.Sequential(nn.Linear(4, 8), BatchNorm(8)))
    >>> model[1].process_group
    'world'
    """
    layers = batch_norms_to("synchronize", model)
    for name, layer in layers.items():
        if process_group is not None and (layer.group_size or isinstance(layer, StepBatchNorm)):
            what = "time step" if isinstance(layer, StepBatchNorm) else "ghost group"
            raise ValueError(
                f"BatchNorm layer {name!r} has statistics for each {what}, which processes cannot "
                "share"
            )
    for layer in layers.values():
        layer.process_group = process_group
    return model


@contextmanager
def evaluation_mode(
    model: nn.Module,
    evaluation: str,
    group_size: int | None = None,
    *,
    prior_examples: float | None = None,
    alpha: float | None = None,
) -> Iterator[None]:
    """Evaluate with other statistics: within the block every BatchNorm of the model uses these.

    evaluation, prior_examples, alpha: as in BatchNorm. group_size: with "batch" and "mixture", how
    many consecutive examples share statistics (None: all), so that one forward of a large batch
    scores many small ones.
    Raises ValueError where the model has no BatchNorm of bnstudy's; warns where torch.nn's own are
    passed over.

    >>> model, x = nn.Sequential(BatchNorm(8)).eval(), 5 + torch.randn(64, 8)
    >>> with evaluation_mode(model, "batch"):
    ...     centred = model(x)
    >>> bool(centred.mean() < 1e-5), bool(model(x).mean() > 4)
    (True, True)
    """
    one_of("evaluation", evaluation, EVALUATIONS)
    with attributes(
        batch_norms_to("evaluate", model).values(),
        evaluation=evaluation,
        evaluation_group_size=group_size,
        prior_examples=prior_examples,
        alpha=alpha,
    ):
        yield
