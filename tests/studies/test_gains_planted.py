"""Planted functions and landscapes come out as planted; what did not learn is no evidence."""

import math

import numpy as np
import pandas as pd
import pytest

from bnstudy import stats
from bnstudy.config.compose import hydra_session
from bnstudy.studies import landscape, weight_decay_is_a_rate

SEEDS = range(12)
COMMON = {
    "data.name": "digits", "model.name": "mlp", "device": "cpu", "torch": "2", "num_classes": 10,
    "diverged_at": np.nan, "train_error": 0.02, "train_loss": 0.1, "train.batch_size": 32,
    "evaluate.steps": 20,
}  # fmt: skip


def judged(module, rows) -> dict[str, stats.Verdict]:
    found = stats.judge(module.claims(pd.DataFrame(rows)))
    return {v.name.partition(": ")[2]: v for v in found}


# --- weight decay --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rate_cells():
    """The settings of each cell of the study at quick, as a table has them."""
    with hydra_session() as session:
        request = session.request(["scale=quick"], study=session.study("weight_decay_is_a_rate"))
        return [cell.flat() for cell in request.cells]


def runs(cells, moved, error) -> list[dict]:
    """Rows with logits that differ between runs by moved(cell), and test errors of error(cell)."""
    rows = []
    for cell in cells:
        for seed in SEEDS:
            logits = {
                # runs that agree to the bit in every seed would be suspected and not judged
                f"logit_{i}/{k:02d}": 0.01 * k + (1 + seed / 20) * moved(cell) * (i == 3)
                for i in range(1, 9)
                for k in (1, 2)
            }
            jitter = 0.002 * np.random.default_rng([seed, len(rows)]).standard_normal()
            rows.append({**cell, **COMMON, **logits, "seed": seed,
                         "test_error_precise": error(cell) + jitter})  # fmt: skip
    return rows


def grows(cell) -> bool:
    return cell.get("optimizer.growth", 1.0) > 1


def decays(cell) -> bool:
    return cell["optimizer.weight_decay"] > 0


def everything(cell) -> bool:
    return "optimizer.trainable" not in cell


def rounding(cell) -> float:
    """The control is off by 1e-15, and so is a growing rate."""
    return 1e-15 * (grows(cell) + (cell["norm.eps"] == 2.0**-52))


def test_the_rates_of_the_grid_are_those_of_the_theory(rate_cells):
    factor = weight_decay_is_a_rate.factor
    found = {
        (c["optimizer.lr"], c.get("optimizer.growth", 1.0), c["optimizer.weight_decay"])
        for c in rate_cells
    }
    a, b = factor(0.05, 0.02), factor(0.05, 0.02, 0.9)
    rates = {(0.05, 1.0, 0.02), (0.05, 1.0, 0.0), (0.05 / a, a**-2, 0.0), (0.05 / b, b**-2, 0.0)}
    assert len(found) == len(rates)
    for one, other in zip(sorted(found), sorted(rates), strict=True):
        assert one == pytest.approx(other, rel=1e-14)


def test_equal_functions_and_equal_errors_are_seen(rate_cells):
    broken = {"eps", "momentum", "first velocity", "last layer", "no norm"}
    rows = runs(rate_cells, rounding, lambda _: 0.1)
    found = judged(weight_decay_is_a_rate, rows)
    assert found["nearer"].primary
    assert found["practice"].verdict == "supported"
    for name in ("batch", "group", "layer"):
        assert found[f"exact, {name}"].verdict == "shown"
    # nothing was planted to break it
    assert {found[f"broken, {name}"].verdict for name in broken} == {"not shown"}


