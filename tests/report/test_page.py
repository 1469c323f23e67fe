"""The page of all results: complete, escaped, deterministic, and honest about what is missing."""

import csv
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from types import SimpleNamespace
from urllib.parse import unquote_to_bytes

import pytest

from bnstudy import report
from tests.support.result_folders import STUDY, SVG, png, put, svg, verdicts


class Page(HTMLParser):
    """Tags, attributes and text of a page, and whether its tags match."""

    VOID = ("meta", "img", "br", "link", "hr")

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open, self.links, self.names = [], [], [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        self.names += [value for name, value in attrs if name == "alt"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def shown(place, **given):
    return Page(report.render(report.collect(place), **given))


def held(page, kind):
    """The data that the page's addresses of this kind hold."""
    found = [link for link in page.links if link.startswith(f"data:{kind}")]
    return [unquote_to_bytes(link.partition(",")[2]) for link in found]


@pytest.fixture
def page(tmp_path):
    put(tmp_path / "batch_size" / "quick-ab12")
    return shown(tmp_path)


def test_the_page_shows_all_that_a_study_states(page):
    for key in ("title", "claim", "rule", "cost", "expected", "command", "caption"):
        assert STUDY[key] in page.text, key
    for part in (*STUDY["notes"], "5 (0 to 4)", "torch: 2.11", "+11.1 pp", ", figure 1"):
        assert part in page.text, part
    assert "digits, 800 training examples (lenet); <b>, 800 training examples (mlp)" in page.text
    assert STUDY["alt"]["figure"] in page.names


def test_the_verdict_line_says_what_was_measured_and_published(page):
    # 7 seeds, 128 sign flips: 2.5 % are 3.2, and the third smallest mean of a subset of
    # 7.5, 8, ..., 10.5 is 8: 7.5 alone and 7.5 with 8 have smaller ones
    line = re.search(r"supported measured \+9\.0 pp \[8\.0, 10\.0\] .*? as expected", page.text)
    assert line
    for part in ("95 % interval, n = 7", "reported: +11.1 pp (ImageNet)",
                 "Wu & He 2018 , table 2", "confirmatory all records follow"):  # fmt: skip
        assert part in line[0], part


def test_the_table_of_claims_shows_all_that_a_verdict_states(page):
    claims = page.text.partition("Claims Claim Verdict")[2]
    assert "primary greater than 0 supported +9.0 pp [8.0, 10.0] 95 %" in claims
    assert "lost cell: no finite value for seed 7" in claims
    assert claims.count("underpowered") >= 2  # the tag and the reason
    assert "inconclusive expected supported +0.0 pp [−2.0, 2.0]" in claims
    assert "within ±1.0" in claims


def test_sources_lead_to_their_papers_and_nowhere_else(tmp_path):
    put(tmp_path / "a", papers={"Wu & He 2018": "https://arxiv.org/abs/1803.08494",
                                "table": "javascript:alert(1)"})  # fmt: skip
    links = shown(tmp_path).links
    assert "https://arxiv.org/abs/1803.08494" in links
    assert not [link for link in links if link.startswith("javascript")]


def test_every_verdict_says_whether_it_is_confirmatory(tmp_path):
    reason = "the claims were changed after 24 of 200 runs were there"
    put(tmp_path / "a", status="exploratory", status_reason=reason, registered="at commit abc")
    text = shown(tmp_path).text
    assert f"Exploratory: {reason}" in text
    assert "Registration at commit abc" in text
    assert "supported exploratory BN loses more than GN" in text  # in the forest plot
    assert f"exploratory {reason}, as expected" in text  # in the verdict line


def test_a_result_without_registration_is_no_confirmatory_one(tmp_path):
    put(tmp_path / "a", status="", status_reason="")
    text = shown(tmp_path).text
    assert "supported no registration BN loses more than GN" in text
    assert "Exploratory: the result states no registration" in text


def test_the_looks_that_were_taken_are_told(tmp_path):
    taken = [{"look": i, "seeds": n, "level": 0.0226, "primary": "inconclusive"}
             for i, n in enumerate((8, 24), 1)]  # fmt: skip
    looks = {"of": 3, "taken": taken, "level": 0.0226, "stopped": "the next look lacks runs"}
    put(tmp_path / "a", looks=looks)
    text = shown(tmp_path).text
    assert "Looks 8 seeds at level 0.0226: inconclusive; 24 seeds" in text
    assert "(2 of 3; the next look lacks runs)" in text


def test_tuning_is_told_from_its_file(tmp_path):
    put(tmp_path / "a")
    assert "no tuning.json" in shown(tmp_path).text
    how = {"axes": {"optimizer.lr": [0.1, 0.2]}, "per": ["norm"], "seeds": "0..2"}
    tuning = {"choices": [{"edge": True}, {"edge": False}], "command": "bnstudy tune", "tune": how}
    (tmp_path / "a" / "tuning.json").write_text(json.dumps(tuning))
    text = shown(tmp_path).text
    assert "optimizer.lr from 0.1, 0.2, chosen by validation error on pilot seeds 0..2" in text
    assert "2 choices, 1 at the edge" in text


def test_limits_name_coverage_and_failures(tmp_path):
    put(tmp_path / "a", coverage="24 seeds cover 94 %.", failed_runs=["batch: 2 of 5 runs"])
    text = shown(tmp_path).text
    assert "Failed runs batch: 2 of 5 runs" in text
    limits = text.partition("Limits")[2]
    assert "24 seeds cover 94 %." in limits
    assert "is of other data and another network" in limits
    assert "1 of 3 claims is underpowered" in limits


def test_details_are_folded_below_the_headline(tmp_path):
    put(tmp_path / "a")
    details = SVG.replace(b"L 3 4", b"L 5 6")
    (tmp_path / "a" / "details.svg").write_bytes(details)
    html = report.render(report.collect(tmp_path))
    assert held(Page(html), "image/svg+xml") == [SVG, details]
    first, folded = (found.start() for found in re.finditer("<img ", html))
    assert first < html.index("<details>") < folded < html.index("</details>")


@pytest.mark.parametrize("word", ["true", "false", "shown", "not shown"])
def test_words_that_are_no_verdicts_are_shown_as_they_are(tmp_path, word):
    put(tmp_path / "a")
    claims = json.loads((tmp_path / "a" / "claims.json").read_text())
    claims[1]["verdict"] = word
    (tmp_path / "a" / "claims.json").write_text(json.dumps(claims))
    html = report.render(report.collect(tmp_path))
    assert f'<span class="verdict fill-{word.replace(" ", "-")}">{word}</span>' in html
    assert "Of all claims 1 supported, 1 inconclusive." in Page(html).text


def test_an_outcome_against_expectation_is_said(tmp_path):
    put(tmp_path / "a", verdicts(-9.0))
    assert "not as expected (supported)" in shown(tmp_path).text


def test_the_page_is_self_contained_and_escaped(page):
    assert not page.open
    assert "script" not in page.tags
    assert {link.split(":")[0] for link in page.links if link[0] != "#"} == {"data", "https"}
    assert {tag for tag in page.tags if tag in ("iframe", "object", "svg")} == set()
    assert held(page, "image/svg+xml") == [SVG]


def test_what_is_drawn_and_claimed_can_be_saved(page):
    points, claims = held(page, "text/csv")
    assert points.decode() == "figure,x,mean\nheadline,2,20.5\n<b>,16,15\n"
    rows = list(csv.DictReader(claims.decode().splitlines()))
    assert [row["id"] for row in rows] == [f"batch_size.{n}" for n in ("did", "gn", "weak")]
    assert float(rows[0]["mean"]) == 9.0
    assert rows[0]["published"] == "+11.1 pp (ImageNet)"


@pytest.mark.parametrize(
    ("place", "link"), [(".", "a/b%20c/table.csv"), ("a/b c", "table.csv"), ("other", None)]
)
def test_raw_runs_are_linked_where_they_lie_below_the_page(tmp_path, place, link):
    put(tmp_path / "a" / "b c")
    found = shown(tmp_path, folder=tmp_path / place)
    assert "table.csv" in found.text
    assert "(1 kB)" in found.text
    assert [x for x in found.links if x.endswith("table.csv")] == ([link] if link else [])
    assert link or "table.csv in a/b c" in found.text


def test_old_results_lack_files_and_say_so(tmp_path):
    put(tmp_path / "a", group=None, papers=None, alt=None)
    (tmp_path / "a" / "points.csv").unlink()
    found = shown(tmp_path)
    for part in ("Other", "No points.csv", "(no link is stated)"):
        assert part in found.text, part
    assert "no alternative text" in found.names[0]
    assert "not complete" not in found.text


def test_sections_follow_the_questions(tmp_path):
    for group in ("benefits", "statistics", None, "of my own", "batches"):
        put(tmp_path / str(group), name=f"s_{group}", group=group)
    html = report.render(report.collect(tmp_path))
    headings = re.findall(r"<h2[^>]*>([^<]*)", html)
    assert headings == ["Batch size", "Training and evaluation statistics", "Benefits and cost",
                        "Of my own", "Other"]  # fmt: skip


def test_every_anchor_has_its_place(tmp_path):
    put(tmp_path / "a")
    put(tmp_path / "b", name="normalization_batch")
    html = report.render(report.collect(tmp_path))
    ids = re.findall(r'id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)
    assert {"batch_size", "normalization_batch", "batch_size.did"} <= set(ids)


def test_the_largest_scale_stands_for_a_study(tmp_path):
    for scale in ("full", "smoke", "quick"):
        put(tmp_path / scale, scale=scale)
    html = report.render(report.collect(tmp_path))
    ids = re.findall(r'<article id="([^"]+)"', html)
    assert ids == ["batch_size", "batch_size/smoke", "batch_size/quick"]
    assert "full" in html[html.index('<article id="batch_size"') :].partition("</article>")[0]
    assert len(re.findall('class="mark-supported"', html)) == 1  # one row in the forest plot
    assert "Of all claims 1 supported" in Page(html).text


def test_a_folder_of_its_own_name_stands_before_others(tmp_path):
    put(tmp_path / "batch_size", scale="quick")
    put(tmp_path / "batch_size-photos", scale="full")
    ids = re.findall(r'<article id="([^"]+)"', report.render(report.collect(tmp_path)))
    assert ids == ["batch_size", "batch_size/batch_size-photos"]


def test_records_are_not_searched_for_results(tmp_path):
    put(tmp_path / "sync")
    put(tmp_path / "runs" / "studies" / "sync" / "quick-1")
    assert [result.folder for result in report.collect(tmp_path)] == ["sync"]


def test_same_folders_same_bytes(tmp_path):
    for name in ("b", "a"):
        for scale in ("smoke", "quick"):
            put(tmp_path / name / scale, name=name, scale=scale)
    results = report.collect(tmp_path)
    page = report.render(results, folder=tmp_path)
    assert page == report.render(results[::-1], folder=tmp_path)
    assert str(tmp_path) not in page


@pytest.mark.parametrize("root", [".", "absent"])
def test_without_results_the_page_says_how_to_get_some(tmp_path, root):
    page = shown(tmp_path / root)
    assert "No study has results yet" in page.text
    assert "bnstudy study batch_size" in page.text


def test_advice_stands_first_and_leads_to_its_claim(tmp_path):
    put(tmp_path / "a")
    line = {"text": "use <GN>", "evidence": "n = 7", "limits": "maps", "study": "batch_size"}
    lines = [SimpleNamespace(**line, claim=claim) for claim in ("did", "Another: one")]
    page = shown(tmp_path, advice=lines)
    assert page.text.index("maps: use <GN> n = 7 maps: use <GN> n = 7 Primary claims:")
    assert "#batch_size.did" in page.links
    assert "#batch_size.another-one" not in page.links  # there is no such claim here


def test_advice_leads_to_another_result_of_its_study(tmp_path):
    put(tmp_path / "batch_size")
    other = verdicts()[0].to_dict()
    put(tmp_path / "batch_size-other")
    path = tmp_path / "batch_size-other" / "claims.json"
    path.write_text(json.dumps([{**other, "name": "elsewhere"}, {**other, "name": "did"}]))
    line = {"text": "use GN", "evidence": "n = 7", "limits": "maps", "study": "batch_size"}
    lines = [SimpleNamespace(**line, claim=claim) for claim in ("elsewhere", "did")]
    html = report.render(report.collect(tmp_path), advice=lines)
    advice = re.findall(r'href="#([^"]*)">n = 7<', html)
    # of a claim that two results have, that of the result that stands for the study
    assert advice == ["batch_size/batch_size-other.elsewhere", "batch_size.did"]
    assert f'id="{advice[0]}"' in html


def test_commands_in_text_are_set_as_code(tmp_path):
    command = "bnstudy study x"
    caption = f"Mean over 5. Made by: {command} Intervals of claims: exact."
    put(tmp_path / "a", command=command, caption=caption, expected="`a <b>` and c",
        power={"found": "12 seeds (`bnstudy power x`)"})  # fmt: skip
    html = report.render(report.collect(tmp_path))
    assert "Made by <code>bnstudy study x</code>. Intervals of claims: exact." in html
    assert "<code>a &lt;b&gt;</code> and c" in html
    assert "12 seeds (<code>bnstudy power x</code>)" in html


def test_a_page_without_advice_says_why(tmp_path):
    put(tmp_path / "a")
    assert "No confirmatory verdict says yet what to use instead." in shown(tmp_path).text
    assert "x cannot be read" in shown(tmp_path, unadvised="x cannot be read").text


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("study.json", "{", "study.json is damaged"),
        ("study.json", "[]", "expected a JSON dict"),
        ("study.json", "{}", None),
        ("claims.json", "null", "expected a JSON list"),
        ("claims.json", None, "claims.json is absent"),
        ("claims.json", '[{"name": "half", "primary": true}]', None),
        ("claims.json", '[{"mean": "x", "low": [], "published": {"a": 1}, "primary": 1}]', None),
        ("claims.json", '[1, {"name": "b"}]', "an entry is not a JSON object"),
        ("claims.json", '[{"name": "a b"}, {"name": "A: B"}]', "'a b' and 'A: B'"),
        ("claims.json", "[]", None),
        ("table.csv", None, "table.csv is absent"),
        ("tuning.json", "[", "tuning.json is damaged"),
        ("tuning.json", '{"choices": [1], "tune": {"axes": 3}}', None),
        ("points.csv", None, None),
        ("figure.svg", None, "no figure.svg or figure.png"),
        ("figure.svg", "not a drawing", "figure.svg or figure.png is damaged"),
        ("figure.png", "not a drawing", "figure.svg or figure.png is damaged"),
        ("details.png", "not a drawing", "details.svg or details.png is damaged"),
    ],
)
def test_a_damaged_result_is_named_and_hides_nothing_else(tmp_path, name, content, said):
    put(tmp_path / "good", title="The good one")
    put(tmp_path / "hurt")
    (tmp_path / "hurt" / name).unlink(missing_ok=True)
    if content is not None:
        (tmp_path / "hurt" / name).write_text(content)
    page = shown(tmp_path)
    assert "The good one" in page.text
    assert not page.open
    assert said is None or said in page.text
    assert ("not complete" in page.text) == (said is not None)


def test_a_truncated_picture_is_damage(tmp_path):
    put(tmp_path / "a")
    (tmp_path / "a" / "figure.svg").unlink()
    (tmp_path / "a" / "figure.png").write_bytes(png(300, 200)[:2000])
    assert "figure.png is damaged" in shown(tmp_path).text


def test_a_verdict_that_does_not_exist_is_not_shown_as_a_finding(tmp_path):
    put(tmp_path / "a")
    claims = json.loads((tmp_path / "a" / "claims.json").read_text())
    claims[0]["verdict"] = '"><b>proven'
    (tmp_path / "a" / "claims.json").write_text(json.dumps(claims))
    page = shown(tmp_path)
    assert "b" not in page.tags
    assert "invalid measured +9.0 pp" in page.text


def test_sixteen_studies_stay_under_three_megabytes(tmp_path):
    """Figures as large as they come, 1,700 px wide, and SVG with thousands of marks; of four."""
    for i in range(4):
        put(tmp_path / str(i), name=f"s{i}", figure=svg(5_000))
        (tmp_path / str(i) / "figure.png").write_bytes(png(1700, 640))
        (tmp_path / str(i) / "details.png").write_bytes(png(1700, 2000))
    assert len(report.render(report.collect(tmp_path))) < 3e6 / 4


def test_the_report_opens_without_the_deep_learning_stack():
    heavy = "('torch', 'wandb', 'pandas', 'matplotlib')"
    code = f"import sys, bnstudy.report; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "[]"
