"""Exact statements about normalization, computed: theorems and constants, no training needed.

Each function returns a Table whose rows say what the theory predicts, what was computed from the
layers of this package, and whether they agree within a stated tolerance.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bnstudy.mean_field import growth, predicted_growth
from bnstudy.norms.base import Norm
from bnstudy.norms.batch_norm import BatchNorm
from bnstudy.norms.per_example import GroupNorm, InstanceNorm, LayerNorm

NO_EPS = 1e-20  # float64 layers: an eps that is there, and counts for nothing


@dataclass(frozen=True)
class Table:
    """Rows of (what, predicted, computed, agrees); a number or a word each.

    >>> print(running_variance())
    running_var / normalizing variance = m / (m - 1)
    (Ioffe & Szegedy 2015, algorithm 2)
             predicted  computed  agrees
    m = 2    2          2         yes
    ...
    """

    title: str
    source: str
    rows: tuple[tuple[str, float | str, float | str, bool], ...]
    columns: tuple[str, ...] = ("", "predicted", "computed", "agrees")

    @property
    def holds(self) -> bool:
        return all(row[-1] for row in self.rows)

    def __str__(self) -> str:
        cells = [self.columns, *(tuple(map(_show, row)) for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        padded = ([c.ljust(w) for c, w in zip(row, widths, strict=True)] for row in cells)
        lines = ["  ".join(row).rstrip() for row in padded]
        return "\n".join([self.title, f"({self.source})", *lines])


def tables() -> Iterator[Table]:
    """All of them, from the cheapest to the growth constants (some ten seconds on one core).

    >>> next(tables()).title
    'Identities, largest difference'
    """
    yield identities()
    yield running_variance()
    yield gradient_norm()
    yield renormalization_limits()
    yield invariances()
    yield gradient_growth()


def identities() -> Table:
    """GN, LN, IN and BN coincide at the ends of their ranges.

    >>> identities().holds
    True
    """
    x = _normal(4, 6, 3, 5)
    one, vectors = x[:1], _normal(2, 50)
    apart = torch.sign(vectors[0] - vectors[1])
    pairs = {  # ours on the left, torch's functions on the right
        "GN with 1 group = LN over (C, H, W)": (
            _run(GroupNorm, x, num_groups=1),
            functional.layer_norm(x, x.shape[1:]),
        ),
        "GN with C groups = IN": (
            _run(GroupNorm, x, num_groups=6),
            functional.instance_norm(x),
        ),
        "LN = GN with 1 group": (_run(LayerNorm, x), functional.group_norm(x, 1)),
        "BN of a batch of one = IN": (_run(BatchNorm, one), functional.instance_norm(one)),
        "one ghost group = BN": (
            _run(BatchNorm, x, group_size=4),
            functional.batch_norm(x, None, None, training=True),
        ),
        "IN of one channel = LN of it": (
            _run(InstanceNorm, x[:, :1]),
            functional.layer_norm(x[:, :1], (1, 3, 5)),
        ),
        "BN of two vectors = +-1": (
            _run(BatchNorm, vectors, eps=NO_EPS),
            torch.stack([apart, -apart]),
        ),
    }
    rows = [_equal(what, a, b) for what, (a, b) in pairs.items()]
    return Table("Identities, largest difference", "Wu & He 2018, section 3", tuple(rows))


def running_variance() -> Table:
    """The running variance exceeds the normalizing one by m / (m - 1).

    >>> running_variance().holds
    True
    """
    rows = []
    for m in (2, 3, 4, 8, 32, 256):
        layer, x = BatchNorm(50, momentum=1.0).double(), _normal(m, 50)
        layer(x)
        ratio = (layer.get_buffer("running_var") / x.var(0, correction=0)).mean().item()
        rows.append(_number(f"m = {m}", m / (m - 1), ratio, 1e-12))
    return Table(
        "running_var / normalizing variance = m / (m - 1)",
        "Ioffe & Szegedy 2015, algorithm 2",
        tuple(rows),
    )


def gradient_norm() -> Table:
    """The gradient before a BN layer is the one behind it, less two projections, rescaled.

    >>> gradient_norm().holds
    True
    """
    rows = []
    for gamma in (0.5, 1.0, 2.0):
        layer = BatchNorm(4, gamma_init=gamma, eps=NO_EPS).double()
        x, g = _normal(8, 4, 5).requires_grad_(), _normal(8, 4, 5, seed=1)
        (grad,) = torch.autograd.grad(layer(x), x, g)
        m, std = 8 * 5, x.detach().std((0, 2), correction=0)
        x_hat = (x.detach() - x.detach().mean((0, 2), keepdim=True)) / std[:, None]
        rest = _dot(g, g) - g.sum((0, 2)) ** 2 / m - _dot(g, x_hat) ** 2 / m
        predicted = (gamma**2 / std**2 * rest)[0].item()
        computed = _dot(grad, grad)[0].item()
        rows.append(_number(f"gamma = {gamma:g}, channel 0", predicted, computed, 1e-9))
    return Table(
        "|dL/dx|^2 = gamma^2 / var (|g|^2 - <1, g>^2 / m - <g, x_hat>^2 / m)",
        "Santurkar et al. 2018, theorem 4.1, with equality",
        tuple(rows),
    )


def renormalization_limits() -> Table:
    """Batch Renormalization runs from batch norm to normalization by running statistics.

    >>> renormalization_limits().holds
    True
    """

    def layer(r_max: float | None = None, d_max: float | None = None) -> BatchNorm:
        made = BatchNorm(4, r_max=r_max, d_max=d_max).double()
        made.get_buffer("running_mean").copy_(torch.tensor([1.0, -1.0, 0.5, 0.0]))
        made.get_buffer("running_var").copy_(torch.tensor([0.5, 1.0, 2.0, 4.0]))
        return made

    x = _normal(8, 4, 5)
    rows = (
        _equal("r_max = 1, d_max = 0: batch norm", layer(r_max=1.0, d_max=0.0)(x), layer()(x)),
        _equal(
            "r_max = d_max = inf: values by running statistics",
            layer(r_max=math.inf, d_max=math.inf)(x),
            layer().eval()(x),
        ),
    )
    return Table("Batch Renormalization's two limits, largest difference", "Ioffe 2017", rows)


def invariances() -> Table:
    """Which changes of weights and data leave norm(W x) alone (Ba et al. 2016, table 1).

    >>> invariances().holds
    True
    """
    w, x = _normal(12, 7), _normal(16, 7, seed=1)
    shift, one = _normal(7, seed=2), torch.ones(16, 1, dtype=torch.float64)
    third, fifth = torch.ones(12, 1).double(), one.clone()
    third[3], fifth[5] = 2.5, 2.5
    changes: dict[str, tuple[Tensor, Tensor]] = {
        "weight matrix scaled": (2.5 * w, x),
        "weight matrix centred": (w + shift, x),
        "one weight vector scaled": (third * w, x),
        "data scaled": (w, 2.5 * x),
        "data centred": (w, x + shift),
        "one case scaled": (w, fifth * x),
    }
    published = {  # table 1, in the order of `changes`
        "batch": (True, False, True, True, True, False),
        "weight": (True, False, True, False, False, False),
        "layer": (True, True, False, True, False, True),
    }
    norms: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "batch": lambda w, x: _run(BatchNorm, x @ w.T, eps=NO_EPS),
        "weight": lambda w, x: x @ (w / w.norm(dim=1, keepdim=True)).T,
        "layer": lambda w, x: _run(LayerNorm, x @ w.T, eps=NO_EPS),
    }
    rows = []
    for norm, answers in published.items():
        plain = norms[norm](w, x)
        for (what, changed), answer in zip(changes.items(), answers, strict=True):
            # invariant: rounding of 12 x 7 products, 1e-15; otherwise the change is of order 1
            same = (norms[norm](*changed) - plain).abs().max().item() < 1e-9
            words = ("changes", "invariant")
            rows.append((f"{norm} norm, {what}", words[answer], words[same], same == answer))
    return Table("Invariance of norm(W x)", "Ba et al. 2016, table 1", tuple(rows))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "identity": lambda z: z,
}


def measured_growth(
    norm: str, activation: str, batch: int, width: int = 512, depth: int = 40, seed: int = 0
) -> float:
    """Growth of |dL/dx|^2 per layer in a plain network of `depth` linear, norm, activation layers.

    For Gaussian inputs and a random linear loss, over the middle layers (`mean_field.growth`).

    >>> measured_growth("batch", "relu", 128, width=64, depth=20) > 1.2
    True
    """
    rng = torch.Generator().manual_seed(seed)
    phi = ACTIVATIONS[activation]
    made = {"batch": BatchNorm, "layer": LayerNorm}[norm](width, eps=1e-10, affine="none")
    x = torch.randn(batch, width, generator=rng, requires_grad=True)
    states = [x]
    for _ in range(depth):
        w = torch.randn(width, width, generator=rng) * math.sqrt(2 / width)
        states.append(phi(made(states[-1] @ w.T)))
    loss = (states[-1] * torch.randn(batch, width, generator=rng)).sum()
    logs = [grad.square().sum().log().item() for grad in torch.autograd.grad(loss, states)]
    return growth(logs)


def gradient_growth(width: int = 512, depth: int = 40) -> Table:
    """Deep plain networks with batch norm explode at a known rate; centring costs ReLU 47 %.

    >>> gradient_growth(width=64, depth=20).columns  # narrow: the rates are not met
    ('', 'predicted', 'computed', 'agrees')
    """
    rows = []
    for norm, activation, batch in (
        ("batch", "relu", 128),
        ("batch", "relu", 256),
        ("batch", "identity", 8),
        ("batch", "identity", 32),
        ("batch", "tanh", 128),
        ("layer", "relu", 128),
        ("layer", "tanh", 128),
    ):
        predicted = predicted_growth(norm, activation, batch)
        computed = measured_growth(norm, activation, batch, width, depth)
        what = f"{norm} norm, {activation}, batch {batch}"
        # finite width and batch move the logarithm of the rate by 1 to 3 percent
        rows.append(_number(what, predicted, computed, 0.03))
    return Table(
        f"Growth of |dL/dx|^2 per layer at initialization (width {width}, depth {depth})",
        "Yang et al. 2019: pi / (pi - 1) for ReLU at large B, (B - 2) / (B - 3) without activation",
        tuple(rows),
    )


# --- helpers -------------------------------------------------------------------------------------


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _run(norm: type[Norm], x: Tensor, **params: Any) -> Tensor:
    return norm(x.shape[1], **params).double()(x).detach()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((0, 2))


def _equal(what: str, a: Tensor, b: Tensor) -> tuple[str, float, float, bool]:
    difference = (a - b).abs().max().item()
    return what, 0.0, difference, difference < 1e-9  # float64, a few hundred terms: 1e-14


def _number(
    what: str, predicted: float, computed: float, tolerance: float
) -> tuple[str, float, float, bool]:
    return what, predicted, computed, abs(math.log(computed / predicted)) < tolerance


def _show(cell: float | str | bool) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "NO"
    return f"{cell:.4g}" if isinstance(cell, float) else cell
