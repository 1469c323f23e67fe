"""Figures are tested by the data on their artists and by their bytes, not by their pixels."""

import itertools
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb

sys.path.insert(0, str(Path(__file__).parent))
from gallery import cited, details, dot, headline, norm, points, runs

from bnstudy import figures
from bnstudy.errors import UserError
from bnstudy.figures import MODES, STYLES, Band, Curve, Panel, draw, hue, ramp, style_of


@pytest.fixture(autouse=True)
def nothing_global():
    before = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == before


def axes(*panels: Panel, **kwargs):
    return draw(panels, **kwargs).axes


def panel(*curves, **more) -> Panel:
    return Panel("title", curves, "batch size", **more)


def lines(ax, color: str):
    """The curves of this color, in the coordinates of the data; no dots and crosses."""
    own = [line for line in ax.lines if line.get_transform() == ax.transData]
    return [line for line in own if to_hex(line.get_color()) == color.lower()
            and line.get_marker() not in (".", "x")]  # fmt: skip


# --- styles --------------------------------------------------------------------------------------


def test_every_normalization_has_its_own_color_and_marker():
    assert len({entry.color for entry in STYLES.values()}) == len(STYLES)
    assert len({entry.marker for entry in STYLES.values()}) == len(STYLES)
    assert not {e.marker for e in STYLES.values()} & set(figures.style._SPARE_MARKERS)
    assert len({str(mode.linestyle) for mode in MODES.values()}) == len(MODES)


def test_a_name_of_ones_own_looks_the_same_wherever_it_comes():
    assert style_of("my.norms:Power") == style_of("my.norms:Power")
    assert style_of("my.norms:Power").label == "my.norms:Power"


# linear RGB as seen without one kind of cone: Machado, Oliveira & Fernandes 2009, severity 1
SIGHT = {
    "all": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                [0.0193339, 0.1191920, 0.9503041]])  # fmt: skip


def lab(color: str, sight: str = "all") -> np.ndarray:
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(SIGHT[sight]) @ linear, 0, 1)
    ratio = XYZ @ seen / [0.95047, 1, 1.08883]
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distance(first: str, second: str, sight: str = "all") -> float:
    return float(np.linalg.norm(lab(first, sight) - lab(second, sight)))


@pytest.mark.parametrize("sight", SIGHT)
def test_colors_of_other_things_are_distinct_for_all_eyes(sight):
    own = {hue(i).color for i in range(42)}
    assert min(distance(a, b, sight) for a, b in itertools.combinations(own, 2)) > 20


def test_colors_and_markers_of_norms_are_for_norms_only():
    others = [*map(hue, range(42)), *ramp(7)]
    for other, own in itertools.product(others, STYLES.values()):
        assert other.marker != own.marker
        assert distance(other.color, own.color) > (20 if other in others[:42] else 10)
    assert len({(style.color, style.marker) for style in others[:42]}) == 42


def test_a_ramp_is_ordered_in_grey_and_seen_on_white():
    light = [lab(style.color)[0] for style in ramp(6)]
    assert all(np.diff(light) < -4)
    assert light[0] < 65
    assert ramp(1)[0].color == ramp(6)[-1].color


@pytest.mark.parametrize("color", [s.color for s in [*STYLES.values(), *map(hue, range(6)),
                                                     *ramp(6)]])  # fmt: skip
def test_names_are_legible_in_the_color_of_their_curve(color):
    luminance = ((lab(figures.axes.ink(color))[0] + 16) / 116) ** 3
    assert 1.05 / (luminance + 0.05) >= 4.45


# --- curves --------------------------------------------------------------------------------------


def test_artists_carry_means_intervals_and_seeds():
    own = norm("batch", [30, 20, 15, 14], dots=True)
    (ax,) = axes(panel(own))
    (line,) = lines(ax, STYLES["batch"].color)
    np.testing.assert_allclose(line.get_xdata(), [2, 4, 8, 16])
    np.testing.assert_allclose(line.get_ydata(), [30, 20, 15, 14])
    (bars,) = [c for c in ax.collections if len(c.get_segments()) == 4]
    np.testing.assert_allclose([s[:, 1] for s in bars.get_segments()],
                               [[m - 1, m + 1] for m in (30, 20, 15, 14)])  # fmt: skip
    (dots,) = [line for line in ax.lines if line.get_marker() == "."]
    np.testing.assert_allclose(dots.get_ydata(), own.runs["value"])
    near = np.log2(dots.get_xdata() / own.runs["x"])
    assert 0 < np.abs(near).max() < 0.5  # nearer to its own x than to the next


