"""Moments shared by several processes: one all-reduce forward, one backward."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .functional import Moments, at_least_float32


class _Rows(torch.autograd.Function):
    """Every process's row, in one table; the gradient of a row is summed over the processes."""

    @staticmethod
    def forward(ctx: Any, row: Tensor, group: Any) -> Tensor:
        ctx.group, ctx.rank = group, dist.get_rank(group)
        table = row.new_zeros(dist.get_world_size(group), row.numel())
        table[ctx.rank] = row
        dist.all_reduce(table, group=group)
        return table

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad, group=ctx.group)
        return grad[ctx.rank], None


def processes(group: object | None) -> int:
    """How many processes share statistics; 1 where torch.distributed is not running."""
    if group is None or not (dist.is_available() and dist.is_initialized()):
        return 1
    return dist.get_world_size(_resolve(group))


def moments_across(x: Tensor, group: object) -> Moments:
    """Per-channel moments (1, C) of the batches of all processes together, differentiable.

    x (N, C, *), N may differ between processes and be 0. Each process contributes count, mean and
    the sum of squared deviations (Chan et al. 1983), in float64.
    """
    wide = at_least_float32(x).double()
    axes = [axis for axis in range(x.dim()) if axis != 1]
    count = x.numel() // x.shape[1]
    mean = wide.sum(axes) / max(count, 1)
    shape = (1, -1, *[1] * (x.dim() - 2))
    squares = (wide - mean.reshape(shape)).square().sum(axes)
    row = torch.cat([mean.new_tensor([count]), mean, squares])
    table: Tensor = _Rows.apply(row, _resolve(group))
    counts, (means, squares) = table[:, :1], table[:, 1:].chunk(2, dim=1)
    total = counts.sum()
    mean = (counts * means).sum(0) / total
    var = (squares + counts * (means - mean).square()).sum(0) / total
    dtype = at_least_float32(x.new_empty(0)).dtype
    return Moments(mean.to(dtype)[None], var.to(dtype)[None], int(total))


def _resolve(group: object) -> Any:
    return None if group == "world" else group
