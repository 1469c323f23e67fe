"""Gradient over time by the initial gamma (Cooijmans et al. 2017, figure 1a and appendix B).

Primary claim: over the 784 pixels in order the slope of log10 of the gradient's norm is larger at
gamma = 1 than at 0.1, so more vanishes. Written before the first run of the study's grid, which had
orthogonal matrices; the identity came later and its claims are secondary.
"""

import itertools

import numpy as np
import pandas as pd

from bnstudy import figures, stats
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import course, finish, zero
from bnstudy.studies.kit import Published, claims_about, comparable, filled, select, values

GAMMA, ORDER, EPOCHS = "norm.gamma_init", "data.sequence", "train.epochs"
INIT = "model.recurrent_init"
SOURCE = "Cooijmans et al. 2017, figure 1a"
NAMES = {"pixels": "pixels in order", "permuted": "pixels permuted"}
PUBLISHED = Published(
    "digitised", "Cooijmans et al. 2017, figure 1a and appendix B",
    "figure 1a (tanh network, MNIST, T = 784): the norm at t = 0 is about 1e-3 for gamma 0.1 to "
    "0.3, 1e-10 for 0.5, 1e-22 for 0.6; gamma 1 loses about 24 decades in 130 steps. Appendix B, "
    "permuted MNIST: training loss after 50,000 steps",
    {"gamma": [0.1, 0.3, 0.5, 0.7, 1.0], "training loss": [0.12, 0.15, 0.15, 0.20, 0.44]},
)  # fmt: skip
ANCHOR = 100 * 24 / 130  # decades in 100 steps


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """With the settings that a table at their defaults does not hold."""
    return filled(table, {GAMMA: 1.0, INIT: "orthogonal"})


def inits(table: pd.DataFrame) -> list[str]:
    """The kinds of matrices, those of the primary claim first."""
    return [name for name in ("orthogonal", "identity") if name in set(prepared(table)[INIT])]


def orders(table: pd.DataFrame) -> list[str]:
    """The orders of pixels, in a fixed order."""
    return [name for name in NAMES if name in set(table[ORDER])]


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """A row for each kind of matrix: gradient over time by order, slopes, training loss."""
    return len(inits(table)), len(orders(table)) + 2


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Gradient norms over time at initialisation; slopes and losses against gamma."""
    table = prepared(table)
    for row, init in zip(axes, inits(table), strict=True):
        _row(row, select(table, {INIT: init}), init)


def _row(row: np.ndarray, table: pd.DataFrame, init: str) -> None:
    start, end = table[table[EPOCHS] == 0], table[table[EPOCHS] > 0]
    for ax, order in zip(row, orders(table), strict=False):
        curves = {
            f"gamma {gamma:g}": course(rows, "gradient")
            for gamma, rows in select(start, {ORDER: order}).groupby(GAMMA)
        }
        figures.series(ax, curves, log2=None, xlabel="time step",
                       ylabel="log10 of the gradient's norm")  # fmt: skip
        finish(ax, f"{init}: {NAMES[order]}, at initialisation")
    for ax, rows, column, label in (
        (row[-2], start, "gradient_slope", "decades in 100 steps"),
        (row[-1], end, "train_loss", "training loss (nats)"),
    ):
        curves = {
            NAMES[order]: stats.summarize(select(rows, {ORDER: order}), GAMMA, column)
            for order in orders(rows)
        }
        if column == "train_loss":
            digitised = PUBLISHED.curve("training loss", "gamma", x=GAMMA)
            curves["permuted MNIST (digitised)"] = digitised
        figures.series(ax, curves, GAMMA, log2=False, xlabel="initial gamma", ylabel=label)
        ax.margins(y=0.5)
        ax.legend(fontsize=6.5, loc="upper center")
    zero(row[-2])
    row[-2].set_title(f"{init}: slope of the gradient")
    row[-1].set_title(f"{init}: training loss, T = 49")


def claims(table: pd.DataFrame) -> list[Claim]:
    """Slopes at initialisation, losses after training; gamma = 1 against 0.1."""
    table = prepared(table)
    small, large = float(table[GAMMA].min()), float(table[GAMMA].max())
    loss = dict(zip(PUBLISHED["gamma"], PUBLISHED["training loss"], strict=True))

    def rise(rows: pd.DataFrame, metric: str) -> dict[int, float]:
        """From the smallest to the largest gamma."""
        ends = (values(rows, metric, {GAMMA: gamma}, factor=1) for gamma in (large, small))
        return paired_differences(*ends)

    found: list[Claim] = []
    for init, order in itertools.product(inits(table), orders(table)):
        here = select(table, {ORDER: order, INIT: init})
        start, end = here[here[EPOCHS] == 0], here[here[EPOCHS] > 0]
        known = start["gradient_slope"].notna()
        measured = ("every gradient is measured", bool(known.all()), f"{known.sum()} of "
                    f"{len(known)}")  # fmt: skip
        same = comparable(here)
        claim = claims_about(f"{init} matrices, {NAMES[order]}", f"{init}, {order}")
        found.append(
            claim(
                "slope",
                f"in 100 steps the gradient loses more decades at gamma {large:g} than at "
                f"{small:g}",
                rise(start, "gradient_slope"), unit="decades", primary=not found, source=SOURCE,
                preconditions=[measured, same],
                **{**PUBLISHED.cite(f"about {ANCHOR:.0f} decades"), "published_effect": ANCHOR},
            )
        )  # fmt: skip
        if len(end):
            found.append(
                claim(
                    "loss",
                    f"the mean training loss is higher with gamma {large:g} than with {small:g}",
                    rise(end, "train_loss"), unit="nats", preconditions=[same],
                    source="Cooijmans et al. 2017, appendix B",
                    **PUBLISHED.cite(
                        f"{loss[1.0] - loss[0.1]:+.2f} nats on permuted MNIST after 50,000 steps"
                    ),
                )
            )  # fmt: skip
    return found
