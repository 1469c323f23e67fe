"""How a network is trained: the optimizer, the length, the batches."""

from typing import Literal

from pydantic import Field, model_validator

from bnstudy.config.address import later
from bnstudy.config.part import LARGEST, LONG, MANY, Part

DURATIONS = ("epochs", "steps", "examples")


class OptimizerConfig(Part):
    """How weights move."""

    name: Literal["sgd", "adam"] = "sgd"
    lr: float = Field(
        0.1, gt=0, le=LARGEST, description="at reference_batch_size; lr_rule scales it"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd: heavy ball; adam: beta1")
    beta2: float = Field(0.999, ge=0, lt=1, description="adam")
    weight_decay: float = Field(
        0.0, ge=0, le=LARGEST, description="coupled (added to the gradient)"
    )
    decay_norm: bool = Field(True, description="weight decay on gamma and beta of norms, too")
    lr_rule: Literal["none", "linear", "sqrt"] = Field(
        "linear", description="lr times (B / reference_batch_size) to the power 0, 1, 1/2"
    )
    reference_batch_size: int = Field(32, ge=1, le=MANY)
    schedule: Literal["constant", "step", "cosine", "exponential"] = "step"
    milestones: tuple[float, ...] = Field((1 / 3, 2 / 3), description="step: fractions of training")
    decay: float = Field(0.1, gt=0, le=1, description="step: factor at each milestone")
    growth: float = later(1.0, "exponential: factor of the rate at each step", gt=0, le=LARGEST)
    trainable: Literal["all", "weights", "hidden_weights"] = later(
        "all",
        "what moves; weights: of layers, no biases, gamma and beta; hidden_weights: of all layers "
        "but the last",
    )
    clip_norm: float | None = later(
        None, "gradients are scaled down to this norm, each network's by itself", gt=0, le=LARGEST
    )
    weight_average: float | None = later(
        None,
        "horizon, in examples, of an exponential average of the weights, evaluated beside",
        gt=0,
        le=LARGEST,
    )
    average_from: float = later(
        0.0, "weight_average: fraction of training from which on weights are averaged", ge=0, lt=1
    )

    @model_validator(mode="after")
    def _exponential(self) -> "OptimizerConfig":
        if self.growth != 1 and self.schedule != "exponential":
            raise ValueError(
                f"optimizer.growth={self.growth:g} is of optimizer.schedule=exponential: given "
                f"schedule={self.schedule}"
            )
        return self

    @model_validator(mode="after")
    def _averaging(self) -> "OptimizerConfig":
        if self.average_from and not self.weight_average:
            raise ValueError(
                f"optimizer.average_from={self.average_from:g} says when weights are averaged: set "
                "optimizer.weight_average, too (a horizon beyond the training gives their mean)"
            )
        return self

    def lr_at(self, batch_size: int) -> float:
        """The initial learning rate at this batch size, after lr_rule."""
        power = {"none": 0.0, "linear": 1.0, "sqrt": 0.5}[self.lr_rule]
        return self.lr * (batch_size / self.reference_batch_size) ** power


class TrainConfig(Part):
    """How long, in exactly one unit; the last incomplete batch of an epoch is dropped."""

    batch_size: int = Field(32, ge=1, le=MANY)
    epochs: float | None = Field(None, ge=0, le=MANY)
    steps: int | None = Field(None, ge=0, le=LONG)
    examples: int | None = Field(None, ge=0, le=LONG)
    classes_per_batch: int | None = later(
        None, "every batch holds examples of this many classes only, equally many of each", ge=1
    )
    classes_per_task: int | None = later(
        None, "a stream: classes come in groups of this size, one group after the other", ge=1
    )
    processes: int = later(
        1,
        "processes that share each batch; each normalizes its own part unless norm.sync",
        ge=1,
        le=1024,
    )
    corruption: Literal["none", "contrast", "brightness", "noise", "blur", "jpeg"] = later(
        "none", "each batch is joined by copies of its own images under this corruption"
    )
    severity: int = later(3, "corruption: of the copies", ge=1, le=5)
    copies: Literal["between", "behind"] = later(
        "between",
        "corruption: each copy behind its own image, or all behind all images; groups of "
        "norm.group_size are of consecutive images",
    )
    precision: Literal["float32", "tf32", "bf16", "float64"] = later(
        "float32",
        "of matrix products in training; tf32 on GPUs only; evaluation is in float32; float64: of "
        "weights, data and all that is computed, evaluation included",
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
    def _copies(self) -> "TrainConfig":
        if self.corruption == "none" and (self.severity, self.copies) != (3, "between"):
            raise ValueError(
                f"train.severity={self.severity} and train.copies={self.copies} are of corrupted "
                "copies: set train.corruption, too"
            )
        if self.corruption != "none" and self.processes > 1:
            raise ValueError(
                "train.corruption: processes that share a batch would not each have images and "
                f"their copies; leave out train.processes={self.processes}"
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
