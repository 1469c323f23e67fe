import math

import pytest

from bnstudy.numbers import decimals, estimate, fixed


@pytest.mark.parametrize(
    ("low", "high", "places"),
    [(2.44, 7.85, 1), (-30, 60, 0), (0.0048, 0.0050, 5), (0.06, 0.07, 4), (0, 0, 1),
     (math.nan, 1, 1), (None, None, 1), (9.04, 11, 2), (-9.96, 9.96, 0), (0, 2e-12, 6)],
)  # fmt: skip
def test_decimals_are_those_of_two_digits_of_the_half_width(low, high, places):
    assert decimals(low, high) == places


def test_a_small_number_is_not_rounded_to_nothing():
    assert estimate(0.0049, 0.0041, 0.0057, "bits") == "+0.00490 bits [0.00410, 0.00570]"


def test_mean_and_ends_have_the_same_decimals():
    assert estimate(5.129, 2.4401, 7.8532, "pp") == "+5.1 pp [2.4, 7.9]"
    assert (
        estimate(-0.6404, -1.1, -0.18, "pp")
        == "\N{MINUS SIGN}0.64 pp [\N{MINUS SIGN}1.10, \N{MINUS SIGN}0.18]"
    )


def test_what_is_not_there_is_said():
    assert estimate(None, None, None, "pp") == "not measured"
    assert estimate(float("nan"), 0.0, 1.0, "pp") == "not measured"
    assert estimate(2.5, None, None) == "+2.5"


def test_zero_is_not_negative():
    assert fixed(-0.001, 1, signed=True) == "+0.0"
