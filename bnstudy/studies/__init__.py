"""Studies: what the table of a finished grid shows. No training, no torch.

A study is a grid in configs/study/NAME.yaml and a module with three functions of the same name:

    shape(table) -> (rows, columns)     of panels
    figure(table, axes) -> None         draws, legends too; the axes are an array of that shape
    claims(table) -> list[stats.Claim]  with preconditions, exactly one of them primary
"""

import importlib
import platform
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from bnstudy import __version__, figures, stats
from bnstudy.atomic import write_atomically, write_json
from bnstudy.config import StudyConfig
from bnstudy.errors import UserError

INTERVAL = "95 % Student-t"


def module(study: StudyConfig) -> ModuleType:
    """The figure and claims of a study.

    Raises:
        UserError: the module does not import or lacks one of the three functions.
    """
    name = study.entry or f"bnstudy.studies.{study.name}"
    try:
        found = importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"study {study.name}: its figure and claims were looked for in '{name}': {error}. "
            "Name the module in the study's YAML: entry: package.module"
        ) from None
    for function in ("shape", "figure", "claims"):
        if not hasattr(found, function):
            raise UserError(f"study {study.name}: module {name} has no function '{function}'")
    return found


def write_results(
    study: StudyConfig, table: pd.DataFrame, folder: Path, scale: str, rule: str, command: str
) -> list[dict[str, Any]]:
    """Write table.csv, the figure in three formats, claims.json and study.json; return verdicts.

    Args:
        study: as its YAML states it.
        table: one row per run, complete or not.
        folder: receives the files.
        rule: how long the arms trained, in words.
        command: the command line that made it.
    """
    import matplotlib

    found = module(study)
    folder.mkdir(parents=True, exist_ok=True)
    verdicts = [v.to_dict() for v in stats.judge(found.claims(table))]
    with matplotlib.rc_context(figures.rc()):
        rows, columns = found.shape(table)
        figure, axes = figures.canvas(columns, rows)
        found.figure(table, axes)
        figures.save(figure, folder)
    seeds = sorted(int(s) for s in table["seed"].unique())
    diverged = bool(table["diverged_at"].notna().any())
    write_atomically(folder / "table.csv", table.to_csv(index=False))
    write_json(folder / "claims.json", verdicts)
    described = study.model_dump(include={"name", "title", "claim", "source", "rule", "cost",
                                          "expected", "notes"})  # fmt: skip
    write_json(
        folder / "study.json",
        {
            **described,
            "scale": scale,
            "seeds": seeds,
            "n_runs": len(table),
            "diverged_runs": int(table["diverged_at"].notna().sum()),
            "command": command,
            "caption": figures.caption(len(seeds), INTERVAL, rule, command, diverged),
            "created_with": {
                "bnstudy": __version__,
                "python": platform.python_version(),
                "torch": sorted(table["torch"].dropna().unique().tolist()),
            },
            "published": getattr(found, "PUBLISHED", {}),
        },
    )
    return verdicts


# --- what several studies ask of a table --------------------------------------------------------

CHANCE_HALF = 0.5  # an arm has trained when its training error is below this part of chance
CLASSES = 10


# panels come in this order, others behind
ORDER = ("digits", "contrast_digits", "mnist", "fashion_mnist", "cifar10", "resnet", "lenet", "mlp")


def panels(table: pd.DataFrame) -> list[tuple[str, str]]:
    """(model, data) pairs as (data, model), by model and then by data: one row of panels each."""
    pairs = table[["data.name", "model.name"]].drop_duplicates()
    rank = {name: i for i, name in enumerate(ORDER)}
    return sorted(
        pairs.itertuples(index=False, name=None),
        key=lambda p: [(rank.get(name, len(rank)), name) for name in (p[1], p[0])],
    )


def titled(data: str, model: str) -> str:
    """A panel's title."""
    names = {"mlp": "MLP", "lenet": "LeNet", "resnet": "ResNet", "mnist": "MNIST",
             "contrast_digits": "contrast digits", "cifar10": "CIFAR-10",
             "fashion_mnist": "Fashion-MNIST"}  # fmt: skip
    return f"{names.get(data, data)}, {names.get(model, model)}"


def select(table: pd.DataFrame, **where: Any) -> pd.DataFrame:
    """Rows with these values; `__` in a name stands for the dot."""
    for name, value in where.items():
        table = table[table[name.replace("__", ".")] == value]
    return table


