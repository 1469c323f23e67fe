"""Power by simulation, against what theory says and against `judge`."""

import math

import numpy as np
import pytest
from scipy import stats as reference

from bnstudy.errors import UserError
from bnstudy.stats import Claim, judge, looks, power

PILOTS = list(np.random.default_rng(0).normal(1.0, 2.0, 10))
SD = float(np.std(PILOTS, ddof=1))


@pytest.mark.parametrize("kind", ["greater", "equivalent", "not_worse"])
@pytest.mark.parametrize("design", [[14], [8, 14]])
def test_simulated_decisions_are_those_of_judge(kind, design):
    samples = np.random.default_rng(1).normal(0.4, 1.0, (60, 14))
    verdict, seeds = power.decide(samples, kind, 0.7, looks=design)
    levels = dict(zip(design, looks.levels(design), strict=True))
    words = {1: "supported", -1: "refuted", 0: "inconclusive"}
    for row, word, seen in zip(samples, verdict, seeds, strict=True):
        for look in design:
            values = dict(enumerate(row[:look]))
            found = judge([Claim("c", "c", kind, values, 0.7, primary=True)], levels[look])[0]
            if look == seen:
                assert found.verdict == words[word]
                break
            assert found.verdict == "inconclusive"
    assert len(set(verdict)) > 1


def test_power_is_close_to_that_of_students_t():
    n, effect = 24, 1.5
    got = power.decision_rate(PILOTS, n, effect)
    shift = effect / SD * math.sqrt(n)
    theory = reference.nct.sf(reference.t.ppf(0.975, n - 1), n - 1, shift)
    # four standard errors of 2,000 simulations are 0.03; the pilots' shape and the test's own power
    # move the rate by as much again
    assert got.supported == pytest.approx(theory, abs=0.06)
    assert got.seeds == n


def test_no_effect_is_found_at_the_level():
    got = power.decision_rate(PILOTS, 48, 0.0, simulations=4000)
    # 0.05 with four binomial standard errors of 0.0034, and the skewness of ten pilots
    assert got.supported + got.refuted == pytest.approx(0.05, abs=0.02)


def test_looks_save_seeds_where_the_effect_is_large():
    easy = power.decision_rate(PILOTS, 48, 4 * SD, looks=[12, 24, 48])
    none = power.decision_rate(PILOTS, 48, 0.0, looks=[12, 24, 48])
    assert easy == (1.0, 0.0, 12.0)
    assert none.seeds > 45


def test_the_table_has_both_truths():
    got = power.table(PILOTS, 1.5, candidates=(12, 24, 48))
    assert list(got["n"]) == [12, 24, 48]
    assert list(got) == [
        "n", "supported_at_zero", "refuted_at_zero", "supported_at_effect", "refuted_at_effect",
    ]  # fmt: skip
    assert got["supported_at_effect"].is_monotonic_increasing
    row = power.decision_rate(PILOTS, 24, 1.5)
    assert got["supported_at_effect"][1] == row.supported
    assert got.equals(power.table(PILOTS, 1.5, candidates=(12, 24, 48)))
    other = power.table(PILOTS, 1.5, candidates=(12, 24, 48), seed=1)
    assert not got.equals(other)


def test_seeds_needed_is_the_smallest_n_with_the_power():
    n = power.seeds_needed(PILOTS, 1.5)
    assert power.decision_rate(PILOTS, n, 1.5).supported >= 0.9
    assert power.decision_rate(PILOTS, n - 1, 1.5).supported < 0.9
    assert power.seeds_needed(PILOTS, 10 * SD) == 12
    assert power.seeds_needed(PILOTS, 0.01) is None


def test_with_a_threshold_zero_must_be_told_from_it_too():
    # an effect of 9 needs few seeds against a threshold of 1; a true mean of zero needs many
    easy, both = (power.seeds_needed(PILOTS, 9.0, threshold=t) for t in (0.0, 1.0))
    assert easy == 12 < both
    assert power.decision_rate(PILOTS, both, 0.0, threshold=1.0).refuted >= 0.9
    n = power.seeds_needed(PILOTS, 9.0, threshold=1.0, kind="equivalent")
    assert power.decision_rate(PILOTS, n, 0.0, "equivalent", 1.0).supported >= 0.9
    assert power.seeds_needed(PILOTS, 9.0, threshold=1.0, kind="not_worse") <= n


def test_mistakes_in_a_power_computation_are_named():
    for pilots in ([1.0, 2.0], [1.0] * 5, [1.0, 2.0, math.nan], []):
        with pytest.raises(UserError, match="at least 3 finite pilot differences that differ"):
            power.decision_rate(pilots, 12, 1.0)
    with pytest.raises(UserError, match="power must lie between 0 and 1, got 90"):
        power.seeds_needed(PILOTS, 1.0, power=90)
    with pytest.raises(UserError, match="an effect of 1 is the threshold itself"):
        power.seeds_needed(PILOTS, 1.0, threshold=1.0)
    with pytest.raises(UserError, match="n must lie between 2 and 200, got 201"):
        power.decision_rate(PILOTS, 201, 1.0)


def test_resampled_pilots_vary_as_the_population_is_estimated_to():
    pilots = [1.0, 2.0, 4.0, 4.5]
    drawn = power._resampled(pilots, 200, 5_000, 0)
    # a million draws: means are right to 0.0016, four standard errors of the variance are 0.012
    assert drawn.mean() == pytest.approx(0.0, abs=0.008)
    assert drawn.var() == pytest.approx(np.var(pilots, ddof=1), abs=0.015)
