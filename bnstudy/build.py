"""From a config to a network: with the norm in its layers, checked before anything is computed."""

import math
from dataclasses import dataclass
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
    modules: int  # leaf modules that a forward calls
    macs: int  # multiply-accumulates of one example's forward
    train_size: int
    test_size: int
    parameters: int


# settings that may stay when another norm is chosen, or that concern no norm layer
ANY_NORM = ("name", "eps", "affine", "momentum", "backend", "gamma_init", "freeze_at", "entry",
            "source", "weight_standardization", "sync")  # fmt: skip


def norm_factory(config: NormConfig) -> models.NormFactory:
    """channels -> norm layer, marked `is_norm`.

    Raises:
        UserError: unknown name, or a setting that this norm does not have.
    """
    if config.name == "custom":
        make = entry.locate(config.entry, "norm.entry")
    else:
        if config.name not in norms.NORMS:
            raise unknown("norm", config.name, [*norms.NORMS, "custom"])
        allowed = norms.parameters_of(norms.NORMS[config.name])
        for key, field in NormConfig.model_fields.items():
            value = getattr(config, key)
            if key not in ANY_NORM and key not in allowed and value != field.default:
                raise UserError(f"norm.{key}={value}: {config.name} norm has no {key}")
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
        try:
            make = norms.make(config.name, **given)
        except ValueError as error:
            raise UserError(f"norm={config.name}: {error}") from None

    def marked(channels: int) -> nn.Module:
        layer = make(channels)
        layer.is_norm = True
        return layer

    return marked


def build(config: Config, shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """The network of a config with the initial weights of its seed.

    Weights are drawn from (seed, "init"), so arms that differ in their norm start alike.
    """
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator(config.seed, "init").get_state())
        net = models.build(config.model, shape, num_classes, norm_factory(config.norm))
    return norms.standardize_weights(net) if config.norm.weight_standardization else net


class _Placeholder(nn.Identity):
    def __init__(self, channels: int) -> None:
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
    probes.find(config.evaluate.probes)
    if config.train.processes > 1 and config.model.name not in KNOWN:
        raise UserError(
            f"train.processes={config.train.processes} is there for model={', '.join(KNOWN)}, not "
            f"for {config.model.name}"
        )
    for key in ("classes_per_batch", "classes_per_task"):
        if (getattr(config.train, key) or 0) > dataset.num_classes:
            raise UserError(
                f"train.{key}={getattr(config.train, key)}: {config.data.name} has "
                f"{dataset.num_classes} classes"
            )
    arm = f"model={config.model.name} norm={config.norm.name} train.batch_size={size}"
    with torch.device("meta"):
        try:
            net = models.build(config.model, shape, dataset.num_classes, norm_factory(config.norm))
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
                if getattr(module, "is_norm", False):
                    layers.append(_describe(name, module, config, inputs[0]))

            return hook

        def after(module, inputs, output):
            weight = getattr(module, "weight", None)
            if isinstance(module, nn.Linear | nn.Conv2d):
                cost["macs"] += weight.numel() * output.shape[2:].numel()

        for name, module in net.named_modules():
            if not list(module.children()):
                module.register_forward_pre_hook(before(name))
                module.register_forward_hook(after)
        try:
            logits = net.train()(torch.empty(size, *shape))
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{arm}: layer '{current}': {error}") from None
    if tuple(logits.shape) != (size, dataset.num_classes):
        raise UserError(
            f"model={config.model.name} gives {tuple(logits.shape)}, "
            f"not logits ({size}, {dataset.num_classes})"
        )
    parameters = sum(p.numel() for p in net.parameters())
    return Anatomy(layers, cost["modules"], cost["macs"], n, len(dataset.test_y), parameters)


def _describe(name: str, layer: nn.Module, config: Config, x: torch.Tensor) -> dict[str, Any]:
    """One norm layer: its channels C, positions H*W, and m, the values behind one statistic."""
    channels, positions = x.shape[1], math.prod(x.shape[2:])
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
