"""Intervals of arms, and how runs are selected and paired."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as reference

from bnstudy.stats import (
    paired_differences,
    per_seed,
    proportion_interval,
    summarize,
    t_interval,
)


def coverage(samples, truth, level=0.95):
    _, low, high = t_interval(samples, level)
    return float(np.mean((low <= truth) & (truth <= high)))


@pytest.mark.parametrize("level", [0.90, 0.95])
@pytest.mark.parametrize("n", [2, 5, 10])
def test_t_interval_covers_its_level_on_normal_data(n, level):
    samples = np.random.default_rng(n).normal(3.0, 2.0, size=(40_000, n))
    # The count is binomial: four standard errors are 4 * sqrt(0.05 * 0.95 / 40000) = 0.44 points at
    # 95 % and 0.60 at 90 %, well inside the two points that are promised.
    assert abs(coverage(samples, 3.0, level) - level) < 0.006


def test_print_coverage_on_skewed_and_chance_capped_data(capsys):
    """What the interval is worth where it is not exact: a fact to print, not a goal."""
    rng = np.random.default_rng(0)
    population = rng.normal(0.05, 0.02, 4_000_000)
    capped = np.where(rng.random(population.size) < 0.2, 0.9, population)  # a fifth diverges
    rows = []
    for n in (5, 10, 30):
        skewed = rng.lognormal(0.0, 1.0, size=(20_000, n))
        draws = capped[rng.integers(0, capped.size, size=(20_000, n))]
        rows.append((n, coverage(skewed, math.exp(0.5)), coverage(draws, capped.mean())))
    with capsys.disabled():
        print("\ncoverage of the 95 % t interval   n   log-normal   a fifth at chance")
        for n, skewed, cap in rows:
            print(f"{'':32}{n:3d}{skewed:13.3f}{cap:20.3f}")
    # Both tend to the level as n grows (central limit theorem); 20,000 draws resolve 0.5 points.
    assert rows[0][1] < rows[-1][1] < 0.96
    assert rows[0][2] < rows[-1][2] < 0.96


def test_t_interval_is_scipys():
    values = [1.0, 4.0, 2.5, 3.0]
    expected = reference.t.interval(0.9, 3, np.mean(values), reference.sem(values))
    assert t_interval(values, 0.9)[1:] == pytest.approx(expected, rel=1e-12)


def test_t_interval_at_its_limits():
    assert t_interval([2.0]).mean == 2.0
    assert math.isnan(t_interval([2.0]).low)
    assert t_interval([2.0, 2.0]) == (2.0, 2.0, 2.0)
    assert all(math.isnan(x) for x in t_interval([1.0, math.nan, 2.0]))
    assert all(math.isnan(x) for x in t_interval([1.0, math.inf]))
    assert math.isnan(t_interval([]).mean)
    with pytest.raises(ValueError, match="between 0 and 1"):
        t_interval([1.0, 2.0], 95)


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "norm.name": ["batch", "batch", "group", "group", "batch", "batch"],
            "train.batch_size": [2, 2, 2, 2, 32, 32],
            "seed": [0, 1, 1, 0, 0, 1],
            "test_error": [0.3, 0.5, 0.2, 0.1, 0.1, math.nan],
        }
    )


def test_summarize_keeps_order_units_and_lost_runs(table):
    got = summarize(table, ["norm.name", "train.batch_size"], "test_error")
    assert list(got["norm.name"]) == ["batch", "group", "batch"]
    assert list(got.columns[2:]) == ["mean", "low", "high", "n", "sd"]
    # two values a, b: mean (a + b) / 2, half width t(0.975, 1) * |a - b| / 2
    half = reference.t.ppf(0.975, 1) * 0.1
    assert got.loc[0, ["mean", "low", "high"]].tolist() == pytest.approx(
        [0.4, 0.4 - half, 0.4 + half]
    )
    assert math.isnan(got.loc[2, "mean"])
    assert got.loc[2, "n"] == 1


def test_summarize_refuses_to_count_a_seed_twice(table):
    with pytest.raises(ValueError, match=r"several runs of one seed.*train\.batch_size"):
        summarize(table, "norm.name", "test_error")
    with pytest.raises(ValueError, match="no column lr"):
        summarize(table, "lr", "test_error")


def test_differences_pair_by_seed_and_not_by_row(table):
    batch = per_seed(table, "test_error", {"norm.name": "batch", "train.batch_size": 2})
    group = per_seed(table, "test_error", {"norm.name": "group"})
    assert paired_differences(batch, group) == pytest.approx({0: 0.2, 1: 0.3})
    with pytest.raises(ValueError, match="several runs of one seed"):
        per_seed(table, "test_error", {"norm.name": "batch"})


def test_a_seed_missing_on_one_side_is_a_lost_cell():
    got = paired_differences({0: 1.0, 1: 2.0}, {0: 0.5})
    assert got[0] == 0.5
    assert math.isnan(got[1])
    assert math.isnan(paired_differences({0: 1.0}, {0: 1.0}, seeds=[0, 7])[7])


def test_a_proportion_has_an_exact_interval():
    # no failure in n runs: the upper end u solves (1 - u)^n = 0.025 (Clopper & Pearson)
    assert proportion_interval(0, 12) == pytest.approx((0.0, 0.0, 1 - 0.025 ** (1 / 12)))
    k, n, level = 3, 12, 0.9
    got = proportion_interval(k, n, level)
    assert got.mean == 0.25
    assert reference.binom.sf(k - 1, n, got.low) == pytest.approx(0.05)
    assert reference.binom.cdf(k, n, got.high) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="got 4 of 3"):
        proportion_interval(4, 3)
    with pytest.raises(ValueError, match="between 0 and 1, got 95"):
        proportion_interval(1, 3, 95)
