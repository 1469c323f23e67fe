"""What a command line sets: a run, its seeds, how to execute it; and what a study states."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from bnstudy.config import capabilities
from bnstudy.config.part import LAST_SEED, MANY, Part
from bnstudy.config.schema import Config, Parts
from bnstudy.config.training import DURATIONS
from bnstudy.errors import UserError

MOST_SEEDS = 100_000
GROUPS = ("data", "model", "norm", "optimizer", "task", "scale")
PATHS = {  # keys that name a place
    "data.root": "dir",
    "data.path": "file",
    "task.style_path": "file",
    "results_dir": "dir",
}
HERE = Path(__file__).parents[1]  # the package
# in a checkout the folder lies beside the package, in an installed wheel inside it
CONFIGS = next(p for p in (HERE / "configs", HERE.parent / "configs") if p.is_dir())


class Budget(Part):
    """How much of a data set a scale uses, and for how long."""

    train_size: int | None = None
    epochs: float = 1


class ScaleConfig(Part):
    """`smoke`, `quick` or `full`: the size of data and training where the config leaves it open."""

    name: str = "quick"
    budgets: dict[str, Budget] = Field({})
    default: Budget = Budget()


class TrackerConfig(Part):
    """Where runs are mirrored while they train."""

    mode: Literal["offline", "online", "disabled"] = "offline"
    project: str = "bnstudy"
    entity: str | None = None


class LauncherConfig(Part):
    """Jobs of a cluster; other settings of theirs are Hydra's, under `hydra.launcher`."""

    minutes_per_job: float = Field(
        30, gt=0, description="short stacks are packed into jobs of about this many minutes"
    )
    cpus: int | None = Field(None, ge=1, description="of a job; a worker computes on one")
    gpus: int | None = Field(None, ge=0, description="of a job")
    memory_gb: int | None = Field(None, ge=1, description="of a job")
    time_minutes: int | None = Field(None, ge=1, description="after which Slurm ends a job")
    partition: str | None = None
    account: str | None = None


Seeds = int | list[int] | str
"""5 means 0..4; [3, 7] those two; "30..41" from 30 to 41."""


class Tune(Part):
    """What is chosen for each arm on pilots, before the claims: settings and their first grid."""

    axes: dict[str, list[Any]]  # setting -> values; ascending where they are numbers
    per: list[str] = Field(
        ["data", "model", "norm", "train.batch_size"], description="axes with choices of their own"
    )
    seeds: Seeds = "0..2"  # pilots that choose
    pilots: Seeds = "0..9"  # pilots at the choice, for the power computation


class Power(Part):
    """Why a scale has as many seeds as it has; `bnstudy power STUDY` computes it from pilots."""

    effect: float  # smallest effect of interest, in the primary claim's unit
    power: float = Field(0.9, gt=0, lt=1)
    seeds: int  # that were found to be enough
    found: str = ""  # what the command printed, in a line


class Grid(Part):
    """One scale of a study: axes to cross, seeds, looks, tuning, and what else is fixed."""

    seeds: Seeds = 5
    looks: list[int] = Field([], description="numbers of seeds after which claims may be judged")
    axes: dict[str, list[Any]] = Field({})
    fixed: dict[str, Any] = Field({})
    tune: Tune | None = Field(None, description="in the place of the study's")
    power: Power | None = None


class StudyConfig(Part):
    """A study as its YAML states it before it runs."""

    name: str
    group: str = Field("", description="studies that one word runs together")
    title: str
    claim: str
    source: str
    papers: dict[str, str] = Field({}, description="name of a source -> its address")
    rule: str
    cost: str
    expected: str
    notes: list[str] = Field([])
    entry: str = Field("", description="module with headline and claims; default: bnstudy.studies")
    fixed: dict[str, Any] = Field({})
    exclude: list[dict[str, Any]] = Field([])
    tune: Tune | None = None
    scales: dict[str, Grid]


