"""Addresses, pictures, the forest plot and the words of the page."""

import base64
import io

import pytest
from PIL import Image, ImageColor

from bnstudy.errors import UserError
from bnstudy.report import forest, ids, pictures, words
from tests.support.result_folders import COLORS, SVG, png, svg


def claim(mean, low, high, **changes):
    return {"mean": mean, "low": low, "high": high, "unit": "pp", "kind": "greater",
            "threshold": 0.0, "verdict": "supported", **changes}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("contrast_digits resnet: BN loses more", "contrast-digits-resnet-bn-loses-more"),
        ("settled at 1/2", "settled-at-1-2"),
        ("γ = 0.1", "γ-0-1"),
    ],
)
def test_an_address_follows_from_the_name(name, slug):
    assert ids.slug(name) == slug
    assert ids.claim_id("sync", name) == f"sync.{slug}"


def test_two_claims_with_one_address_are_named():
    assert ids.claim_ids("s", ["a", "b"]) == {"a": "s.a", "b": "s.b"}
    with pytest.raises(UserError, match="'BN: at 2' and 'bn at 2'"):
        ids.claim_ids("s", ["BN: at 2", "other", "bn at 2"])


def test_the_smaller_encoding_of_a_figure_is_taken(tmp_path):
    (tmp_path / "figure.svg").write_bytes(SVG)
    (tmp_path / "figure.png").write_bytes(png(1700, 640))
    found = pictures.picture(tmp_path, "figure")
    assert found.uri.startswith("data:image/svg+xml")
    assert (found.width, found.height) == (708, 278)  # 510 pt, 100 px to the inch
    (tmp_path / "figure.svg").write_bytes(svg(5_000))
    found = pictures.picture(tmp_path, "figure")
    assert found.uri.startswith("data:image/webp")
    assert (found.width, found.height) == (850, 320)
    assert pictures.picture(tmp_path, "details") is None


def test_figures_of_any_width_have_text_of_one_size(tmp_path):
    """An inch of a figure is 100 px of the page, up to the page's width."""
    for width, shown in ((1332, 666), (879, 440), (1700, 850), (3400, 850)):
        Image.open(io.BytesIO(png(width, 400))).save(tmp_path / "figure.png", dpi=(200, 200))
        found = pictures.picture(tmp_path, "figure")
        assert (found.width, found.height) == (shown, round(shown * 400 / width))
    Image.open(io.BytesIO(png(800, 400))).save(tmp_path / "figure.png", dpi=(100, 100))
    assert pictures.picture(tmp_path, "figure").width == 800


@pytest.mark.parametrize(
    ("stem", "size", "away"), [("figure", (1700, 640), 14), ("details", (1275, 480), 32)]
)
def test_a_picture_keeps_its_colors_and_is_no_sharper_than_screens(tmp_path, stem, size, away):
    (tmp_path / f"{stem}.png").write_bytes(png(3400, 1280))
    uri = pictures.picture(tmp_path, stem).uri
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
    assert image.size == size
    for i, color in enumerate(COLORS):
        found = image.getpixel((int(size[0] * (i + 0.5) / 14), 3))
        assert max(abs(a - b) for a, b in zip(found, ImageColor.getrgb(color), strict=True)) <= away


def test_the_forest_plot_has_a_strip_for_each_unit_and_one_scale_in_it():
    claims = [("a", claim(5.0, 2.0, 8.0, published_effect=11.0)), ("b", claim(-1.0, -2.0, 0.0)),
              ("c", claim(0.1, 0.05, 0.15, unit="bits"))]  # fmt: skip
    points, bits = forest.strips(claims)
    assert (points.unit, bits.unit) == ("percentage points", "bits")
    (first, top), (_, low) = points.rows
    assert first == "a"  # the largest on top
    per_unit = (top.published - top.mean) / 6.0
    assert top.mean - points.zero == pytest.approx(5.0 * per_unit)
    assert top.interval == pytest.approx((points.zero + 2.0 * per_unit, 6.0 * per_unit))
    assert low.mean == pytest.approx(points.zero - per_unit)
    assert low.published is None
    for place, label in points.ticks:
        number = float(label.replace("\N{MINUS SIGN}", "-"))
        assert place == pytest.approx(points.zero + number * per_unit)
    everything = [p for row in (top, low) for p in (row.mean, row.interval[0], row.published or 0)]
    assert all(0 <= p <= 100 for p in everything)


