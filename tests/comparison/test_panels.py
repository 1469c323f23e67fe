"""What a figure of a comparison shows."""

import math

import pytest

from bnstudy import figures
from bnstudy.comparison import compare
from bnstudy.comparison.panels import panels


def points(panel, label):
    (curve,) = (c for c in panel.curves if c.label == label)
    return curve.points.set_index("x")


def test_with_one_axis_arms_are_dots_in_percent_with_their_seeds(many):
    got = compare(many, {"norm.name": ["batch", "layer", "group"]})
    means, gaps = panels(got, many)
    assert means.kind == gaps.kind == "dots"
    assert [c.label for c in means.curves] == ["batch", "layer", "group"]
    assert [c.label for c in gaps.curves] == ["layer", "group"]
    assert (means.floor, means.ceiling) == (0, 100)
    assert gaps.zero
    row = got.set_index("norm.name").loc["group"]
    assert points(means, "group").loc[0, ["mean", "low", "high"]].tolist() == pytest.approx(
        [100 * row["mean"], 100 * row["low"], 100 * row["high"]]
    )
    own = gaps.curves[1].runs
    assert len(own) == 12
    assert own["value"].mean() == pytest.approx(100 * row["difference"])
    assert gaps.ylabel == "test_error minus batch's (pp)"


def test_another_axis_of_numbers_is_the_x_axis(table, axes):
    means, gaps = panels(compare(table, axes), table)
    assert (means.x, means.xlabel) == ("log2", "batch_size")
    assert points(means, "batch")["mean"].to_dict() == pytest.approx({2: 32, 32: 11})
    assert points(gaps, "group")["mean"].to_dict() == pytest.approx({2: -58 / 3, 32: 2})
    # three seeds: the interval is infinite and not drawn
    assert points(gaps, "group")["low"].isna().all()


def test_words_are_an_axis_of_names_and_further_axes_have_panels(table):
    words = table.assign(**{"data.name": table["train.batch_size"].map({2: "a", 32: "b"})})
    got = compare(words, ["norm.name", "data.name"])
    assert panels(got, words)[0].x == "names"
    both = compare(table.assign(**{"data.name": "digits"}),
                   ["norm.name", "data.name", "train.batch_size"])  # fmt: skip
    found = panels(both, table.assign(**{"data.name": "digits"}))
    assert [p.title for p in found] == ["data=digits", "data=digits"]


def test_norms_have_their_own_styles_and_other_arms_the_palettes(many):
    got = compare(many, {"norm.name": ["batch", "group"]})
    assert [c.style for c in panels(got, many)[0].curves] == [
        figures.style_of("batch"), figures.style_of("group"),
    ]  # fmt: skip
    arms = many.rename(columns={"norm.name": "arms"})
    other = panels(compare(arms, {"arms": ["batch", "group"]}), arms)[0]
    assert [c.style for c in other.curves] == [figures.hue(0), figures.hue(1)]


def test_values_below_zero_have_no_floor(many):
    rows = many.assign(gap_error=many["test_error"] - 0.2)
    means = panels(compare(rows, ["norm.name"], "gap_error"), rows)[0]
    assert means.floor is None


def test_it_can_be_drawn(table, many, axes, tmp_path):
    for name, got, runs in (
        ("dots", compare(many, ["norm.name"]), many),
        ("curves", compare(table, axes), table),
        ("absent", compare(many, {"norm.name": ["batch", "group", "rms"]}), many),
    ):
        figure = figures.draw(panels(got, runs))
        paths = figures.save(figure, tmp_path, name)
        assert all(path.stat().st_size for path in paths)
    assert math.isfinite(figure.get_size_inches()[0])
