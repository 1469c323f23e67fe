"""From a config to a network: with the norm in its layers, checked before anything is computed."""

import math
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from bnstudy import entry, models, norms, probes
from bnstudy.config import Config, NormConfig, capabilities
from bnstudy.data.samplers import generator
from bnstudy.errors import UserError, unknown
from bnstudy.machine import memory
from bnstudy.work.anatomy import Anatomy, arm, dissect


def norm_factory(config: NormConfig, steps: int | None = None) -> models.NormFactory:
    """channels -> norm layer, marked `is_norm`.

    Args:
        config: name and settings; those that the norm does not use are passed over.
        steps: in a recurrent network, the length of the longest training sequence; its factory also
            takes keyword arguments of the norm, which one that does not have them ignores.

    Raises:
        UserError: unknown name, or a combination of values that the norm refuses.
    """
    if config.name == "custom":
        entry.locate(config.entry, "norm.entry")  # a mistake in its name is told at once
        make, takes = partial(entry.call, config.entry, "norm.entry"), ()
    else:
        if config.name not in norms.NORMS:
            raise unknown("norm", config.name, capabilities.NORMS)
        kind = norms.NORMS[config.name]
        if steps is not None and config.name == "batch":
            kind = norms.StepBatchNorm
        takes = tuple(norms.parameters_of(kind))
        given = {k: getattr(config, k) for k in takes if k in NormConfig.model_fields}
        if config.sync and "process_group" in takes:
            given["process_group"] = "world"
        if kind is norms.StepBatchNorm:
            given["time_steps"] = config.time_steps or steps
        try:
            make = partial(kind, **given) if steps else norms.make(config.name, **given)
            if steps and not config.num_groups:
                make(64)
        except ValueError as error:
            raise UserError(f"norm={config.name}: {error}") from None

    def marked(channels: int, **more: Any) -> nn.Module:
        if "affine" in more and config.affine in ("beta", "none"):
            more["affine"] = "none"  # no gamma was asked for
        layer = make(channels, **{k: v for k, v in more.items() if k in takes})
        if not isinstance(layer, nn.Module):  # the user's own
            wanted = f"it must return an nn.Module for {channels} channels"
            raise entry.returned(config.entry, "norm.entry", layer, wanted)
        layer.is_norm = True
        return layer

    return marked


