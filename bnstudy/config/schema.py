"""The schema of one training run, and its address.

A `Config` is frozen and complete, seed included. Its address is a hash of its canonical form: two
runs with one address are the same experiment. What concerns only the machine (where data lie, how
many threads) is not in it: such fields are marked `machine` and left out of the canonical form.

A field that is added later gets a `neutral` value: while it has that value it is left out as well,
so old addresses stay what they were. Anything that changes the bits of a result without changing a
field bumps `RESULTS_VERSION`.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

RESULTS_VERSION = 3
GROUPS = ("data", "model", "norm", "optimizer", "scale")
# models whose forward treats all channels alike, so that seeds can be channels of one network
KNOWN = ("mlp", "lenet", "resnet", "recurrent")
# numbers in which the networks of one stack may differ, beside the seed
NUMBERS = (
    "optimizer.lr",
    "optimizer.weight_decay",
    "norm.momentum",
    "data.contrast",
    "data.pixel_noise",
)
IGNORED = -100  # the label of what has none: a step where nothing is asked, padding
EMBEDDED = ("digits", "contrast_digits")  # data so small that a stack may hold several copies
HERE = Path(__file__).parents[1]  # the package
# in a checkout the folder lies beside the package, in an installed wheel inside it
CONFIGS = next(p for p in (HERE / "configs", HERE.parent / "configs") if p.is_dir())
ADDRESS_LENGTH = 16  # hexadecimal digits: a collision among 1e6 runs has probability 3e-8


def machine(default: Any, description: str, **constraints: Any) -> Any:
    """A field that says where or how to compute, not what: never part of the address."""
    return Field(
        default, description=description, json_schema_extra={"machine": True}, **constraints
    )


def later(neutral: Any, description: str, **constraints: Any) -> Any:
    """A field that came after the first release: at its neutral value, addresses are as before."""
    return Field(
        neutral, description=description, json_schema_extra={"neutral": neutral}, **constraints
    )


class Part(BaseModel):
    """A frozen piece of a configuration; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def canonical(self) -> dict[str, Any]:
        """The plain form that is hashed: everything that can change a result, nothing else."""
        plain = {}
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra or {}
            value = getattr(self, name)
            if extra.get("machine") or ("neutral" in extra and value == extra["neutral"]):
                continue
            plain[name] = value.canonical() if isinstance(value, Part) else value
        return plain


class DataConfig(Part):
    """Which examples are learned from."""

    name: str = "digits"
    train_size: int | None = Field(
        None, ge=1, description="class-balanced subset of the training part; null: the scale's size"
    )
    split_seed: int = Field(0, ge=0, description="the only seed that the split depends on")
    contrast: float = Field(
        0.0, ge=0, description="each image is multiplied by exp(contrast * z), z ~ N(0, 1)"
    )
    pixel_noise: float = Field(
        0.0, ge=0, description="s.d. of noise added once to each image, in units of the grey range"
    )
    noise_every_step: bool = later(
        False, "pixel noise of training images is drawn anew at each step; test images keep theirs"
    )
    image_size: int | None = Field(
        None, ge=4, description="folders: resize the short side, crop; sequences of images: resize"
    )
    sequence: Literal["none", "rows", "pixels", "permuted"] = later(
        "none", "images as sequences: of rows, of pixels, of pixels in one fixed random order"
    )
    length: int | None = later(None, "text, adding, parity, copy: steps in a sequence", ge=1)
    min_length: int | None = later(
        None, "sequences are cut to lengths drawn evenly from here to the full one", ge=1
    )
    path: str | None = machine(None, "text: a UTF-8 file; default: Python's own help topics")
    fingerprint: str = Field("", description="hash of data read from disk; filled in by bnstudy")
    entry: str = Field("", description="data=custom: package.module:function")
    source: str = Field("", description="hash of the entry's source; filled in by bnstudy")
    root: str | None = machine(None, "folder of the data; default: the variable BNSTUDY_DATA")
    download: bool = machine(False, "allow torchvision to download")


class ModelConfig(Part):
    """Which network is trained."""

    name: str = "resnet"
    depth: int = Field(8, ge=8, description="resnet: 6n + 2 layers")
    width: int = Field(8, ge=1, description="resnet: channels of the first stage")
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (64, 32), min_length=1, description="mlp: hidden widths; recurrent: units of each layer"
    )
    arch: str = later("", "torchvision: name of a classifier")
    cell: Literal["tanh", "lstm", "gru"] = later("lstm", "recurrent: kind of cell")
    recurrent_init: Literal["orthogonal", "identity"] = later(
        "orthogonal", "recurrent: initial hidden-to-hidden matrices"
    )
    initial_noise: float = later(
        0.0, "recurrent: s.d. of noise on the initial hidden state in training", ge=0
    )
    entry: str = Field("", description="model=custom: package.module:build")
    source: str = Field("", description="hash of the entry's source; filled in by bnstudy")