def test_every_curve_has_the_style_of_its_norm_and_mode():
    curves = [norm("batch", [3, 2, 1, 1], mode=mode) for mode in MODES]
    (ax,) = axes(panel(*curves))
    drawn = lines(ax, STYLES["batch"].color)
    assert len({str(line._dash_pattern) for line in drawn}) == len(MODES)
    assert {line.get_marker() for line in drawn} == {STYLES["batch"].marker}
    looks = {(line.get_fillstyle(), str(line.get_markerfacecolor())) for line in drawn}
    assert len(looks) == len(MODES)


def test_curves_step_aside_and_nearest_to_their_own_place():
    (ax,) = axes(panel(*(norm(n, [3, 2, 1, 1]) for n in ("batch", "group", "layer"))))
    xs = np.array([lines(ax, STYLES[n].color)[0].get_xdata() for n in ("batch", "group", "layer")])
    assert all(len(set(column)) == 3 for column in xs.T)
    np.testing.assert_allclose(xs[1], [2, 4, 8, 16])
    assert np.abs(np.log2(xs / [2, 4, 8, 16])).max() < 0.3


def test_missing_points_are_gaps_and_diverged_ones_are_crossed_out():
    own = points([30, np.nan, 15, 14], diverged=[2, 0, 0, 0])
    (ax,) = axes(panel(Curve("a", own, style_of("batch"))))
    assert np.isnan(lines(ax, STYLES["batch"].color)[0].get_ydata()[1])
    (crosses,) = [line for line in ax.lines if line.get_marker() == "x"]
    assert list(crosses.get_ydata()) == [30]


def test_ticks_are_the_values_that_occur_in_plain_numbers():
    (ax,) = axes(panel(norm("batch", [3, 2, 1, 1])))
    assert ax.get_xscale() == "log"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["2", "4", "8", "16"]
    words = ["noise", "blur", "jpeg"]
    (ax,) = axes(panel(norm("batch", [3, 2, 1], words), x="names"))
    assert [t.get_text() for t in ax.get_xticklabels()] == words
    (ax,) = axes(panel(norm("batch", [3, 2], [100, 101]), x="log10"))
    assert len(ax.get_xticklabels()) == 2


def test_ticks_that_would_run_into_each_other_are_left_out():
    xs = [1000 + 10 * i for i in range(8)]
    panels = [panel(norm("batch", range(8), xs), x="linear")] * 3
    for ax in axes(*panels):
        boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
        assert len(boxes) < 8
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


def test_words_that_would_run_into_each_other_stand_in_two_lines():
    words = ["astronauts", "chelsea the cat", "cup of coffee", "red flower"]
    panels = [panel(norm("batch", range(4), words), x="names")] * 3
    for ax in axes(*panels):
        labels = ax.get_xticklabels()
        assert [label.get_text().strip() for label in labels] == words
        for line in (False, True):
            own = [label for label in labels if label.get_text().startswith("\n") == line]
            boxes = [label.get_window_extent() for label in own]
            assert len(boxes) > 0
            assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


def test_of_many_points_intervals_are_an_area():
    xs = list(range(1, 41))
    (ax,) = axes(panel(norm("batch", [1.0] * 40, xs), x="linear"))
    assert [type(c).__name__ for c in ax.collections] == ["FillBetweenPolyCollection"]


# --- the rules -----------------------------------------------------------------------------------


