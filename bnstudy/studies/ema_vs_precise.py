"""The same checkpoints by exponential average and PreciseBN (Wu & Johnson 2021, figure 3).

Primary claim: at a constant learning rate of 1 the exponential average's test error exceeds
PreciseBN's, in the mean over checkpoints. Written before the first run of the study's grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies import across, comparable, course, select, titled, values

LR, SCHEDULE = "optimizer.lr", "optimizer.schedule"
SOURCE = "Wu & Johnson 2021, figure 3"
NOT_INTERPOLATING = 0.05  # training loss at every checkpoint
TRAINED = 0.25  # final training error at most
PUBLISHED = {
    "what": "published: LeNet with BN on Fashion-MNIST, lr 1.0, batch 256, 10 epochs, one run each "
    "(Dive into Deep Learning and readers); nobody gives PreciseBN",
    "run": ["from scratch", "nn.BatchNorm2d", "Paddle", "a reader's"],
    "training accuracy": [0.899, 0.902, 0.907, 0.901],
    "test accuracy": [0.807, 0.708, 0.843, 0.853],
}


def sets(table: pd.DataFrame) -> list[str]:
    """The data sets, in a fixed order."""
    rank = ("digits", "contrast_digits", "mnist", "fashion_mnist")
    return sorted(table["data.name"].unique(), key=lambda n: (rank.index(n) if n in rank else 9, n))


def arms_of(table: pd.DataFrame) -> list[tuple[float, str, str]]:
    """(learning rate, schedule, title) of the arms, the largest constant rate first."""
    pairs = table[[LR, SCHEDULE]].drop_duplicates().itertuples(index=False, name=None)
    ordered = sorted(pairs, key=lambda p: (p[1] != "constant", -p[0]))
    return [(lr, s, f"lr {lr:g}, {'constant' if s == 'constant' else 'decays'}")
            for lr, s in ordered]  # fmt: skip


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """Two rows for each data set: a panel an arm, lag, cloud, samples, the published runs."""
    return 2 * len(sets(table)), -(-(len(arms_of(table)) + 4) // 2)


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Error over checkpoints by statistics; lag; cloud of batch means; PreciseBN's examples."""
    modes = {"exponential average": "ema_error", "PreciseBN": "precise_error",
             "batch statistics": "batch_error"}  # fmt: skip
    for i, data in enumerate(sets(table)):
        row = axes[2 * i : 2 * i + 2].ravel()
        here = select(table, data__name=data)
        arms = arms_of(here)
        for ax, (lr, schedule, title) in zip(row, arms, strict=False):
            own = here[(here[LR] == lr) & (here[SCHEDULE] == schedule)]
            curves = {label: course(own, column) for label, column in modes.items()}
            figures.series(ax, curves, percent=True, log2=None, xlabel="checkpoint (epochs)",
                           ylabel="test error (%)")  # fmt: skip
            ax.legend(fontsize=6)
            ax.set_title(f"{titled(data, 'lenet')}: {title}")
        for ax in row[len(arms) + 4 :]:
            ax.set_axis_off()
        lag, cloud, samples, published = row[len(arms) : len(arms) + 4]
        curves = {t: course(here[(here[LR] == lr) & (here[SCHEDULE] == s)], "lag")
                  for lr, s, t in arms}  # fmt: skip
        figures.series(lag, curves, log2=None, xlabel="checkpoint (epochs)",
                       ylabel="s.d. of batch means")  # fmt: skip
        lag.set_yscale("log")
        lag.legend(fontsize=6)
        lag.set_title("running mean from mean of batch means")
        _cloud(cloud, here, arms)
        curves = {}
        for lr, s, t in arms:
            own = here[(here[LR] == lr) & (here[SCHEDULE] == s)]
            columns = {float(n): f"precise_{n}_error" for n in (64, 256, 1024)}
            curves[t] = across(own, columns)
        figures.series(samples, curves, percent=True, xlabel="training examples for PreciseBN",
                       ylabel="test error (%)")  # fmt: skip
        samples.legend(fontsize=6)
        samples.set_title("how many examples PreciseBN needs")
        _published(published, here, arms, data)


