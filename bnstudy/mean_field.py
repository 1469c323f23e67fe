"""How gradients grow with depth at initialization: what theory predicts for wide networks.

No torch: studies draw the predictions, and normtools and the tests hold networks to them.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

Function = Callable[[Any], Any]
# an activation, its derivative, and the factor by which weights N(0, gain / fan_in) start
ACTIVATIONS: dict[str, tuple[Function, Function, float]] = {
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(float), 2.0),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2, 1.0),
    "identity": (lambda z: z, np.ones_like, 1.0),
}
SMALLEST_BATCH = 4  # the mean of 1 / chi^2 with B - 1 degrees of freedom is finite from there on


def middle(layers: int) -> range:
    """The layers over which growth is taken: without the first quarter and the last eighth.

    There a network has not yet forgotten its input, and the gradient not yet the loss.
    """
    return range(layers // 4, layers - layers // 8)


def growth(logs: Sequence[float]) -> float:
    """Factor per layer, towards the input, of what has these natural logarithms by layer.

    By least squares over the middle layers; NaN where there are fewer than three.

    >>> round(growth([-0.5 * layer for layer in range(40)]), 6) == round(math.exp(0.5), 6)
    True
    """
    chosen = middle(len(logs))
    if len(chosen) < 3:
        return math.nan
    own, place = np.asarray(logs, dtype=float)[chosen], np.array(chosen) - np.mean(chosen)
    return math.exp(-float(place @ own / (place @ place)))


def predicted_growth(norm: str, activation: str, batch: float = math.inf) -> float:
    """Growth of E|dL/dx|^2 per layer of a plain, wide network at initialization.

    norm:  "batch", "layer" or "none"; NaN for none with tanh, whose signals shrink at no constant
           rate.
    batch: B, 4 or more; infinite: the limit, and what layer norm and none have at any B.

    Layer norm: E[phi'(z)^2] / E[phi(z)^2] with z ~ N(0, 1). Batch norm removes the mean of phi over
    the batch from the signal: at infinite B E[phi'(z)^2] / Var[phi(z)], for ReLU pi / (pi - 1) =
    1.467 (Yang et al. 2019); at finite B see `_of_batch`, for the identity (B - 2) / (B - 3).

    >>> round(predicted_growth("batch", "relu"), 3), predicted_growth("layer", "identity")
    (1.467, 1.0)
    """
    if norm == "none":
        return math.nan if activation == "tanh" else 1.0
    signal, product = _moments(norm, activation, batch)
    return product / signal


def predicted_residual(
    norm: str, activation: str, batch: float, layers: int, start: float = 1.0
) -> float:
    """`growth` of a residual network whose layers add [norm, activation, linear] to the stream.

    Each branch adds s to the variance of the stream, and to the squared gradient that of the plain
    network's layer with the stream's variance in the place of its own: a factor 1 + p / (start + s
    i) behind i branches, where p / s is the plain network's growth. Derived, with branches and
    stream independent; without a norm both double in every layer.

    layers: the sums at the ends of so many branches.
    start:  variance of the stream before the first branch.

    >>> round(predicted_residual("none", "relu", 128, 40), 6)
    2.0
    """
    if norm == "none":
        return math.nan if activation == "tanh" else 2.0
    signal, product = _moments(norm, activation, batch)
    steps = [math.log1p(product / (start + signal * i)) for i in range(1, layers)]
    return growth([-sum(steps[:i]) for i in range(layers)])


@cache
def _moments(norm: str, activation: str, batch: float) -> tuple[float, float]:
    """Variance that a layer hands on, and what a squared gradient is multiplied by before it.

    In units of a normalized input: of their quotient the growth is made.
    """
    phi, slope, gain = ACTIVATIONS[activation]
    if norm == "batch" and math.isfinite(batch):
        signal, product = _of_batch(phi, slope, int(batch))
    else:
        z = np.linspace(-12, 12, 2_000_001)  # a Riemann sum: exact to 1e-6 also at ReLU's corner
        density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
        mean = (density * phi(z)).sum() if norm == "batch" else 0.0
        signal = float((density * phi(z) ** 2).sum() - mean**2)
        product = float((density * slope(z) ** 2).sum())
    return gain * signal, gain * product


def _of_batch(phi: Function, slope: Function, batch: int) -> tuple[float, float]:
    """The same with batch norm at a finite batch B, in a network of infinite width.

    A channel's B values before its norm are Gaussian and, once centred, exchangeable: normalized
    they are a uniform point h of the sphere of radius sqrt(B) among the vectors that sum to zero.
    With d = phi'(h) and the projection P = I - 11'/B - hh'/B of the norm's backward pass, a
    gradient that sums to zero is multiplied, in the mean, by

        B / (B - 3) E[sum_i d_i^2 P_ii - d'P d / B] / (B - 1) / signal,

    where B / (B - 3) is the mean of variance / sample variance (1 / chi^2 with B - 1 degrees of
    freedom, and divisor B), and signal = E[phi(h_1)^2] - E[phi(h_1) phi(h_2)]. Derived after Yang
    et al. 2019, who give its limits; expectations of pairs by quadrature, 1e-3 exact for ReLU.
    """
    if batch < SMALLEST_BATCH:
        raise ValueError(f"growth has no finite mean below batches of {SMALLEST_BATCH}: {batch}")
    # a point's first two coordinates: sin(t) times a uniform angle, density sin(t) cos(t)^(B - 4)
    nodes, weights = np.polynomial.legendre.leggauss(300)
    t = (nodes + 1) / 2 * min(math.pi / 2, 10 / math.sqrt(batch))
    weights = weights * np.sin(t) * np.cos(t) ** (batch - 4)
    weights /= weights.sum()
    angle = (np.arange(1200) + 0.5) * 2 * math.pi / 1200
    u, v = np.sin(t)[:, None] * np.cos(angle), np.sin(t)[:, None] * np.sin(angle)
    rho = -1 / (batch - 1)  # correlation of two values of a centred batch
    a = math.sqrt(batch - 1) * u
    b = math.sqrt(batch - 1) * (rho * u + math.sqrt(1 - rho**2) * v)

    def mean(values: Any) -> float:
        return float((weights[:, None] * values).mean(1).sum())

    d, other = slope(a), slope(b)
    square, scaled = mean(d**2), mean((a * d) ** 2)
    ones = square + (batch - 1) * mean(d * other)  # of (sum d)^2, by B
    along = scaled + (batch - 1) * mean(a * d * b * other)  # of (sum h d)^2, by B
    trace = (batch - 1) * square - scaled
    product = batch / (batch - 3) * (trace - (batch * square - ones - along) / batch) / (batch - 1)
    return mean(phi(a) ** 2) - mean(phi(a) * phi(b)), product
