"""The page of all results: complete, escaped, deterministic, and honest about what is missing."""

import base64
import gzip
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from bnstudy import report
from bnstudy.stats import Claim, judge

SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><rect/></svg>'
STUDY = {
    "name": "batch_size",
    "title": "Error against batch size",
    "claim": "BN degrades at batch 2 & GN does not <script>alert(1)</script>",
    "source": "Wu & He 2018, figure 1",
    "rule": "equal epochs, lr proportional to batch",
    "cost": "4 minutes on 2 cores",
    "expected": "BN's curve crosses GN's on contrast digits",
    "notes": ["contrast digits were chosen because pilots on plain digits showed no effect"],
    "scale": "quick",
    "seeds": [0, 1, 2, 3, 4],
    "n_runs": 100,
    "command": "bnstudy study batch_size scale=quick",
    "caption": "Mean over 5 paired seeds",
    "created_with": {"torch": "2.11"},
    "published": {"difference in differences": "+11.1 pp"},
}


def verdicts(mean=9.0):
    values = {seed: mean + 0.5 * (seed - 3) for seed in range(7)}
    return judge(
        [
            Claim("did", "BN loses more than GN", "greater", values, primary=True,
                  published="+11.1 pp (ImageNet)", published_effect=11.1),
            Claim("gn", "GN is flat", "equivalent", {**values, 7: float("nan")}, 1.0),
            Claim("weak", "PreciseBN helps", "greater", {s: s - 3.0 for s in range(7)},
                  published_effect=0.5),
        ]
    )  # fmt: skip


def put(folder, claims=None, figure=SVG, **changes):
    folder.mkdir(parents=True)
    (folder / "study.json").write_text(json.dumps({**STUDY, **changes}))
    rows = [v.to_dict() for v in (verdicts() if claims is None else claims)]
    (folder / "claims.json").write_text(json.dumps(rows))
    (folder / "table.csv").write_text("norm.name,test_error\nbatch,0.25\n<b>,0.5\n")
    (folder / "figure.svg").write_bytes(figure)


