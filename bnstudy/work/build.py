"""From a config to a network: with the norm in its layers, checked before anything is computed."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from bnstudy import entry, models, norms, probes
from bnstudy.config import KNOWN, Config, NormConfig
from bnstudy.data.samplers import generator
from bnstudy.errors import UserError, unknown


@dataclass(frozen=True)
class Anatomy:
    """What a config's network is made of, found on the meta device without any arithmetic."""

    layers: list[dict[str, Any]]  # one per norm layer: name, norm, channels, positions, m, ...
    modules: int  # leaf modules that a forward calls; what a loop's steps cost, in their terms
    macs: int  # multiply-accumulates of one example's forward
    train_size: int
    test_size: int
    parameters: int


# settings that may stay when another norm is chosen, or that concern no norm layer
ANY_NORM = ("name", "eps", "affine", "momentum", "backend", "gamma_init", "freeze_at", "entry",
            "source", "weight_standardization", "sync")  # fmt: skip


def norm_factory(config: NormConfig, steps: int | None = None) -> models.NormFactory:
    """channels -> norm layer, marked `is_norm`.

    Args:
        config: name and settings.
        steps: in a recurrent network, the length of the longest training sequence; its factory also
            takes keyword arguments of the norm, which one that does not have them ignores.

    Raises:
        UserError: unknown name, or a setting that this norm does not have.
    """
    kind = norms.NORMS.get(config.name)
    if steps is not None:
        if config.name not in RECURRENT_NORMS:
            raise UserError(
                f"norm={config.name} in a recurrent network: choose one of "
                f"{', '.join(RECURRENT_NORMS)}"
            )
        kind = norms.StepBatchNorm if config.name == "batch" else kind
        if config.time_steps is not None and config.time_steps < steps:
            raise UserError(
                f"norm.time_steps={config.time_steps} is below the longest training sequence "
                f"({steps} steps): give {steps} or more, or leave it out"
            )
    if config.name == "custom":
        entry.locate(config.entry, "norm.entry")  # a mistake in its name is told at once
        make = partial(entry.call, config.entry, "norm.entry")
    else:
        if config.name not in norms.NORMS:
            raise unknown("norm", config.name, [*norms.NORMS, "custom"])
        allowed = norms.parameters_of(kind)
        for key, field in NormConfig.model_fields.items():
            value = getattr(config, key)
            if key not in ANY_NORM and key not in allowed and value != field.default:
                where = "" if steps or key not in PER_STEP else " outside a recurrent network"
                raise UserError(f"norm.{key}={value}: {config.name} norm has no {key}{where}")
        if config.freeze_at < 1 and "frozen" not in allowed:
            raise UserError(
                f"norm.freeze_at={config.freeze_at}: {config.name} norm has no population "
                "statistics to freeze"
            )
        if config.sync and "process_group" not in allowed:
            raise UserError(f"norm.sync=true: {config.name} norm has no statistics to share")
        given = {k: getattr(config, k) for k in allowed if k in NormConfig.model_fields}
        if config.sync:
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
        layer = make(channels, **{k: v for k, v in more.items() if k in allowed})
        layer.is_norm = True
        return layer

    return marked


PER_STEP = ("scope", "time_steps", "min_count", "below_min")
RECURRENT_NORMS = ("none", "batch", "layer", "group")  # of one example, or of one time step