def extended(table: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """The table with these columns, new or in the place of old ones.

    Not `assign`, which inserts into tables of hundreds of columns and warns of its slowness.
    """
    kept = table.drop(columns=[name for name in columns if name in table])
    return pd.concat([kept, pd.DataFrame(columns, index=table.index)], axis=1)


def values(
    table: pd.DataFrame, metric: str, *, factor: float = 100, **where: Any
) -> dict[int, float]:
    """Seed -> metric of one cell, in percent (percentage points when differenced) by default."""
    rows = select(table, **where)
    found = stats.per_seed(rows, metric)
    return {seed: factor * value for seed, value in found.items()}


def across(table: pd.DataFrame, columns: dict[float, str]) -> pd.DataFrame:
    """Columns as a curve: rows of x, mean, low, high over the seeds; columns not there are left
    out."""
    frames = [
        stats.summarize(extended(table[["seed", column]], _all=0), "_all", column).assign(x=x)
        for x, column in columns.items()
        if column in table and table[column].notna().any()
    ]
    return pd.concat(frames) if frames else pd.DataFrame(columns=["x", "mean", "low", "high"])


def course(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The columns `name/01`, `name/02`, ... as a curve over checkpoints."""
    own = sorted(c for c in table if c.startswith(f"{name}/"))
    return across(table, {float(c.rpartition("/")[2]): c for c in own})


def arms(table: pd.DataFrame) -> pd.Series:
    """The name under which figures know each run's normalization."""
    names = table["norm.name"].replace({"filter_response": "frn"})
    for column, name in (("norm.r_max", "renorm"), ("norm.weight_standardization", "ws_group")):
        if column in table:
            names = names.mask(table[column].notna() & table[column].astype(bool), name)
    return names


def decomposition(ax: Any, table: pd.DataFrame, axis: str, xlabel: str) -> None:
    """What training loses to the noise of batch statistics, and what evaluation loses to them.

    Training noise: training error with batch statistics. Mismatch: test error by exponential
    average minus that by PreciseBN (a stale average), and minus that by batch statistics of the
    training size (another normalization than in training).
    """
    stale = table["test_error"] - table["test_error_precise"]
    other = table["test_error"] - table["test_error_batch"]
    table = extended(table, stale=stale, other=other)
    curves = {
        "training error, batch statistics": stats.summarize(table, axis, "train_error"),
        "exponential average minus PreciseBN": stats.summarize(table, axis, "stale"),
        "exponential average minus batch statistics": stats.summarize(table, axis, "other"),
    }
    figures.series(
        ax, curves, axis, percent=True, xlabel=xlabel, ylabel="error, difference (%, pp)"
    )
    ax.axhline(0, color="black", linewidth=0.7)
    ax.margins(y=0.25)
    ax.legend(fontsize=6.5, loc="best")
    ax.set_title("training noise and evaluation mismatch")


def values_behind(ax: Any, table: pd.DataFrame, axis: str, xlabel: str) -> None:
    """m = B * H * W of the layer with the fewest, and the least effective m, against an axis."""
    curves = {
        "m (values behind a statistic)": stats.summarize(table, axis, "smallest_m"),
        "effective m": stats.summarize(table, axis, "effective_m"),
    }
    figures.series(ax, curves, axis, xlabel=xlabel, ylabel="values (smallest layer)")
    ax.set_yscale("log", base=2)
    ax.legend(fontsize=6.5)
    ax.set_title("values behind a statistic")


def trained(table: pd.DataFrame, what: str, **where: Any) -> tuple[str, bool, str]:
    """The precondition that a cell has learned: mean training error below half of chance."""
    limit = CHANCE_HALF * (1 - 1 / CLASSES)
    error = select(table, **where)["train_error"].mean()
    return (f"{what} trains", bool(error < limit), f"training error {100 * error:.1f} %, "
            f"limit {100 * limit:.0f} %")  # fmt: skip


def comparable(table: pd.DataFrame) -> tuple[str, bool, str]:
    """The precondition that all runs share the kind of device and the version of torch."""
    kinds = table[["device", "torch"]].drop_duplicates()
    return (
        "all runs on one kind of device and one torch",
        len(kinds) == 1,
        ", ".join(f"{d} torch {t}" for d, t in kinds.itertuples(index=False)),
    )
