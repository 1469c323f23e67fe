"""The schema of one training run: every field, its meaning and what it may be.

A `Config` is frozen and complete, seed included; its name is its address, see address.py.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bnstudy.config import capabilities
from bnstudy.config.address import digest, flatten, later, machine
from bnstudy.config.part import BIG, DEEP, LARGEST, LAST_SEED, LONG, MANY, SEQUENCE, WIDE, Part
from bnstudy.config.training import FederationConfig, OptimizerConfig, TrainConfig

IGNORED = -100  # the label of what has none: a step where nothing is asked, padding


class DataConfig(Part):
    """Which examples are learned from."""

    name: str = "digits"
    train_size: int | None = Field(
        None,
        ge=1,
        le=MANY,
        description="class-balanced subset of the training part; null: the scale's size",
    )
    split_seed: int = Field(
        0,
        ge=0,
        le=LAST_SEED,
        description="of the fixed test part; training and validation follow the run's seed",
    )
    test_part: Literal["test", "validation"] = later(
        "test", "what is measured as test_*; validation: the test part stays unseen, for pilots"
    )
    contrast: float = Field(
        0.0,
        ge=0,
        le=LARGEST,
        description="each image is multiplied by exp(contrast * z), z ~ N(0, 1)",
    )
    pixel_noise: float = Field(
        0.0,
        ge=0,
        le=LARGEST,
        description="s.d. of noise added once to each image, in units of the grey range",
    )
    noise_every_step: bool = later(
        False, "pixel noise of training images is redrawn at each step; test images keep theirs"
    )
    image_size: int | None = Field(
        None,
        ge=4,
        le=SEQUENCE,
        description="folders: resize the short side, crop; sequences of images: resize",
    )
    sequence: Literal["none", "rows", "pixels", "permuted"] = later(
        "none", "images as sequences: of rows, of pixels, of pixels in one fixed random order"
    )
    length: int | None = later(
        None, "text, adding, parity, copy: steps in a sequence", ge=1, le=SEQUENCE
    )
    min_length: int | None = later(
        None,
        "sequences are cut to lengths drawn evenly from here to the full one",
        ge=1,
        le=SEQUENCE,
    )
    path: str | None = machine(None, "text: a UTF-8 file; default: three plays by Shakespeare")
    fingerprint: str = Field("", description="hash of data read from disk; filled in by bnstudy")
    patch_size: int = later(40, "photos: side of training patches, in pixels", ge=8, le=BIG)
    color: bool = later(False, "photos: three channels; else grey levels")
    degradation: Literal["none", "noise", "blind_noise", "downscale", "jpeg"] = later(
        "none", "photos: what is to be undone; blind_noise: patches have an s.d. from 0 to 55"
    )
    sigma: float = later(
        25.0,
        "photos: s.d. of noise in grey levels of 255; of test images if blind",
        gt=0,
        le=LARGEST,
    )
    quality: int = later(10, "photos: JPEG quality", ge=1, le=95)
    entry: str = Field("", description="data=custom: package.module:function")
    source: str = Field("", description="hash of the entry's source; filled in by bnstudy")
    root: str | None = machine(None, "folder of the data; default: the variable BNSTUDY_DATA")
    download: bool = machine(False, "allow torchvision to download")


class ModelConfig(Part):
    """Which network is trained."""

    name: str = "resnet"
    depth: int = Field(
        8,
        ge=1,
        le=DEEP,
        description="resnet: 6n + 2 layers; dncnn, deep: layers; vgg: convolutions; edsr: blocks; "
        "unet: levels; transformer: blocks",
    )
    width: int = Field(8, ge=1, le=WIDE, description="channels; of the first stage where they grow")
    heads: int = later(2, "transformer: attention heads, which divide the width", ge=1, le=WIDE)
    hidden: tuple[Annotated[int, Field(ge=1, le=MANY)], ...] = Field(
        (64, 32), min_length=1, description="mlp: hidden widths; recurrent: units of each layer"
    )
    arch: str = later("", "torchvision: name of a classifier")
    normalized: Literal["all", "convolutions"] = later(
        "all", "lenet: which layers a norm follows; its two fully connected ones see vectors"
    )
    cell: Literal["tanh", "lstm", "gru"] = later("lstm", "recurrent: kind of cell")
    recurrent_init: Literal["orthogonal", "identity"] = later(
        "orthogonal", "recurrent: initial hidden-to-hidden matrices"
    )
    initial_noise: float = later(
        0.0, "recurrent: s.d. of noise on the initial hidden state in training", ge=0, le=LARGEST
    )
    residual: bool = later(
        True, "dncnn, edsr, unet: what is predicted is added to the input; deep: of every layer"
    )
    residual_scaling: float = later(1.0, "edsr: factor of each block's branch", gt=0, le=LARGEST)
    activation: Literal["relu", "tanh", "sigmoid", "identity"] | None = later(
        None, "between layers; null: the model's own (deep, mlp: relu; lenet: sigmoid)"
    )
    init_scale: float = later(
        1.0, "factor of the initial weights of convolutions and linear layers", gt=0, le=LARGEST
    )
    branch: Literal["plain", "skipinit"] = later(
        "plain", "residual branches; skipinit: times a learned number that starts at 0"
    )
    scaled_weights: bool = later(
        False, "resnet: weights of convolutions standardized, scaled to keep variances behind ReLU"
    )
    dropout: float = later(0.0, "probability that a hidden value is zeroed in training", ge=0, lt=1)
    entry: str = Field("", description="model=custom: package.module:build")
    source: str = Field("", description="hash of the entry's source; filled in by bnstudy")


class NormConfig(Part):
    """Which normalization follows each weight layer, and how its statistics are made."""

    name: str = "batch"
    eps: float = Field(
        1e-5, ge=0, le=LARGEST, description="0, of the formula alone, needs backend=reference"
    )
    affine: Literal["both", "gamma", "beta", "none"] = "both"
    momentum: float | None = Field(
        0.1, gt=0, le=1, description="torch's sense: weight of the new batch; null: cumulative mean"
    )
    group_size: int | None = Field(
        None, ge=1, le=MANY, description="ghost: examples that share statistics in training"
    )
    num_groups: int | None = Field(None, ge=1, le=MANY)
    channels_per_group: int | None = Field(None, ge=1, le=MANY)
    freeze_at: float = Field(
        1.0, ge=0, le=1, description="from this fraction of training on, population statistics"
    )
    backend: Literal["fused", "reference"] = "fused"
    gamma_init: float = later(1.0, "initial gamma", ge=-LARGEST, le=LARGEST)
    evaluation: Literal["population", "batch", "mixture", "example"] = later(
        "population", "batch norms: statistics used in evaluation"
    )
    prior_examples: float | None = later(
        None, "mixture: weight of the population", gt=0, le=LARGEST
    )
    alpha: float | None = later(None, "example: part of the example's own moments", ge=0, le=1)
    r_max: float | None = later(
        None, "Batch Renormalization: bound of r and 1 / r", ge=1, le=LARGEST
    )
    d_max: float | None = later(None, "Batch Renormalization: bound of |d|", ge=0, le=LARGEST)
    renorm_warmup: tuple[int, int, int] | None = later(
        None, "steps (hold, r_full, d_full): bounds rise from hold to there"
    )
    scope: Literal["step", "shared", "sequence"] = later(
        "step", "batch in a recurrent network: statistics per step, one for all, or per sequence"
    )
    time_steps: int | None = later(
        None,
        "batch in a recurrent network: T_max; null: the longest training sequence",
        ge=1,
        le=SEQUENCE,
    )
    min_count: int = later(2, "valid examples that a time step's statistics need", ge=2, le=MANY)
    below_min: Literal["last_step", "error"] = later(
        "last_step", "with fewer: the last step's statistics, counted, or an error"
    )
    warmup: int = later(
        0, "power: updates that use the batch's own statistics, before running ones", ge=0, le=LONG
    )
    sync: bool = later(False, "batch: statistics over all processes of train.processes")
    weight_standardization: bool = later(False, "standardize the weights of convolutions, linears")
    standardized: Literal["all", "convolutions"] = later(
        "all", "weight standardization: which layers; published networks leave the last, linear one"
    )
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
        if self.eps == 0 and self.backend != "reference" and self.name != "none":
            raise ValueError(
                f"norm.eps=0 is of the plain formula: set norm.backend=reference (given "
                f"{self.backend}, whose kernels need eps > 0)"
            )
        return self


class TaskConfig(Part):
    """What networks are trained for: the loss, and what is measured."""

    name: Literal["classification", "restoration", "stylization"] = "classification"
    loss: Literal["mse", "l1"] = later("mse", "restoration: squared or absolute difference")
    style: str = later("tissue", "stylization: name of the style image, or file: of style_path")
    style_size: int = later(
        128, "stylization: the style image's shorter side in pixels", ge=16, le=BIG
    )
    style_weight: float = later(
        5.0, "stylization: factor of the style in the loss", gt=0, le=LARGEST
    )
    features: Literal["random", "vgg16"] = later(
        "random", "stylization: the fixed network that compares images; vgg16: torchvision's"
    )
    fingerprint: str = later("", "stylization: hash of what it reads; filled in by bnstudy")
    style_path: str | None = machine(None, "stylization: the file of style=file")


class EvaluateConfig(Part):
    """When and how a network is measured."""

    every: int = Field(1, ge=1, le=LONG, description="epochs between evaluations")
    large_batch: int = Field(
        256, ge=2, le=MANY, description="batch-statistics evaluation, PreciseBN"
    )
    precise_examples: int = Field(
        10_000, ge=2, le=MANY, description="training examples for PreciseBN"
    )
    steps: int | None = later(None, "steps between evaluations, instead of epochs", ge=1, le=LONG)
    online: bool = later(False, "predict each training batch before learning from it")
    probes: tuple[str, ...] = later((), "further measurements, by name")
    stream: int = later(1920, "probe adaptation: examples in each stream", ge=20, le=MANY)
    severity: int = later(4, "probe adaptation: of the corruption", ge=1, le=5)
    adaptation_lr: float = later(
        1e-3,
        "probe adaptation: Tent's rate for batches of 64, in proportion for others",
        gt=0,
        le=LARGEST,
    )

    def last_stretch(self, train: TrainConfig) -> tuple[float, float, str] | None:
        """What a final training error is a mean over: so many of so many, in steps or epochs.

        None where that depends on the size of the data.
        """
        given = (train.steps, self.steps), (None if self.steps else train.epochs, self.every)
        for unit, (whole, every) in zip(("steps", "epochs"), given, strict=True):
            if whole and every:
                before = (math.ceil(whole / every) - 1) * every  # the evaluation before the last
                return whole - before, whole, unit
        return None


class Parts(Part):
    """What a run is made of, its seed aside."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    norm: NormConfig = NormConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    task: TaskConfig = later(TaskConfig(), "what networks are trained for")
    train: TrainConfig = TrainConfig()
    federation: FederationConfig = later(
        FederationConfig(), "clients that train copies of a network on their own examples"
    )
    evaluate: EvaluateConfig = EvaluateConfig()


class Config(Parts):
    """One training run, complete."""

    seed: int = Field(0, ge=0, le=LAST_SEED)

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
        for name in capabilities.mixable(self):
            # a cumulative mean, or no noise, is another kind of training
            kind = name in ("norm.momentum", "data.pixel_noise")
            plain[name] = bool(plain[name]) if kind else None
        return digest(plain)

    def flat(self) -> dict[str, Any]:
        """Dotted names to plain values, for tables: what is in the address, without the hashes."""
        return flatten(self.canonical())
