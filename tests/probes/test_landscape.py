"""Losses along the gradient where they are known in closed form."""

import pytest
import torch
from torch import Tensor, nn

from bnstudy import data
from bnstudy.config import Config
from bnstudy.engine.evaluate import View
from bnstudy.engine.mapped import Mapped
from bnstudy.engine.optimizer import Optimizer
from bnstudy.probes.landscape import LENGTHS, RATES, covariate_shift, landscape

RATE = 0.03
CPU = torch.device("cpu")


class Bowl(nn.Module):
    """w' diag(h) w / 2 for every example."""

    def __init__(self, curvatures: Tensor, start: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(start.clone().reshape(1, -1))
        self.register_buffer("curvatures", curvatures)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)  # as running statistics change
        return (self.curvatures * self.weight**2).sum() / 2 + 0 * x.flatten(1)[:, :1]


class Product(nn.Module):
    """(a b)^2 / 2, of two weights that are layers one after the other."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.tensor([[a]]))
        self.second = nn.Parameter(torch.tensor([[b]]))

    def forward(self, x: Tensor) -> Tensor:
        return (self.first * self.second) ** 2 / 2 + 0 * x.flatten(1)[:, :1]


class Output:
    """The loss is the mean of the outputs."""

    metrics = measures = ("error",)

    def score(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return output.mean((0, 2)), torch.zeros(output.shape[1])


def view_of(nets: list[nn.Module], rate: float = RATE) -> View:
    """What the probe is handed before the first step, in float64."""
    config = Config.model_validate(
        {
            "optimizer": {"lr": rate, "lr_rule": "none", "schedule": "constant"},
            "train": {"batch_size": 4, "steps": 10},
        }
    )
    x, y = torch.randn(8, 1, 2, 2, dtype=torch.float64), torch.zeros(8, dtype=torch.long)
    stack = Mapped([net.double() for net in nets], CPU)
    stack.task = Output()
    update = Optimizer([config.optimizer] * len(nets), stack, 4, 10)
    losses = torch.empty(len(nets), 0)
    return View(
        stack, data.Dataset(x, y, x, y, x, y, 2), config, tuple(range(len(nets))), update,
        last=True, losses=losses,
    )  # fmt: skip


def test_a_quadratic_bowl_has_its_known_curvature_and_ranges():
    """g = H w, so that grad(w) - grad(w - eta g) = eta H g: straight, of slope |H g| / |g|.

    The loss is w'Hw / 2 - eta |g|^2 + eta^2 g'Hg / 2, convex in eta: its extremes over a grid are
    at the ends or at the point next to the minimum, taken here from the formula.
    """
    curvatures = torch.tensor([[0.5, 2.0, 9.0], [1.0, 1.0, 4.0]], dtype=torch.float64)
    starts = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.1, 1.0]], dtype=torch.float64)
    nets = [Bowl(h, w) for h, w in zip(curvatures, starts, strict=True)]
    found = landscape(view_of(nets))
    for i, (h, w) in enumerate(zip(curvatures, starts, strict=True)):
        g = h * w
        slope = float((h * g).norm() / g.norm())
        grids = {
            "": torch.tensor(RATES, dtype=torch.float64) * RATE,
            "_relative": torch.tensor(LENGTHS, dtype=torch.float64) * w.norm() / g.norm(),
        }
        for suffix, eta in grids.items():
            loss = (h * w * w).sum() / 2 - eta * (g * g).sum() + eta**2 * (h * g * g).sum() / 2
            spread = float(loss.max() - loss.min())
            moved = slope * float(g.norm() * (eta.max() - eta.min()))
            unit = float(w.norm()) if suffix else 1.0
            # the learning rate is a float64; what is left is rounding
            smooth = found[f"smoothness{suffix}/01"][i]
            assert float(smooth) == pytest.approx(slope * unit**2, rel=1e-9)
            assert float(found[f"loss_range{suffix}/01"][i]) == pytest.approx(spread, rel=1e-9)
            turned = found[f"gradient_range{suffix}/01"][i]
            assert float(turned) == pytest.approx(moved * unit, rel=1e-9)


def test_the_second_of_two_factors_shifts_as_the_first_moves():
    """G = a^2 b; behind a step of a, which is a - rate a b^2, it is a'^2 b: parallel, shorter."""
    a, b, rate = 1.5, 0.75, 0.2  # a and b are exact in float32
    found = covariate_shift(view_of([Product(a, b)], rate))
    moved = a - rate * a * b**2
    assert float(found["shift_norm/01"]) == pytest.approx(1 - moved**2 / a**2, rel=1e-9)
    assert float(found["shift_cosine/01"]) == pytest.approx(1)


@pytest.mark.parametrize("probe", [landscape, covariate_shift])
def test_weights_gradient_buffers_and_random_numbers_are_put_back(probe):
    nets = [Bowl(torch.ones(3), torch.arange(3.0)), Bowl(2 * torch.ones(3), torch.ones(3))]
    view = view_of(nets if probe is landscape else [Product(1.0, 2.0), Product(2.0, 1.0)])
    view.stack.grad.fill_(7.0)
    kept = [view.stack.flat.clone(), view.stack.grad.clone(), torch.get_rng_state()]
    buffers = {name: b.clone() for name, b in view.stack.buffers.items()}
    probe(view)
    now = [view.stack.flat, view.stack.grad, torch.get_rng_state()]
    assert all(map(torch.equal, kept, now))
    assert all(torch.equal(view.stack.buffers[name], b) for name, b in buffers.items())