class NormConfig(Part):
    """Which normalization follows each weight layer, and how its statistics are made."""

    name: str = "batch"
    eps: float = Field(1e-5, gt=0)
    affine: Literal["both", "gamma", "beta", "none"] = "both"
    momentum: float | None = Field(
        0.1, gt=0, le=1, description="torch's sense: weight of the new batch; null: cumulative mean"
    )
    group_size: int | None = Field(
        None, ge=1, description="ghost: examples that share statistics in training"
    )
    num_groups: int | None = Field(None, ge=1)
    channels_per_group: int | None = Field(None, ge=1)
    freeze_at: float = Field(
        1.0, ge=0, le=1, description="from this fraction of training on, population statistics"
    )
    backend: Literal["fused", "reference"] = "fused"
    gamma_init: float = later(1.0, "initial gamma")
    evaluation: Literal["population", "batch", "mixture", "example"] = later(
        "population", "batch norms: statistics used in evaluation"
    )
    prior_examples: float | None = later(None, "mixture: weight of the population", gt=0)
    alpha: float | None = later(None, "example: part of the example's own moments", ge=0, le=1)
    r_max: float | None = later(None, "Batch Renormalization: bound of r and 1 / r", ge=1)
    d_max: float | None = later(None, "Batch Renormalization: bound of |d|", ge=0)
    renorm_warmup: tuple[int, int, int] | None = later(
        None, "steps (hold, r_full, d_full): bounds rise from hold to there"
    )
    scope: Literal["step", "shared", "sequence"] = later(
        "step", "batch in a recurrent network: statistics per step, one for all, or per sequence"
    )
    time_steps: int | None = later(
        None, "batch in a recurrent network: T_max; null: the longest training sequence", ge=1
    )
    min_count: int = later(2, "valid examples that a time step's statistics need", ge=2)
    below_min: Literal["last_step", "error"] = later(
        "last_step", "with fewer: the last step's statistics, counted, or an error"
    )
    sync: bool = later(False, "batch: statistics over all processes of train.processes")
    weight_standardization: bool = later(False, "standardize the weights of convolutions, linears")
    entry: str = Field("", description="norm=custom: package.module:factory")
    source: str = Field("", description="hash of the entry's source; filled in by bnstudy")

    @model_validator(mode="after")
    def _groups(self) -> "NormConfig":
        given = [self.num_groups is not None, self.channels_per_group is not None]
        if self.name == "group" and sum(given) != 1:
            raise ValueError(
                "group norm takes exactly one of norm.num_groups and norm.channels_per_group: "
                f"given num_groups={self.num_groups}, "
                f"channels_per_group={self.channels_per_group}. Set the other to null."
            )
        if self.name == "ghost" and self.group_size is None:
            raise ValueError("ghost norm needs norm.group_size, the number of examples in a group")
        return self


class OptimizerConfig(Part):
    """How weights move."""

    name: Literal["sgd", "adam"] = "sgd"
    lr: float = Field(0.1, gt=0, description="at reference_batch_size; lr_rule scales it")
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd: heavy ball; adam: beta1")
    beta2: float = Field(0.999, ge=0, lt=1, description="adam")
    weight_decay: float = Field(0.0, ge=0, description="coupled (added to the gradient)")
    decay_norm: bool = Field(True, description="weight decay on gamma and beta of norms, too")
    lr_rule: Literal["none", "linear", "sqrt"] = Field(
        "linear", description="lr times (B / reference_batch_size) to the power 0, 1, 1/2"
    )
    reference_batch_size: int = Field(32, ge=1)
    schedule: Literal["constant", "step", "cosine"] = "step"
    milestones: tuple[float, ...] = Field((1 / 3, 2 / 3), description="step: fractions of training")
    decay: float = Field(0.1, gt=0, le=1, description="step: factor at each milestone")
    clip_norm: float | None = later(
        None, "gradients are scaled down to this norm, each network's by itself", gt=0
    )
    weight_average: float | None = later(
        None,
        "horizon, in examples, of an exponential average of the weights, evaluated beside",
        gt=0,
    )

    def lr_at(self, batch_size: int) -> float:
        """The initial learning rate at this batch size, after lr_rule."""
        power = {"none": 0.0, "linear": 1.0, "sqrt": 0.5}[self.lr_rule]
        return self.lr * (batch_size / self.reference_batch_size) ** power


