"""What a plan says a stack takes, against what stacks took.

stack_seconds.json holds, for each kind of stack in the committed studies, the stack whose time was
the median, and 14 stacks of ResNets on made-up color images, one thread of the same kind of machine
(there the CPU's time, since the machine was shared). One value per row: timings of equal stacks
differ by up to 2.5, medians by less.
"""

import json
from functools import cache
from pathlib import Path

import pytest
import torch

from bnstudy import data
from bnstudy.config import Config
from bnstudy.sweep import cost
from bnstudy.sweep.plan import Plan
from bnstudy.sweep.protocol import StackPlan
from bnstudy.work.build import anatomy

ROWS = json.loads(Path(__file__).with_name("stack_seconds.json").read_text())
FACTOR = {"step_statistics": 3}  # its probe reads every step's statistics; an underestimate


def config_of(row) -> Config:
    nested = {}
    for name, value in row["config"].items():
        part, _, key = name.partition(".")
        nested.setdefault(part, {})[key] = value
    return Config.model_validate(nested)


@cache
def photographs(side: int, n: int = 2000) -> data.Dataset:
    """`n` images of a folder, split 70 : 10 : 20; shapes alone."""
    parts = {}
    for part, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        size = round(share * n)
        parts[f"{part}_x"] = torch.zeros(1, 3, side, side).expand(size, -1, -1, -1)
        parts[f"{part}_y"] = torch.zeros(size, dtype=torch.int64)
    return data.Dataset(**parts, num_classes=10)


def estimate(config: Config, networks: int) -> float:
    folder = config.data.name == "image_folder"
    dataset = photographs(config.data.image_size) if folder else data.load(config.data)
    return cost.seconds(config, anatomy(config, dataset), networks)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['from']}-{row['seconds']}s")
def test_an_estimate_is_within_a_factor_of_two_of_what_the_stack_took(row):
    factor = FACTOR.get(row["from"], 2)
    found = estimate(config_of(row), row["networks"])
    assert 1 / factor < found / row["seconds"] < factor


def test_estimates_err_on_both_sides():
    ratios = [estimate(config_of(r), r["networks"]) / r["seconds"] for r in ROWS]
    assert 0.8 < torch.tensor(ratios).log().mean().exp() < 1.25


def photograph_config(width: int, side: int, **train) -> Config:
    return Config.model_validate(
        {
            "data": {"name": "image_folder", "image_size": side},
            "model": {"name": "resnet", "width": width},
            "train": {"batch_size": 32, "steps": 10_000, **train},
            "evaluate": {"steps": 10_000},
        }
    )


def test_a_network_twice_as_wide_costs_between_two_and_four_times_as_much():
    """Four times the arithmetic, twice the values that pass through memory."""
    narrow, wide = (estimate(photograph_config(width, 32), 8) for width in (16, 32))
    assert 2 < wide / narrow < 4


def test_networks_that_cannot_stack_pay_the_overhead_one_by_one():
    config = photograph_config(8, 16)
    alone = config.model_copy(update={"norm": config.norm.model_copy(update={"name": "noisy"})})
    dissected = anatomy(config, photographs(16))
    assert cost.seconds(alone, dissected, 8) > cost.seconds(config, dissected, 8) + 10_000 * 7 * (
        dissected.modules * cost.MODULE
    )


def test_what_does_not_train_is_measured_all_the_same():
    config = photograph_config(8, 16, steps=0)
    assert estimate(config, 1) > cost.STACK + cost.CALLS * cost.STEP


def test_workers_are_forked_so_a_short_plan_is_seconds_long():
    cell = Config.model_validate({"train": {"steps": 3}})
    plan = Plan((cell,), (0,), (StackPlan(configs=[cell], seconds=2.0),), 0)
    assert 60 * plan.minutes(1) == pytest.approx(3.0)
