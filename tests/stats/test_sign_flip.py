"""The sign-flip test against scipy's, and its interval against the test."""

import math

import numpy as np
import pytest
from scipy import stats as reference

from bnstudy.errors import UserError
from bnstudy.stats import fewest, looks, sign_flip, sign_flip_interval

SAMPLES = {
    "two": [2.0, -0.5],
    "ties": [0.1, 0.2, 0.3, -0.1, -0.2, -0.3, 0.6],  # sums that differ only in the last digits
    "zeros": [0.0, 0.0, 1.0, 2.0, -0.5],
    "all equal": [0.7, 0.7, 0.7, 0.7, 0.7, 0.7],
    "all zero": [0.0] * 6,
    "errors of 400 images": [0.25, 1.5, -0.75, 2.0, 0.25, 0.0, -0.25, 1.25, 0.5, 0.75],
    "normal": list(np.random.default_rng(0).normal(0.4, 1.0, 12)),
    "tiny": [1e-9, 2e-9, -3e-10, 5e-9, 1e-9, 1e-9],
    "huge": [1e9, 2e9, -3e8, 5e9, 1e9, 1e9],
}


def scipys(values, threshold, alternative, **how):
    return reference.permutation_test(
        (np.asarray(values) - threshold,),
        np.mean,
        permutation_type="samples",
        alternative=alternative,
        **how,
    ).pvalue


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("threshold", [0.0, 0.25, -1.0])
def test_it_is_scipys_permutation_test(name, threshold):
    values = SAMPLES[name]
    above, below = sign_flip(values, threshold)
    assert above == scipys(values, threshold, "greater", n_resamples=np.inf)
    assert below == scipys(values, threshold, "less", n_resamples=np.inf)


def test_random_subsets_agree_with_scipys_random_signs():
    values = np.random.default_rng(1).normal(0.35, 1.0, 24)
    draws = 9_999
    for mine, side in zip(sign_flip(values, 0.0, draws), ("greater", "less"), strict=True):
        theirs = scipys(values, 0.0, side, n_resamples=draws, rng=np.random.default_rng(5))
        # two independent binomial proportions: five standard errors of their difference
        assert abs(mine - theirs) < 5 * math.sqrt(2 * theirs * (1 - theirs) / draws)
        assert mine >= 1 / (1 + draws)


@pytest.mark.parametrize("n", [6, 11, 20])
@pytest.mark.parametrize("level", [0.95, 0.9, 0.98])
def test_the_interval_holds_exactly_the_thresholds_that_are_not_rejected(n, level):
    rng = np.random.default_rng(n)
    # six decimals: a threshold within 1e-12 of an end is a tie, and that is not the question here
    for values in (rng.normal(1.0, 2.0, n).round(6), rng.integers(-4, 9, n) / 4.0):
        _, low, high = sign_flip_interval(values, level)
        step = 1e-9
        for theta in [low - step, low, low + step, high - step, high, high + step, *values]:
            above, below = sign_flip(values, theta)
            assert (low > theta) == (2 * above <= 1 - level + 1e-12), theta
            assert (high < theta) == (2 * below <= 1 - level + 1e-12), theta


def test_many_samples_are_tested_as_one_by_one(monkeypatch):
    monkeypatch.setattr("bnstudy.stats.tests.CHUNK", 1000)  # several chunks
    values = np.random.default_rng(2).normal(size=(2, 3, 8)) + 0.5
    above, below = sign_flip(values, 0.1)
    interval = sign_flip_interval(values)
    for index in np.ndindex(2, 3):
        assert (above[index], below[index]) == sign_flip(values[index], 0.1)
        assert tuple(part[index] for part in interval) == sign_flip_interval(values[index])


