"""Verdicts on planted effects, and claims that share an error rate."""

import json
import math

import numpy as np
import pytest
from scipy import stats as reference
from statsmodels.stats.multitest import multipletests

from bnstudy.stats import (
    Claim,
    families,
    judge,
    power,
    sign_flip,
    sign_flip_interval,
    t_interval,
)


def claim(values, kind="greater", threshold=0.0, primary=True, name="main", **more):
    return Claim(name, name, kind, dict(enumerate(values)), threshold, primary=primary, **more)


def verdict(*args, **kwargs):
    return judge([claim(*args, **kwargs)])[0].verdict


# eight seeds: sd 0.71; half widths of the sign-flip interval 0.63 at 95 %, 0.50 at 90 %
SPREAD = np.array([-1.0, -0.7, -0.5, -0.2, 0.2, 0.5, 0.7, 1.0])


@pytest.mark.parametrize(
    ("kind", "threshold", "mean", "expected"),
    [
        ("greater", 1.0, 3.0, "supported"),
        ("greater", 1.0, 1.5, "inconclusive"),
        ("greater", 1.0, 0.5, "inconclusive"),
        ("greater", 1.0, -3.0, "refuted"),
        ("equivalent", 1.0, 0.1, "supported"),
        ("equivalent", 1.0, 0.7, "inconclusive"),
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
    few = judge([claim((50 + SPREAD)[:5])])[0]
    assert few.verdict == "invalid"
    assert few.reasons[0] == "too few seeds: n = 5 cannot reach 5 %, 6 at least can"
    assert judge([claim((50 + SPREAD)[:6])])[0].verdict == "supported"
    assert judge([claim((50 + SPREAD)[:5])], alpha=0.1)[0].verdict == "supported"
    for lost in (math.nan, math.inf):
        got = judge([claim([*(50 + SPREAD), lost])])[0]
        assert got.verdict == "invalid"
        assert "seed 8" in got.reasons[0]
        assert got.n == 8
        assert math.isnan(got.mean)
    assert verdict([]) == "invalid"


def rates(mean, kind, threshold, n=8, replications=300):
    rng = np.random.default_rng(1)
    found = [verdict(rng.normal(mean, 1.0, n), kind, threshold) for _ in range(replications)]
    return {word: found.count(word) / replications for word in set(found)}


def test_error_rates_and_power_are_what_is_promised():
    # 300 replications: four binomial standard errors are 0.05 at a rate of 0.05, 0.092 at 0.8.
    none = rates(0.0, "greater", 0.0)
    assert none.get("supported", 0) + none.get("refuted", 0) < 0.10
    detectable = judge([claim(SPREAD / SPREAD.std(ddof=1))])[0].detectable  # sd one, eight seeds
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
            got = judge([claim(rng.normal(mean, 1.0, 8), kind, 1.0)])[0]
            assert (got.p <= 0.05) == (got.verdict in ("supported", "refuted")), (kind, got)


def test_secondary_claims_must_survive_holm_both_ways():
    for sign, outcome in ((1, "supported"), (-1, "refuted")):
        weak = sign * (0.65 + SPREAD)  # two-sided p 12/256 alone; the first of two needs 0.025
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
    alone = judge([claim(SPREAD), claim(0.65 + SPREAD, primary=False, name="only")])
    assert alone[1].verdict == "supported"


def test_holms_adjustment_is_that_of_statsmodels():
    rng = np.random.default_rng(3)
    for n in (1, 2, 5, 12):
        p = rng.uniform(0, 0.3, n).round(2)  # n = 12 has ties, and sums beyond 1
        assert families._holm(p) == pytest.approx(multipletests(p, method="holm")[1], rel=1e-15)
    assert families._holm([]) == []
    assert families._holm([math.nan, 0.01]) == [1.0, 0.02]


@pytest.mark.parametrize(
    "invalid",
    [
        {"values": [math.nan] * 8},
        # its own p is 2/256: at that p it would leave the weak claim the whole level
        {"values": 50 + SPREAD, "preconditions": [("the reference trains", False, "")]},
    ],
)
def test_an_invalid_secondary_claim_counts_in_the_family_with_p_one(invalid):
    invalid = claim(invalid.pop("values"), primary=False, name="invalid", **invalid)
    rows = judge([claim(SPREAD), claim(0.65 + SPREAD, primary=False, name="weak"), invalid])
    assert rows[1].verdict == "inconclusive"
    assert rows[1].p_holm == pytest.approx(2 * rows[1].p)
    assert rows[2].verdict == "invalid"
    assert rows[2].p_holm == 1.0


@pytest.mark.parametrize("kind", ["equivalent", "not_worse"])
def test_arms_that_are_equal_in_every_seed_are_equivalent(kind):
    got = judge([claim([0.0] * 6, kind, 1.0)])[0]
    assert (got.verdict, got.t_verdict, got.low, got.high) == ("supported", "supported", 0, 0)
    # a flip of each sign: all 2^6 samples lie as far from the margin as the one that was drawn
    assert got.p == 1 / 2**6
    assert judge([claim([0.0] * 4, kind, 1.0)])[0].verdict == "invalid"


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("greater", [0.0] * 6),
        *((kind, values) for kind in ("greater", "equivalent", "not_worse")
          for values in ([5.0] * 6, [0.9 - 0.1, 0.85 - 0.05, *[0.8] * 4])),
    ],
)  # fmt: skip
def test_differences_without_spread_decide_nothing(kind, values):
    got = judge([claim(values, kind, 1.0)])[0]
    assert got.verdict == "inconclusive"
    assert "without spread" in got.reasons[0]
    second = judge([claim(SPREAD), claim(values, kind, 1.0, primary=False, name="flat")])[1]
    assert second.verdict == "inconclusive"
    assert second.p_holm == 1.0
    json.dumps(got.to_dict(), allow_nan=False)


