"""Families of claims: fixed sequences, identities, demonstrations."""

import json
import math

import numpy as np
import pytest

from bnstudy.stats import MIN_SEEDS, Claim, judge

SPREAD = np.array([-1.0, -0.7, -0.5, -0.2, 0.2, 0.5, 0.7, 1.0])


def claim(values, kind="greater", threshold=0.0, primary=True, name="main", **more):
    return Claim(name, name, kind, dict(enumerate(values)), threshold, primary=primary, **more)


def chain(*means):
    """Claims in a fixed sequence, the first of them primary."""
    names = [f"claim {i}" for i in range(len(means))]
    return [
        claim(m + SPREAD, primary=i == 0, name=names[i], after=names[i - 1] if i else "")
        for i, m in enumerate(means)
    ]


def words(claims):
    return [row.verdict for row in judge(claims)]


def test_a_sequence_is_judged_at_the_whole_level_until_it_ends():
    assert words(chain(2, 0.65, -2)) == ["supported", "supported", "refuted"]
    rows = judge(chain(2, 0, 2, 0, -2))
    assert [r.verdict for r in rows] == ["supported", *["inconclusive"] * 4]
    assert rows[1].reasons == ()
    assert rows[2].reasons[0].startswith("the sequence ended at 'claim 1': the interval alone says")
    assert rows[3].reasons == ("the sequence ended at 'claim 1'",)
    assert "'claim 1'" in rows[4].reasons[0]
    assert rows[2].mean == pytest.approx(2)
    assert rows[2].low > 1  # what it would have said is still shown
    assert all(row.p_holm is None for row in rows)


def test_an_invalid_claim_ends_the_sequence():
    claims = chain(2, 2, 2)
    claims[1] = claim(2 + SPREAD[:3], primary=False, name="claim 1", after="claim 0")
    rows = judge(claims)
    assert [r.verdict for r in rows] == ["supported", "invalid", "inconclusive"]
    assert "ended at 'claim 1'" in rows[2].reasons[0]
    claims[0] = claim(SPREAD, name="claim 0")
    assert words(claims) == ["inconclusive", "invalid", "inconclusive"]


def test_the_order_in_which_a_sequence_is_listed_does_not_matter():
    claims = chain(2, 0.65, 0, 2)
    assert words(claims[::-1]) == words(claims)[::-1]


def test_claims_of_a_sequence_are_in_no_family():
    lone = claim(0.65 + SPREAD, primary=False, name="lone")
    assert words([*chain(2, 2, 2), lone])[-1] == "supported"  # a family of one
    pair = [claim(0.65 + SPREAD, primary=False, name=f"pair {i}") for i in range(2)]
    assert words([*chain(2, 2), *pair])[2:] == ["inconclusive"] * 2


def test_sequences_that_are_none_are_named():
    second = {"primary": False, "name": "second"}
    with pytest.raises(ValueError, match=r"'second' comes after 'man'.*Did you mean 'main'\?"):
        judge([claim(SPREAD), claim(SPREAD, after="man", **second)])
    with pytest.raises(ValueError, match="second, third all come after 'main'"):
        judge(
            [
                claim(SPREAD),
                claim(SPREAD, after="main", **second),
                claim(SPREAD, after="main", primary=False, name="third"),
            ]
        )
    with pytest.raises(ValueError, match="second, third are in no sequence that starts at the"):
        judge(
            [
                claim(SPREAD),
                claim(SPREAD, after="third", **second),
                claim(SPREAD, after="second", primary=False, name="third"),
            ]
        )
    with pytest.raises(ValueError, match="second are in no sequence"):
        judge([claim(SPREAD), claim(SPREAD, after="second", **second)])
    with pytest.raises(ValueError, match="the primary claim starts the sequence"):
        claim(SPREAD, after="second")
    shown = claim(SPREAD, "demonstration", primary=False, name="shown")
    with pytest.raises(ValueError, match="'shown', which is no claim that can be decided"):
        judge([claim(SPREAD), shown, claim(SPREAD, after="shown", **second)])
    for place in ({"primary": True}, {"after": "main", "primary": False}):
        with pytest.raises(ValueError, match="gives no verdict"):
            claim(SPREAD, "demonstration", **place)


def test_equal_bits_are_true_or_false():
    def identical(values, **more):
        got = judge([claim(values, "identical", primary=False, **more)])[0]
        assert math.isnan(got.low)
        assert math.isnan(got.p)
        json.dumps(got.to_dict(), allow_nan=False)
        return got

    assert identical([0.0, 0.0]).verdict == "true"  # two seeds are enough: nothing is estimated
    differs = identical([0.0, 1e-300, 0.0])
    assert differs.verdict == "false"
    assert differs.reasons == ("runs differ at seed 1",)
    assert identical([0.0, math.nan]).verdict == "invalid"
    assert identical([]).verdict == "invalid"
    assert identical([0.0], preconditions=[("all train", False, "")]).verdict == "invalid"


def test_demonstrations_are_shown_or_not_and_leave_the_family_alone():
    shown = [
        claim(mean + SPREAD, "demonstration", primary=False, name=f"shown {mean}")
        for mean in (2, 0, -2)
    ]
    assert words(shown) == ["shown", "not shown", "not shown"]  # no primary is needed
    lone = claim(0.65 + SPREAD, primary=False, name="lone")
    rows = judge([claim(SPREAD), *shown, lone])
    assert rows[-1].verdict == "supported"
    assert all(row.p_holm is None for row in rows[:-1])
    assert words([claim([5.0] * 8, "demonstration", primary=False)]) == ["not shown"]
    few = claim((2 + SPREAD)[: MIN_SEEDS - 1], "demonstration", primary=False)
    assert words([few]) == ["invalid"]
    with pytest.raises(ValueError, match="exactly one primary claim, got 0"):
        judge([*shown, lone])
