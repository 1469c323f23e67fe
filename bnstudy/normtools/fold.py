"""Fold batch normalization into the layer before it, for inference."""

import copy
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from bnstudy.norms.base import Norm
from bnstudy.norms.batch_norm import BatchNorm
from bnstudy.norms.batch_norm_kin import ContinualNorm, NoisyBatchNorm
from bnstudy.norms.step_batch_norm import StepBatchNorm

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
FOLDABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, *TRANSPOSED)
TORCH_BATCH = (nn.SyncBatchNorm, nn.modules.batchnorm._BatchNorm)
OTHER_NORMS = (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.modules.instancenorm._InstanceNorm)


@dataclass
class Folded:
    """A model with its batch norms folded away, and what was and was not folded.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), BatchNorm(8), nn.ReLU(), LayerNorm(8))
    >>> folded = fold(model.eval(), torch.randn(2, 3, 9, 9))
    >>> folded.folded, folded.refused
    (['1'], {'3': 'LayerNorm takes its statistics from the input'})
    """

    model: nn.Module
    folded: list[str] = field(default_factory=list)  # qualified names of the batch norms
    refused: dict[str, str] = field(default_factory=dict)  # norm layer -> the reason
    max_difference: float = 0.0  # over the outputs for the example, absolute
    max_output: float = 0.0  # the largest output it is to be compared with

    def __str__(self) -> str:
        lines = [
            f"{len(self.folded)} folded, largest difference {self.max_difference:.2g} "
            f"at outputs up to {self.max_output:.2g}"
        ]
        return "\n".join(lines + [f"{name}: {why}" for name, why in self.refused.items()])


def fold_pair(layer: nn.Module, norm: nn.Module) -> nn.Module:
    """One layer that does what `layer`, then `norm` with population statistics, do.

    layer: convolution, transposed convolution (any stride, padding, dilation, groups) or linear,
    with or without bias. W' = W * s and b' = (b - mean) * s + beta, s = gamma / sqrt(var + eps),
    computed in float64.
    Raises ValueError, with the reason, for what cannot be folded.

    >>> conv, norm, x = nn.Conv2d(3, 8, 3), BatchNorm(8).eval(), torch.randn(2, 3, 9, 9)
    >>> torch.allclose(fold_pair(conv, norm)(x), norm(conv(x)), atol=1e-5)
    True
    """
    reason = _why_not(norm) or _why_not_into(layer) or _why_not_together(layer, norm)
    if reason:
        raise ValueError(f"cannot fold: {reason}")
    return _one_layer(layer, norm)


def _one_layer(layer: Any, norm: Any) -> nn.Module:
    mean, var = norm.running_mean.double(), norm.running_var.double()
    scale = torch.rsqrt(var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    bias = torch.zeros_like(mean) if layer.bias is None else layer.bias.double()
    bias = (bias - mean) * scale
    if norm.bias is not None:
        bias = bias + norm.bias.double()
    weight = layer.weight  # as the layer uses it, a parametrization applied
    if isinstance(layer, TRANSPOSED):  # (in, out / groups, *): each block of inputs has its outputs
        blocks = weight.double().unflatten(0, (layer.groups, -1))
        shape = (layer.groups, 1, -1, *[1] * (weight.dim() - 2))
        folded = (blocks * scale.reshape(shape)).flatten(0, 1)
    else:
        folded = weight.double() * scale.reshape(-1, *[1] * (weight.dim() - 1))
    kind = next(kind for kind in FOLDABLE if isinstance(layer, kind))
    new = kind.__new__(kind)  # all settings of the layer, none of its tensors or parametrizations
    nn.Module.__init__(new)
    own = {key: value for key, value in vars(layer).items() if key not in vars(new)}
    vars(new).update(own, training=layer.training)
    new.weight = nn.Parameter(folded.to(weight.dtype).detach())
    new.bias = nn.Parameter(bias.to(weight.dtype).detach())
    return new


def fold(model: nn.Module, example: Tensor) -> Folded:
    """Fold every batch norm of a model into the layer before it, where that changes nothing.

    model: in evaluation mode; not changed, the result is a traced copy. example: one input; the
    outputs before and after are compared on it.
    A norm is refused, with the reason, when its statistics depend on the input, when something
    other than a convolution or linear layer comes before it, when that layer's output is also used
    elsewhere, when either is used twice. Raises ValueError for a model in training mode, without
    norm layers, or that torch.fx cannot trace.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), BatchNorm(8), nn.ReLU()).eval()
    >>> fold(model, torch.randn(2, 3, 9, 9)).model
    GraphModule(
      (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
      (2): ReLU()
    )
    """
    if model.training:
        raise ValueError("folding is for inference: call model.eval() first")
    norms = (Norm, *TORCH_BATCH, *OTHER_NORMS)
    if not any(isinstance(module, norms) for module in model.modules()):
        raise ValueError("nothing to fold: the model has no norm layers")
    traced = _trace(copy.deepcopy(model))
    result = Folded(traced)
    modules = dict(traced.named_modules())
    calls = [node for node in traced.graph.nodes if node.op == "call_module"]
    uses = {name: [c.target for c in calls].count(name) for name in {c.target for c in calls}}
    ranks = _ranks(traced, example)
    for node in calls:
        norm = modules[node.target]
        if not isinstance(norm, norms):
            continue
        before = node.args[0]
        reason = _why_not(norm) or _why_not_here(node, before, modules, uses, ranks)
        if reason:
            result.refused[node.target] = reason
            continue
        parent, _, key = before.target.rpartition(".")
        setattr(traced.get_submodule(parent), key, fold_pair(modules[before.target], norm))
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
        result.folded.append(node.target)
    traced.delete_all_unused_submodules()
    traced.recompile()
    with torch.no_grad():
        expected, found = _tensors(model(example)), _tensors(traced(example))
    pairs = list(zip(expected, found, strict=True))
    result.max_difference = max((a - b).abs().max().item() for a, b in pairs)
    result.max_output = max(a.abs().max().item() for a in expected)
    return result


def inference_speedup(
    before: nn.Module, after: nn.Module, example: Tensor, repeats: int = 30
) -> float:
    """Median over paired, interleaved runs of time(before) / time(after), forward only.

    >>> model, x = nn.Sequential(nn.Conv2d(3, 8, 3), BatchNorm(8)).eval(), torch.randn(2, 3, 9, 9)
    >>> inference_speedup(model, fold(model, x).model, x, repeats=3) > 0
    True
    """

    def seconds(model: nn.Module) -> float:
        start = time.perf_counter()
        model(example)
        if example.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    with torch.inference_mode():
        for _ in range(3):
            seconds(before), seconds(after)
        ratios = []
        for i in range(repeats):  # each first every other time
            a, b = (before, after) if i % 2 else (after, before)
            first, second = seconds(a), seconds(b)
            ratios.append(first / second if i % 2 else second / first)
    return statistics.median(ratios)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, Norm) or super().is_leaf_module(module, name)