def test_unequal_functions_and_unequal_errors_are_seen(rate_cells):
    def moved(cell):
        return rounding(cell) + 1e-3 * grows(cell)

    rows = runs(rate_cells, moved, lambda c: 0.1 + 0.05 * grows(c) * (1 + everything(c)))
    found = judged(weight_decay_is_a_rate, rows)
    assert found["practice"].verdict == "refuted"
    # 5 pp more of everything that learns, and the usual noise of twelve differences
    assert found["practice"].mean == pytest.approx(5, abs=0.3)
    assert found["everything learns"].mean == pytest.approx(10, abs=0.3)
    assert found["exact, batch"].verdict == "not shown"
    for name in ("eps", "momentum", "first velocity", "last layer", "no norm"):
        assert found[f"broken, {name}"].verdict == "shown"


@pytest.mark.parametrize(("times", "wanted"), [(1, "refuted"), (4, "supported")])
def test_how_much_nearer_a_growing_rate_is_than_a_constant_one(rate_cells, times, wanted):
    def moved(cell):
        return 0.1 * grows(cell) + 0.1 * times * (not grows(cell) and not decays(cell))

    rows = runs(rate_cells, moved, lambda _: 0.1)
    for row in rows:  # ratios that agree to the bit would not be judged
        row |= {
            key: value * (1 + 0.001 * row["seed"] * grows(row))
            for key, value in row.items()
            if key.startswith("logit_3/")
        }
    found = judged(weight_decay_is_a_rate, rows)["nearer"]
    assert found.verdict == wanted
    # seeds move one of the two logits by some percent
    assert found.mean == pytest.approx(np.log10(times), abs=0.05)


# --- landscape -----------------------------------------------------------------------------------


def nets(none=1.0, shift=1.0, noisy=0.1, loss=0.1) -> list[dict]:
    """Without norm every measure is `none` times as large, and covariate shift `shift` times."""
    rows = []
    for norm in ("none", "batch", "noisy"):
        for seed in SEEDS:
            jitter = 1 + 0.05 * np.random.default_rng([seed, len(norm)]).standard_normal()
            row = {"norm.name": norm, "seed": seed, "test_error": 0.9 if norm == "noisy" else 0.1}
            row["test_error_precise"] = {"none": np.nan, "batch": 0.1, "noisy": noisy * jitter}[
                norm
            ]
            for name in landscape.MEASURES:
                for unit in landscape.UNITS:
                    for k in (1, 2):
                        size = k * (none if norm == "none" else 1) * jitter
                        row[f"{name}{unit}/{k:02d}"] = size
            for k in (1, 2):
                row[f"shift_norm/{k:02d}"] = (shift if norm == "none" else 1) * jitter
                row[f"shift_cosine/{k:02d}"] = 0.5
            own = {"model.name": "vgg", "train_loss": loss if norm == "none" else 0.1}
            rows.append({**COMMON, **row, **own})
    return rows


@pytest.mark.parametrize(
    ("times", "wanted"), [(10, "supported"), (1, "refuted"), (10**0.3, "inconclusive")]
)
def test_a_gradient_that_changes_more_without_norm_is_found(times, wanted):
    found = judged(landscape, nets(none=times))["smoothness, equal rates"]
    assert found.primary
    assert found.verdict == wanted
    # twelve ratios of s.d. 7 %: 0.03 decades each
    assert found.mean == pytest.approx(math.log10(times), abs=0.03)


def test_noise_and_covariate_shift_are_judged_by_their_margins():
    found = judged(landscape, nets(none=10))
    assert found["noise costs nothing"].verdict == "supported"  # by PreciseBN, not 0.9
    assert found["covariate shift"].verdict == "supported"
    found = judged(landscape, nets(none=10, noisy=0.2, shift=10))
    assert found["noise costs nothing"].verdict == "refuted"
    # 5 % of 20 % in each of twelve seeds: a standard error of 0.3 pp
    assert found["noise costs nothing"].mean == pytest.approx(10, abs=1)
    assert found["covariate shift"].verdict == "refuted"


def test_a_network_that_is_dead_makes_claims_invalid():
    """What has not learned is flat: 2.3 nats is the loss of guessing among ten classes."""
    found = judged(landscape, nets(none=10, loss=2.3))
    assert {v.verdict for v in found.values()} == {"invalid"}