class TrainConfig(Part):
    """How long, in exactly one unit; the last incomplete batch of an epoch is dropped."""

    batch_size: int = Field(32, ge=1)
    epochs: float | None = Field(None, ge=0)
    steps: int | None = Field(None, ge=0)
    examples: int | None = Field(None, ge=0)
    classes_per_batch: int | None = later(
        None, "every batch holds examples of this many classes only, equally many of each", ge=1
    )
    classes_per_task: int | None = later(
        None, "a stream: classes come in groups of this size, one group after the other", ge=1
    )
    processes: int = later(
        1, "processes that share each batch; each normalizes its own part unless norm.sync", ge=1
    )
    precision: Literal["float32", "tf32", "bf16"] = later(
        "float32", "of matrix products in training; tf32 on GPUs only; evaluation is in float32"
    )

    @model_validator(mode="after")
    def _parts(self) -> "TrainConfig":
        if self.batch_size % self.processes:
            raise ValueError(
                f"train.processes={self.processes} does not divide "
                f"train.batch_size={self.batch_size}"
            )
        return self

    @model_validator(mode="after")
    def _classes(self) -> "TrainConfig":
        if self.classes_per_batch and self.classes_per_task:
            raise ValueError("train.classes_per_batch and train.classes_per_task: give one of them")
        if self.classes_per_batch and self.batch_size % self.classes_per_batch:
            raise ValueError(
                f"train.classes_per_batch={self.classes_per_batch} does not divide "
                f"train.batch_size={self.batch_size}"
            )
        return self

    @model_validator(mode="after")
    def _one_unit(self) -> "TrainConfig":
        given = {k: v for k in DURATIONS if (v := getattr(self, k)) is not None}
        if len(given) > 1:
            raise ValueError(
                "the length of training takes exactly one of "
                + ", ".join(f"train.{k}" for k in DURATIONS)
                + ": given "
                + " and ".join(f"train.{k}={v:g}" for k, v in given.items())
            )
        return self

    def total_steps(self, train_size: int) -> int:
        """Optimiser steps; an epoch has floor(train_size / batch_size) of them.

        Equal `examples` means equal examples *seen*: steps = floor(examples / batch_size).
        """
        if self.steps is not None:
            return self.steps
        if self.examples is not None:
            return self.examples // self.batch_size
        return round((self.epochs or 0) * (train_size // self.batch_size))

    @property
    def rule(self) -> str:
        """The comparison rule that a sweep over batch sizes follows, in words."""
        unit = next((k for k in DURATIONS if getattr(self, k) is not None), "epochs")
        return f"equal {unit}"


DURATIONS = ("epochs", "steps", "examples")


class EvaluateConfig(Part):
    """When and how a network is measured."""

    every: int = Field(1, ge=1, description="epochs between evaluations")
    large_batch: int = Field(256, ge=2, description="batch-statistics evaluation, PreciseBN")
    precise_examples: int = Field(10_000, ge=2, description="training examples for PreciseBN")
    steps: int | None = later(None, "steps between evaluations, instead of epochs", ge=1)
    online: bool = later(False, "predict each training batch before learning from it")
    probes: tuple[str, ...] = later((), "further measurements, by name")


class Parts(Part):
    """What a run is made of, its seed aside."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    norm: NormConfig = NormConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()


class Config(Parts):
    """One training run, complete."""

    seed: int = Field(0, ge=0)

    @property
    def address(self) -> str:
        """The name of this run: the hash of its canonical form, seed included."""
        return digest(self.canonical())

    @property
    def cell(self) -> str:
        """The name of this run and its siblings that differ in the seed only."""
        plain = self.canonical()
        del plain["seed"]
        return digest(plain)

    @property
    def label(self) -> str:
        """The cell in a few words, for people: data, model, norm with its own numbers, batch."""
        own = [
            f"{name}={value}"
            for name, value in self.norm
            if value != NormConfig.model_fields[name].default
            and name not in ("name", "entry", "source")
        ]
        norm = f"{self.norm.name} ({', '.join(own)})" if own else self.norm.name
        return f"{self.data.name} {self.model.name} {norm} B={self.train.batch_size}"

    @property
    def family(self) -> str:
        """The name of this run and all that may train in one stack with it."""
        plain = self.flat()
        del plain["seed"]
        if self.model.name in KNOWN:
            for name in NUMBERS:
                if self.data.name in EMBEDDED or not name.startswith("data."):
                    # a cumulative mean, or no noise, is another kind of training
                    kind = name in ("norm.momentum", "data.pixel_noise")
                    plain[name] = bool(plain[name]) if kind else None
        return digest(plain)

    def flat(self) -> dict[str, Any]:
        """Dotted names to plain values, for tables: what is in the address, without the hashes."""
        return flatten(self.canonical())


def digest(plain: Any) -> str:
    """Address of a canonical form under the present RESULTS_VERSION."""
    text = json.dumps([RESULTS_VERSION, plain], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:ADDRESS_LENGTH]


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts to one dict with dotted names."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


class Budget(Part):
    """How much of a data set a scale uses, and for how long."""

    train_size: int | None = None
    epochs: float = 1


class ScaleConfig(Part):
    """`smoke`, `quick` or `full`: the size of data and training where the config leaves it open."""

    name: str = "quick"
    budgets: dict[str, Budget] = {}
    default: Budget = Budget()


class TrackerConfig(Part):
    """Where runs are mirrored while they train."""

    mode: Literal["offline", "online", "disabled"] = "offline"
    project: str = "bnstudy"
    entity: str | None = None


class Grid(Part):
    """One scale of a study: axes to cross, seeds, and what else is fixed."""

    seeds: int | list[int] = 5
    axes: dict[str, list[Any]] = {}
    fixed: dict[str, Any] = {}


class StudyConfig(Part):
    """A study as its YAML states it before it runs."""

    name: str
    group: str = Field("", description="studies that one word runs together")
    title: str
    claim: str
    source: str
    rule: str
    cost: str
    expected: str
    notes: list[str] = []
    entry: str = Field("", description="module with figure and claims; default: bnstudy.studies")
    fixed: dict[str, Any] = {}
    exclude: list[dict[str, Any]] = []
    scales: dict[str, Grid]


class Settings(Parts):
    """Everything a command line sets: one run's parts, its seeds, and how to execute."""

    scale: ScaleConfig = ScaleConfig()
    seeds: int | list[int] = Field(5, description="5 means 0..4; [3, 7] those two")
    # how to execute: none of it changes what is computed
    results_dir: str = "results"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int | None = Field(None, ge=1, description="processes; null: one per core")
    max_stack: int | None = Field(
        None, ge=1, description="networks trained as one stack; null: by the table of costs"
    )
    compile: Literal["auto", "never", "always"] = Field(
        "auto", description="compiled training steps; auto: where the table of costs says they pay"
    )
    max_minutes: float | None = Field(None, gt=0, description="launch no new cells after this")
    save_weights: bool = False
    tracker: TrackerConfig = TrackerConfig()

    def seed_list(self) -> list[int]:
        """`seeds` as a list without repetitions, sorted."""
        return seed_list(self.seeds)

    def config(self) -> Config:
        """The run these settings describe, with the scale's budget where data and length are open.

        The seed is 0; the fingerprint of data on disk is still to be filled in.
        """
        budget = self.scale.budgets.get(self.data.name, self.scale.default)
        data, train = self.data, self.train
        if data.train_size is None and budget.train_size is not None:
            data = data.model_copy(update={"train_size": budget.train_size})
        if all(getattr(train, k) is None for k in DURATIONS):
            train = train.model_copy(update={"epochs": float(budget.epochs)})
        return Config(
            data=data,
            model=self.model,
            norm=self.norm,
            optimizer=self.optimizer,
            train=train,
            evaluate=self.evaluate,
        )


def seed_list(seeds: int | list[int]) -> list[int]:
    """5 means 0..4; a list means itself, sorted, without repetitions."""
    chosen = list(range(seeds)) if isinstance(seeds, int) else sorted(set(seeds))
    if not chosen or min(chosen) < 0:
        raise ValueError(f"seeds must be a positive number or a list of numbers >= 0, not {seeds}")
    return chosen


def schema_keys() -> list[str]:
    """Every dotted key of the schema that a command line may set."""
    return [k for k in _leaves(Settings) if not k.startswith("scale.")]


def axis_keys() -> list[str]:
    """The dotted keys that can be an axis of a grid: what is in the address, the seed excepted."""
    return [k for k in _leaves(Config, machines=False) if k != "seed"]


def _leaves(part: type[BaseModel], prefix: str = "", machines: bool = True) -> Iterator[str]:
    for name, field in part.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _leaves(kind, f"{prefix}{name}.", machines)
        elif machines or not (field.json_schema_extra or {}).get("machine"):
            yield prefix + name