class Settings(Parts):
    """Everything a command line sets: one run's parts, its seeds, and how to execute."""

    scale: ScaleConfig = ScaleConfig()
    seeds: Seeds = Field(5, description="5 means 0..4; [3, 7] those two; 30..41 from 30 to 41")
    until: Literal["all", "conclusive"] = Field(
        "all", description="train all seeds, or look by look until it is decided"
    )
    looks: list[int] = Field(
        [], description="numbers of seeds after which until=conclusive judges; [12, 24, 48]"
    )
    # how to execute: none of it changes what is computed
    results_dir: str = "results"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int | None = Field(None, ge=1, le=100_000, description="processes; null: one per core")
    max_stack: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="networks trained as one stack; null: by the table of costs",
    )
    compile: Literal["auto", "never", "always"] = Field(
        "auto", description="compiled training steps; auto: where the table of costs says they pay"
    )
    max_minutes: float | None = Field(
        None, gt=0, le=MANY, description="launch no new cells after this"
    )
    save_weights: bool = False
    checkpoint_minutes: float | None = Field(
        10.0, gt=0, description="between checkpoints of a stack in training; null: none"
    )
    retry: Literal["none", "failed"] = Field(
        "none", description="failed: train stacks again that failed before"
    )
    fail_fast: bool = Field(False, description="the first stack that fails stops the launch")
    tune: Literal["committed", "published", "auto"] = Field(
        "committed",
        description="tuned settings: of the committed file; none: the study's fixed ones; "
        "of pilots, trained first",
    )
    tracker: TrackerConfig = TrackerConfig()
    launcher: LauncherConfig = LauncherConfig()

    def seed_list(self) -> list[int]:
        """`seeds` as a list without repetitions, sorted."""
        return seed_list(self.seeds)

    def config(self, given: Collection[str] = ()) -> Config:
        """The run these settings describe; the seed is 0, fingerprints are still to be filled in.

        What is open is filled in: the size of the training part and the length of training by the
        scale's budget, the length of made sequences by the data set's default.

        Args:
            given: dotted names that somebody set; data.train_size=null among them means all.
        """
        budget = self.scale.budgets.get(self.data.name, self.scale.default)
        data, train = self.data, self.train
        kind = capabilities.DATA.get(data.name)
        if data.train_size is None and "data.train_size" not in given:
            data = data.model_copy(update={"train_size": budget.train_size})
        if data.length is None and kind is not None:
            data = data.model_copy(update={"length": kind.length})
        if all(getattr(train, k) is None for k in DURATIONS):
            train = train.model_copy(update={"epochs": float(budget.epochs)})
        return Config(
            data=data,
            model=self.model,
            norm=self.norm,
            optimizer=self.optimizer,
            task=self.task,
            train=train,
            federation=self.federation,
            evaluate=self.evaluate,
        )


def seed_list(seeds: Seeds) -> list[int]:
    """5 means 0..4; "30..41" from 30 to 41; a list itself, sorted, without repetitions."""
    if isinstance(seeds, str):
        first, dots, last = seeds.partition("..")
        ends = [first.strip(), last.strip()]
        good = dots and all(end.isdigit() for end in ends)
        asked: Collection[int] = range(int(ends[0]), int(ends[1]) + 1) if good else []
    else:
        asked = range(seeds) if isinstance(seeds, int) else set(seeds)
    try:
        few = 0 < len(asked) <= MOST_SEEDS
    except OverflowError:  # a range that is longer than a list can be
        few = False
    if not few or min(asked) < 0 or max(asked) > LAST_SEED:
        raise ValueError(
            "seeds must be a positive number, a list of numbers >= 0 or a range such as 30..41, "
            f"{MOST_SEEDS:,} seeds at most, not {seeds}"
        )
    return sorted(asked)


def path_of(override: str) -> str:
    """The path in an override of one of PATHS: all after the first `=`, with `~` as the home."""
    key, _, value = override.partition("=")
    if not value:
        raise UserError(f"{key}= is empty: write {key}=DIR")
    return os.path.expanduser(value)


def schema_keys() -> list[str]:
    """Every dotted key of the schema that a command line may set."""
    return [k for k in _leaves(Settings) if not k.startswith("scale.")]


def axis_keys() -> list[str]:
    """The dotted keys that can be an axis of a grid: what is in the address, the seed excepted."""
    return [k for k in _leaves(Config, machines=False) if k != "seed"]


def _leaves(part: type[BaseModel], prefix: str = "", machines: bool = True) -> Iterator[str]:
    for name, field in part.model_fields.items():
        kind = field.annotation
        extra: Any = field.json_schema_extra or {}
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _leaves(kind, f"{prefix}{name}.", machines)
        elif machines or not extra.get("machine"):
            yield prefix + name