def test_underpowered_is_said_of_inconclusive_claims_only():
    # eight seeds, sd 0.71: 80 % power for a mean of 1.16 sd = 0.82
    got = judge([claim(SPREAD, published_effect=0.7)])[0]
    assert got.underpowered
    assert "published effect of 0.7 pp" in got.reasons[0]
    assert not judge([claim(SPREAD, published_effect=0.9)])[0].underpowered
    assert not judge([claim(SPREAD)])[0].underpowered
    # a threshold moves what must be found: 1 + 0.82
    assert judge([claim(0.9 + SPREAD, threshold=1.0, published_effect=1.7)])[0].underpowered
    got = judge([claim(SPREAD, "equivalent", 0.4)])[0]
    assert got.underpowered
    assert "margin of 0.4 pp" in got.reasons[0]
    for mean in (5, -5):
        decided = judge([claim(mean + SPREAD, published_effect=0.7)])[0]
        assert decided.verdict in ("supported", "refuted")
        assert not decided.underpowered
        assert decided.reasons == ()


def test_detectable_is_the_textbook_number():
    # noncentral t: power of a two-sided paired t test, the far side left out (below 1e-5 here)
    got = judge([claim(SPREAD)])[0]
    shift = got.detectable / got.sd * math.sqrt(8)
    power = reference.nct.sf(reference.t.ppf(0.975, 7), 7, shift)
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


def test_the_interval_and_its_level_follow_the_kind_and_the_look():
    for kind, level in (("greater", 0.95), ("equivalent", 0.9), ("not_worse", 0.9)):
        got = judge([claim(SPREAD, kind, 1.0)])[0]
        assert got.level == pytest.approx(level)
        assert (got.mean, got.low, got.high) == sign_flip_interval(SPREAD, level)
        assert (got.mean, got.t_low, got.t_high) == pytest.approx(t_interval(SPREAD, level))
    early = judge([claim(0.65 + SPREAD)], alpha=0.0179)[0]  # p is 12/256
    assert early.level == pytest.approx(1 - 0.0179)
    assert early.alpha == 0.0179
    assert early.verdict == "inconclusive"
    assert early.low < judge([claim(0.65 + SPREAD)])[0].low
    assert judge([claim(50 + SPREAD[:7])], alpha=0.0179)[0].verdict == "supported"
    assert judge([claim(50 + SPREAD[:6])], alpha=0.0179)[0].verdict == "invalid"
    with pytest.raises(ValueError, match="alpha must lie"):
        judge([claim(SPREAD)], alpha=5)


