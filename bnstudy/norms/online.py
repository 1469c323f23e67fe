"""Online normalization: statistics over time instead of over a batch."""

from typing import Any

import torch
from torch import Tensor

from .arguments import one_of
from .base import Norm
from .functional import affine, normalize_with, of_nothing, per_channel

GUARDS = ("clamp", "layer", "none")


class OnlineNorm(Norm):
    """Online normalization (Chiley et al. 2019): works at batch size 1, examples in order.

    For example t, with mu(x), var(x) the biased moments of its own channel over the positions:

        y_t    = (x_t - mean_{t-1}) / sqrt(var_{t-1} + eps)
        var_t  = a var_{t-1} + (1 - a) var(x_t) + a (1 - a) (mu(x_t) - mean_{t-1})^2
        mean_t = a mean_{t-1} + (1 - a) mu(x_t)                            a = alpha_forward

    The statistics of the past are no function of x_t, so the gradient through them is replaced by
    two controllers that keep, over time, what batch norm's gradient has exactly: it is orthogonal
    to the output and sums to zero (equations 6 to 8 of the paper):

        g_t = dL/dy_t - (1 - b) v_{t-1} y_t            v_t = v_{t-1} + mu(g_t y_t)
        dL/dx_t = g_t / std_{t-1} - (1 - b) u_{t-1}    u_t = u_{t-1} + mu(dL/dx_t)
                                                                            b = alpha_backward
    guard: what bounds the output where the statistics lag behind: "clamp" to [-clamp, clamp], or
    "layer": divide by the root mean square over (C, *) of each example, after the affine map.

    Evaluation uses running_mean and running_var as they are. Buffers: running_mean, running_var
    (biased), control_mean (u) and control_output (v); the last two change in the backward pass,
    hence not stackable under vmap. The order of the examples in a batch matters; the output of
    one example does not depend on later ones. `backend` makes no difference. `torch.jit.script`
    does not support it.

    >>> OnlineNorm(8)(torch.randn(1, 8, 5, 5)).shape  # a batch of one is enough
    torch.Size([1, 8, 5, 5])
    """

    stackable = False
    running_mean: Tensor
    running_var: Tensor
    control_mean: Tensor
    control_output: Tensor

    def __init__(
        self,
        num_features: int,
        *,
        alpha_forward: float = 0.999,
        alpha_backward: float = 0.99,
        guard: str = "clamp",
        clamp: float = 5.0,
        **common: Any,
    ):
        super().__init__(num_features, **common)
        one_of("guard", guard, GUARDS)
        for name, value in (("alpha_forward", alpha_forward), ("alpha_backward", alpha_backward)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value}: a decay factor, 0 to 1")
        self.alpha_forward, self.alpha_backward = alpha_forward, alpha_backward
        self.guard, self.clamp = guard, clamp
        self.register_buffer("running_mean", self._filled(0.0))
        self.register_buffer("running_var", self._filled(1.0))
        self.register_buffer("control_mean", self._filled(0.0))
        self.register_buffer("control_output", self._filled(0.0))

    def _beyond_plain(self) -> str:
        return "OnlineNorm"

    def _checked(self, x: Tensor) -> Tensor:
        self.check(x)
        if x.numel() == 0:
            return of_nothing(x, self.weight, self.bias)
        if self.training:
            y = _Online.apply(
                x,
                self.running_mean,
                self.running_var,
                self.control_mean,
                self.control_output,
                self.alpha_forward,
                self.alpha_backward,
                self.eps,
            )
        else:
            y = normalize_with(x, self.running_mean, self.running_var, eps=self.eps)
        y = affine(y, self.weight, self.bias)
        if self.guard == "clamp":
            return y.clamp(-self.clamp, self.clamp)
        return torch.rms_norm(y, y.shape[1:], None, self.eps) if self.guard == "layer" else y


class _Online(torch.autograd.Function):
    """Both recursions run over (C,) vectors only; all passes over x are whole-batch operations."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        control_mean: Tensor,
        control_output: Tensor,
        a: float,
        b: float,
        eps: float,
    ) -> Tensor:
        positions = x.reshape(*x.shape[:2], -1)
        own_var, own_mean = torch.var_mean(positions, 2, correction=0)
        mean, var = running_mean.clone(), running_var.clone()
        means, variances = [], []
        for mu, sigma2 in zip(own_mean, own_var, strict=True):
            means.append(mean)
            variances.append(var)
            var = a * var + (1 - a) * sigma2 + a * (1 - a) * (mu - mean).square()
            mean = a * mean + (1 - a) * mu
        running_mean.copy_(mean)
        running_var.copy_(var)
        std = torch.sqrt(torch.stack(variances) + eps)
        y = (x - per_channel(torch.stack(means), x)) / per_channel(std, x)
        ctx.save_for_backward(y, std)
        ctx.controls, ctx.b = (control_mean, control_output), b
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, std = ctx.saved_tensors
        control_mean, control_output = ctx.controls
        pull = 1 - ctx.b
        over = list(range(2, y.dim()))
        dot, square = grad * y, y.square()
        mean_grad, mean_y = grad, y
        if over:
            dot, square, mean_grad, mean_y = (
                value.mean(over) for value in (dot, square, mean_grad, mean_y)
            )
        u, v = control_mean.clone(), control_output.clone()
        us, vs = [], []
        for t in range(y.shape[0]):
            us.append(u)
            vs.append(v)
            mean_dx = (mean_grad[t] - pull * v * mean_y[t]) / std[t] - pull * u
            v = v + dot[t] - pull * v * square[t]
            u = u + mean_dx
        control_mean.copy_(u)
        control_output.copy_(v)
        g = grad - pull * per_channel(torch.stack(vs), y) * y
        dx = g / per_channel(std, y) - pull * per_channel(torch.stack(us), y)
        return dx, *[None] * 7
