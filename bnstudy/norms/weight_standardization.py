"""Weight standardization: the normalization moves from the activations to the weights."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class WeightStandardization(nn.Module):
    """Standardize the weights of each output unit over its inputs (Qiao et al. 2019).

    W_hat = (W - mean) / sqrt(var_biased + eps), moments over all axes but the first.
    A parametrization: the parameter that learns stays the raw weight. Mean removal gives
    almost all of the published gain; used with group norm in place of batch norm.

    >>> w = WeightStandardization()(torch.randn(4, 100))
    >>> bool(w.mean(1).abs().max() < 1e-5)
    True
    """

    def __init__(self, eps: float = 1e-5):
        super().__init__()
        self.eps = eps

    def forward(self, weight: Tensor) -> Tensor:
        axes = list(range(1, weight.dim()))
        var, mean = torch.var_mean(weight, axes, correction=0, keepdim=True)
        return (weight - mean) / torch.sqrt(var + self.eps)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "all": (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear),
    "convolutions": (nn.Conv1d, nn.Conv2d, nn.Conv3d),
}


def standardize_weights(model: nn.Module, eps: float = 1e-5, layers: str = "all") -> nn.Module:
    """Standardize the weights of the convolutions and linear layers of a model, in place.

    Layers with a single input per output unit, whose standardized weight would be 0, are left.
    `layers="convolutions"` leaves linear layers as they are, as the published networks do: where
    the last one is standardized, the lengths of its weight vectors are fixed, and the network
    cannot choose the scale of its logits.
    Raises ValueError for another word, when there is no such layer, or when one is standardized
    already.

    >>> model = standardize_weights(nn.Sequential(nn.Conv2d(3, 8, 3), GroupNorm(8, num_groups=2)))
    >>> bool(model[0].weight.flatten(1).mean(1).abs().max() < 1e-5)
    True
    """
    if layers not in KINDS:
        raise ValueError(f"layers='{layers}' is not allowed: 'all' or 'convolutions'")
    kinds = KINDS[layers]
    found = [m for m in model.modules() if isinstance(m, kinds) and _weight(m)[0].numel() > 1]
    if not found:
        what = "convolution" if layers == "convolutions" else "convolution or linear layer"
        raise ValueError(f"no {what} whose weights could be standardized")
    if any(parametrize.is_parametrized(layer, "weight") for layer in found):
        raise ValueError("a layer's weight is parametrized already: standardize a model once")
    for layer in found:
        parametrize.register_parametrization(layer, "weight", WeightStandardization(eps))
    return model


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight
