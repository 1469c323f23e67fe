"""A small causal Transformer that normalizes before each branch, with a norm of any kind.

    x = embedding + position
    x = x + attention(N(x))        in each of `depth` blocks
    x = x + mlp(N(x))
    logits = linear(N(x))

The order is that of Xiong et al. 2020 ("pre-LN"); position is Vaswani et al. 2017's sines, so that
sequences may have any length. Padding lies at the end and attention looks back only: no valid step
sees it. There is no dropout.
"""

import copy
import math
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnstudy.errors import UserError
from bnstudy.models.layers import activation
from bnstudy.norms import BatchNorm, ContinualNorm

WIDER = 4  # units of the layer between, per unit of the stream (Vaswani et al. 2017)
PERIOD = 10_000  # of the slowest sine, in radians


class Embedding(nn.Module):
    """What stands at each step, as a vector, with a code of its place added.

    Input (N, F + 1, T), the last channel a mask, or integers (N, 1, T) from 0 to F - 1, -1 where
    padded, the same as F channels of one-hot. Output (N, T, W). Of S networks side by side
    (N, S * channels, T) and (N, T, S * W).
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.inputs, self.width, self.size = inputs, width, 1
        # of half a unit of variance, as the sines
        self.weight = nn.Parameter(torch.randn(inputs, width) / math.sqrt(2))

    def widened(self, size: int) -> Self:
        """`size` networks side by side; their vectors (size, F, W), still to be filled in."""
        wide = copy.copy(self)
        wide.size = size
        wide._parameters = {"weight": nn.Parameter(self.weight.new_empty(size, *self.weight.shape))}
        return wide

    def forward(self, x: Tensor) -> Tensor:
        n, _, steps = x.shape
        x = x.view(n, self.size, -1, steps)
        if x.is_floating_point():
            values, mask = x[:, :, :-1], x[:, :, -1:]
            values = values.masked_fill(mask <= 0, 0)  # padding may hold anything
            weight = self.weight.view(self.size, self.inputs, self.width)
            found = torch.einsum("nsft,sfw->ntsw", values, weight)
        else:
            first = self.inputs * torch.arange(self.size, device=x.device)[:, None]
            table = self.weight.view(-1, self.width)
            found = F.embedding(x[:, :, 0].clamp(min=0) + first, table).transpose(1, 2)
        return (found + positions(steps, found)[:, None]).flatten(2)


def positions(steps: int, like: Tensor) -> Tensor:
    """Codes of the places 0 to steps - 1, (T, W): sines and cosines (Vaswani et al. 2017, 3.5)."""
    width = like.shape[-1]
    rates = PERIOD ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(steps, dtype=torch.float64)[:, None] * rates
    codes = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width]
    return codes.to(like.device, like.dtype)


class CausalAttention(nn.Module):
    """Scaled dot-product attention in which a step sees itself and those before it.

    Input (N, T, 3 W), queries, keys and values; output (N, T, W); S networks side by side.
    """

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.heads, self.width, self.size = heads, width, 1

    def widened(self, size: int) -> Self:
        """The same for `size` networks."""
        wide = copy.copy(self)
        wide.size = size
        return wide

    def macs(self, steps: int) -> int:
        """Multiply-accumulates of one example's scores and sums."""
        return 2 * steps * steps * self.width

    def forward(self, x: Tensor) -> Tensor:
        n, steps, _ = x.shape
        x = x.view(n, steps, self.size, 3, self.heads, -1).permute(3, 0, 2, 4, 1, 5)
        query, key, value = x.unbind()  # (N, S, heads, T, W / heads)
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        later = torch.ones(steps, steps, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(later, -torch.inf).softmax(-1)
        return (weights @ value).permute(0, 3, 1, 2, 4).flatten(2)


class Block(nn.Module):
    """x + attention(N(x)), then x + mlp(N(x)), on (N, T, W)."""

    def __init__(self, width: int, heads: int, branches: int, norm) -> None:
        super().__init__()
        self.norm_attention = norm(width)
        self.query_key_value = _linear(width, 3 * width)
        self.attention = CausalAttention(heads, width)
        self.output = _linear(width, width, 1 / branches)
        self.norm_mlp = norm(width)
        self.up = _linear(width, WIDER * width)
        self.activation = activation("relu")
        self.down = _linear(WIDER * width, width, 1 / branches)

    def forward(self, x: Tensor) -> Tensor:
        attended = self.attention(self.query_key_value(normed(self.norm_attention, x)))
        x = x + self.output(attended)
        return x + self.down(self.activation(self.up(normed(self.norm_mlp, x))))


def normed(norm: nn.Module, x: Tensor) -> Tensor:
    """N(x) of (N, T, W): batch norm over examples and steps, other norms of each step by itself.

    Raises ValueError for a norm that would let a step see later ones.
    """
    if isinstance(norm, ContinualNorm):
        raise ValueError(
            "continual norm takes statistics over all steps of an example, and a step must not see "
            "later ones: choose batch, ghost, layer or rms norm"
        )
    if isinstance(norm, BatchNorm):  # whose groups count examples: steps are positions
        return norm(x.unsqueeze(2).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).squeeze(2)
    return norm(x.flatten(0, 1)).view(x.shape)


class Transformer(nn.Module):
    """Embedding, blocks, a last norm and a linear readout at each step.

    Input as `Embedding`'s. Logits (N, T, K); of S networks side by side (N, S * T, K).
    """

    def __init__(
        self, inputs: int, width: int, depth: int, heads: int, num_classes: int, norm
    ) -> None:
        super().__init__()
        self.size = 1
        self.embedding = Embedding(inputs, width)
        self.blocks = nn.Sequential(*[Block(width, heads, 2 * depth, norm) for _ in range(depth)])
        self.norm = norm(width)
        self.readout = _linear(width, num_classes)

    def widened(self, size: int) -> Self:
        """The same for `size` networks."""
        wide = copy.copy(self)
        wide.size = size
        return wide

    def forward(self, x: Tensor) -> Tensor:
        n, _, steps = x.shape
        logits = self.readout(normed(self.norm, self.blocks(self.embedding(x))))
        logits = logits.view(n, steps, self.size, -1).transpose(1, 2)
        return logits.reshape(n, self.size * steps, -1)


def transformer(config, shape, num_classes, norm) -> Transformer:
    """`depth` blocks of `width` and `heads` for sequences of shape (F + 1, T).

    Raises:
        UserError: images; heads that do not divide the width.
    """
    if len(shape) != 2:
        raise UserError(
            f"model=transformer reads sequences, not images {tuple(shape)}: choose data=text, "
            "adding, parity or copy, or read images with data.sequence=rows (or pixels)"
        )
    if config.width % config.heads:
        raise UserError(
            f"model.heads={config.heads} does not divide model.width={config.width}: each head has "
            "an equal part of the width"
        )
    return Transformer(shape[0] - 1, config.width, config.depth, config.heads, num_classes, norm)


def _linear(inputs: int, outputs: int, gain: float = 1.0) -> nn.Linear:
    """Weights N(0, gain / inputs), bias zero.

    A gain of 1 / branches at the end of each of so many branches keeps the variance of their sum
    (Radford et al. 2019).
    """
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=math.sqrt(gain / inputs))
    nn.init.zeros_(layer.bias)
    return layer
