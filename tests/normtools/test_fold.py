"""Folding leaves every output where it was, and refuses where it could not."""

import pytest
import torch
import torchvision
from torch import nn

from bnstudy.norms import (
    BatchNorm,
    GroupNorm,
    fold,
    fold_pair,
    inference_speedup,
    standardize_weights,
    swap_norms,
)

EXACT = {"rtol": 1e-10, "atol": 1e-10}  # float64, sums of some hundred terms


def unsettle(model):
    """Population statistics and affine maps unlike their initial values."""
    rng = torch.Generator().manual_seed(3)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point():
            values = torch.rand(tensor.shape, generator=rng, dtype=tensor.dtype)
            if "running_var" in name:
                tensor.data = 0.5 + values
            elif tensor.dim() == 1:
                tensor.data = values - 0.3
    return model


LAYERS = {
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 9)),
    "conv2d": (nn.Conv2d(4, 6, 3, bias=False), (2, 4, 7, 8)),
    "grouped and dilated": (nn.Conv2d(4, 6, 3, groups=2, dilation=2), (2, 4, 7, 8)),
    "depthwise": (nn.Conv2d(6, 6, 3, groups=6, bias=False), (2, 6, 7, 8)),
    "conv3d": (nn.Conv3d(4, 6, 2), (2, 4, 3, 4, 5)),
    "reflecting": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 7, 8)),
    "transposed 1d": (nn.ConvTranspose1d(4, 6, 3, stride=2), (2, 4, 9)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, bias=False), (2, 4, 5, 6)),
    "transposed, grouped": (nn.ConvTranspose2d(4, 6, 3, groups=2, output_padding=0), (2, 4, 5, 6)),
    "transposed 3d": (nn.ConvTranspose3d(4, 6, 2, dilation=2), (2, 4, 3, 4, 5)),
    "linear": (nn.Linear(4, 6), (5, 4)),
    "linear without bias": (nn.Linear(4, 6, bias=False), (5, 4)),
}
TORCH = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


