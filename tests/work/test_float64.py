"""Training in float64, and what it is for: two trainings that are one function."""

import math
from pathlib import Path

import pytest
import torch

from bnstudy import data
from bnstudy.config import Config
from bnstudy.errors import UserError
from bnstudy.studies.weight_decay_is_a_rate import factor
from bnstudy.work.build import check
from bnstudy.work.trainer import End, stack_rows

RATE, DECAY, STEPS = 0.05, 0.02, 20
CPU = torch.device("cpu")


def trained(tmp_path: Path, optimizer: dict | None = None, norm: dict | None = None, **parts):
    """The last rows, and the final weights, of two seeds."""
    config = Config.model_validate(
        {
            "data": {"train_size": 100},
            "model": {"name": "mlp", "hidden": (16, 8)},
            "norm": {"eps": 0.0, "backend": "reference", **(norm or {})},
            "optimizer": {
                "lr": RATE, "lr_rule": "none", "momentum": 0.0, "schedule": "exponential",
                "trainable": "hidden_weights", **(optimizer or {}),
            },
            "train": {"batch_size": 20, "steps": STEPS, "precision": "float64"},
            "evaluate": {"steps": 10, "probes": ["logits"], "precise_examples": 40},
            **parts,
        }
    )  # fmt: skip
    configs = [config.model_copy(update={"seed": seed}) for seed in (0, 1)]
    *_, rows, end = stack_rows(configs, tmp_path, CPU, "never", True, lambda *_: None)
    assert isinstance(end, End)
    return rows, end.weights


def difference(rows, others) -> float:
    """The largest of a logit."""
    return max(
        abs(row[name] - other[name])
        for row, other in zip(rows, others, strict=True)
        for name in row
        if name.startswith("logit_")
    )


def pair(tmp_path, optimizer=None, norm=None, grown_by=0.0):
    """Weight decay, and the rate that grows as it would have it."""
    a, optimizer = factor(RATE, DECAY, grown_by), optimizer or {}
    grown = {"lr": RATE / a, "growth": a**-2}
    return (
        trained(tmp_path, {"weight_decay": DECAY, **optimizer}, norm),
        trained(tmp_path, {**grown, **optimizer}, norm),
    )


@pytest.mark.parametrize("norm", [{}, {"name": "layer"}, {"name": "group", "num_groups": 2}])
def test_weight_decay_is_a_growing_rate_up_to_rounding(tmp_path, norm):
    """The functions are equal, and the weights are, but for their length, (1 - rate * decay)^t.

    Rounding: 20 steps of sums of up to 100 terms, 1e-16 each, on logits around one.
    """
    (rows, states), (others, grown) = pair(tmp_path, norm=norm)
    assert difference(rows, others) < STEPS * 100 * 2.0**-52
    shorter = (1 - RATE * DECAY) ** STEPS
    for state, other in zip(states, grown, strict=True):
        for name in ("1.weight", "4.weight"):
            assert state[name].dtype == torch.float64
            assert torch.allclose(state[name], shorter * other[name], rtol=1e-9, atol=1e-12)
        assert torch.equal(state["7.weight"], other["7.weight"])  # the last layer stands still


@pytest.mark.parametrize(
    ("optimizer", "norm", "least"),
    [
        ({}, {"eps": 1e-5}, 1e-9),
        ({"momentum": 0.9}, {}, 1e-3),
        ({"trainable": "weights"}, {}, 1e-3),
        ({}, {"name": "none", "eps": 1e-5}, 1e-3),
    ],
)
def test_eps_momentum_a_learning_last_layer_and_no_norm_break_it(tmp_path, optimizer, norm, least):
    (rows, _), (others, _) = pair(tmp_path, optimizer, norm)
    assert difference(rows, others) > least


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_factor_is_the_larger_root_of_its_equation(momentum):
    a = factor(RATE, DECAY, momentum)
    assert a + momentum / a == pytest.approx(1 + momentum - RATE * DECAY, rel=1e-14)
    assert math.sqrt(momentum) < a < 1  # the product of the roots is the momentum


def test_two_steps_with_momentum_are_the_recursion_of_the_paper():
    """v_t = w_t / a^t follows heavy ball at the growing rate, of any gradient of degree -1."""
    a, momentum = factor(RATE, DECAY, 0.9), 0.9

    def g(w):  # of the angle's sine, which does not change with the length
        return torch.stack([w[1] ** 2, -w[0] * w[1]]) / (w**2).sum() ** 1.5

    w = [torch.tensor(v, dtype=torch.float64) for v in ([1.0, 0.5], [0.9, 0.7])]
    for _ in range(20):
        w.append(w[-1] + momentum * (w[-1] - w[-2]) - RATE * (g(w[-1]) + DECAY * w[-1]))
    v = [x / a**t for t, x in enumerate(w)]
    for t in range(1, 21):
        rate = RATE * a ** -(2 * t + 1)
        step = v[t] + momentum * a**-2 * (v[t] - v[t - 1]) - rate * g(v[t])
        assert torch.allclose(v[t + 1], step, rtol=1e-12, atol=1e-12)


def test_float64_starts_from_the_weights_of_float32_and_comes_near(tmp_path):
    rows, _ = trained(tmp_path)
    others, states = trained(tmp_path, train={"batch_size": 20, "steps": STEPS})
    assert states[0]["1.weight"].dtype == torch.float32
    # 20 steps of a float32, 6e-8 each, in sums of up to 100
    assert 0 < difference(rows, others) < 1e-3


def test_float64_is_of_classification_only():
    config = Config.model_validate(
        {
            "data": {"name": "photos", "degradation": "noise"},
            "model": {"name": "dncnn"},
            "task": {"name": "restoration"},
            "train": {"precision": "float64", "steps": 1},
        }
    )
    with pytest.raises(UserError, match="float64 supports task=classification, not restoration"):
        check(config, data.load(config.data))


def test_eps_zero_with_the_fused_kernel_is_refused():
    with pytest.raises(ValueError, match=r"norm\.backend=reference"):
        Config.model_validate({"norm": {"eps": 0.0}})


def test_float64_reads_sequences(tmp_path):
    parity = {"name": "parity", "length": 8, "train_size": 100}
    model = {"name": "recurrent", "hidden": (6,)}
    rows, _ = trained(
        tmp_path, {"trainable": "all"}, data=parity, model=model,
        evaluate={"steps": 10, "precise_examples": 40},
    )  # fmt: skip
    assert all(math.isfinite(row["test_loss"]) for row in rows)
