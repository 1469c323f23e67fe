"""What a network is made of, found by calling it once; what does not fit is refused by name."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from bnstudy import entry, imports, norms
from bnstudy.config import Config
from bnstudy.errors import UserError, count

TORCH_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)


@dataclass(frozen=True)
class Anatomy:
    """What a config's network is made of."""

    layers: list[dict[str, Any]]  # one per norm layer: name, norm, channels, positions, m, ...
    modules: int  # leaf modules that a forward calls; what a loop's steps cost, in their terms
    macs: int  # multiply-accumulates of one example's forward
    values: int  # that norms read in one example's forward, at every step of a sequence
    train_size: int
    test_size: int
    parameters: int
    num_classes: int


def own_code(config: Config) -> bool:
    """Whether a network has a person's own code in it."""
    return "custom" in (config.model.name, config.norm.name)


def trial_size(config: Config) -> int:
    """Examples in the call that shows what a network is made of: few, but with whole ghost groups.

    What no group divides is called whole, so that the norm refuses it with the person's numbers.
    """
    size, group = config.train.batch_size, config.norm.group_size or 1
    return size if size % group else min(size, max(8, 2 * group) // group * group)


def arm(config: Config) -> str:
    """What messages call the network of a config."""
    size = config.train.batch_size
    return f"model={config.model.name} norm={config.norm.name} train.batch_size={size}"


def dissect(net: nn.Module, config: Config, dataset: Any, device: torch.device) -> Anatomy:
    """Call a network in training and, if it is a person's own, in evaluation.

    Args:
        device: that of the network: the CPU, or `meta`, where it has shapes and no values.

    Raises:
        UserError: statistics of one value; outputs that are no logits; no layer of norm to choose;
            whatever goes wrong in a person's own code, with its line.
    """
    size, steps = trial_size(config), dataset.shape[-1]
    source = _source(config, net)
    if not any(getattr(m, "is_norm", False) for m in net.modules()):
        _check_choice(net, config, source)
    lazy = [name for name, m in net.named_modules() if isinstance(m, LazyModuleMixin)]
    layers: dict[str, dict[str, Any]] = {}
    cost = {"modules": 0, "macs": 0, "values": 0}
    current = ""

    def before(name):
        def hook(module, inputs):
            nonlocal current
            current = name
            cost["modules"] += not list(module.children())
            if getattr(module, "is_norm", False) and name not in layers:
                layers[name] = _describe(name, module, config, inputs[0])

        return hook

    def after(module, inputs, output):
        if getattr(module, "is_norm", False):
            _check_norm(module, config, inputs[0], output)
            cost["values"] += output.shape[1:].numel()
        elif hasattr(module, "macs"):
            cost["macs"] += module.macs(steps)
            cost["modules"] += getattr(module, "modules_per_step", 0) * steps
        elif isinstance(module, nn.Linear):  # channels last
            cost["macs"] += module.weight.numel() * output.shape[1:-1].numel()
        elif isinstance(module, nn.Conv2d):
            cost["macs"] += module.weight.numel() * output.shape[2:].numel()

    hooks = []
    for name, module in net.named_modules():
        called = not list(module.children()) or getattr(module, "is_norm", False)
        if called:
            hooks.append(module.register_forward_pre_hook(before(name)))
        if called or hasattr(module, "macs"):
            hooks.append(module.register_forward_hook(after))
    try:
        logits = net.train()(_batch(dataset, size, device))
    except UserError:
        raise
    except Exception as error:  # anything may be in a forward of a person's own
        if own_code(config):
            said = f"{arm(config)}: the forward of examples {tuple(dataset.shape)} failed"
            last = f" (last layer called: '{current}')" if current else ""
            raise entry.failed(said + last, error, source) from error
        raise UserError(f"{arm(config)}: layer '{current}': {error}") from None
    for hook in hooks:
        hook.remove()
    _check_logits(logits, size, config, dataset, source)
    if lazy:
        raise UserError(
            f"{arm(config)}: layer '{lazy[0]}' of {source} is lazy: it has no weights before its "
            f"first call, so seeds have nothing to start from. Write {net.get_submodule(lazy[0])} "
            "instead, its sizes computed from the argument `shape`"
        )
    if not layers:
        _check_choice(net, config, source)
    if own_code(config):
        try:
            net.eval()(_batch(dataset, 2 * size, device))
        except Exception as error:
            said = f"{arm(config)}: evaluation on a batch of another size, {2 * size}, failed"
            raise entry.failed(said, error, source) from error
    return Anatomy(
        list(layers.values()),
        cost["modules"],
        cost["macs"],
        cost["values"],
        dataset.size("train"),
        dataset.patches("test") if dataset.kind == "photographs" else dataset.size("test"),
        sum(p.numel() for p in net.parameters()),
        dataset.num_classes,
    )


def _source(config: Config, net: nn.Module) -> str:
    """Where a person's own network is written: its forward, else what builds it; else its name."""
    if config.model.name != "custom":
        return f"model={config.model.name}"
    forward = entry.defined(type(net).forward)
    own = forward and imports.is_own(forward.rpartition(":")[0])
    return forward if own else entry.defined(entry.locate(config.model.entry, "model.entry"))


def _batch(dataset: Any, size: int, device: torch.device) -> torch.Tensor:
    """Inputs of a network: shapes alone on the meta device, examples elsewhere."""
    if device.type == "meta":
        return torch.empty(size, *dataset.shape, device=device)
    index = torch.arange(size) % dataset.size("train")
    return dataset.take("train", index[:, None])[0][:, 0]


def _check_norm(layer: nn.Module, config: Config, x: torch.Tensor, y: Any) -> None:
    """Refuse a norm of a person's own that does not give what it was given."""
    if isinstance(y, torch.Tensor) and y.shape == x.shape:
        return
    given = tuple(y.shape) if isinstance(y, torch.Tensor) else entry.kind(y)
    at = entry.defined(type(layer).forward)
    raise UserError(
        f"norm.entry={config.norm.entry}: {type(layer).__name__}.forward at {at} returns {given} "
        f"for {tuple(x.shape)}; a norm must return a tensor of the shape of its input"
    )


def _check_logits(logits: Any, size: int, config: Config, dataset: Any, source: str) -> None:
    """Refuse outputs that are no row of logits for each example (and step), or no image."""
    wanted = (size, *dataset.outputs)
    if isinstance(logits, torch.Tensor) and tuple(logits.shape) == wanted:
        return
    tensor = isinstance(logits, torch.Tensor)
    given = tuple(logits.shape) if tensor else entry.kind(logits)
    at = f" at {source}" if config.model.name == "custom" else ""
    what = "images" if dataset.kind == "photographs" else "logits"
    raise UserError(
        f"model={config.model.name}{at} gives {given} for data={config.data.name}, not {what} "
        f"{wanted}{'' if tensor else f': return the tensor of {what} alone'}"
    )


def _check_choice(net: nn.Module, config: Config, source: str) -> None:
    """Refuse a network that calls no layer of the chosen norm, unless none is what it has."""
    own = Counter(type(m).__name__ for m in net.modules() if isinstance(m, TORCH_NORMS))
    if config.norm.name == "none" and not own:
        return
    unused = sum(getattr(m, "is_norm", False) for m in net.modules())
    has = ", ".join(count(n, name) for name, n in own.items())
    _refuse_choice(config, source, has, unused)


def _refuse_choice(config: Config, source: str, has: str, unused: int) -> NoReturn:
    said = f"model={config.model.name} has no layer of norm to choose, so norm={config.norm.name}"
    if config.model.name == "torchvision":
        raise UserError(
            f"{said} would change nothing: model.arch={config.model.arch} has no norm layers. "
            "Choose norm=none, or an architecture with norms, such as resnet18 "
            "(docs/torchvision.md lists them)"
        )
    if unused:
        why = f"it makes {count(unused, 'norm layer')} and its forward calls none: call them"
    elif has:
        why = f"it has {has} of its own: write norm(channels) in their place"
    else:
        why = "it never calls norm(channels): do so after each weight layer, or choose norm=none"
    where = f" ({source})" if config.model.name == "custom" else ""
    raise UserError(f"{said} would change nothing{where}: {why}")


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