@pytest.mark.parametrize("affine", ["both", "gamma", "beta", "none"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_pair_is_folded_into_one_equal_layer(name, affine):
    layer, shape = LAYERS[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    for norm in (BatchNorm(6, affine=affine, eps=1e-3), TORCH[x.dim()](6, eps=1e-3)):
        pair = unsettle(nn.Sequential(layer, norm).double()).eval()
        folded = fold_pair(*pair)
        assert type(folded) is type(layer)
        torch.testing.assert_close(folded(x), pair(x), **EXACT)
        assert folded.weight is not layer.weight


def test_standardized_weights_are_folded_as_they_are_used():
    pair = nn.Sequential(nn.Conv2d(4, 6, 3), BatchNorm(6)).double()
    unsettle(standardize_weights(pair)).eval()
    x = torch.randn(2, 4, 7, 8).double()
    torch.testing.assert_close(fold_pair(*pair)(x), pair(x), **EXACT)


class Branching(nn.Module):
    """One norm of each kind that can and cannot be folded."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 4, 1), BatchNorm(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 1), BatchNorm(4)  # conv2's output used twice
        self.norm3 = BatchNorm(4)  # after relu
        self.conv4, self.norm4 = nn.Conv2d(4, 4, 1), GroupNorm(4, num_groups=2)
        self.conv5, self.norm5 = nn.Conv2d(4, 4, 1), BatchNorm(4)  # norm5 used twice
        self.conv6, self.norm6 = nn.Conv2d(4, 4, 1), BatchNorm(4, evaluation="batch")
        self.conv7, self.norm7 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)
        self.linear, self.norm8 = nn.Linear(6, 6), nn.BatchNorm1d(4)  # channels on axis 1
        self.norm9 = BatchNorm(4)  # after an addition

    def forward(self, x):
        x = self.norm1(self.conv1(x))
        y = self.conv2(x)
        x = self.norm2(y) + y
        x = self.norm3(x.relu())
        x = self.norm4(self.conv4(x))
        x = self.norm5(self.norm5(self.conv5(x)))
        x = self.norm7(self.conv7(self.norm6(self.conv6(x))))
        x = self.norm8(self.linear(x.flatten(2)))
        return self.norm9(x + 1)


def test_a_whole_model_is_folded_where_it_can_be_and_the_rest_named():
    model = unsettle(Branching().double()).eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x = torch.randn(5, 3, 2, 3).double()
    result = fold(model, x)
    assert result.folded == ["norm1"]
    reasons = {
        "norm2": "'conv2' is used elsewhere too",
        "norm3": "'relu' comes before it",
        "norm4": "takes its statistics from the input",
        "norm5": "'norm5' is used in several places",
        "norm6": "evaluation='batch'",
        "norm7": "keeps no population statistics",
        "norm8": "channels on axis 1",
        "norm9": "'add' comes before it",
    }
    assert result.refused.keys() == reasons.keys()
    for name, words in reasons.items():
        assert words in result.refused[name]
    torch.testing.assert_close(result.model(x), model(x), **EXACT)
    assert 0 <= result.max_difference < 1e-10 < result.max_output
    assert not any(name == "norm1" for name, _ in result.model.named_modules())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert "1 folded" in str(result)


@pytest.mark.parametrize("ours", [False, True])
def test_a_residual_network_is_folded_completely(ours):
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=5)
    if ours:
        swap_norms(model, "batch")
    unsettle(model.double()).eval()
    x = torch.randn(2, 3, 32, 32).double()
    result = fold(model, x)
    assert len(result.folded) == 20
    assert not result.refused
    assert not any(isinstance(m, nn.BatchNorm2d | BatchNorm) for m in result.model.modules())
    assert result.max_difference < 1e-10 * result.max_output


def test_the_reported_difference_is_measured(monkeypatch):
    import sys

    module = sys.modules["bnstudy.normtools.fold"]
    right = module.fold_pair

    def wrong(layer, norm):
        folded = right(layer, norm)
        folded.bias.data += 0.25
        return folded

    monkeypatch.setattr(module, "fold_pair", wrong)
    model = nn.Sequential(nn.Linear(4, 6), BatchNorm(6)).eval()
    assert fold(model, torch.randn(3, 4)).max_difference == pytest.approx(0.25, rel=1e-5)


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = BatchNorm(3)

    def forward(self, x):
        return self.norm(x) if x.sum() > 0 else x


class Doubling(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class DoublingNorm(nn.BatchNorm1d):
    def forward(self, x):
        return 2 * super().forward(x)


def hooked(layer):
    layer.register_forward_hook(lambda *_: None)
    return layer


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fold(nn.Sequential(BatchNorm(3)), torch.ones(2, 3)), "eval"),
        (lambda: fold(nn.Linear(3, 3).eval(), torch.ones(2, 3)), "no norm layers"),
        (lambda: fold(Untraceable().eval(), torch.ones(2, 3)), "cannot trace Untraceable"),
        (lambda: fold_pair(nn.Linear(3, 3), BatchNorm(3)), "training mode"),
        (lambda: fold_pair(nn.Linear(3, 4), BatchNorm(3).eval()), "4 outputs"),
        (lambda: fold_pair(nn.ReLU(), BatchNorm(3).eval()), "ReLU before it is no"),
        (lambda: fold_pair(Doubling(3, 3), BatchNorm(3).eval()), "Linear with its own forward"),
        (lambda: fold_pair(nn.Linear(3, 3), DoublingNorm(3).eval()), "norm with its own forward"),
        (lambda: fold_pair(hooked(nn.Linear(3, 3)), BatchNorm(3).eval()), "hooks"),
        (lambda: fold_pair(nn.Linear(3, 3), GroupNorm(3, num_groups=1).eval()), "GroupNorm"),
        (lambda: fold_pair(nn.Linear(3, 3), nn.ReLU().eval()), "ReLU is no batch norm"),
    ],
)
def test_what_cannot_be_folded_is_refused_with_the_reason(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_speed_up_is_a_ratio_of_times():
    class Slow(nn.Module):
        def forward(self, x):
            for _ in range(2000):
                x = x + 1
            return x

    # 2000 additions against none: thousands of times on any machine, 10 is far below
    assert inference_speedup(Slow(), nn.Identity(), torch.ones(3), repeats=3) > 10