def test_axes_begin_at_zero_and_nothing_leaves_what_is_possible():
    low, high = points([0.5, 1, 1, 1], half=3), points([99.5, 98, 98, 98], half=3)
    curves = [Curve(n, p, style_of(n)) for n, p in (("batch", low), ("group", high))]
    (ax,) = axes(panel(*curves, ceiling=100.0))
    assert ax.get_ylim() == (0, 100)
    for bars in ax.collections:
        for segment in bars.get_segments():
            assert segment[:, 1].min() >= 0
            assert segment[:, 1].max() <= 100
    own = replace(dot("a", 0.5, 0), runs=None)
    (ax,) = axes(Panel("t", [own], kind="dots", ylabel="error"))
    assert ax.get_xlim()[0] == 0


@pytest.mark.parametrize("value", [-1.0, 101.0])
def test_a_mean_or_a_run_that_is_impossible_is_refused(value):
    with pytest.raises(ValueError, match="outside of 0 to 100"):
        draw([panel(norm("batch", [value, 1, 1, 1]), ceiling=100.0)])
    own = Curve("a", points([1], [2]), hue(0), runs=runs([value], [2]))
    with pytest.raises(ValueError, match="outside of 0 to 100"):
        draw([panel(own, ceiling=100.0)])


def test_differences_have_a_line_at_zero_and_room_on_both_sides():
    (ax,) = axes(panel(norm("batch", [5, 4, 3, 2]), zero=True))
    assert any(list(line.get_ydata()) == [0, 0] for line in ax.lines)
    assert ax.get_ylim()[0] < 0
    (ax,) = axes(panel(norm("batch", [-5, 4, 3, 2]), zero=True))
    assert ax.get_ylim()[0] < -5


def test_a_log_axis_is_around_the_means_with_round_ticks():
    own = points([0.05, 0.2, 0.5, 1.0]).assign(low=1e-9)
    (ax,) = axes(panel(Curve("a", own, hue(0)), y="log10"))
    assert 0.001 < ax.get_ylim()[0] < 0.05
    assert {"0.1", "1"} <= {t.get_text() for t in ax.get_yticklabels()}


def test_others_numbers_are_hollow_dashed_without_bars_and_say_so():
    (ax,) = axes(panel(cited("batch", [34.7, 24.8], [2, 4], style_of("batch"))))
    (line,) = lines(ax, STYLES["batch"].color)
    assert line.get_markerfacecolor() == "white"
    assert line.is_dashed()
    assert line.get_linestyle() == "--"
    assert not ax.collections
    assert [t.get_text() for t in ax.texts if t.get_text()] == ["batch\n(published)"]


def test_bands_and_thresholds_have_their_labels():
    for kind, own in (("curves", norm("batch", [1, 2, 1, 1])), ("dots", dot("a", 1, 0))):
        (ax,) = axes(Panel("t", [own], kind=kind, zero=True,
                           bands=[Band(-1, 1, "margin"), Band(3, 3, "threshold")]))  # fmt: skip
        assert {"margin", "threshold"} <= {t.get_text() for t in ax.texts}
        limits = ax.get_ylim() if kind == "curves" else ax.get_xlim()
        assert limits[0] < -1
        assert limits[1] > 3


def test_a_dots_row_is_named_with_its_estimate_and_has_its_interval():
    (ax,) = axes(headline()[2])
    told = [t.get_text().replace("\n", " ") for t in ax.texts]
    assert "ResNet: +5.1 [4.1, 6.1]" in told
    assert "ImageNet (published): +11.1" in told
    ends = [line.get_xdata() for line in lines(ax, hue(0).color) if len(line.get_xdata()) == 2]
    np.testing.assert_allclose(ends, [[4.1, 6.1]])


def test_verdicts_are_below_titles_and_the_heading_above():
    figure = draw(headline(), heading="primary", verdicts={"more": "supported", "other": "no"})
    assert figure.get_suptitle() == "primary"
    first, *others = figure.axes
    assert "supported" in [t.get_text() for t in first.texts]
    assert not [t for ax in others for t in ax.texts if t.get_text() in ("supported", "no")]


def boxes_of(figure):
    figure.draw_without_rendering()
    for ax in figure.axes:
        yield ax, [t.get_window_extent() for t in [*ax.texts, ax.title] if t.get_text()]


