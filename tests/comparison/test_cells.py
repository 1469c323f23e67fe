"""The comparison's numbers by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from bnstudy.comparison import compare, undecided
from bnstudy.errors import UserError
from bnstudy.stats import sign_flip, sign_flip_interval, t_interval


def cell(frame, **where):
    row = frame
    for name, value in where.items():
        row = row[row[name.replace("__", ".")] == value]
    return row.squeeze()


def test_means_are_students_and_differences_those_of_the_sign_flip_test(many):
    got = compare(many, {"norm.name": ["batch", "layer", "group"]})
    own = {n: v.sort_values("seed")["test_error"].to_numpy() for n, v in many.groupby("norm.name")}
    row = cell(got, norm__name="layer")
    assert tuple(row[["mean", "low", "high"]]) == pytest.approx(t_interval(own["layer"]))
    gaps = own["layer"] - own["batch"]
    ends = ["difference", "difference_low", "difference_high"]
    assert tuple(row[ends]) == pytest.approx(sign_flip_interval(gaps))
    assert row["p"] == pytest.approx(2 * min(sign_flip(gaps)))
    assert row["pairs"] == row["n"] == row["runs"] == 12


def test_intervals_of_error_rates_end_at_zero_and_one(table):
    few = table[(table["train.batch_size"] == 2) & (table["seed"] < 2)].copy()
    few.loc[few["norm.name"] == "batch", "test_error"] += 0.6
    got = compare(few, {"norm.name": ["batch", "group"]})
    assert got["high"].tolist()[0] == 1
    assert got["low"].tolist()[1] == 0
    gap = compare(few.assign(ema_gap_error=few["test_error"]), ["norm.name"], "ema_gap_error")
    assert gap["high"].max() > 1


def test_p_is_adjusted_for_all_differences_shown(table, axes):
    """Holm by hand: the smallest p times the number of comparisons, the next times one less."""
    got = compare(table, axes)
    p = got["p"].dropna().to_numpy()
    # differences -19, -19, -20: 2 / 8; +2, 0, +4 percent: a zero ties, 4 / 8
    assert p == pytest.approx([0.25, 0.5])
    assert got["p_holm"].dropna().to_numpy() == pytest.approx([0.5, 0.5])
    # all of one sign at both sizes: 2 / 8 each, so both are doubled
    higher = table["test_error"] + 0.01 * (table["norm.name"] == "group")
    alike = compare(table.assign(test_error=higher), axes).dropna(subset=["p"])
    assert alike["p"].to_numpy() == pytest.approx([0.25, 0.25])
    assert alike["p_holm"].to_numpy() == pytest.approx([0.5, 0.5])
    alone = compare(table[table["train.batch_size"] == 2], {"norm.name": ["batch", "group"]})
    assert alone["p_holm"].dropna().to_numpy() == pytest.approx([0.25])


def test_seeds_too_few_for_the_level_have_no_finite_interval(table, axes):
    got = compare(table, axes).dropna(subset=["difference"])
    assert np.isinf(got["difference_low"]).all()
    assert np.isinf(got["difference_high"]).all()


def test_the_best_is_marked_only_where_it_is_distinguishable_from_every_other_arm(many):
    first = {"norm.name": ["batch", "layer", "group"]}
    assert list(compare(many, first)["best"]) == [False, False, True]
    # layer above group in half of the seeds, below it in the others
    equal = many.copy()
    layer = equal["norm.name"] == "layer"
    equal.loc[layer, "test_error"] += 0.02 * (-1) ** equal["seed"]
    assert equal.groupby("norm.name")["test_error"].mean().idxmin() == "group"
    assert not compare(equal, first)["best"].any()
    # nor is one without a rival that ran, and five seeds reach no level
    assert not compare(many, {"norm.name": ["batch", "rms", "group"]})["best"].any()
    assert not compare(many[many["seed"] < 5], first)["best"].any()


def test_twins_are_never_best(many):
    twin = many[many["norm.name"] == "group"].assign(**{"norm.name": "twin"})
    got = compare(pd.concat([many, twin]), {"norm.name": ["batch", "group", "twin"]})
    assert not got["best"].any()


def test_no_arm_is_best_by_a_metric_without_a_better_end(many):
    got = compare(many.assign(effective_m=many["test_error"]), ["norm.name"], "effective_m")
    assert not got["best"].any()


def test_a_look_has_its_own_level(many):
    got = compare(many, ["norm.name"], alpha=0.01)
    own = {n: v.sort_values("seed")["test_error"].to_numpy() for n, v in many.groupby("norm.name")}
    row = cell(got, norm__name="layer")
    interval = sign_flip_interval(own["layer"] - own["batch"], 0.99)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(interval[1:])
    assert set(got["alpha"]) == {0.01}
    assert undecided(got) == (0, 2)


def test_the_first_arm_named_is_the_reference(table, axes):
    swapped = compare(table, {**axes, "norm.name": ["group", "batch"]})
    there = cell(swapped, norm__name="batch", train__batch_size=2)["difference"]
    back = cell(compare(table, axes), norm__name="group", train__batch_size=2)["difference"]
    assert there == pytest.approx(-back)
    assert math.isnan(cell(swapped, norm__name="group", train__batch_size=2)["difference"])


def test_any_column_is_an_axis(table):
    got = compare(table, ["train.batch_size", "norm.name"], metric="test_loss")
    assert list(got.columns[:3]) == ["train.batch_size", "norm.name", "metric"]
    row = cell(got, train__batch_size=32, norm__name="batch")
    assert row["mean"] == pytest.approx(0.33)


def test_a_lost_seed_is_left_out_of_pairs_and_an_arm_without_runs_keeps_its_row(table, axes):
    lacking = table[~((table["norm.name"] == "batch") & (table["seed"] == 2))]
    row = cell(compare(lacking, axes), norm__name="group", train__batch_size=2)
    assert (row["n"], row["pairs"]) == (3, 2)
    assert row["difference"] == pytest.approx(-0.19)
    got = compare(table, {**axes, "norm.name": ["batch", "group", "layer"]})
    row = cell(got, norm__name="layer", train__batch_size=2)
    assert (row["n"], row["runs"], row["pairs"]) == (0, 0, 0)
    assert math.isnan(row["p_holm"])


def test_a_lost_value_has_no_p(table, axes):
    lost = table.copy()
    where = (lost["norm.name"] == "group") & (lost["seed"] == 0) & (lost["train.batch_size"] == 2)
    lost.loc[where, "test_error"] = math.nan
    row = cell(compare(lost, axes), norm__name="group", train__batch_size=2)
    assert row["n"] == 2
    assert row[["mean", "difference", "p", "p_holm"]].isna().all()


def test_failed_runs_are_counted_where_the_number_of_classes_is_known(table, axes):
    rows = table.assign(num_classes=10, train_error=0.1)
    # group at 2 did not learn with two of its seeds, and batch's diverged run counts, too
    bad = (rows["norm.name"] == "group") & (rows["train.batch_size"] == 2) & (rows["seed"] > 0)
    rows["train_error"] = rows["train_error"].mask(bad, 0.5)
    got = compare(rows, axes)
    assert list(got["failed"]) == [1, 0, 2, 0]
    assert list(got["diverged"]) == [1, 0, 0, 0]
    assert compare(table, axes)["failed"].isna().all()


def test_time_and_versions_are_those_of_the_runs(table, axes):
    mixed = table.assign(torch=["2.14.0"] * 6 + ["2.15.0"] * 6)
    got = compare(mixed, axes)
    assert set(got["wall_seconds"]) == {3.0}
    assert set(got["bnstudy"]) == {"0.1.0"}
    assert "2.14.0, 2.15.0" in set(got["torch"])
    bare = table.drop(columns=["torch", "wall_seconds"])
    assert set(compare(bare, axes)["torch"]) == {""}
    assert compare(bare, axes)["wall_seconds"].isna().all()


def test_mistakes_are_one_message(table, axes):
    with pytest.raises(UserError, match=r"unknown metric 'test_eror'. Did you mean 'test_error'\?"):
        compare(table, axes, metric="test_eror")
    with pytest.raises(UserError, match="unknown axis 'norm'"):
        compare(table, ["norm"])
    with pytest.raises(UserError, match="at least one axis"):
        compare(table, [])
    with pytest.raises(UserError, match=r"train\.batch_size\. Name it as a further axis"):
        compare(table, ["norm.name"])
