"""The page in a real browser: nothing loud, nothing cut off, everything readable."""

import json

import pytest

from bnstudy import report
from tests.support.chromium import WIDTHS, Browser, chromium
from tests.support.result_folders import png, put, verdicts

pytestmark = pytest.mark.skipif(
    chromium() is None, reason="no Chromium here: BNSTUDY_CHROMIUM may name one"
)

OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# text whose box reaches out of the window or of a box that cuts it off; what scrolls may
CUT = """[...document.querySelectorAll('main *')].filter(e => {
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  if (!own || e.closest('thead') && getComputedStyle(e.closest('thead')).position === 'absolute')
    return false;
  const box = e.getBoundingClientRect();
  return box.width && (box.right > innerWidth + 1 || box.left < -1);
}).map(e => e.textContent.trim().slice(0, 60))"""
# cells whose content is wider than they are, or set too small
TIGHT = """[...document.querySelectorAll('td')].filter(e => e.scrollWidth > e.clientWidth + 1
  || e.clientWidth < 20 || parseFloat(getComputedStyle(e).fontSize) < 12)
  .map(e => e.textContent.trim().slice(0, 60))"""
# WCAG 2.1: 4.5 to 1 between text and the first background below it that is not transparent
FAINT = """(() => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const light = text => rgb(text).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = e => { for (; e; e = e.parentElement) {
    const color = getComputedStyle(e).backgroundColor;
    if ((rgb(color)[3] ?? 1) > 0.5) return color; } return 'rgb(255, 255, 255)'; };
  const faint = [];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) faint.push(e.textContent.trim().slice(0, 40) + ' ' + ratio.toFixed(2));
  }
  return faint; })()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Eight studies of all sections and verdicts, with long names, damage and several scales."""
    root = tmp_path_factory.mktemp("results")
    for i, group in enumerate(("batches", "statistics", "recurrent", "pixels", "benefits", None)):
        put(root / str(i), verdicts(9.0 - 4 * i), name=f"study_{i}", group=group,
            status="exploratory" if i % 2 else "confirmatory")  # fmt: skip
        (root / str(i) / "figure.png").write_bytes(png(1700, 640))
        (root / str(i) / "details.png").write_bytes(png(1700, 1200))
    put(root / "a_rather_long_name_of_a_study_of_my_own", name="a_rather_long_name_of_my_own",
        command=f"bnstudy study x data.root=/{'long/' * 40}")  # fmt: skip
    put(root / "again", scale="smoke", name="study_0")
    (root / "again" / "claims.json").write_text("{")
    path = root / "report.html"
    path.write_text(report.render(report.collect(root), folder=root))
    return path


@pytest.fixture(scope="module")
def browser():
    with Browser(chromium()) as found:
        yield found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_whole_on_a_screen(page, browser, width, scheme):
    browser.open(page, width, scheme)
    browser.value("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert browser.value("innerWidth") == width
    assert browser.value(OVERFLOW) == 0
    assert browser.value(CUT) == []
    assert browser.value(TIGHT) == []
    assert browser.value(FAINT) == []
    assert browser.value("document.querySelectorAll('td').length") > 100
    assert browser.value("getComputedStyle(document.body).colorScheme") == "light dark"
    dark = browser.value("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    assert browser.said == []


def test_a_defect_of_each_kind_is_seen(page, browser):
    """Otherwise the test above would pass on scripts that find nothing."""
    broken = page.with_name("broken.html")
    style = "td { font-size: 8px; } .soft { color: #bbb !important; } .claim { min-width: 2000px; }"
    broken.write_text(page.read_text().replace("</style>", f"{style}</style>", 1))
    browser.open(broken)
    for script in (OVERFLOW, CUT, TIGHT, FAINT):
        assert browser.value(script), script
    broken.write_text(
        page.read_text() + "<script>console.log(1)</script><img src=http://x.invalid>"
    )
    browser.open(broken)
    assert browser.said
    browser.said.clear()


def test_every_picture_can_be_decoded_and_stands_on_a_light_card(page, browser):
    browser.open(page, 390, "dark")
    sizes = browser.value("Promise.all([...document.images].map(i => { i.loading = 'eager'; "
                          "return i.decode().then(() => i.naturalWidth); }))")  # fmt: skip
    assert len(sizes) == 14
    assert all(sizes)
    card = browser.value("getComputedStyle(document.images[0]).backgroundColor")
    assert card == "rgb(247, 248, 250)"


@pytest.mark.parametrize("place", ["study_0", "study_3.did", "section-benefits"])
def test_an_address_leads_to_its_place_below_the_contents(page, browser, place):
    for width in WIDTHS:
        browser.open(page, width)
        browser.value(f"location.hash = {json.dumps(place)}")
        top = browser.value(f"document.getElementById({json.dumps(place)})"
                            ".getBoundingClientRect().top")  # fmt: skip
        bar = "document.querySelector('nav').getBoundingClientRect()"
        below = browser.value(f"{bar}.bottom") if width < 600 else 0
        assert below - 1 <= top <= 200
        assert browser.value(f"{bar}.top") == 0  # sticky


def test_paper_keeps_columns_fills_and_details(page, browser):
    browser.open(page, 794, medium="print")
    assert browser.value("getComputedStyle(document.querySelector('thead')).position") == "static"
    assert browser.value("getComputedStyle(document.querySelector('.verdict')).printColorAdjust "
                         "|| getComputedStyle(document.querySelector('.verdict'))"
                         ".webkitPrintColorAdjust") == "exact"  # fmt: skip
    assert browser.value(OVERFLOW) == 0
    assert browser.value("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.value("document.querySelector('details dl').checkVisibility()")
    assert browser.printed().startswith(b"%PDF")
