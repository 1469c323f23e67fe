"""Figures are tested by the data on their artists and by their bytes, not by their pixels."""

import os
import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from bnstudy import figures
from bnstudy.figures import (
    MODES,
    STYLES,
    canvas,
    caption,
    curves,
    legend,
    rc,
    save,
    style_of,
)


@pytest.fixture(autouse=True)
def paper():
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context(rc()):
        yield
    assert dict(matplotlib.rcParams) == before  # nothing global is pinned


def summary(norms=("batch", "group", "none"), sizes=(2, 8, 32)):
    rows = [
        {"norm.name": name, "train.batch_size": b, "mean": 0.1 * i + 0.2 / b + 0.05}
        for i, name in enumerate(norms)
        for b in sizes
    ]
    table = pd.DataFrame(rows)
    return table.assign(low=table["mean"] - 0.01, high=table["mean"] + 0.02)


def draw(table, **kwargs):
    figure, axes = canvas()
    drawn = curves(axes[0, 0], table, "train.batch_size", **kwargs)
    return figure, axes[0, 0], drawn


def test_every_normalization_has_its_own_color_and_marker():
    assert len({entry.color for entry in STYLES.values()}) == len(STYLES)
    assert len({entry.marker for entry in STYLES.values()}) == len(STYLES)
    assert not {e.marker for e in STYLES.values()} & set(figures.style._SPARE_MARKERS)
    assert len({str(mode.linestyle) for mode in MODES.values()}) == len(MODES)


def test_a_name_of_ones_own_looks_the_same_wherever_it_comes():
    assert style_of("my.norms:Power") == style_of("my.norms:Power")
    assert style_of("my.norms:Power").label == "my.norms:Power"


def test_every_curve_gets_the_style_of_its_name_not_only_the_first():
    _, _, drawn = draw(summary())
    for container, name in zip(drawn, ["none", "batch", "group"], strict=True):
        line = container.lines[0]
        assert to_hex(line.get_color()).upper() == STYLES[name].color
        assert line.get_marker() == STYLES[name].marker
        assert container.get_label() == STYLES[name].label


def test_a_style_does_not_depend_on_what_else_is_drawn():
    alone = draw(summary(["group"]))[2][0].lines[0]
    among = draw(summary(["batch", "group", "none"]))[2][2].lines[0]
    assert alone.get_color() == among.get_color()
    assert alone.get_marker() == among.get_marker()


def test_artists_carry_the_tables_means_and_intervals():
    table = summary(["batch"])
    container = draw(table, percent=True)[2][0]
    np.testing.assert_allclose(container.lines[0].get_ydata(), 100 * table["mean"])
    np.testing.assert_allclose(container.lines[0].get_xdata(), [2, 8, 32])
    bars = np.array(container.lines[2][0].get_segments())
    np.testing.assert_allclose(bars[:, 0, 1], 100 * table["low"])
    np.testing.assert_allclose(bars[:, 1, 1], 100 * table["high"])


@pytest.mark.parametrize("log2", [True, False])
def test_curves_step_aside_without_leaving_their_place(log2):
    drawn = draw(summary(), log2=log2)[2]
    xs = np.array([container.lines[0].get_xdata() for container in drawn])
    assert all(len(set(column)) == 3 for column in xs.T)
    np.testing.assert_allclose(xs[1], [2, 8, 32])  # the middle one stays
    assert np.abs(np.log2(xs / [2, 8, 32])).max() < 0.3  # nearer to its own than to any other tick


def test_the_batch_size_axis_has_plain_labels_at_the_values():
    figure, ax, _ = draw(summary())
    curves(ax, summary(["layer"], sizes=(2, 64)), "train.batch_size")
    figure.canvas.draw()
    assert ax.get_xscale() == "log"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["2", "8", "32", "64"]


