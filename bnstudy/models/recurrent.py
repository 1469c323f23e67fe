"""Recurrent networks from matrix products, with a place for a norm in every term.

    tanh   h = tanh(a)                                       a = N(W_hh h) + b_hh + N(W_ih x) + b_ih
    lstm   c = sigmoid(f) c + sigmoid(i) tanh(g),  h = sigmoid(o) tanh(N(c))     i, f, g, o = a
    gru    h = (1 - z) tanh(n_x + r n_h) + z h               r, z = sigmoid, n_x and n_h apart

N is the norm: for batch norm Cooijmans et al. 2017, equations 4 to 7 (c itself is not
normalized, only what leaves it), for layer norm Ba et al. 2016, equations 20 to 22; both have gamma
alone in the two terms, because a beta would be a second bias. Without a norm these are torch.nn's
RNN, LSTM and GRU, names and order of the gates included.
"""

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnstudy.errors import UserError
from bnstudy.norms import GroupNorm, LayerNorm, NoNorm, StepBatchNorm

GATES = {"tanh": 1, "lstm": 4, "gru": 3}
FORGET_BIAS = 1.0  # Jozefowicz et al. 2015: begins by remembering


class RecurrentLayer(nn.Module):
    """One layer of S networks side by side (S = 1: an ordinary one), H units each.

    Args:
        cell: "tanh", "lstm" or "gru".
        inputs: F.
        hidden: H.
        norm: channels -> norm layer; keyword arguments that a norm does not have are left out.
        recurrent_init: "orthogonal" or "identity" hidden-to-hidden matrices.
        initial_noise: standard deviation of noise on the initial hidden state, in training; drawn
            from `streams`, one torch.Generator per network, else from the global generator.
    """

    def __init__(
        self,
        cell: str,
        inputs: int,
        hidden: int,
        norm: Any,
        recurrent_init: str = "orthogonal",
        initial_noise: float = 0.0,
    ) -> None:
        super().__init__()
        self.cell, self.inputs, self.hidden, self.size = cell, inputs, hidden, 1
        self.recurrent_init, self.initial_noise = recurrent_init, initial_noise
        self.streams: list[torch.Generator] | None = None
        gates = GATES[cell]
        self.weight_ih = nn.Parameter(torch.empty(gates * hidden, inputs))
        self.weight_hh = nn.Parameter(torch.empty(gates * hidden, hidden))
        self.bias_ih = nn.Parameter(torch.empty(gates * hidden))
        self.bias_hh = nn.Parameter(torch.empty(gates * hidden))
        self.reset_parameters()
        self.norm_ih = norm(gates * hidden, affine="gamma")
        self.norm_hh = norm(gates * hidden, affine="gamma")
        if cell == "lstm":
            self.norm_c = norm(hidden)
        self.plain = isinstance(self.norm_ih, NoNorm)

    modules_per_step = 5  # for estimates of time: what a step costs beside its norms

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Each gate's matrices orthogonal (or the identity), biases zero but the forget gate's."""
        for weight in self.weight_ih.split(self.hidden):
            nn.init.orthogonal_(weight)
        for weight in self.weight_hh.split(self.hidden):
            if self.recurrent_init == "identity":
                nn.init.eye_(weight)
            else:
                nn.init.orthogonal_(weight)
        nn.init.zeros_(self.bias_ih)
        nn.init.zeros_(self.bias_hh)
        if self.cell == "lstm":
            self.bias_ih[self.hidden : 2 * self.hidden] = FORGET_BIAS

    def widened(self, size: int) -> "RecurrentLayer":
        """`size` networks side by side; their parameters (size, *shape), still to be filled in."""
        return _widened(self, size)

    def macs(self, steps: int) -> int:
        """Multiply-accumulates of one example's forward over so many steps."""
        return steps * (self.weight_ih.numel() + self.weight_hh.numel()) // self.size

    def forward(self, x: Tensor, mask: Tensor | None) -> list[Tensor]:
        """Hidden states after each step, T of (S, N, H).

        Args:
            x: (T, S, N, F), or integers (T, S, N): places of a one in F zeros.
            mask: (T, S, N), true where valid; None: everything is.
        """
        n = x.shape[2]
        weight_ih, weight_hh, bias_ih, bias_hh = (
            p.view(self.size, *shape)
            for p, shape in (
                (self.weight_ih, (-1, self.inputs)),
                (self.weight_hh, (-1, self.hidden)),
                (self.bias_ih, (1, -1)),
                (self.bias_hh, (1, -1)),
            )
        )
        columns = None if mask is None else mask.transpose(1, 2)  # (T, N, S), as the norms want it
        # one sum for both; in a gru b_hh stays apart: its part for the new state is multiplied by r
        bias = bias_ih if self.cell == "gru" else bias_ih + bias_hh
        terms = self._input_terms(x, weight_ih, bias, columns)
        recurrent = weight_hh.transpose(1, 2)
        h = self._initial(terms, n)
        c = torch.zeros_like(h)
        states = []
        for t, term in enumerate(terms.unbind()):
            valid = None if columns is None else columns[t]
            if self.cell == "gru":
                new = self._gru(term, self._normed(torch.bmm(h, recurrent), t, valid) + bias_hh, h)
            elif self.plain:
                new = torch.baddbmm(term, h, recurrent)
            else:
                new = term + self._normed(torch.bmm(h, recurrent), t, valid)
            if self.cell == "tanh":
                new = torch.tanh(new)
            elif self.cell == "lstm":
                new, cell = self._lstm(new, c, t, valid)
                c = cell if mask is None else torch.where(mask[t][..., None], cell, c)
            h = new if mask is None else torch.where(mask[t][..., None], new, h)
            states.append(h)
        return states

    def _input_terms(
        self, x: Tensor, weight: Tensor, bias: Tensor, columns: Tensor | None
    ) -> Tensor:
        """N(W_ih x) + bias for all steps, (T, S, N, G H)."""
        steps, size, n = x.shape[:3]
        inner = bias if self.plain else torch.zeros_like(bias)
        if x.dim() == 3:  # W times a one among zeros is a column of W
            table = (weight.transpose(1, 2) + inner).reshape(size * self.inputs, -1)
            first = self.inputs * torch.arange(size, device=x.device)[:, None]
            terms = F.embedding(x.clamp(min=0) + first, table)
        else:
            flat = x.transpose(0, 1).reshape(size, steps * n, -1)
            terms = torch.baddbmm(inner, flat, weight.transpose(1, 2))
            terms = terms.view(size, steps, n, -1).transpose(0, 1)
        if self.plain:
            return terms
        if isinstance(self.norm_ih, StepBatchNorm):
            wide = terms.permute(2, 0, 1, 3).reshape(n, steps, -1)
            mask = None if columns is None else columns.transpose(0, 1)
            wide = self.norm_ih(wide, mask=mask)
            terms = wide.view(n, steps, size, -1).permute(1, 2, 0, 3)
        elif _over_units(self.norm_ih, size):
            terms = _layer_norm(terms, self.norm_ih)
        else:
            wide = terms.permute(0, 2, 1, 3).reshape(steps * n, -1)
            terms = self.norm_ih(wide).view(steps, n, size, -1).transpose(1, 2)
        return terms.contiguous() + bias

    def _normed(self, term: Tensor, t: int, valid: Tensor | None, norm: Any = None) -> Tensor:
        """A term (S, N, C) of step t after its norm."""
        if self.plain:
            return term
        norm = norm or self.norm_hh
        size, n, _ = term.shape
        if _over_units(norm, size):
            return _layer_norm(term, norm)
        wide = term.transpose(0, 1).reshape(n, -1)
        wide = norm(wide, t, valid) if isinstance(norm, StepBatchNorm) else norm(wide)
        return wide.view(n, size, -1).transpose(0, 1)

    def _lstm(
        self, gates: Tensor, c: Tensor, t: int, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        i, f, g, o = gates.chunk(4, -1)
        c = torch.addcmul(torch.sigmoid(f) * c, torch.sigmoid(i), torch.tanh(g))
        return torch.sigmoid(o) * torch.tanh(self._normed(c, t, valid, self.norm_c)), c

    def _gru(self, term: Tensor, recurrent: Tensor, h: Tensor) -> Tensor:
        H = self.hidden
        r, z = torch.sigmoid(term[..., : 2 * H] + recurrent[..., : 2 * H]).chunk(2, -1)
        n = torch.tanh(torch.addcmul(term[..., 2 * H :], r, recurrent[..., 2 * H :]))
        return n + z * (h - n)

    def _initial(self, like: Tensor, n: int) -> Tensor:
        shape = (n, self.hidden)
        zero = like.new_zeros(self.size, *shape)
        if not (self.training and self.initial_noise):
            return zero
        streams: Sequence[torch.Generator | None] = self.streams or [None] * self.size
        drawn = torch.stack([torch.randn(shape, generator=stream) for stream in streams])
        return zero + self.initial_noise * drawn.to(like.device, like.dtype)


def _widened(module: Any, size: int) -> Any:
    wide = copy.copy(module)
    wide.size = size
    wide._parameters = {
        name: nn.Parameter(p.new_empty(size, *p.shape)) for name, p in module._parameters.items()
    }
    return wide


def _over_units(norm: nn.Module, size: int) -> bool:
    """Whether a norm is the layer norm of each of several networks."""
    return size > 1 and isinstance(norm, GroupNorm | LayerNorm) and norm.num_groups == size


def _layer_norm(term: Tensor, norm: GroupNorm | LayerNorm) -> Tensor:
    """The same as `norm` on (N, S C), for (..., S, N, C) without bringing it into that order."""
    size, _, channels = term.shape[-3:]
    y = F.layer_norm(term, (channels,), None, None, norm.eps)
    if norm.weight is not None:
        y = y * norm.weight.view(size, 1, -1)
    return y if norm.bias is None else y + norm.bias.view(size, 1, -1)


class Recurrent(nn.Module):
    """Recurrent layers, and a linear readout of the state after each step.

    Input (N, F + 1, T): F channels and, last, the mask: 1 where valid, 0 where padded; padding lies
    at the end. Or integers (N, 1, T): tokens, -1 where padded, the same as F channels of one-hot.
    Logits (N, T, K). Of S networks side by side: (N, S * channels, T) and (N, S * T, K).

    keep_states: after a forward, `states` holds the last layer's hidden states, T of (S, N, H).

    Raises ValueError for an example without a valid step.
    """

    compiles = False  # 30 s for 28 steps, for a quarter of a step's time

    def __init__(self, layers: list[RecurrentLayer], num_classes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.size, self.inputs = 1, layers[0].inputs
        self.weight = nn.Parameter(torch.empty(num_classes, layers[-1].hidden))
        self.bias = nn.Parameter(torch.zeros(num_classes))
        nn.init.xavier_normal_(self.weight)
        self.keep_states = False
        self.states: list[Tensor] = []

    def widened(self, size: int) -> "Recurrent":
        """As of a layer."""
        return _widened(self, size)

    def macs(self, steps: int) -> int:
        """Multiply-accumulates of one example's forward over so many steps."""
        return steps * self.weight.numel() // self.size

    def forward(self, x: Tensor) -> Tensor:
        n, _, steps = x.shape
        x = x.view(n, self.size, -1, steps).permute(3, 1, 0, 2)  # (T, S, N, F + 1)
        if x.is_floating_point():
            x, valid = x[..., :-1], x[..., -1] > 0
        else:
            x = x[..., 0]
            valid = x >= 0
        mask: Tensor | None = valid
        if x.is_meta or valid.all():
            mask = None
        elif not valid[0].all():
            raise ValueError("a sequence of length 0: every example needs a valid step")
        elif x.is_floating_point():
            x = x.masked_fill(~valid[..., None], 0)  # where() keeps padding out, not its gradient
        for layer in self.layers:
            states = layer(x, mask)
            x = torch.stack(states)
        if self.keep_states:
            self.states = states
        weight = self.weight.view(self.size, -1, x.shape[-1]).transpose(1, 2)
        flat = x.permute(1, 2, 0, 3).reshape(self.size, n * steps, -1)
        logits = torch.baddbmm(self.bias.view(self.size, 1, -1), flat, weight)
        logits = logits.view(self.size, n, steps, -1).transpose(0, 1)
        return logits.reshape(n, self.size * steps, -1)


def recurrent(config, shape, num_classes, norm) -> Recurrent:
    """Layers of `model.hidden` units of `model.cell` for sequences of shape (F + 1, T)."""
    if len(shape) != 2:
        raise UserError(
            f"model=recurrent reads sequences, not images {tuple(shape)}: choose data=text, "
            "adding, parity or copy, or read images with data.sequence=rows (or pixels)"
        )
    widths = [shape[0] - 1, *config.hidden]
    layers = [
        RecurrentLayer(
            config.cell, inputs, hidden, norm, config.recurrent_init, config.initial_noise
        )
        for inputs, hidden in pairwise(widths)
    ]
    return Recurrent(layers, num_classes)