def network(config: Config, shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """The network of a config, its weights drawn from torch's global generator."""
    steps = shape[-1] if config.model.name == "recurrent" else None
    norm = norm_factory(config.norm, steps)
    return models.build(config.model, shape, num_classes, norm)


def build(config: Config, shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """The network of a config with the initial weights of its seed.

    Weights are drawn from (seed, "init"), so arms that differ in their norm start alike.
    """
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator(config.seed, "init").get_state())
        net = network(config, shape, num_classes)
    return norms.standardize_weights(net) if config.norm.weight_standardization else net


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


def preflight(config: Config, dataset: Any) -> Anatomy:
    """Build and call the network on the meta device; refuse what cannot train.

    Raises:
        UserError: a batch larger than the training set; a norm that a layer cannot have (the layer
            is named); statistics of one value; a size the model does not have.
    """
    size, n, shape = config.train.batch_size, len(dataset.train_y), tuple(dataset.shape)
    if size > n:
        raise UserError(
            f"train.batch_size={size} is larger than the training set ({n} examples of "
            f"{config.data.name}): use at most {n}"
        )
    _check_probes(config, dataset)
    several = [name for name in KNOWN if name != "recurrent"]
    if config.train.processes > 1 and config.model.name not in several:
        raise UserError(
            f"train.processes={config.train.processes} is there for model={', '.join(several)}, "
            f"not for {config.model.name}"
        )
    if len(shape) == 2 and config.model.name not in ("recurrent", "custom"):
        raise UserError(
            f"model={config.model.name} reads images, and data={config.data.name} with "
            f"data.sequence={config.data.sequence} is sequences: choose model=recurrent"
        )
    if len(shape) == 2 and (config.train.classes_per_batch or config.train.classes_per_task):
        raise UserError("train.classes_per_batch and classes_per_task order images, not sequences")
    for key in ("classes_per_batch", "classes_per_task"):
        if (getattr(config.train, key) or 0) > dataset.num_classes:
            raise UserError(
                f"train.{key}={getattr(config.train, key)}: {config.data.name} has "
                f"{dataset.num_classes} classes"
            )
    arm = f"model={config.model.name} norm={config.norm.name} train.batch_size={size}"
    with torch.device("meta"):
        try:
            net = network(config, shape, dataset.num_classes)
        except UserError:
            raise
        except ValueError as error:
            where = _refusing_layer(config, shape, dataset.num_classes)
            raise UserError(f"{arm}: {where}: {error}") from None
        layers: list[dict[str, Any]] = []
        cost = {"modules": 0, "macs": 0}
        current = ""

        def before(name):
            def hook(module, inputs):
                nonlocal current
                current = name
                cost["modules"] += 1
                if getattr(module, "is_norm", False) and name not in {la["name"] for la in layers}:
                    layers.append(_describe(name, module, config, inputs[0]))

            return hook

        def after(module, inputs, output):
            weight = getattr(module, "weight", None)
            if hasattr(module, "macs"):
                cost["macs"] += module.macs(shape[-1])
                cost["modules"] += getattr(module, "modules_per_step", 0) * shape[-1]
            elif isinstance(module, nn.Linear | nn.Conv2d):
                cost["macs"] += weight.numel() * output.shape[2:].numel()

        for name, module in net.named_modules():
            if not list(module.children()):
                module.register_forward_pre_hook(before(name))
            if not list(module.children()) or hasattr(module, "macs"):
                module.register_forward_hook(after)
        try:
            logits = net.train()(torch.empty(size, *shape))
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{arm}: layer '{current}': {error}") from None
    scored = min(config.evaluate.large_batch, dataset.size("test"))
    if any(isinstance(m, norms.StepBatchNorm) and m.min_count > scored for m in net.modules()):
        raise UserError(
            f"the test part of data={config.data.name} has {dataset.size('test')} sequences and "
            f"evaluate.large_batch={config.evaluate.large_batch}: batch statistics need "
            f"norm.min_count={config.norm.min_count}; give more data or shorter sequences"
        )
    wanted = (size, *dataset.train_y.shape[1:], dataset.num_classes)
    if tuple(logits.shape) != wanted:
        raise UserError(
            f"model={config.model.name} gives {tuple(logits.shape)} for data={config.data.name}, "
            f"not logits {wanted}"
        )
    parameters = sum(p.numel() for p in net.parameters())
    return Anatomy(layers, cost["modules"], cost["macs"], n, len(dataset.test_y), parameters)


def _check_probes(config: Config, dataset: Any) -> None:
    """Refuse probes that do not exist, or measure what this data set is not."""
    kind = "sequences" if dataset.train_y.dim() > 1 else "images"
    for name, probe in zip(
        config.evaluate.probes, probes.find(config.evaluate.probes), strict=True
    ):
        if probe.of != kind:
            raise UserError(
                f"evaluate.probes={name} measures networks on {probe.of}: data={config.data.name} "
                f"is {kind}"
            )
    if "lengths" in config.evaluate.probes and config.data.name == "text":
        from bnstudy.probes.recurrent import FACTORS

        longest, characters = round(max(FACTORS) * config.data.length), dataset.test_y.numel()
        if longest > characters:
            raise UserError(
                f"evaluate.probes=lengths reads the test part in windows of up to {longest} "
                f"characters, and it has {characters}: give a longer text or a smaller data.length"
            )


def _describe(name: str, layer: nn.Module, config: Config, x: torch.Tensor) -> dict[str, Any]:
    """One norm layer: its channels C, positions H*W, and m, the values behind one statistic."""
    channels = layer.num_features if hasattr(layer, "num_features") else x.shape[1]
    positions = math.prod(x.shape[1:]) // channels
    if isinstance(layer, norms.StepBatchNorm) and config.norm.scope != "sequence":
        positions = 1  # every step has statistics of its own
    groups = getattr(layer, "num_groups", None)
    examples = config.norm.group_size or config.train.batch_size
    m = channels // groups * positions if groups else examples * positions
    if config.norm.name in ("none", "custom"):
        m = 0
    return {
        "name": name,
        "norm": config.norm.name,
        "channels": channels,
        "positions": positions,
        "num_groups": groups,
        "m": m,
    }


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
