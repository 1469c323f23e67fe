"""Power normalization: a running quadratic mean in the place of a batch's mean and variance."""

from typing import Any, Self

import torch
from torch import Tensor

from .arguments import require
from .base import Norm
from .functional import affine, at_least_float32, average_in, of_nothing, per_channel


class PowerNorm(Norm):
    """Power normalization (Shen et al. 2020, algorithm 2): batch norm made for Transformers.

    Per channel, with means over (N, *) of the batch at step t, m = momentum, g = dL/dx_hat:

        x_hat   = x / sqrt(psi2_{t-1} + eps)               y = gamma * x_hat + beta
        psi2_t  = (1 - m) psi2_{t-1} + m mean(x^2)
        dL/dx   = (g - nu_{t-1} x_hat) / sqrt(psi2_{t-1} + eps)
        nu_t    = (1 - m mean(x_hat^2)) nu_{t-1} + m mean(g x_hat)

    Nothing is centred. The statistic of the past is no function of x, so nu, a running term,
    stands in the gradient where the batch's own mean(g x_hat) would; the gradient is approximate.

    momentum: weight of the newest batch in psi2 and nu (0.1, the paper's 1 - 0.9).
    warmup: so many first updates use the batch's own mean(x^2) and mean(g x_hat), with which the
    gradient is exact (the paper's PN-V), while psi2 and nu are already averaged.

    Simpler than the authors' code: their scaling of groups of channels before the norm is left
    out, padding is not masked, warm-up averages as training does, and a gradient is not
    accumulated over several batches.

    Evaluation uses psi2. Buffers: running_square (psi2), running_product (nu), which changes in the
    backward pass, hence not under vmap, and num_batches_tracked. `backend` makes no difference.
    `torch.jit.script` does not support it.

    >>> layer, x = PowerNorm(1, warmup=1, affine=False), torch.tensor([[3.0], [-3.0]])
    >>> layer(x).flatten()
    tensor([ 1.0000, -1.0000])
    """

    running_square: Tensor
    running_product: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        *,
        warmup: int = 0,
        **common: Any,
    ):
        super().__init__(num_features, eps, **common)
        require(
            momentum is not None and 0 < momentum <= 1,
            f"momentum={momentum}: above 0, up to 1, the weight of the newest batch",
        )
        require(warmup >= 0, f"warmup={warmup}: a number of updates, 0 or more")
        self.momentum, self.warmup = momentum, warmup
        count = torch.zeros((), dtype=torch.long, device=self._factory["device"])
        self.register_buffer("running_square", self._filled(1.0))
        self.register_buffer("running_product", self._filled(0.0))
        self.register_buffer("num_batches_tracked", count)

    def widened(self, size: int) -> Self:
        return self._repeated(size)

    def _beyond_plain(self) -> str:
        return "PowerNorm"

    def _checked(self, x: Tensor) -> Tensor:
        self.check(x)
        if x.numel() == 0:
            return of_nothing(x, self.weight, self.bias)
        wide = at_least_float32(x)
        if self.training:
            y = self._train(wide)
        else:
            y = wide / per_channel(torch.sqrt(self.running_square + self.eps), wide)
        return affine(y, self.weight, self.bias).to(x.dtype)

    def _train(self, x: Tensor) -> Tensor:
        square = _over_batch(x.detach().square())
        warm = self.num_batches_tracked < self.warmup  # no branch: its value is not read
        std = torch.sqrt(torch.where(warm, square, self.running_square) + self.eps)
        y = _Power.apply(x, std, warm, self.running_product, self.momentum)
        with torch.no_grad():
            average_in(self.running_square, square, self.momentum)
            self.num_batches_tracked.add_(1)
        return y

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, momentum={self.momentum:g}, warmup={self.warmup}"


def _over_batch(x: Tensor) -> Tensor:
    """Mean over everything but the channels, (C,)."""
    return x.mean([0, *range(2, x.dim())])


class _Power(torch.autograd.Function):
    """x / std with the approximate gradient; moves nu in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, std: Tensor, warm: Tensor, running: Tensor, momentum: float
    ) -> Tensor:
        y = x / per_channel(std, x)
        ctx.save_for_backward(y, std, warm)
        ctx.running, ctx.momentum = running, momentum
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, std, warm = ctx.saved_tensors
        product, square = _over_batch(grad * y), _over_batch(y.square())
        nu = torch.where(warm, product, ctx.running)
        dx = (grad - per_channel(nu, y) * y) / per_channel(std, y)
        ctx.running.mul_(1 - ctx.momentum * square).add_(product * ctx.momentum)
        return dx, None, None, None, None