def test_students_t_stands_beside_and_a_disagreement_is_told():
    agrees = judge([claim(2 + SPREAD)])[0]
    assert agrees.t_verdict == agrees.verdict == "supported"
    assert not any("Student" in reason for reason in agrees.reasons)
    # 2 p is 14/256 by sign flips, 0.044 by t
    values = 0.62 + SPREAD
    assert 2 * sign_flip(values)[0] == 14 / 256
    assert reference.ttest_1samp(values, 0).pvalue < 0.05
    differs = judge([claim(values)])[0]
    assert (differs.verdict, differs.t_verdict) == ("inconclusive", "supported")
    assert differs.reasons[0].startswith("Student's t would say supported (interval 0.02")
    # t's verdict passes the same adjustment: alone it is supported, in a family of two it is not
    pair = [claim(values, primary=False, name=name) for name in ("one", "two")]
    for row in judge([claim(SPREAD), *pair])[1:]:
        assert (row.verdict, row.t_verdict) == ("inconclusive", "inconclusive")


def would_decide(verdict):
    return [reason for reason in verdict.reasons if "would" in reason and "Student" not in reason]


@pytest.mark.parametrize(
    ("kind", "mean", "z"),
    # z of the level plus z of the power: 0.8416, for two one-sided tests 1.2816
    [("greater", 1.5, 1.95996 + 0.84162), ("greater", 0.5, 1.95996 + 0.84162),
     ("equivalent", 0.7, 1.64485 + 1.28155), ("equivalent", -0.7, 1.64485 + 1.28155),
     ("not_worse", 0.9, 1.64485 + 0.84162)],
)  # fmt: skip
def test_an_inconclusive_primary_claim_says_how_many_seeds_would_decide_it(kind, mean, z):
    got = judge([claim(mean + SPREAD, kind, 1.0)])[0]
    assert got.verdict == "inconclusive"
    n = (z * got.sd / (abs(mean) - 1.0)) ** 2
    (reason,) = would_decide(got)
    told = int(reason.split()[1].replace(",", ""))
    assert n <= told <= 1.1 * n + 1  # rounded up to two digits
    assert reason.endswith("seeds would decide it with 80 % power at the measured mean and spread")


def test_that_many_seeds_have_the_power():
    pilots = list(1.35 + SPREAD)
    told = int(would_decide(judge([claim(pilots, threshold=1.0)])[0])[0].split()[1])
    found = power.decision_rate(pilots, told, 1.35, threshold=1.0)
    # four standard errors of 2,000 simulations are 0.036, the sign-flip test's own power as much
    assert found.supported == pytest.approx(0.8, abs=0.07)


@pytest.mark.parametrize("kind", ["greater", "equivalent", "not_worse"])
@pytest.mark.parametrize("mean", [1.0, 1.001])
def test_at_the_threshold_no_number_of_seeds_is_told(kind, mean):
    (reason,) = would_decide(judge([claim(mean + SPREAD, kind, 1.0)])[0])
    assert reason.startswith("more than 10,000 seeds would be needed to decide it")


def test_only_an_inconclusive_primary_claim_with_spread_says_so():
    assert not would_decide(judge([claim(3 + SPREAD)])[0])
    assert not would_decide(judge([claim([1.0] * 8)])[0])
    assert not would_decide(judge([claim([math.nan, *SPREAD])])[0])
    second = claim(0.1 + SPREAD, name="second", primary=False)
    assert not would_decide(judge([claim(3 + SPREAD), second])[1])
