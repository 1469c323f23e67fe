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
from bnstudy.studies import comparable, course, extended, select, values

GAMMA, ORDER, EPOCHS = "norm.gamma_init", "data.sequence", "train.epochs"
INIT = "model.recurrent_init"
SOURCE = "Cooijmans et al. 2017, figure 1a"
NAMES = {"pixels": "pixels in order", "permuted": "pixels permuted"}
PUBLISHED = {
    "what": "digitised: Cooijmans et al. 2017, figure 1a (tanh network, MNIST, T = 784): the norm "
    "at t = 0 is about 1e-3 for gamma 0.1 to 0.3, 1e-10 for 0.5, 1e-22 for 0.6; gamma 1 loses "
    "about 24 decades in 130 steps. Appendix B, permuted MNIST: training loss after 50,000 steps",
    "gamma": [0.1, 0.3, 0.5, 0.7, 1.0],
    "training loss": [0.12, 0.15, 0.15, 0.20, 0.44],
}
ANCHOR = 100 * 24 / 130  # decades in 100 steps


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """What is at its default is not in the address: filled in."""
    gamma = table[GAMMA] if GAMMA in table else pd.Series(1.0, index=table.index)
    init = table[INIT] if INIT in table else pd.Series("orthogonal", index=table.index)
    filled = {GAMMA: gamma.fillna(1.0).astype(float), INIT: init.fillna("orthogonal")}
    return extended(table, **filled)


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
        _row(row, table[table[INIT] == init], init)


def _row(row: np.ndarray, table: pd.DataFrame, init: str) -> None:
    start, end = table[table[EPOCHS] == 0], table[table[EPOCHS] > 0]
    for ax, order in zip(row, orders(table), strict=False):
        curves = {
            f"gamma {gamma:g}": course(rows, "gradient")
            for gamma, rows in start[start[ORDER] == order].groupby(GAMMA)
        }
        figures.series(ax, curves, log2=None, xlabel="time step",
                       ylabel="log10 of the gradient's norm")  # fmt: skip
        ax.legend(fontsize=6.5)
        ax.set_title(f"{init}: {NAMES[order]}, at initialisation")
    for ax, rows, column, label in (
        (row[-2], start, "gradient_slope", "decades in 100 steps"),
        (row[-1], end, "train_loss", "training loss (nats)"),
    ):
        curves = {
            NAMES[order]: stats.summarize(rows[rows[ORDER] == order], GAMMA, column)
            for order in orders(rows)
        }
        if column == "train_loss":
            curves["permuted MNIST (digitised)"] = pd.DataFrame(
                {GAMMA: PUBLISHED["gamma"], "mean": PUBLISHED["training loss"],
                 "low": np.nan, "high": np.nan}
            )  # fmt: skip
        figures.series(ax, curves, GAMMA, log2=False, xlabel="initial gamma", ylabel=label)
        ax.margins(y=0.5)
        ax.legend(fontsize=6.5, loc="upper center")
    row[-2].axhline(0, color="black", linewidth=0.7)
    row[-2].set_title(f"{init}: slope of the gradient")
    row[-1].set_title(f"{init}: training loss, T = 49")


def claims(table: pd.DataFrame) -> list[Claim]:
    """Slopes at initialisation, losses after training; gamma = 1 against 0.1."""
    table = prepared(table)
    small, large = float(table[GAMMA].min()), float(table[GAMMA].max())
    found = []
    for init, order in itertools.product(inits(table), orders(table)):
        here = select(table, data__sequence=order, model__recurrent_init=init)
        where = f"{init} matrices, {NAMES[order]}"
        start, end = here[here[EPOCHS] == 0], here[here[EPOCHS] > 0]
        known = start["gradient_slope"].notna()
        ready = [
            ("every gradient is measured", bool(known.all()), f"{known.sum()} of {len(known)}"),
            comparable(here),
        ]
        cell = lambda rows, metric, gamma: values(  # noqa: E731
            rows[rows[GAMMA] == gamma], metric, factor=1
        )
        found.append(
            Claim(
                name=f"{init}, {order}: slope", kind="greater", primary=not found, unit="decades",
                values=paired_differences(
                    cell(start, "gradient_slope", large), cell(start, "gradient_slope", small)
                ),
                text=f"{where}: in 100 steps the gradient loses more decades at gamma "
                f"{large:g} than at {small:g}",
                source=SOURCE, preconditions=ready,
                published=f"about {ANCHOR:.0f} decades (digitised)", published_effect=ANCHOR,
            )
        )  # fmt: skip
        if len(end):
            found.append(
                Claim(
                    name=f"{init}, {order}: loss", kind="greater", unit="nats",
                    values=paired_differences(
                        cell(end, "train_loss", large), cell(end, "train_loss", small)
                    ),
                    text=f"{where}: the mean training loss is higher with gamma {large:g} "
                    f"than with {small:g}",
                    source="Cooijmans et al. 2017, appendix B", preconditions=[comparable(here)],
                    published="+0.32 nats on permuted MNIST after 50,000 steps (digitised)",
                )
            )  # fmt: skip
    return found