class Page(HTMLParser):
    """Tags, attributes and text of a page, and whether its tags match."""

    VOID = ("meta", "img", "br", "link", "hr")

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open, self.links = [], [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def page(tmp_path):
    put(tmp_path / "batch_size" / "quick-ab12")
    return Page(report.render(report.collect(tmp_path)))


def test_the_page_shows_all_that_a_study_states(page):
    for key in ("title", "claim", "source", "rule", "cost", "expected", "command", "caption"):
        assert STUDY[key] in page.text, key
    for part in (*STUDY["notes"], "0, 1, 2, 3, 4", "torch: 2.11", "+11.1 pp", "batch_size, scale"):
        assert part in page.text, part


def test_the_page_shows_all_that_a_verdict_states(page):
    assert "Came out supported as expected" in page.text
    # 7 seeds, 128 sign flips: 2.5 % are 3.2, and the third smallest mean of a subset of
    # 7.5, 8, ..., 10.5 is 8: 7.5 alone and 7.5 with 8 have smaller ones
    assert "+9.00 pp [+8.00, +10.0] 95 % 7" in page.text
    assert "11.1 pp +11.1 pp (ImageNet)" in page.text
    assert "greater than 0 pp" in page.text
    assert "lost cell: no finite value for seed 7" in page.text
    assert page.text.count("underpowered") >= 2  # the tag and the reason
    assert "inconclusive expected supported" in page.text


def standing(tmp_path, status, reason, **study):
    folder = tmp_path / "a"
    told = {"status": status, "status_reason": reason}
    put(folder, [], **told, **study)
    rows = [{**v.to_dict(), **told} for v in verdicts()]
    (folder / "claims.json").write_text(json.dumps(rows))
    return Page(report.render(report.collect(tmp_path))).text


def test_every_verdict_says_whether_it_is_confirmatory(tmp_path):
    reason = "the claims were changed after 24 of 200 runs were there"
    text = standing(tmp_path, "exploratory", reason, registered="registered at commit abc")
    assert f"Verdicts are exploratory: {reason}" in text
    assert "Registration registered at commit abc" in text
    assert "Came out supported exploratory" in text
    # in the head, the list of studies, at "came out", in its sentence, and beside all three claims
    assert text.lower().count("exploratory") == 7


def test_the_looks_that_were_taken_are_told(tmp_path):
    taken = [{"look": i, "seeds": n, "level": 0.0226, "primary": "inconclusive"}
             for i, n in enumerate((8, 24), 1)]  # fmt: skip
    looks = {"of": 3, "taken": taken, "level": 0.0226, "stopped": "the next look lacks runs"}
    text = standing(tmp_path, "confirmatory", "all records follow", looks=looks)
    assert "Looks 8 seeds at level 0.02: inconclusive; 24 seeds" in text
    assert "(2 of 3; the next look lacks runs)" in text


def test_the_coverage_of_intervals_stands_below_the_claims(tmp_path):
    text = standing(tmp_path, "confirmatory", "why", coverage="24 seeds cover 94 %.")
    assert text.index("Detectable:") < text.index("24 seeds cover 94 %.") < text.index("Notes")


def test_details_are_folded_below_the_headline(tmp_path):
    put(tmp_path / "a")
    html = report.render(report.collect(tmp_path))
    assert "<details>" not in html
    details = SVG.replace(b"rect", b"circle")
    (tmp_path / "a" / "details.svg").write_bytes(details)
    html = report.render(report.collect(tmp_path))
    page = Page(html)
    headline, folded = [link for link in page.links if link.startswith("data:image/svg+xml")]
    assert base64.b64decode(folded.split(",")[1]) == details
    start = html.index("<details>")
    assert html.index(headline) < start < html.index(folded) < html.index("</details>")
    assert not page.open
    assert "not complete" not in page.text


@pytest.mark.parametrize("word", ["true", "false", "shown", "not shown"])
def test_words_that_are_no_verdicts_are_shown_as_they_are(tmp_path, word):
    put(tmp_path / "a")
    claims = json.loads((tmp_path / "a" / "claims.json").read_text())
    claims[1]["verdict"] = word
    (tmp_path / "a" / "claims.json").write_text(json.dumps(claims))
    html = report.render(report.collect(tmp_path))
    assert f'<span class="verdict {word.replace(" ", "-")}">{word}</span>' in html


def test_an_outcome_against_expectation_is_said(tmp_path):
    put(tmp_path / "a", verdicts(-9.0))
    text = Page(report.render(report.collect(tmp_path))).text
    assert "Came out refuted not as expected (supported)" in text


def test_the_page_is_self_contained_and_escaped(page):
    assert not page.open
    assert "script" not in page.tags
    assert {link.split(":")[0][0] for link in page.links} == {"#", "d"}  # anchors and data only
    figure = next(link for link in page.links if link.startswith("data:image/svg+xml"))
    assert base64.b64decode(figure.split(",")[1]) == SVG
    table = next(link for link in page.links if link.startswith("data:application/gzip"))
    assert gzip.decompress(base64.b64decode(table.split(",")[1])).decode().endswith("<b>,0.5\n")
    assert "(2 rows)" in page.text


def test_every_anchor_has_its_place(tmp_path):
    put(tmp_path / "a")
    put(tmp_path / "b", name="normalization_batch")
    html = report.render(report.collect(tmp_path))
    ids = re.findall(r'id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)


def test_several_scales_of_a_study_stand_under_one_heading(tmp_path):
    for scale in ("full", "smoke", "quick"):
        put(tmp_path / scale, scale=scale)
    html = report.render(report.collect(tmp_path))
    assert html.count("<h2>") == 1
    assert re.findall(r"batch_size, scale (\w+)", html) == ["smoke", "quick", "full"]


def test_same_folders_same_bytes(tmp_path):
    for name in ("b", "a"):
        for scale in ("smoke", "quick"):
            put(tmp_path / name / scale, name=name, scale=scale)
    results = report.collect(tmp_path)
    assert report.render(results) == report.render(results[::-1])
    assert str(tmp_path) not in report.render(results)


@pytest.mark.parametrize("root", [".", "absent"])
def test_without_results_the_page_says_how_to_get_some(tmp_path, root):
    page = Page(report.render(report.collect(tmp_path / root)))
    assert "No study has results yet" in page.text
    assert "bnstudy study batch_size" in page.text


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("study.json", "{", "study.json is damaged"),
        ("study.json", "[]", "expected a JSON dict"),
        ("study.json", "{}", None),
        ("claims.json", "null", "expected a JSON list"),
        ("claims.json", None, "claims.json is absent"),
        ("claims.json", '[{"name": "half", "primary": true}]', None),
        ("claims.json", "[]", None),
        ("table.csv", None, "table.csv is absent"),
        ("figure.svg", None, "no figure.svg or figure.png"),
    ],
)
def test_a_damaged_result_is_named_and_hides_nothing_else(tmp_path, name, content, said):
    put(tmp_path / "good", title="The good one")
    put(tmp_path / "hurt")
    (tmp_path / "hurt" / name).unlink()
    if content is not None:
        (tmp_path / "hurt" / name).write_text(content)
    page = Page(report.render(report.collect(tmp_path)))
    assert "The good one" in page.text
    assert not page.open
    assert said is None or said in page.text
    assert ("not complete" in page.text) == (said is not None)


def test_a_verdict_that_does_not_exist_is_not_shown_as_a_finding(tmp_path):
    put(tmp_path / "a")
    claims = json.loads((tmp_path / "a" / "claims.json").read_text())
    claims[0]["verdict"] = '"><i>proven'
    (tmp_path / "a" / "claims.json").write_text(json.dumps(claims))
    page = Page(report.render(report.collect(tmp_path)))
    assert "i" not in page.tags
    assert "Came out invalid" in page.text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (11.1, "11.1"), (0.0, "0.00"), (-1.234, "\N{MINUS SIGN}1.23"), (0.0123, "0.01"),
        (123.4, "123"), (1e-9, "1.00e\N{MINUS SIGN}09"), (None, "–"), (True, "–"),
        (float("nan"), "–"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits(value, shown):
    assert report.number(value) == shown


def test_the_report_opens_without_the_deep_learning_stack():
    heavy = "('torch', 'wandb', 'pandas', 'matplotlib')"
    code = f"import sys, bnstudy.report; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "[]"
