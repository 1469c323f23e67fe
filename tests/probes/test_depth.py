"""Signals and gradients by layer against what can be worked out by hand."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bnstudy import data
from bnstudy.config import Config
from bnstudy.engine.mapped import Mapped
from bnstudy.engine.stack import make_stack
from bnstudy.mean_field import predicted_growth
from bnstudy.models.layers import Join, SkipInit, activation
from bnstudy.probes.depth import activation_moments, branch_variance, layer_gradients
from bnstudy.work.build import build

CPU = torch.device("cpu")
BATCH = 6


class Linear:
    """The loss is the sum of the outputs times fixed numbers."""

    metrics = ()

    def __init__(self, factors):
        self.factors = factors  # (N, K)

    def score(self, output, y):
        return ((output * self.factors[:, None]).sum((0, 2)),)


class Inputs:
    """A training part of as many examples as a batch has, (N, S, *)."""

    def __init__(self, x):
        self.x = x

    def size(self, part):
        return len(self.x)

    def take(self, part, index, noise):
        own = torch.stack([self.x[column] for column in index.T], dim=1)
        return own, torch.zeros(index.shape, dtype=torch.long)


def view_of(nets, x, task=None, mapped=False):
    stack = Mapped(nets, CPU) if mapped else make_stack(nets, CPU, known=True)
    stack.task = task or Linear(torch.ones(1))
    config = SimpleNamespace(train=SimpleNamespace(batch_size=len(x)))
    return SimpleNamespace(
        stack=stack, data=Inputs(x), config=config, seeds=tuple(range(len(nets)))
    )


def chain(depth, width=4):
    layers = [[nn.Linear(width, width, bias=False), activation("identity")] for _ in range(depth)]
    return nn.Sequential(*(layer for pair in layers for layer in pair))


@pytest.mark.parametrize(("networks", "mapped"), [(1, False), (3, False), (2, True)])
def test_gradients_of_a_linear_chain_are_products_of_its_matrices(networks, mapped):
    nets = [chain(5) for _ in range(networks)]
    factors = torch.randn(1, 4).expand(BATCH, 4)
    found = layer_gradients(view_of(nets, torch.randn(BATCH, 4), Linear(factors), mapped))
    for i, net in enumerate(nets):
        row = factors[:1]
        for layer in range(5, 0, -1):
            expected = math.log10(BATCH * float(row.square().sum()))
            key = f"layer_gradient/{layer:02d}"
            assert float(found[key][i]) == pytest.approx(expected, abs=1e-5)
            row = row @ net[2 * (layer - 1)].weight.detach()


def test_growth_is_the_factor_of_equal_layers():
    """Every layer turns and stretches by 1.5: squared gradients grow by 2.25."""
    net = chain(16)
    for layer in net[::2]:
        layer.weight.data = 1.5 * torch.linalg.qr(torch.randn(4, 4))[0]
    found = layer_gradients(view_of([net], torch.randn(BATCH, 4)))
    assert float(found["gradient_growth"]) == pytest.approx(2.25, rel=1e-5)
    assert "gradient_growth" not in layer_gradients(view_of([chain(2)], torch.randn(BATCH, 4)))


class Block(nn.Module):
    def __init__(self, factor, join):
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU())
        self.branch[0].weight.data = factor * torch.eye(4)
        self.join = join

    def forward(self, x):
        return self.join(x, self.branch(x))


def test_gradients_of_residual_networks_are_those_by_the_stream():
    """Positive inputs pass the ReLUs: each block multiplies by 1 + factor."""
    net = nn.Sequential(*(Block(f, Join()) for f in (0.5, 1.0, 2.0)))
    found = layer_gradients(view_of([net], torch.rand(BATCH, 4) + 0.1))
    last = BATCH * 4
    expected = [last * 6.0**2, last * 3.0**2, last]
    assert len(found) == 4  # what lies in a branch is no layer; three have a growth
    logs = [float(found[f"layer_gradient/{i:02d}"]) for i in (1, 2, 3)]
    assert logs == pytest.approx([math.log10(e) for e in expected], abs=1e-5)


def test_a_gradient_of_zero_is_said_to_be_so():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    net[2].weight.data.zero_()
    found = layer_gradients(view_of([net], torch.rand(BATCH, 4)))
    assert float(found["layer_gradient/01"]) == pytest.approx(-90)


@pytest.mark.parametrize(("networks", "mapped"), [(1, False), (2, False), (2, True)])
def test_branches_add_their_share_of_the_variance(networks, mapped):
    """x + a x: a^2 / (1 + a^2); ReLU passes these inputs, and skipinit nothing."""

    def net():
        return nn.Sequential(Block(0.5, Join()), Block(2.0, Join()), Block(2.0, SkipInit()))

    view = view_of([net() for _ in range(networks)], torch.rand(BATCH, 4), mapped=mapped)
    found = branch_variance(view)
    assert found["branch_share/01"].tolist() == pytest.approx([0.2] * networks, rel=1e-5)
    assert found["branch_share/02"].tolist() == pytest.approx([0.8] * networks, rel=1e-5)
    assert found["branch_share/03"].tolist() == [0.0] * networks


@pytest.mark.parametrize(
    ("kind", "flat"),
    [
        ("relu", lambda z: z <= 0),
        ("tanh", lambda z: z.abs() > math.atanh(math.sqrt(0.95))),
        ("sigmoid", lambda z: z.abs() > 2 * math.atanh(math.sqrt(0.95))),
        ("identity", None),
    ],
)
def test_moments_and_saturation_are_those_of_the_values(kind, flat):
    z = torch.linspace(-6, 6, 40).view(10, 4)
    net = nn.Sequential(activation(kind), nn.Linear(4, 1))
    found = activation_moments(view_of([net], z))
    y = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid,
         "identity": lambda z: z}[kind](z.double())  # fmt: skip
    assert float(found["activation_mean/01"]) == pytest.approx(float(y.mean()), abs=1e-6)
    assert float(found["activation_sd/01"]) == pytest.approx(float(y.std(correction=0)), abs=1e-6)
    assert ("saturated/01" in found) is (flat is not None)
    if flat:
        assert float(found["saturated/01"]) == pytest.approx(float(flat(z).double().mean()))


def of_noise(norm, **model):
    """Two deep networks at initialization, on white noise."""
    config = Config.model_validate(
        {
            "data": {"name": "gaussian", "train_size": 128},
            "model": {"name": "deep", **model},
            "norm": {"name": norm},
            "train": {"batch_size": 128},
        }
    )
    both = data.load_many([(config.data, seed) for seed in (0, 1)])
    nets = [build(config.model_copy(update={"seed": s}), both.shape, 10) for s in (0, 1)]
    stack = make_stack(nets, CPU, known=True)
    return SimpleNamespace(stack=stack, data=both, config=config, seeds=(0, 1))


@pytest.mark.parametrize(
    ("norm", "branch", "share"),
    [("batch", "plain", lambda k: 1 / (k + 1)), ("none", "plain", lambda k: 0.5),
     ("none", "skipinit", lambda k: 0.0)],
)  # fmt: skip
def test_batch_norm_downscales_branches_as_de_and_smith_say(norm, branch, share):
    found = branch_variance(of_noise(norm, depth=9, width=512, branch=branch))
    assert len(found) == 8
    for k in range(1, 9):
        for value in found[f"branch_share/{k:02d}"].tolist():
            # means over 512 units of squares that differ between layers by sqrt(5 / 512) = 10 %
            assert value == pytest.approx(share(k), rel=0.25, abs=1e-12)


def test_a_deep_network_grows_as_predicted():
    """Width 256: 6 % are two standard deviations sqrt(1.2 * 5 / 256 / 14 layers) of a slope."""
    view = of_noise("batch", depth=24, width=256, residual=False)
    growth = layer_gradients(view)["gradient_growth"]
    assert growth.mean() == pytest.approx(predicted_growth("batch", "relu", 128), rel=0.06)