@pytest.mark.parametrize("look", figures.LOOKS)
@pytest.mark.parametrize("panels", [headline, details])
def test_no_text_is_cut_off_or_over_another(look, panels):
    figure = draw(panels(), look, "a heading " * 12)
    for ax, boxes in boxes_of(figure):
        for box in boxes:
            assert box.x0 >= -1, ax.get_title("left")
            assert box.x1 <= figure.bbox.width + 1, ax.get_title("left")
        for a, b in itertools.combinations(boxes, 2):
            wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert wide <= 1 or high <= 2


def test_names_stand_in_the_order_of_their_curves():
    curves = [norm(n, [9, 9, 9, end]) for n, end in (("batch", 5), ("group", 5.1), ("layer", 5.2))]
    (ax,) = axes(panel(*curves))
    where = {t.get_text(): t.get_position()[1] for t in ax.texts if t.get_text()}
    assert where["batch"] < where["group"] < where["layer"]


def test_names_that_do_not_fit_are_a_legend_that_hides_nothing():
    many = [Curve(f"number {i}", points([i, i, i, i]), hue(i)) for i in range(24)]
    figure = draw([panel(*many, ceiling=100.0)])
    (ax,) = figure.axes
    assert [t.get_text() for t in ax.get_legend().get_texts()][::23] == ["number 23", "number 0"]
    figure.draw_without_rendering()
    inside = ax.get_legend().get_window_extent(), ax.get_window_extent()
    assert inside[0].y1 <= inside[1].y0 + 1  # below
    assert inside[1].height > 100  # the panel has kept its height


# --- looks and files -----------------------------------------------------------------------------


def test_looks_have_the_width_and_type_of_their_place():
    three = [headline()[0]] * 3
    widths = {name: draw(three, name).get_size_inches()[0] for name in figures.LOOKS}
    assert widths == {"column": 3.25, "page": 8.5, "slide": 12.5}
    sizes = {name: draw(three, name).axes[0].xaxis.label.get_fontsize() for name in figures.LOOKS}
    assert sizes == {"column": 8, "page": 9, "slide": 14}
    assert len({ax.get_subplotspec().colspan.start for ax in draw(three, "column").axes}) == 1
    assert draw(three[:1]).get_size_inches()[0] < 5


def write(folder):
    return {path.suffix: path.read_bytes() for path in figures.save(draw(headline()), folder)}


def test_same_panels_same_bytes(tmp_path):
    first = write(tmp_path / "a")
    assert set(first) == {".svg", ".pdf", ".png"}
    assert first[".svg"].startswith(b"<?xml")
    assert write(tmp_path / "b") == first


def test_another_process_writes_the_same_bytes_without_torch_or_pyplot(tmp_path):
    first = write(tmp_path / "a")
    code = (
        "import sys, pathlib; sys.path.insert(0, 'tests/figures');"
        "from test_figures import write\nwrite(pathlib.Path(sys.argv[1]))\n"
        "print([m for m in sys.modules if m in ('torch', 'wandb', 'matplotlib.pyplot')])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "d")],
        check=True, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "7"},
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert out.stdout.strip() == "[]"
    for suffix, data in first.items():
        assert (tmp_path / "d" / f"figure{suffix}").read_bytes() == data
        assert not any(word in data for word in (b"CreationDate", b"dc:date"))


def test_fonts_are_embedded_in_pdfs_as_truetype():
    pdf = figures.content(draw([headline()[0]]), "pdf")
    assert b"/Subtype /Type0" in pdf
    assert b"/FontFile2" in pdf  # TrueType, embedded
    assert b"/Subtype /Type3" not in pdf


@pytest.mark.parametrize("name", ["my$norm", "$\\frac{1}$", "a_b^c", "<&>\"'--", "50 % #1 {x}"])
def test_special_characters_are_written_as_they_are(name):
    own = Panel(name, [norm("batch", [3, 2, 1, 1], label=name)], name, name, claim="c",
                bands=[Band(1, 2, name)])  # fmt: skip
    figure = draw([own], heading=name, verdicts={"c": name})
    for kind in ("svg", "pdf", "png"):
        assert figures.content(figure, kind)
    assert not any(t.get_parse_math() for t in figure.findobj(matplotlib.text.Text) if t.get_text())


# --- as data and in words ------------------------------------------------------------------------


