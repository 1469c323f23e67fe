"""What population and batch statistics do while a network learns."""

from typing import Any

import torch
from torch import Tensor

from bnstudy.data.samplers import epoch_order, generator
from bnstudy.norms import Calibrator, Norm, StepBatchNorm, batch_norms
from bnstudy.probes import course

BATCHES = 32  # whose moments are looked at
SAMPLES = (64, 256, 1024)  # for PreciseBN
FEW = 16  # channels of a layer that are given one by one


def batch_moments(view: Any, size: int, count: int = BATCHES) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and biased variance of `count` training batches by layer, each (count, S, channels).

    Drawn from (seed, "probe"), with the noise of training; every layer sees what it would see with
    batch statistics.
    """
    n = view.data.size("train")
    device = view.stack.flat.device
    streams = [generator(seed, "probe") for seed in view.seeds]
    needed = -(-size * count // n)
    orders = [torch.cat([epoch_order(n, g) for _ in range(needed)]) for g in streams]
    index = torch.stack(orders, dim=1)[: size * count].to(device)
    noise = [generator(seed, "probe_noise") for seed in view.seeds]
    names = batch_norms(view.stack.net)
    found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in names}
    shape = (view.stack.size, -1)
    with view.stack.training(False), view.stack.with_buffers({}), Calibrator(view.stack.net) as c:
        for rows in index.split(size):
            view.stack.observe(c, view.data.take("train", rows, noise)[0])
            for name in names:
                found[name].append(
                    tuple(
                        view.stack.buffers[f"{name}.{key}"].reshape(shape).clone()
                        for key in ("running_mean", "running_var")
                    )
                )
    counts = c.counts
    return {
        name: (
            torch.stack([m for m, _ in pairs]),
            # buffers hold the Bessel-corrected variance
            torch.stack([v for _, v in pairs]) * (1 - 1 / counts[name]),
        )
        for name, pairs in found.items()
    }


def corrected_statistics(view: Any) -> dict[str, Tensor]:
    """The exponential averages without what is left of their initial values, by buffer name.

    After t updates of momentum a the average still holds a part (1 - a)^t of mean 0 and variance
    1, 24 % of it for 0.004 and 360 updates; it is taken off, and the rest divided by 1 - (1 - a)^t
    (Kingma & Ba 2015, section 3, for Adam's averages). Not of statistics by time step; a cumulative
    mean holds nothing of the initial values.
    """
    found = {}
    for name, layer in batch_norms(view.stack.net).items():
        if layer.momentum is None or isinstance(layer, StepBatchNorm):
            continue
        mean, var, updates = (
            view.stack.buffers[f"{name}.{key}"]
            for key in ("running_mean", "running_var", "num_batches_tracked")
        )
        part = (1 - torch.as_tensor(layer.momentum, dtype=torch.float64)) ** updates
        if part.dim() < mean.dim() and part.dim():  # a counter for each network
            part = part[:, None]
        part = torch.where(part < 1, part, 0)  # before the first update there is nothing else
        found[f"{name}.running_mean"] = (mean / (1 - part)).to(mean.dtype)
        found[f"{name}.running_var"] = ((var - part) / (1 - part)).to(var.dtype)
    return found


def group_size(view: Any) -> int:
    """Examples that share statistics in training."""
    return view.config.norm.group_size or view.config.train.batch_size


def effective_m(view: Any) -> dict[str, Tensor]:
    """How many independent values a batch mean is worth, by norm layer, and the least of them.

    sigma^2 / Var(batch mean), from 32 batches of the training (or ghost group) size: equals
    m = B * H * W for independent values, less where the pixels of an image agree.
    """
    if not view.has_batch_norm:
        return {}
    found = {}
    for i, (mean, var) in enumerate(batch_moments(view, group_size(view)).values()):
        between = mean.var(0)
        population = var.mean(0) + between
        found[f"effective_m/{i:02d}"] = population.sum(-1) / between.sum(-1).clamp(min=1e-30)
    return {**found, "effective_m": torch.stack(list(found.values())).amin(0)}


def renorm(view: Any) -> dict[str, Tensor]:
    """Batch Renormalization's r and d over training: mean |log2 r| and mean |d| over all layers.

    Of 32 groups against the running statistics, before r and d are bounded; also for networks
    that do not use them.
    """
    if not view.has_batch_norm:
        return {}
    eps = view.config.norm.eps
    logs, shifts = [], []
    for name, (mean, var) in batch_moments(view, group_size(view)).items():
        shape = (view.stack.size, -1)
        running = view.stack.buffers[f"{name}.running_mean"].reshape(shape)
        std = (view.stack.buffers[f"{name}.running_var"].reshape(shape) + eps).sqrt()
        logs.append(((var + eps).sqrt() / std).log2().abs().mean((0, 2)))
        shifts.append(((mean - running) / std).abs().mean((0, 2)))
    return {
        **course(view, "log_r", torch.stack(logs).mean(0)),
        **course(view, "d", torch.stack(shifts).mean(0)),
    }


def checkpoints(view: Any) -> dict[str, Tensor]:
    """The same checkpoints by exponential average and PreciseBN, over the whole training.

    `ema_gap_error`: mean over checkpoints of the difference of their test errors, `late_gap_error`
    over the second half of them; `log_sd_ratio`: log2 of the ratio of their standard deviations
    over the second half of the checkpoints; `least_train_loss`: over all of them. Each checkpoint:
    `ema_error/01`, `precise_error/01`, `batch_error/01`, `corrected_error/01` (by
    `corrected_statistics`), and `lag/01`, the distance of the running mean from the mean of 32
    batch means in the batch means' own standard deviation (first layer, root mean square over
    channels). After the last one the first layer's two first channels: `cloud_x/01`, ... and
    `running_x`.
    """
    if not view.has_batch_norm:
        return {}
    measured = view.measured
    name = next(iter(batch_norms(view.stack.net)))
    mean, _ = batch_moments(view, group_size(view))[name]
    running = view.stack.buffers[f"{name}.running_mean"].reshape(view.stack.size, -1)
    lag = ((running - mean.mean(0)) / mean.std(0).clamp(min=1e-12)).square().mean(-1).sqrt()
    with view.stack.training(False), view.stack.with_buffers(corrected_statistics(view)):
        corrected = view.score("test")[1]
    found = {
        **course(view, "ema_error", measured["test_error"]),
        **course(view, "corrected_error", corrected),
        **course(view, "precise_error", measured["test_error_precise"]),
        **course(view, "batch_error", measured["test_error_large_batch"]),
        **course(view, "lag", lag),
    }
    losses = view.memory.setdefault("train_loss", [])
    losses.append(measured["train_loss"])
    if not view.last:
        return {}
    ema, precise = (torch.stack(view.memory[k]) for k in ("ema_error", "precise_error"))
    late = len(ema) // 2
    floor = 1 / (2 * view.data.size("test"))  # errors are counts: less cannot be told from zero
    spread = [e[late:].std(0).clamp(min=floor) for e in (ema, precise)]
    cloud: dict[str, Tensor] = {}
    for axis, channel in zip("xy", (0, 1), strict=True):
        cloud |= {f"cloud_{axis}/{i:02d}": mean[i, :, channel] for i in range(len(mean))}
        cloud[f"running_{axis}"] = running[:, channel]
    return {
        **found,
        **cloud,
        "ema_gap_error": (ema - precise).mean(0),
        "late_gap_error": (ema - precise)[late:].mean(0),
        "log_sd_ratio": (spread[0] / spread[1]).log2(),
        "least_train_loss": torch.stack(losses).amin(0),
    }


def affine(view: Any) -> dict[str, Tensor]:
    """What every norm layer has learned: mean and s.d. of gamma and beta over its channels.

    By layer: `gamma_mean/01`, `gamma_sd/01`, `beta_mean/01`, `beta_sd/01`, ...; and of a first
    layer of at most 16 channels the values, sorted within each network: `first_gamma/01`, ...
    Layers without both are left out.
    """
    blocks = view.stack.blocks(view.stack.flat.detach())
    names = [name for name, m in view.stack.net.named_modules() if isinstance(m, Norm)]
    layers = [n for n in names if {f"{n}.weight", f"{n}.bias"} <= blocks.keys()]
    found = {}
    for i, name in enumerate(layers, start=1):
        for what, key in (("gamma", "weight"), ("beta", "bias")):
            own = blocks[f"{name}.{key}"].flatten(1)  # (S, channels)
            found[f"{what}_mean/{i:02d}"] = own.mean(1)
            found[f"{what}_sd/{i:02d}"] = own.std(1, unbiased=False)
            if i == 1 and own.shape[1] <= FEW:
                ordered = own.sort(1).values.unbind(1)
                found |= {f"first_{what}/{c:02d}": v for c, v in enumerate(ordered, start=1)}
    return found


def precise_samples(view: Any) -> dict[str, Tensor]:
    """Test error by how population statistics were made.

    `precise_256_error`: from 256 training examples. `precise_small_error` and
    `mean_of_batches_error`: from all in batches of the training size, pooled (Wu & Johnson 2021)
    and as mean of the batches' Bessel-corrected variances (Ioffe & Szegedy 2015).
    `corrected_error`: by the exponential average without its initial values.
    """
    if not view.has_batch_norm:
        return {}
    size = max(view.config.train.batch_size, 2)
    settings: dict[str, dict[str, Any]] = {
        f"precise_{n}_error": {"examples": n, "batch": min(n, 64)} for n in SAMPLES
    }
    settings["precise_small_error"] = {"batch": size}
    settings["mean_of_batches_error"] = {"batch": size, "estimator": "mean_of_batches"}
    found = {}
    with view.stack.training(False):
        for name, how in settings.items():
            with view.stack.with_buffers(view.precise_statistics(**how)):
                found[name] = view.score("test")[1]
        with view.stack.with_buffers(corrected_statistics(view)):
            found["corrected_error"] = view.score("test")[1]
    return found


def statistics_gap(view: Any) -> dict[str, Tensor]:
    """How far a batch's moments are from the running ones, over training (Shen et al. 2020, 3.1).

    Of 32 training batches (or ghost groups), with the weights of the moment; a layer's distances
    are relative: |mean_B - mean| / |sd| and |var_B - var| / |var|, norms over its channels, means
    over the batches. `mean_gap`, `variance_gap`: means over layers and evaluations. By layer, after
    the last evaluation: `mean_gap/01`, `variance_gap/01`, ... Evaluations after few updates also
    measure what is left of the running moments' initial values. The source's distances are not
    relative. Not of statistics by time step.
    """
    layers = batch_norms(view.stack.net).values()
    if not layers or any(isinstance(layer, StepBatchNorm) for layer in layers):
        return {}
    gaps = [
        relative_gaps(*moments, *_running(view, name))
        for name, moments in batch_moments(view, group_size(view)).items()
    ]
    found: dict[str, Tensor] = {}
    for what, own in zip(("mean_gap", "variance_gap"), zip(*gaps, strict=True), strict=True):
        so_far = view.memory.setdefault(what, [])
        so_far.append(torch.stack(own).mean(0))
        found |= {f"{what}/{i:02d}": gap for i, gap in enumerate(own, start=1)}
        found[what] = torch.stack(so_far).mean(0)
    return found if view.last else {}


def relative_gaps(
    mean: Tensor, var: Tensor, population_mean: Tensor, population_var: Tensor
) -> tuple[Tensor, Tensor]:
    """Distances (S,) of batch moments (batches, S, channels) from the population's (S, channels).

    Of the mean in the population's standard deviations, of the variance in its variances.
    """
    distance = (mean - population_mean).norm(dim=-1) / population_var.sqrt().norm(dim=-1)
    of_variance = (var - population_var).norm(dim=-1) / population_var.norm(dim=-1)
    return distance.mean(0), of_variance.mean(0)


def _running(view: Any, name: str) -> tuple[Tensor, Tensor]:
    """The running moments of a layer, (S, channels) each."""
    mean, var = (view.stack.buffers[f"{name}.running_{key}"] for key in ("mean", "var"))
    return mean.reshape(view.stack.size, -1), var.reshape(view.stack.size, -1)


def averaged_weights(view: Any) -> dict[str, Tensor]:
    """Test error of the averaged weights by two more sources of statistics.

    `averaged_statistics_error`: the running statistics averaged as the weights are;
    `update_bn_error`: what torch.optim.swa_utils.update_bn makes, from all training examples in
    batches of the training size. Beside them `test_error_averaged` (of the last weights, stale) and
    `test_error_averaged_precise` (recomputed).
    """
    if not (view.config.optimizer.weight_average and view.has_batch_norm):
        return {}
    size = max(view.config.train.batch_size, 2)
    everything = view.data.size("train")
    with view.stack.training(False), view.update.averaged_weights():
        recomputed = view.precise_statistics(everything, size, "mean_of_batches")
        found = {}
        for name, buffers in {
            "averaged_statistics_error": view.update.averaged_statistics,
            "update_bn_error": recomputed,
        }.items():
            with view.stack.with_buffers(buffers):
                found[name] = view.score("test")[1]
    return found