def test_the_interval_does_not_depend_on_unit_sign_or_order():
    values = np.random.default_rng(3).normal(1.0, 2.0, 12)
    mean, low, high = sign_flip_interval(values)
    assert sign_flip_interval(values[::-1] / 100) == pytest.approx(
        (mean / 100, low / 100, high / 100)
    )
    assert sign_flip_interval(-values) == pytest.approx((-mean, -high, -low))
    assert sign_flip_interval(values + 7) == pytest.approx((mean + 7, low + 7, high + 7))


def test_coverage_of_symmetric_values_is_the_level():
    samples = np.random.default_rng(4).uniform(-1, 1, (20_000, 12))
    _, low, high = sign_flip_interval(samples)
    # exact: floor(0.025 * 4096) = 102 of 4096 on each side; four binomial standard errors
    expected = 1 - 2 * 102 / 4096
    error = math.sqrt(expected * (1 - expected) / 20_000)
    assert abs(np.mean((low <= 0) & (high >= 0)) - expected) < 4 * error


def test_sign_flips_at_their_limits():
    assert fewest(0.05) == 6
    assert fewest(2 / 2**5) == 5
    assert sign_flip([1.0] * 6) == (1 / 64, 1.0)
    assert sign_flip_interval([1.0, 2.0, 3.0, 4.0, 5.0])[1:] == (-math.inf, math.inf)
    assert sign_flip_interval([1.0, 2, 3, 4, 5, 6])[1:] == (1.0, 6.0)
    for lost in ([1.0, math.nan], [1.0, math.inf], []):
        assert all(map(math.isnan, sign_flip(lost)))
        assert all(map(math.isnan, sign_flip_interval(lost)))
    with pytest.raises(ValueError, match="between 0 and 1, got 95"):
        sign_flip_interval([1.0, 2.0], 95)


def test_one_look_spends_everything():
    assert looks.levels([12]) == (pytest.approx(0.05, abs=1e-12),)
    assert looks.levels([30], alpha=0.1) == (pytest.approx(0.1, abs=1e-12),)


def test_levels_are_the_published_bounds():
    # Lan & DeMets 1983, Pocock type, five equally spaced looks, two-sided 5 %, three decimals
    bounds = reference.norm.isf(np.array(looks.levels([10, 20, 30, 40, 50])) / 2)
    assert bounds == pytest.approx([2.438, 2.427, 2.410, 2.397, 2.386], abs=5e-4)


def crossing(seeds, bounds, two_sided):
    """The chance that a mean of standard normals exceeds any of its bounds."""
    correlation = [[math.sqrt(min(a, b) / max(a, b)) for a in seeds] for b in seeds]
    inside = reference.multivariate_normal.cdf(
        bounds,
        cov=correlation,
        lower_limit=-bounds if two_sided else np.full(len(bounds), -np.inf),
        abseps=1e-8,
        releps=1e-8,
        maxpts=10**6,
    )
    return 1 - inside


@pytest.mark.parametrize("seeds", [[12, 24], [12, 24, 48], [16, 20, 40]])
def test_all_looks_together_spend_alpha(seeds):
    levels = np.array(looks.levels(seeds))
    assert crossing(seeds, reference.norm.isf(levels / 2), True) == pytest.approx(0.05, abs=1e-6)
    assert levels[0] == pytest.approx(0.05 * math.log(1 + (math.e - 1) * seeds[0] / seeds[-1]))
    # one-sided tests at the same nominal levels spend no more, and little less
    assert 0.045 < crossing(seeds, reference.norm.isf(levels), False) < 0.05


def test_looks_that_make_no_sense_are_named():
    with pytest.raises(UserError, match=r"numbers of seeds that grow.*got \[24, 12\]"):
        looks.levels([24, 12])
    with pytest.raises(UserError, match=r"got \[12, 12\]"):
        looks.levels([12, 12])
    with pytest.raises(UserError, match=r"got \[\]"):
        looks.levels([])
    with pytest.raises(UserError, match="a look at 6 seeds is too early: 8 at least"):
        looks.levels([6, 48])
    with pytest.raises(UserError, match="alpha must lie"):
        looks.levels([12], alpha=5)