def test_margins_are_drawn_as_claimed():
    strip = forest.strips(
        [("e", claim(0.5, 0.2, 0.8, kind="equivalent", threshold=1.0)),
         ("g", claim(5.0, 2.0, 8.0, threshold=2.0)), ("z", claim(4.0, 2.0, 8.0))]
    )[0]  # fmt: skip
    rows = dict(strip.rows)
    unit = rows["g"].margin[1] / 2.0
    assert rows["g"].margin[0] == pytest.approx(strip.zero)
    assert rows["e"].margin == pytest.approx((strip.zero - unit, 2 * unit))
    assert rows["z"].margin is None


def test_a_claim_without_numbers_has_a_row_without_marks():
    row = forest.strips([("a", {"unit": "pp"}), ("b", claim(None, None, float("nan")))])[0].rows
    assert [(r.mean, r.interval, r.published) for _, r in row] == [(None, None, None)] * 2


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (-1.2, 12.3, [0, 5, 10]), (0, 0.12, [0, 0.05, 0.1])],
)
def test_ticks_are_round_and_few(low, high, ticks):
    assert forest.nice(low, high) == pytest.approx(ticks)


@pytest.mark.parametrize("size", [10.0**k * d for k in range(-6, 5) for d in (1, 1.9, 4.9, 9.9)])
def test_every_axis_has_two_ticks_or_more(size):
    assert 2 <= len(forest.nice(-0.03 * size, 1.03 * size)) <= 6


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (claim(0.0049, 0.0031, 0.0067), "+0.0049 pp [0.0031, 0.0067]"),
        (claim(64.4, 63.0, 65.8), "+64.4 pp [63.0, 65.8]"),
        (claim(None, None, None), "–"),
        (claim(True, float("inf"), "x"), "–"),
        ({}, "–"),
    ],
)
def test_an_estimate_has_the_decimals_of_its_interval(given, said):
    assert words.measured(given) == said


def test_numbers_beside_an_interval_have_its_decimals():
    pp, given = "\N{NO-BREAK SPACE}pp", claim(5.125, 2.44, 7.85)
    assert words.beside(6.3187, given) == f"6.3{pp}"
    assert words.threshold({**given, "threshold": 2.0}) == f"greater than 2.0{pp}"
    # a threshold is what was registered: never rounded
    assert words.threshold({**given, "threshold": 0.125}) == f"greater than 0.125{pp}"
    assert words.threshold(given) == "greater than 0"
    assert words.threshold({**given, "kind": "identical"}) == "equal to the bit"
    assert words.threshold({"kind": "equivalent"}) == ""


def test_only_known_papers_of_the_web_are_linked():
    papers = {"Wu 2018": "https://a", "Wu 2018b": "https://b", "no": "javascript://x"}
    assert words.linked("Wu 2018b and Wu 2018, no", papers) == [
        ("Wu 2018b", "https://b"), (" and ", ""), ("Wu 2018", "https://a"), (", no", "")
    ]  # fmt: skip
    assert words.linked("text", None) == [("text", "")]


@pytest.mark.parametrize(
    ("given", "said"),
    [([3, 4, 5], "3 (3 to 5)"), ([0, 2], "2 (0, 2)"), ([], ""), (["a", 1, 2], "3 (a, 1, 2)")],
)  # fmt: skip
def test_seeds_are_counted(given, said):
    assert words.seeds({"seeds": given}) == said
