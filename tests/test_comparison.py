"""The comparison's numbers by hand, and its printed forms."""

import io
import math

import pandas as pd
import pytest
from rich.console import Console

from bnstudy.comparison import compare, plus_minus, to_csv, to_markdown, to_rich
from bnstudy.errors import UserError
from bnstudy.stats import t_interval


@pytest.fixture
def table():
    values = {  # seeds 0, 1, 2
        ("batch", 2): (0.30, 0.34, 0.32),
        ("group", 2): (0.11, 0.15, 0.12),
        ("batch", 32): (0.10, 0.12, 0.11),
        ("group", 32): (0.12, 0.12, 0.15),
    }
    return pd.DataFrame(
        [
            {
                "norm.name": norm,
                "train.batch_size": size,
                "seed": seed,
                "test_error": error,
                "test_loss": 3 * error,
                "wall_seconds": 2.0 + seed,
                "diverged_at": 7.0 if (norm, size, seed) == ("batch", 2, 1) else math.nan,
            }
            for (norm, size), errors in values.items()
            for seed, error in enumerate(errors)
        ]
    ).sample(frac=1, random_state=0)  # pairing must not rest on the order of rows


AXES = {"norm.name": ["batch", "group"], "train.batch_size": [2, 32]}


def cell(frame, **where):
    row = frame
    for name, value in where.items():
        row = row[row[name.replace("__", ".")] == value]
    return row.squeeze()


def test_means_and_differences_are_students_on_paired_seeds(table):
    got = compare(table, AXES)
    assert list(got["norm.name"]) == ["batch", "batch", "group", "group"]
    row = cell(got, norm__name="group", train__batch_size=2)
    assert tuple(row[["mean", "low", "high"]]) == pytest.approx(t_interval([0.11, 0.15, 0.12]))
    gap = t_interval([0.11 - 0.30, 0.15 - 0.34, 0.12 - 0.32])
    assert tuple(row[["difference", "difference_low", "difference_high"]]) == pytest.approx(gap)
    assert row["pairs"] == 3
    assert row["wall_seconds"] == 3.0
    reference = cell(got, norm__name="batch", train__batch_size=2)
    assert math.isnan(reference["difference"])
    assert reference["diverged"] == 1


def test_the_first_arm_named_is_the_reference(table):
    swapped = compare(table, {**AXES, "norm.name": ["group", "batch"]})
    there = cell(swapped, norm__name="batch", train__batch_size=2)["difference"]
    back = cell(compare(table, AXES), norm__name="group", train__batch_size=2)["difference"]
    assert there == pytest.approx(-back)


def test_any_column_is_an_axis(table):
    got = compare(table, ["train.batch_size", "norm.name"], metric="test_loss")
    assert list(got.columns[:3]) == ["train.batch_size", "norm.name", "metric"]
    row = cell(got, train__batch_size=32, norm__name="batch")
    assert abs(row["mean"]) == pytest.approx(0.33)


def test_a_cell_without_runs_and_a_lost_seed_are_shown(table):
    axes = {**AXES, "norm.name": ["batch", "group", "layer"]}
    short = table[~((table["norm.name"] == "group") & (table["seed"] == 2))]
    lacking = table[~((table["norm.name"] == "batch") & (table["seed"] == 2))]
    row = cell(compare(lacking, axes), norm__name="group", train__batch_size=2)
    assert (row["n"], row["pairs"]) == (3, 2)
    assert row["difference"] == pytest.approx(-0.19)
    got = compare(short, axes)
    assert cell(got, norm__name="layer", train__batch_size=2)["n"] == 0
    assert cell(got, norm__name="group", train__batch_size=2)["pairs"] == 2
    text = to_markdown(got)
    assert "| layer | — | — | — | — | — | — |" in text
    assert "over 0 to 3 seeds" in text
    assert "— means no run" in text


def test_markdown_is_what_a_paper_would_show(table):
    lines = to_markdown(compare(table, AXES)).splitlines()
    assert lines[0] == (
        "| norm | batch_size=2 | vs batch | time | batch_size=32 | vs batch | time |"
    )
    # half width of 30, 34, 32: t(0.975, 2) * 2 / sqrt(3) = 4.97; of 11, 15, 12: 5.17
    assert lines[2].startswith("| batch | 32.0 ± 5.0 (1 of 3 diverged) | reference | 3 s |")
    # the differences -19, -19, -20 have mean -19.33, half width 1.43
    assert lines[3].startswith("| group | 12.7 ± 5.2 | -19.3 ± 1.4 | 3 s |")
    assert lines[-1].startswith("test_error (%): mean ± half width of the 95 % Student-t interval")
    assert "over 3 seeds" in lines[-1]


def test_failed_runs_are_counted_where_the_number_of_classes_is_known(table):
    rows = table.assign(num_classes=10, train_error=0.1)
    # group at 2 did not learn with two of its seeds, and batch's diverged run counts, too
    bad = (rows["norm.name"] == "group") & (rows["train.batch_size"] == 2) & (rows["seed"] > 0)
    rows["train_error"] = rows["train_error"].mask(bad, 0.5)
    got = compare(rows, AXES)
    assert list(got["failed"]) == [1, 0, 2, 0]
    text = to_markdown(got)
    assert "(1 of 3 failed, 1 diverged)" in text
    assert "(2 of 3 failed)" in text
    assert compare(table, AXES)["failed"].isna().all()


def test_the_terminal_shows_the_same_cells(table):
    out = io.StringIO()
    Console(file=out, width=200).print(to_rich(compare(table, AXES)))
    assert "-19.3 ± 1.4" in out.getvalue()
    assert "(1 of 3 diverged)" in out.getvalue()


def test_csv_holds_the_unscaled_numbers(table):
    got = compare(table, AXES)
    back = pd.read_csv(io.StringIO(to_csv(got)))
    pd.testing.assert_frame_equal(back, got, check_dtype=False)


def test_one_axis_and_one_seed(table):
    one = table[(table["seed"] == 0) & (table["train.batch_size"] == 2)]
    text = to_markdown(compare(one, {"norm.name": ["batch", "group"]}))
    assert "| group | 11 | -19 | 2 s |" in text
    assert "a single run has no interval" in text


@pytest.mark.parametrize(
    ("interval", "shown"),
    [
        ((12.346, 12.006, 12.686), "12.35 ± 0.34"),
        ((12.345, 7.0, 17.7), "12.3 ± 5.3"),
        ((89.0, 50.0, 128.0), "89 ± 39"),
        ((3.0, 3.0, 3.0), "3.0 ± 0.0"),
        ((0.0, 0.0, 0.0), "0.0 ± 0.0"),
        ((0.5, 0.49999, 0.50001), "0.500 ± 0.000"),
        ((math.nan, 0.0, 1.0), "—"),
    ],
)
def test_digits_follow_the_interval(interval, shown):
    assert plus_minus(*interval) == shown


def test_mistakes_are_one_message(table):
    with pytest.raises(UserError, match=r"unknown metric 'test_eror'. Did you mean 'test_error'\?"):
        compare(table, AXES, metric="test_eror")
    with pytest.raises(UserError, match="unknown axis 'norm'"):
        compare(table, ["norm"])
    with pytest.raises(UserError, match="at least one axis"):
        compare(table, [])
    with pytest.raises(UserError, match=r"train\.batch_size\. Name it as a further axis"):
        compare(table, ["norm.name"])