def test_evaluation_modes_are_line_styles_of_the_same_color():
    parts = [summary(["batch"]).assign(mode=mode) for mode in ("population", "precise", "batch")]
    by_hue = draw(pd.concat(parts), dash="mode")[2]
    by_norm = draw(pd.concat(parts).drop(columns="norm.name"), norm="batch", dash="mode")[2]
    for drawn in (by_hue, by_norm):
        assert {to_hex(c.lines[0].get_color()).upper() for c in drawn} == {STYLES["batch"].color}
        assert len({str(c.lines[0]._dash_pattern) for c in drawn}) == 3
    assert by_norm[1].get_label() == "PreciseBN"


def test_missing_points_are_gaps_and_diverged_ones_are_hollow():
    table = summary(["batch"])
    table.loc[1, ["mean", "low", "high"]] = np.nan
    table.loc[2, ["low", "high"]] = np.nan
    _, ax, drawn = draw(table.assign(diverged=[2, 0, 0]))
    assert np.isnan(drawn[0].lines[0].get_ydata()[1])
    assert len(drawn) == 1
    hollow = [line for line in ax.lines if line.get_markerfacecolor() == "white"]
    assert [list(line.get_xdata()) for line in hollow] == [[2.0]]


def test_one_legend_lists_every_label_once_in_the_fixed_order():
    figure, axes = canvas(2)
    curves(axes[0, 0], summary(["group", "batch"]), "train.batch_size")
    curves(axes[0, 1], summary(["layer", "batch"]), "train.batch_size")
    assert [t.get_text() for t in legend(figure).get_texts()] == ["batch", "group", "layer"]


def write(folder, table):
    figure, ax, _ = draw(table)
    ax.set_title(r"a title with $\gamma$")
    legend(figure)
    return {path.suffix: path.read_bytes() for path in save(figure, folder)}


def test_same_table_same_bytes(tmp_path):
    first = write(tmp_path / "a", summary())
    assert set(first) == {".svg", ".pdf", ".png"}
    assert first[".svg"].startswith(b"<?xml")
    assert write(tmp_path / "b", summary().sample(frac=1, random_state=1)) == first
    assert write(tmp_path / "c", summary(["batch"])) != first


def test_another_process_writes_the_same_bytes_without_torch_or_pyplot(tmp_path):
    first = write(tmp_path / "a", summary())
    code = (
        "import sys, pathlib, matplotlib; sys.path.insert(0, 'tests/figures');"
        "from test_figures import write, summary, rc\n"
        "with matplotlib.rc_context(rc()): write(pathlib.Path(sys.argv[1]), summary())\n"
        "print([m for m in sys.modules if m in ('torch', 'wandb', 'matplotlib.pyplot')])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "d")],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(__file__))),
    )
    assert out.stdout.strip() == "[]"
    for suffix, data in first.items():
        assert (tmp_path / "d" / f"figure{suffix}").read_bytes() == data
        assert not any(word in data for word in (b"CreationDate", b"dc:date"))


def test_a_caption_says_what_a_reader_must_know():
    text = caption(5, "95 % Student-t", "equal epochs", "bnstudy study batch_size")
    assert text == (
        "Mean over 5 paired seeds; bars: 95 % Student-t interval. Compared at equal epochs. "
        "Made by: bnstudy study batch_size"
    )
    assert "Hollow" in caption(5, "95 % t", "r", "c", diverged=True)
    assert caption((5, 3), "95 % t", "r", "c").startswith("Mean over 3 to 5 paired seeds")


def test_mistakes_are_named():
    table = summary(["batch"])
    with pytest.raises(ValueError, match="no column low"):
        draw(table.drop(columns="low"))
    with pytest.raises(ValueError, match="several rows for one point"):
        draw(pd.concat([table, table]))
    with pytest.raises(ValueError, match="above zero on a log axis"):
        draw(table.assign(**{"train.batch_size": 0}).head(1))
    with pytest.raises(ValueError, match=r"unknown evaluation mode best\. Allowed: population"):
        draw(table.assign(mode="best"), dash="mode")
