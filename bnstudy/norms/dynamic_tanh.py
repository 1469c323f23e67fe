"""Dynamic tanh: a squashing function of each value in the place of a normalization."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from .base import Norm
from .functional import affine, of_nothing, per_channel


class DynamicTanh(Norm):
    """Dynamic tanh, DyT (Zhu et al. 2025): no statistics; large values saturate.

    y = gamma * tanh(alpha * x) + beta, alpha one learned number for the whole layer.

    initial_alpha: 0.5 in the paper; large language models start lower there.
    It does the same in training and evaluation, and each value is mapped by itself.
    `torch.jit.script` does not support it.

    >>> DynamicTanh(2)(torch.tensor([[0.0, 100.0]])).tolist()
    [[0.0, 1.0]]
    """

    def __init__(
        self,
        num_features: int,
        *,
        initial_alpha: float = 0.5,
        affine: bool | str = True,
        bias: bool = True,
        gamma_init: float = 1.0,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ):
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(num_features, affine=affine, bias=bias, gamma_init=gamma_init, **place)
        self.initial_alpha = initial_alpha
        self.scale = nn.Parameter(self._filled(initial_alpha, 1))  # of each network side by side

    def reset_parameters(self) -> None:
        """alpha = initial_alpha, gamma = gamma_init, beta = 0."""
        super().reset_parameters()
        if "scale" in self._parameters:  # not yet, when the base class calls
            nn.init.constant_(self.scale, self.initial_alpha)

    def widened(self, size: int) -> Self:
        return self._repeated(size)

    def _beyond_plain(self) -> str:
        return "DynamicTanh"

    def _checked(self, x: Tensor) -> Tensor:
        self.check(x)
        if x.numel() == 0:
            return of_nothing(affine(x, self._alpha(), None), self.weight, self.bias)
        y = torch.tanh(x * per_channel(self._alpha(), x))
        return affine(y, self.weight, self.bias).to(x.dtype)

    def _alpha(self) -> Tensor:
        """alpha of each channel, (C,)."""
        return self.scale.repeat_interleave(self.num_features // self.scale.numel())

    def extra_repr(self) -> str:
        return f"{self.num_features}, affine={self.affine}, initial_alpha={self.initial_alpha:g}"