def test_points_are_what_was_given():
    panels = [*headline(), *details()]
    found = figures.points(panels)
    assert list(found) == ["panel", "curve", "mode", "source", "x", "mean", "low", "high", "n"]
    for own in panels:
        for curve in own.curves:
            rows = found[(found["panel"] == own.title) & (found["curve"] == curve.label)]
            for column in ("x", "mean", "low", "high", "n"):
                assert [*rows[column].fillna(-1)] == [*curve.points[column].fillna(-1)]
            assert set(rows["source"]) == {curve.source}
            assert set(rows["mode"]) == {curve.mode}


def test_alternative_text_tells_every_curve_in_words_and_numbers():
    panels = [*headline(), *details()]
    text = figures.alt(panels)
    for own in panels:
        assert own.title in text
        for curve in own.curves:
            assert curve.label in text
    assert "contrast digits, ResNet: test error (%) against batch size. batch: 30.0 [29.0, 31.0] "\
        "at 2" in text  # fmt: skip
    assert "PreciseBN: 16.0" in text
    assert "batch (published): 34.7 at 2" in text
    assert "ResNet: +5.1 [4.1, 6.1]" in text
    assert not re.search(r"\bnan\b|\binf\b", text)
    assert text.count(" at ") < 60  # of long curves only ends and extremes


def test_intervals_in_words_do_not_leave_what_is_possible():
    own = panel(Curve("a", points([0.5], [2], half=3), hue(0)))
    assert "[0.0, 3.5]" in figures.alt([own])


def test_a_caption_says_what_a_reader_must_know():
    text = figures.caption(5, "95 % Student-t", "equal epochs", "bnstudy study batch_size")
    assert text == (
        "Mean over 5 paired seeds; bars: 95 % Student-t interval. Compared at equal epochs. "
        "Made by: bnstudy study batch_size"
    )
    assert "Crossed out" in figures.caption(5, "95 % t", "r", "c", diverged=True)
    assert figures.caption((5, 3), "95 % t", "r", "c").startswith("Mean over 3 to 5 paired seeds")


def test_mistakes_are_named():
    own = norm("batch", [3, 2, 1, 1])
    with pytest.raises(ValueError, match="'title', curve 'batch': its points have no column low"):
        draw([panel(replace(own, points=own.points.drop(columns="low")))])
    with pytest.raises(ValueError, match="above zero on a log2 axis"):
        draw([panel(norm("batch", [1, 2], [0, 2]))])
    with pytest.raises(ValueError, match="a dot is one point, and it has 4"):
        draw([panel(own, kind="dots")])
    with pytest.raises(UserError, match=r"unknown look 'slides'\. Did you mean 'slide'"):
        draw([panel(own)], "slides")
    with pytest.raises(ValueError, match="needs a panel"):
        draw([])
    assert isinstance(figures.points([]), pd.DataFrame)


def test_an_interval_is_not_broken_between_lines():
    text = figures.lines.folded("a name of some length: +1.2 [0.1, 2.3]", 90, 9)
    assert "[0.1, 2.3]" in text.splitlines()
    assert "\n" not in figures.lines.folded("[1.25, 2.75]", 1, 9)
    assert figures.lines.folded("a (95 %), b", 1, 9).splitlines() == ["a", "(95 %),", "b"]


def test_in_a_scatter_every_run_is_a_marker_at_its_own_x_and_no_line_joins_them():
    points = pd.DataFrame({"x": [0.11, 0.3, 0.9], "mean": [1.0, 3.0, 2.0], "low": np.nan,
                           "high": np.nan})  # fmt: skip
    own = Curve("runs", points, hue(0))
    other = Curve("others", points.assign(mean=0.5), hue(1))
    (ax,) = axes(Panel("scatter", [own, other], kind="scatter", x="log10"))
    drawn = [line for line in ax.lines if len(line.get_xdata()) == 3]
    assert [line.get_linestyle() for line in drawn] == ["None", "None"]
    for line in drawn:
        np.testing.assert_allclose(line.get_xdata(), points["x"])
    assert list(ax.get_xticks()) == [0.2, 0.5] or len(ax.get_xticks()) > 2