def _cloud(ax, here: pd.DataFrame, arms) -> None:
    lr, schedule, title = arms[0]
    own = here[(here[LR] == lr) & (here[SCHEDULE] == schedule)]
    first = own.sort_values("seed").iloc[0]
    points = [[first[c] for c in sorted(here) if c.startswith(f"cloud_{axis}/")] for axis in "xy"]
    ax.plot(*points, linestyle="none", marker="o", color="#0072B2", label="32 batch means")
    ax.plot(first["running_x"], first["running_y"], linestyle="none", marker="X", markersize=8,
            color="#D55E00", label="running mean")  # fmt: skip
    ax.set_xlabel("first layer, channel 1")
    ax.set_ylabel("first layer, channel 2")
    ax.legend(fontsize=6)
    ax.margins(y=0.25)
    ax.set_title(f"last checkpoint, {title}, seed {int(first['seed'])}")


def _published(ax, here: pd.DataFrame, arms, data: str) -> None:
    """The four published runs' test accuracy beside ours at the same learning rate."""
    accuracy = PUBLISHED["test accuracy"]
    ax.plot([0] * len(accuracy), [100 * a for a in accuracy], linestyle="none", marker="o",
            color="#000000")  # fmt: skip
    lr, schedule, _ = arms[0]
    own = here[(here[LR] == lr) & (here[SCHEDULE] == schedule)].sort_values("seed")
    for i, (column, color) in enumerate(
        (("test_error", "#D55E00"), ("test_error_precise", "#0072B2")), start=1
    ):
        ax.plot([i] * len(own), 100 * (1 - own[column]), linestyle="none", marker="o", color=color)
    labels = ["published,\nFashion-MNIST", f"{data},\naverage", "the same,\nPreciseBN"]
    ax.set_xticks([0, 1, 2], labels, fontsize=6)
    ax.set_xlim(-0.5, 2.5)
    ax.set_ylabel("final test accuracy (%), one run each")
    ax.set_title("published runs at lr 1.0 and ours")


def claims(table: pd.DataFrame) -> list[Claim]:
    """Gap at the large constant rate, its swings, its change with the rate, examples needed."""
    found = []
    for number, data in enumerate(sets(table)):
        here = select(table, data__name=data)
        lr = here[LR].max()
        arm = lambda lr, schedule, rows=here: rows[  # noqa: E731
            (rows[LR] == lr) & (rows[SCHEDULE] == schedule)
        ]
        large = arm(lr, "constant")
        loss, error = large["least_train_loss"].min(), large["train_error"].mean()
        ready = [
            (f"not interpolating: training loss above {NOT_INTERPOLATING} at every checkpoint",
             bool(loss > NOT_INTERPOLATING), f"least {loss:.3f}"),
            (f"final training error under {100 * TRAINED:.0f} %", bool(error < TRAINED),
             f"{100 * error:.1f} %"),
            comparable(here),
        ]  # fmt: skip
        gap = values(large, "ema_gap_error")
        common = {"preconditions": ready, "source": SOURCE}
        found += [
            Claim(
                name=f"{data}: gap", kind="greater", values=gap, primary=not number,
                text=f"{titled(data, 'lenet')}: at lr {lr:g} the exponential average's test error "
                "exceeds PreciseBN's, mean over checkpoints",
                published="about +5 pp early in training on ImageNet (digitised)", **common,
            ),
            Claim(
                name=f"{data}: late gap", kind="greater", values=values(large, "late_gap_error"),
                text=f"{titled(data, 'lenet')}: so it does over the second half of the checkpoints",
                **common,
            ),
            Claim(
                name=f"{data}: swings", kind="greater", unit="octaves",
                values={s: v / 100 for s, v in values(large, "log_sd_ratio").items()},
                text=f"{titled(data, 'lenet')}: from checkpoint to checkpoint the exponential "
                "average's error has the larger standard deviation",
                **common,
            ),
            Claim(
                name=f"{data}: samples", kind="equivalent", threshold=0.5,
                values=paired_differences(
                    values(large, "precise_1024_error"), values(large, "test_error_precise")
                ),
                text=f"{titled(data, 'lenet')}: PreciseBN from 1,024 examples is within 0.5 pp of "
                "PreciseBN from all",
                published="1,000 to 10,000 examples suffice on ImageNet (published)",
                expected="supported; small data: 1,024 is nearly all", **common,
            ),
        ]  # fmt: skip
        for other, schedule, title in arms_of(here)[1:]:
            found.append(
                Claim(
                    name=f"{data}: less at {title}", kind="greater",
                    values=paired_differences(gap, values(arm(other, schedule), "ema_gap_error")),
                    text=f"{titled(data, 'lenet')}: the gap is larger at lr {lr:g}, constant, than "
                    f"at {title}", **common,
                )
            )  # fmt: skip
    return found