def _trace(model: nn.Module) -> fx.GraphModule:
    try:
        return fx.GraphModule(model, _Tracer().trace(model))
    except Exception as error:  # whatever the user's forward raises on a symbolic input
        raise ValueError(
            f"torch.fx cannot trace {type(model).__name__}: {error}; fold its parts with fold_pair"
        ) from error


def _ranks(traced: fx.GraphModule, example: Tensor) -> dict[fx.Node, int]:
    """How many axes the output of each node has, on the example."""
    found = {}

    class Watch(fx.Interpreter):
        def run_node(self, node: fx.Node) -> Any:
            result = super().run_node(node)
            if isinstance(result, Tensor):
                found[node] = result.dim()
            return result

    with torch.no_grad():
        Watch(traced).run(example)
    return found


def _why_not(norm: nn.Module) -> str | None:
    """Why this norm is no fixed affine map in inference, or None."""
    kind = type(norm).__name__
    if isinstance(norm, OTHER_NORMS) or (
        isinstance(norm, Norm) and not isinstance(norm, BatchNorm)
    ):
        return f"{kind} takes its statistics from the input"
    if isinstance(norm, ContinualNorm):
        return "ContinualNorm takes its group statistics from the input"
    if not isinstance(norm, (BatchNorm, *TORCH_BATCH)):
        return f"{kind} is no batch norm"
    known = (*TORCH_BATCH, BatchNorm, NoisyBatchNorm)
    if type(norm).forward not in {one.forward for one in known}:
        return f"{kind} is a batch norm with its own forward"
    if norm.training:
        return f"{kind} is in training mode: its statistics come from the batch"
    if norm.running_mean is None:
        return f"{kind} keeps no population statistics"
    if isinstance(norm, StepBatchNorm):
        return f"{kind} has other statistics at every time step"
    evaluation = getattr(norm, "evaluation", "population")
    if evaluation != "population":
        return f"{kind} is evaluated with evaluation={evaluation!r}: it depends on the input"
    return None


def _why_not_into(layer: nn.Module) -> str | None:
    """Why nothing can be folded into this layer, or None."""
    name = type(layer).__name__
    kind = next((kind for kind in FOLDABLE if isinstance(layer, kind)), None)
    if kind is None:
        return f"{name} before it is no convolution or linear layer"
    for method in ("forward", "_conv_forward"):
        if getattr(type(layer), method, None) is not getattr(kind, method, None):
            return f"{name} is a {kind.__name__} with its own {method}"
    if layer._forward_hooks or layer._forward_pre_hooks:
        return f"the {name} before it has forward hooks, which would see other values"
    return None


def _why_not_together(layer: Any, norm: Any) -> str | None:
    """Why this norm does not fit behind this layer, or None."""
    outputs = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    channels = len(norm.running_mean)
    if outputs == channels:
        return None
    return f"{outputs} outputs before a norm of {channels} channels"


def _why_not_here(
    node: fx.Node,
    before: Any,
    modules: dict[str, nn.Module],
    uses: dict[Any, int],
    ranks: dict[fx.Node, int],
) -> str | None:
    """Why the node before this norm cannot take it in, or None."""
    if before.op != "call_module":
        what = getattr(before.target, "__name__", before.target)
        return f"{what!r} comes before it ({before.op}), which has no weights"
    if uses[node.target] > 1 or uses[before.target] > 1:
        name = node.target if uses[node.target] > 1 else before.target
        return f"{name!r} is used in several places"
    layer = modules[before.target]
    reason = _why_not_into(layer)
    if reason:
        return f"{before.target!r}: {reason}"
    if len(before.users) > 1:
        return f"the output of {before.target!r} is used elsewhere too"
    if isinstance(layer, nn.Linear) and ranks[before] != 2:
        return (
            f"{before.target!r} has its outputs on the last axis, the norm its channels on axis 1"
        )
    return None


def _tensors(output: Any) -> list[Tensor]:
    """All tensors in a model's output: a tensor, or any nesting of sequences and mappings."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, dict):
        output = list(output.values())
    return (
        [t for part in output for t in _tensors(part)] if isinstance(output, list | tuple) else []
    )
