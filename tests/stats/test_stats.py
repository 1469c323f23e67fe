"""Intervals and verdicts, tested by simulation and on planted effects."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as reference

from bnstudy.stats import (
    Claim,
    judge,
    paired_differences,
    per_seed,
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


def claim(values, kind="greater", threshold=0.0, primary=True, name="main", **more):
    return Claim(name, name, kind, dict(enumerate(values)), threshold, primary=primary, **more)


def verdict(*args, **kwargs):
    return judge([claim(*args, **kwargs)])[0].verdict


SPREAD = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])  # sd 0.79: 95 % half width 0.98, 90 % 0.75


@pytest.mark.parametrize(
    ("kind", "threshold", "mean", "expected"),
    [
        ("greater", 1.0, 3.0, "supported"),
        ("greater", 1.0, 1.5, "inconclusive"),
        ("greater", 1.0, 0.5, "inconclusive"),
        ("greater", 1.0, -3.0, "refuted"),
        ("equivalent", 1.0, 0.1, "supported"),
        ("equivalent", 1.0, 0.5, "inconclusive"),
        ("equivalent", 1.0, 3.0, "refuted"),
        ("equivalent", 1.0, -3.0, "refuted"),
        ("not_worse", 1.0, -9.0, "supported"),
        ("not_worse", 1.0, 0.2, "supported"),
        ("not_worse", 1.0, 0.9, "inconclusive"),
        ("not_worse", 1.0, 3.0, "refuted"),
    ],
)
def test_verdicts_on_planted_effects(kind, threshold, mean, expected):
    assert verdict(mean + SPREAD, kind, threshold) == expected


def test_preconditions_come_before_everything():
    untrained = [("every arm trains", False, "batch: train error 89 %")]
    got = judge([claim(50 + SPREAD, preconditions=untrained)])[0]
    assert got.verdict == "invalid"
    assert "every arm trains (batch" in got.reasons[0]
    assert verdict(50 + SPREAD, preconditions=[("every arm trains", True, "")]) == "supported"
    assert verdict((50 + SPREAD)[:4]) == "invalid"
    assert judge([claim((50 + SPREAD)[:4])], min_seeds=4)[0].verdict == "supported"
    for lost in (math.nan, math.inf):
        got = judge([claim([*(50 + SPREAD), lost])])[0]
        assert got.verdict == "invalid"
        assert "seed 5" in got.reasons[0]
        assert got.n == 5
        assert math.isnan(got.mean)
    assert verdict([]) == "invalid"


def rates(mean, kind, threshold, n=5, replications=300):
    rng = np.random.default_rng(1)
    found = [verdict(rng.normal(mean, 1.0, n), kind, threshold) for _ in range(replications)]
    return {word: found.count(word) / replications for word in set(found)}


def test_error_rates_and_power_are_what_is_promised():
    # 300 replications: four binomial standard errors are 0.05 at a rate of 0.05, 0.092 at 0.8.
    none = rates(0.0, "greater", 0.0)
    assert none.get("supported", 0) + none.get("refuted", 0) < 0.10
    detectable = judge([claim(SPREAD / SPREAD.std(ddof=1))])[0].detectable  # sd one, five seeds
    assert abs(rates(detectable, "greater", 0.0)["supported"] - 0.8) < 0.092
    assert rates(-detectable, "greater", 0.0)["refuted"] > 0.7
    margin = judge([claim(SPREAD / SPREAD.std(ddof=1), "equivalent", 1.0)])[0].detectable
    # the two sides share one estimate of the spread, so both succeed a little more often than 80 %
    assert 0.708 < rates(0.0, "equivalent", margin)["supported"] < 0.95
    assert rates(margin, "equivalent", margin).get("supported", 0) < 0.10
    margin = judge([claim(SPREAD / SPREAD.std(ddof=1), "not_worse", 1.0)])[0].detectable
    assert abs(rates(0.0, "not_worse", margin)["supported"] - 0.8) < 0.092


def test_p_and_interval_tell_the_same_story():
    rng = np.random.default_rng(2)
    for kind in ("greater", "equivalent", "not_worse"):
        for mean in np.linspace(-3, 3, 40):
            got = judge([claim(rng.normal(mean, 1.0, 5), kind, 1.0)])[0]
            assert (got.p < 0.05) == (got.verdict in ("supported", "refuted")), (kind, got)


def test_secondary_claims_must_survive_holm_both_ways():
    for sign, outcome in ((1, "supported"), (-1, "refuted")):
        weak = sign * (1.2 + SPREAD)  # two-sided p 0.027 alone; the second of two needs 0.025
        assert verdict(weak) == outcome
        rows = judge(
            [
                claim(sign * (9 + SPREAD)),
                *(claim(weak, primary=False, name=f"second {i}") for i in range(2)),
            ]
        )
        assert rows[0].p_holm is None
        assert rows[0].verdict == outcome
        for row in rows[1:]:
            assert row.verdict == "inconclusive"
            assert row.p < 0.05 < row.p_holm
            assert row.p_holm == pytest.approx(2 * row.p)
            assert "Holm" in row.reasons[0]
    alone = judge([claim(SPREAD), claim(1.2 + SPREAD, primary=False, name="only")])
    assert alone[1].verdict == "supported"


@pytest.mark.parametrize(
    "invalid",
    [
        {"values": [math.nan] * 5},
        # its own p is 4e-6: at that p it would leave the weak claim the whole level
        {"values": 50 + SPREAD, "preconditions": [("the reference trains", False, "")]},
    ],
)
def test_an_invalid_secondary_claim_counts_in_the_family_with_p_one(invalid):
    invalid = claim(invalid.pop("values"), primary=False, name="invalid", **invalid)
    rows = judge([claim(SPREAD), claim(1.2 + SPREAD, primary=False, name="weak"), invalid])
    assert rows[1].verdict == "inconclusive"
    assert rows[1].p_holm == pytest.approx(2 * rows[1].p)
    assert rows[2].verdict == "invalid"
    assert rows[2].p_holm == 1.0


@pytest.mark.parametrize("values", [[0.0] * 5, [5.0] * 5, [0.9 - 0.1, 0.85 - 0.05, 0.8, 0.8, 0.8]])
@pytest.mark.parametrize("kind", ["greater", "equivalent", "not_worse"])
def test_differences_without_spread_decide_nothing(values, kind):
    got = judge([claim(values, kind, 1.0)])[0]
    assert got.verdict == "inconclusive"
    assert "without spread" in got.reasons[0]
    second = judge([claim(SPREAD), claim(values, kind, 1.0, primary=False, name="flat")])[1]
    assert second.verdict == "inconclusive"
    assert second.p_holm == 1.0
    json.dumps(got.to_dict(), allow_nan=False)


def test_underpowered_is_said_against_the_published_effect_or_the_margin():
    # five seeds, sd 0.79: 80 % power for a mean of 1.68 sd = 1.33
    assert judge([claim(SPREAD, published_effect=1.2)])[0].underpowered
    assert not judge([claim(SPREAD, published_effect=1.5)])[0].underpowered
    assert not judge([claim(SPREAD)])[0].underpowered
    # a threshold moves what must be found: 1 + 1.33
    assert judge([claim(SPREAD, threshold=1.0, published_effect=2.2)])[0].underpowered
    got = judge([claim(SPREAD, "equivalent", 0.5)])[0]
    assert got.underpowered
    assert "margin of 0.5 pp" in got.reasons[-1]


def test_detectable_is_the_textbook_number():
    # noncentral t: power of a two-sided paired t test, the far side left out (below 1e-5 here)
    got = judge([claim(SPREAD)])[0]
    shift = got.detectable / got.sd * math.sqrt(5)
    power = reference.nct.sf(reference.t.ppf(0.975, 4), 4, shift)
    assert power == pytest.approx(0.8, abs=1e-3)


def test_judging_does_not_rescale():
    small = judge([claim((2 + SPREAD) / 100, published_effect=0.1, unit="")])[0]
    large = judge([claim(2 + SPREAD, published_effect=10.0)])[0]
    assert small.verdict == large.verdict
    assert small.p == pytest.approx(large.p)
    for name in ("mean", "low", "high", "sd", "detectable"):
        assert getattr(small, name) == pytest.approx(getattr(large, name) / 100)


def test_a_verdict_is_plain_json():
    got = judge([claim(np.array([math.nan, 1, 2]), notes=["2 runs diverged"])])[0].to_dict()
    assert json.loads(json.dumps(got, allow_nan=False)) == got
    assert got["mean"] is None
    assert got["values"]["1"] == 1.0
    assert got["reasons"][-1].startswith("2 ")


def test_mistakes_in_claims_are_named():
    with pytest.raises(ValueError, match="exactly one primary claim, got 0"):
        judge([claim(SPREAD, primary=False)])
    with pytest.raises(ValueError, match="exactly one primary claim, got 2: main, other"):
        judge([claim(SPREAD), claim(SPREAD, name="other")])
    with pytest.raises(ValueError, match="different names"):
        judge([claim(SPREAD), claim(SPREAD, primary=False)])
    with pytest.raises(ValueError, match=r"unknown kind 'less'\. Allowed: greater"):
        claim(SPREAD, "less")
    with pytest.raises(ValueError, match="above zero"):
        claim(SPREAD, "equivalent", 0.0)