def network(config: Config, shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """The network of a config, its weights drawn from torch's global generator."""
    norm = norm_factory(config.norm, _steps(config, shape))
    return models.build(config.model, shape, num_classes, norm)


def _steps(config: Config, shape: tuple[int, ...]) -> int | None:
    """The time steps that norms see one at a time; None where they see whole examples."""
    row = capabilities.MODELS.get(config.model.name)
    return shape[-1] if row and row.recurrent else None


def build(config: Config, shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """The network of a config with the initial weights of its seed.

    Weights are drawn from (seed, "init"), so arms that differ in their norm start alike.
    """
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator(config.seed, "init").get_state())
        net = network(config, shape, num_classes)
    if config.norm.weight_standardization:
        norms.standardize_weights(net, layers=config.norm.standardized)
    return net


class _Placeholder(nn.Identity):
    def __init__(self, channels: int, **_: Any) -> None:
        super().__init__()
        self.channels = channels


def _refusing_layer(config: Config, shape: tuple[int, ...], num_classes: int) -> str:
    """The first layer whose norm cannot be built; its name and channels."""
    make = norm_factory(config.norm)
    net = models.build(config.model, shape, num_classes, _Placeholder)
    for name, layer in net.named_modules():
        if isinstance(layer, _Placeholder):
            try:
                make(layer.channels)
            except ValueError:
                return f"layer '{name}' ({layer.channels} channels)"
    return "a layer"


def check(config: Config, dataset: Any) -> None:
    """Refuse what cannot train on this data, as far as that shows without a network.

    Raises:
        UserError: a setting that the model or norm does not use; a model that does not read this
            kind of data; a norm that cannot be there; a batch, or classes, that the training set
            does not have; too few examples to evaluate on; probes of another kind of data.
    """
    _check_parts(config, dataset)
    _check_batches(config, dataset)
    _check_probes(config, dataset)


def _check_parts(config: Config, dataset: Any) -> None:
    """Refuse a model or norm that does not exist, does not fit, or has not what it was given."""
    model, norm = config.model.name, config.norm.name
    if model not in capabilities.MODELS:
        raise unknown("model", model, capabilities.MODELS)
    if norm not in capabilities.NORMS:
        raise unknown("norm", norm, capabilities.NORMS)
    row, kind = capabilities.MODELS[model], dataset.kind
    _check_task(config, kind)
    if kind not in row.inputs:
        takers = [k for k, m in capabilities.MODELS.items() if kind in m.inputs and k != "custom"]
        hint = ", or read them as sequences by data.sequence=rows" if kind == "images" else ""
        read = f" with data.sequence={config.data.sequence}" if kind != "photographs" else ""
        raise UserError(
            f"model={model} reads {row.inputs[0]}, and data={config.data.name}{read} is {kind}: "
            f"choose model={', '.join(takers)}{hint}"
        )
    if row.recurrent and capabilities.NORMS[norm].recurrent is None:
        there = [k for k, n in capabilities.NORMS.items() if n.recurrent is not None]
        raise UserError(f"norm={norm} in a recurrent network: choose one of {', '.join(there)}")
    for key, default in capabilities.unused(config).items():
        group, _, name = key.partition(".")
        value = getattr(getattr(config, group), name)
        if value != default:
            raise capabilities.refusal(key, value, config)
    over_steps = capabilities.NORMS[norm].over_batch and model == "transformer"
    if over_steps and config.data.min_length not in (None, config.data.length):
        raise UserError(
            f"data.min_length={config.data.min_length} pads sequences, and norm={norm} would count "
            "the padding in its statistics: leave it out, or choose norm=layer, rms, dyt or none"
        )
    steps = _steps(config, tuple(dataset.shape))
    if steps and config.norm.time_steps is not None and config.norm.time_steps < steps:
        raise UserError(
            f"norm.time_steps={config.norm.time_steps} is below the longest training sequence "
            f"({steps} steps): give {steps} or more, or leave it out"
        )
    norm_factory(config.norm, steps)  # refuses values that do not go together
    scored = min(config.evaluate.large_batch, dataset.size("test"))
    if row.recurrent and norm == "batch" and config.norm.min_count > scored:
        raise UserError(
            f"the test part of data={config.data.name} has {dataset.size('test')} sequences and "
            f"evaluate.large_batch={config.evaluate.large_batch}: batch statistics need "
            f"norm.min_count={config.norm.min_count}; give more data or shorter sequences"
        )
    if config.model.scaled_weights and config.norm.weight_standardization:
        raise UserError(
            "model.scaled_weights and norm.weight_standardization both standardize the weights of "
            "convolutions: give one of them"
        )
    if config.train.processes > 1 and not row.processes:
        several = [name for name, m in capabilities.MODELS.items() if m.processes]
        raise UserError(
            f"train.processes={config.train.processes} supports model={', '.join(several)}, "
            f"not {model}"
        )
    if config.train.processes > 1 and config.model.dropout:
        raise UserError(
            f"model.dropout={config.model.dropout:g}: processes that share a batch would drop the "
            f"same values of each part; leave out train.processes={config.train.processes}"
        )


def _check_task(config: Config, kind: str) -> None:
    """Refuse a task that this kind of data is not for."""
    name, data = config.task.name, config.data.name
    own = capabilities.TASKS[name]
    if kind not in own.inputs:
        fitting = [task for task, row in capabilities.TASKS.items() if kind in row.inputs]
        raise UserError(
            f"task={name} learns from {' or '.join(own.inputs)}, and data={data} is {kind}: "
            f"choose task={', '.join(fitting)}, or other data"
        )
    if config.train.precision == "float64" and name != "classification":
        raise UserError(
            f"train.precision=float64 supports task=classification, not {name}: use float32"
        )
    if own.restores and config.data.degradation == "none":
        raise UserError(
            f"task={name} needs something to undo: choose data.degradation=noise, blind_noise, "
            "downscale or jpeg"
        )


def _check_batches(config: Config, dataset: Any) -> None:
    """Refuse batches that cannot be made up from the training set."""
    train, name, n = config.train, config.data.name, dataset.size("train")
    if (clients := config.federation.clients) > 1:
        _check_federation(config, dataset)
        n, name = n // clients, f"{name} for each of {clients} clients"
    if train.batch_size > n:
        raise UserError(
            f"train.batch_size={train.batch_size} is larger than the training set ({n} examples of "
            f"{name}): use at most {n}"
        )
    if train.corruption != "none":
        _check_copies(config, dataset.kind)
    if not (train.classes_per_batch or train.classes_per_task):
        return
    if dataset.kind != "images":
        raise UserError(
            f"train.classes_per_batch and classes_per_task order images, not {dataset.kind}"
        )
    for key in ("classes_per_batch", "classes_per_task"):
        if (getattr(train, key) or 0) > dataset.num_classes:
            raise UserError(
                f"train.{key}={getattr(train, key)}: {name} has {dataset.num_classes} classes"
            )
    if train.classes_per_batch:
        each = train.batch_size // train.classes_per_batch
        enough = int((dataset.labels("train", 0).bincount() >= each).sum())
        if enough < train.classes_per_batch:
            raise UserError(
                f"train.classes_per_batch={train.classes_per_batch} at train.batch_size="
                f"{train.batch_size} takes {each} examples of each of {train.classes_per_batch} "
                f"classes, and {enough} classes of {name} have as many in training: give more data "
                "or a smaller batch"
            )


def _check_copies(config: Config, kind: str) -> None:
    """Refuse corrupted copies of what is no image, and groups that do not divide what they join."""
    train, size = config.train, config.norm.group_size
    if kind != "images":
        raise UserError(f"train.corruption={train.corruption} corrupts images, not {kind}")
    if config.data.noise_every_step:
        raise UserError(
            "data.noise_every_step=true: corrupted copies would be without it; leave it out, or "
            f"leave out train.corruption={train.corruption}"
        )
    if size and 2 * train.batch_size % size:
        raise UserError(
            f"norm.group_size={size} does not divide the {2 * train.batch_size} images that "
            f"train.batch_size={train.batch_size} makes with their copies"
        )


def _check_federation(config: Config, dataset: Any) -> None:
    """Refuse what clients do not support."""
    said = f"federation.clients={config.federation.clients}"
    if dataset.kind != "images":
        raise UserError(f"{said} share images, and data={config.data.name} is {dataset.kind}")
    rows = capabilities.MODELS[config.model.name], capabilities.NORMS.get(config.norm.name)
    for key, given in (
        (f"model={config.model.name}", not rows[0].stackable),
        (f"norm={config.norm.name}", rows[1] is not None and not rows[1].stackable),
        ("train.processes", config.train.processes > 1),
        ("train.classes_per_batch", config.train.classes_per_batch),
        ("train.classes_per_task", config.train.classes_per_task),
        ("data.noise_every_step", config.data.noise_every_step),
        ("optimizer.weight_average", config.optimizer.weight_average),
    ):
        if given:
            raise UserError(f"{said} does not support {key}: leave one of them out")


def anatomy(config: Config, dataset: Any) -> Anatomy:
    """Build and call the network once; refuse what a layer refuses.

    It depends on the data, the model, the norm and train.batch_size only. Few real examples do:
    on the meta device torch works in Python and imports its compiler for it, which takes seconds.
    Only torchvision's networks, which are large and import it anyway, are called there.

    Raises:
        UserError: a norm that a layer cannot have (the layer is named), a size that the model does
            not have, and what `dissect` refuses.
    """
    device = torch.device("meta" if config.model.name == "torchvision" else "cpu")
    shape = tuple(dataset.shape)
    _check_memory(config, shape, dataset.num_classes)
    with torch.random.fork_rng(devices=[]), device:
        try:
            net = network(config, shape, dataset.num_classes)
        except UserError:
            raise
        except ValueError as error:
            where = _refusing_layer(config, shape, dataset.num_classes)
            raise UserError(f"{arm(config)}: {where}: {error}") from None
        return dissect(net, config, dataset, device)


def _check_memory(config: Config, shape: tuple[int, ...], num_classes: int) -> None:
    """Refuse a network whose weights and gradients alone this machine cannot hold.

    By a part of its weights that its sizes tell: to build it would take the memory.
    """
    hidden, last = config.model.hidden, 4 * config.model.width
    layers = {
        "resnet": [(9 * last, last)],
        "mlp": pairwise([math.prod(shape), *hidden, num_classes]),
        "deep": [(config.model.depth * config.model.width, config.model.width)],
        "recurrent": [(size, size) for size in hidden],
    }
    weights = sum(rows * columns for rows, columns in layers.get(config.model.name, []))
    needed = 2 * 4 * weights  # float32
    if needed > memory():
        raise UserError(
            f"{arm(config)}: weights and gradients take more than {needed / 1e9:.3g} GB of memory, "
            f"and this machine has {memory() / 1e9:.0f}: choose smaller layers"
        )


def _check_probes(config: Config, dataset: Any) -> None:
    """Refuse probes that do not exist, or measure what this data set is not."""
    kind = dataset.kind
    for name, probe in zip(
        config.evaluate.probes, probes.find(config.evaluate.probes), strict=True
    ):
        if kind not in probe.of:
            raise UserError(
                f"evaluate.probes={name} measures networks on {' or '.join(probe.of)}: "
                f"data={config.data.name} is {kind}"
            )
    if "step_time" in config.evaluate.probes and config.train.processes > 1:
        raise UserError(
            "evaluate.probes=step_time times networks of one process: leave out "
            f"train.processes={config.train.processes}"
        )
    if "lengths" in config.evaluate.probes and config.data.name == "text":
        from bnstudy.probes.recurrent import FACTORS

        longest, characters = round(max(FACTORS) * config.data.length), dataset.test_y.numel()
        if longest > characters:
            raise UserError(
                f"evaluate.probes=lengths reads the test part in windows of up to {longest} "
                f"characters, and it has {characters}: give a longer text or a smaller data.length"
            )


def stackable(net: nn.Module) -> bool:
    """Whether networks like this one can train as one stack.

    Not where a layer draws random numbers (a seed's stream would depend on its stack), carries
    state from example to example, or shares statistics with other processes.
    """
    random = (nn.modules.dropout._DropoutNd, nn.RReLU)
    return not any(
        isinstance(m, random)
        or type(m).__name__ == "StochasticDepth"
        or not getattr(m, "stackable", True)
        for m in net.modules()
    )
