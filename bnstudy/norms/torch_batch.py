"""torch.nn's batch normalization as it stands, to control this package's own."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .arguments import require
from .batch_norm import BatchNorm


class TorchBatchNorm(BatchNorm):
    """torch.nn.BatchNorm1d, 2d or 3d, by the number of axes of the input.

    Training is the forward of torch.nn's layer, called on this one; evaluation with population or
    batch statistics is torch.nn.functional.batch_norm. Only what torch does not have is of
    `BatchNorm`: mixtures of statistics in evaluation, and the names by which PreciseBN and
    evaluation modes find the layer. An arm with it shows what the other implementation would give.

    Arguments are those of `BatchNorm`; momentum is a number.
    Raises ValueError for momentum=None, where torch.nn reads a counter at every step, which a
    compiled step cannot; and as `BatchNorm`.

    >>> x = torch.randn(8, 4, 5, 5)
    >>> torch.equal(TorchBatchNorm(4)(x), nn.BatchNorm2d(4)(x))
    True
    """

    track_running_stats = True  # read by torch.nn's forward

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool | str = True,
        *,
        bias: bool = True,
        gamma_init: float = 1.0,
        frozen: bool = False,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ):
        require(momentum is not None, "momentum=None: give a number, or use norm 'batch'")
        common: dict[str, Any] = {
            "bias": bias,
            "gamma_init": gamma_init,
            "device": device,
            "dtype": dtype,
        }
        super().__init__(num_features, eps, momentum, affine, frozen=frozen, **common)

    def _check_input_dim(self, x: Tensor) -> None:
        """Named and called by torch.nn; `check` has looked already."""

    def _checked(self, x: Tensor) -> Tensor:
        self.check(x)
        if self.training and not self.frozen:
            self._check_count(x, x.shape[0])
            return nn.modules.batchnorm._BatchNorm.forward(self, x)  # type: ignore[arg-type]
        if self.training or self.evaluation == "population":
            mean, var, _ = self._estimate()
            return F.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)
        if self.evaluation == "batch":
            return self._in_groups(x, self._examples(x, self.evaluation_group_size))
        return super()._evaluate(x)

    def _in_groups(self, x: Tensor, examples: int) -> Tensor:
        """Batch statistics of consecutive examples: groups side by side as channels."""
        self._check_count(x, examples)
        groups = len(x) // examples
        wide = x.unflatten(0, (groups, examples)).transpose(0, 1).flatten(1, 2)
        gamma, beta = (None if p is None else p.repeat(groups) for p in (self.weight, self.bias))
        y = F.batch_norm(wide, None, None, gamma, beta, True, 0.0, self.eps)
        return y.unflatten(1, (groups, -1)).transpose(0, 1).flatten(0, 1)

    def _beyond_plain(self) -> str:
        return "TorchBatchNorm: script torch.nn's own layer"
