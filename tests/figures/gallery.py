"""Panels with everything that the grammar knows; the numbers are made up."""

import numpy as np
import pandas as pd

from bnstudy.figures import Band, Curve, Panel, hue, ramp, style_of


def points(means, xs=(2, 4, 8, 16), half=1.0, **more) -> pd.DataFrame:
    mean = np.array(means, dtype=float)
    ends = {"low": mean - half, "high": mean + half}
    return pd.DataFrame({"x": list(xs), "mean": mean, **ends, "n": 6, **more})


def runs(means, xs=(2, 4, 8, 16), seeds=6, half=1.0) -> pd.DataFrame:
    offsets = half * np.linspace(-1, 1, seeds)
    rows = [(x, s, m + offsets[s]) for x, m in zip(xs, means, strict=True) for s in range(seeds)]
    return pd.DataFrame(rows, columns=["x", "seed", "value"])


def norm(name, means, xs=(2, 4, 8, 16), mode="population", label="", dots=False, **more) -> Curve:
    style = style_of(name)
    own = runs(means, xs) if dots else None
    return Curve(label or style.label, points(means, xs, **more), style, mode, own)


def cited(label, means, xs, style) -> Curve:
    own = points(means, xs).assign(low=np.nan, high=np.nan, n=np.nan)
    return Curve(label, own, style, source="published")


def dot(label, mean, i, half=1.0) -> Curve:
    return Curve(label, points([mean], [0], half), hue(i), runs=runs([mean], [0], half=3 * half))


def headline() -> list[Panel]:
    """Curves of norms beside published ones, a paired difference."""
    errors = Panel(
        "contrast digits, ResNet",
        [
            norm("batch", [30, 20, 15, 14], dots=True, diverged=[2, 0, 0, 0]),
            norm("batch", [16, 15, 14, 14], mode="precise", label="PreciseBN"),
            norm("group", [15, 14, 15, 14], dots=True),
        ],
        "batch size",
        ceiling=100.0,
        claim="more",
    )
    others = Panel(
        "ResNet-50, ImageNet",
        [cited("batch", [34.7, 27.3, 24.8], [2, 4, 8], style_of("batch")),
         cited("group", [24.1, 24.2, 24.0], [2, 4, 8], style_of("group"))],
        "images per GPU",
    )  # fmt: skip
    gaps = Panel(
        "batch minus group",
        [dot("ResNet", 5.1, 0), dot("MLP", -0.4, 1, 0.05),
         cited("ImageNet", [11.1], [0], hue(2))],
        ylabel="test error, difference (pp)", kind="dots", zero=True,
        bands=[Band(2.4, 2.4, "threshold")],
    )  # fmt: skip
    return [errors, others, gaps]


def details() -> list[Panel]:
    """A ramp over many points on log axes, words on x, an equivalence margin, a dollar."""
    steps = list(range(1, 41))
    long = [
        Curve(f"length {n}", points([(i + 1) / s for s in steps], steps, 0.02 / (i + 1)), style)
        for i, (n, style) in enumerate(zip((28, 112, 784), ramp(3), strict=True))
    ]
    words = ["noise", "blur", "jpeg"]
    return [
        Panel("loss", long, "step", "loss (nats)", x="log10", y="log10"),
        Panel("by corruption", [norm("batch", [40, 30, 20], words), norm("layer", [20, 30, 9],
              words)], "", x="names"),
        Panel("cost in $ of 5 % <noise> & x_1^2 \\alpha", [norm("my$norm", [0.5, 0.2, -0.1, 0])],
              "batch size", "difference (pp)", zero=True, bands=[Band(-0.3, 0.3, "within 0.3 pp")]),
    ]  # fmt: skip
