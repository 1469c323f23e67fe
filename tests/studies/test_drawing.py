"""Curves of studies are the means, intervals and runs of their tables."""

import numpy as np
import pandas as pd
import pytest

from bnstudy import figures, stats
from bnstudy.studies.drawing import across, cited, course, curve, gap, gaps
from bnstudy.studies.kit import Published

RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(
    [
        {"seed": seed, "b": b, "test_error": 0.1 * b + 0.01 * RNG.random(),
         "loss/01": RNG.random(), "loss/10": RNG.random(), "test_loss": RNG.random(),
         "diverged_at": 3.0 if (seed, b) == (2, 4) else np.nan}
        for b in (4, 2) for seed in range(6)
    ]
)  # fmt: skip
PUBLISHED = Published("digitised", "A 2020", "error in %",
                      {"b": [32, 2, 8], "batch": [0.1, 0.3, float("nan")]})  # fmt: skip


def interval(values):
    return pytest.approx(list(stats.t_interval(np.asarray(values))))


def test_a_curve_is_mean_and_interval_by_x_in_percent_in_order_with_its_runs():
    own = curve(TABLE, "b", "test_error", norm="group")
    assert list(own.points["x"]) == [2, 4]
    for row in own.points.to_dict("records"):
        values = 100 * TABLE[TABLE["b"] == row["x"]]["test_error"]
        assert [row[k] for k in ("mean", "low", "high")] == interval(values)
        assert row["n"] == 6
    assert list(own.points["diverged"]) == [0, 1]
    assert own.style == figures.style_of("group")
    assert own.label == "group"
    assert sorted(own.runs["value"]) == pytest.approx(sorted(100 * TABLE["test_error"]))
    plain = curve(TABLE, "b", "test_loss", style=figures.hue(1), label="l", percent=False)
    assert plain.points["mean"].iloc[0] == pytest.approx(TABLE[TABLE["b"] == 2]["test_loss"].mean())
    assert curve(TABLE, "b", "test_error", norm="batch", dots=False).runs is None
    assert curve(TABLE, "b", "test_error", norm="batch", mode="precise").label == "batch, PreciseBN"


def test_columns_and_checkpoints_are_curves_too():
    rows = TABLE[TABLE["b"] == 2]
    own = across(rows, {5: "test_error", 3: "test_loss", 7: "not there"}, norm="batch")
    assert list(own.points["x"]) == [3, 5]
    assert own.points["mean"].iloc[1] == pytest.approx(100 * rows["test_error"].mean())
    over = course(rows, "loss", norm="batch", percent=False)
    assert list(over.points["x"]) == [1, 10]
    assert over.points["mean"].iloc[1] == pytest.approx(rows["loss/10"].mean())
    assert over.runs is None


def test_the_order_of_rows_does_not_matter_and_words_keep_theirs():
    shuffled = TABLE.sample(frac=1, random_state=3)
    first, second = (curve(rows, "b", "test_error", norm="batch") for rows in (TABLE, shuffled))
    for name in ("points", "runs"):
        frames = [getattr(own, name).reset_index(drop=True) for own in (first, second)]
        pd.testing.assert_frame_equal(*frames)
    columns = {"noise": "test_error", "blur": "test_loss"}
    own = across(shuffled[shuffled["b"] == 2], columns, norm="batch")
    assert list(own.points["x"]) == ["noise", "blur"]


def test_others_numbers_keep_their_kind_and_lose_what_is_unknown():
    own = cited(PUBLISHED, "batch", "b", norm="batch", factor=100)
    assert own.source == "digitised"
    assert own.points[["x", "mean"]].to_numpy().tolist() == [[2, 30], [32, 10]]
    assert own.points[["low", "high"]].isna().all().all()
    assert own.runs is None


def test_a_gap_has_the_interval_of_verdicts():
    values = dict(enumerate(RNG.normal(1, 1, 9)))
    own = gap("a", values)
    (row,) = own.points.to_dict("records")
    expected = list(stats.sign_flip_interval(list(values.values())))
    assert [row[k] for k in ("mean", "low", "high")] == pytest.approx(expected)
    (verdict,) = stats.judge([stats.Claim("a", "a", "greater", values, primary=True)])
    assert (row["low"], row["high"]) == pytest.approx((verdict.low, verdict.high))
    assert list(own.runs["value"]) == list(values.values())
    several = gaps("a", {2: values, 4: {0: 1.0, 1: 2.0}})
    assert list(several.points["x"]) == [2, 4]
    assert several.points["low"].isna().tolist() == [False, True]  # two seeds have no interval
    lost = gap("a", {0: 1.0, 1: float("nan")}).points
    assert np.isnan(lost["mean"]).all()


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"no column test_eror\. Did you mean 'test_error'"):
        curve(TABLE, "b", "test_eror", norm="batch")
    with pytest.raises(ValueError, match=r"no column test_los\. Did you mean 'test_loss'"):
        across(TABLE, {1: "test_los"}, norm="batch")
    with pytest.raises(ValueError, match=r"no column los/01.*Did you mean 'loss'"):
        course(TABLE, "los", norm="batch")
    with pytest.raises(ValueError, match="several runs of one seed"):
        curve(pd.concat([TABLE, TABLE]), "b", "test_error", norm="batch")
    with pytest.raises(ValueError, match="needs a norm or a style"):
        curve(TABLE, "b", "test_error")
