"""README and docs: their numbers are those of results/, their links lead somewhere."""

import dataclasses
import importlib.util
import io
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from bnstudy.config.compose import hydra_session
from bnstudy.studies import module, planned

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")


@pytest.fixture(scope="module")
def pages():
    """The script that fills the pages, as a module."""
    spec = importlib.util.spec_from_file_location("pages", ROOT / "scripts" / "pages.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["pages"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


CLAIM = {
    "name": "a", "text": "it grows", "primary": True, "kind": "greater", "verdict": "supported",
    "mean": 5.129, "low": 2.4401, "high": 7.8532, "level": 0.95, "unit": "pp", "n": 48,
    "published": "+11.1 pp on ImageNet (published)", "published_effect": 11.1, "reasons": [],
    "source": "Wu & He 2018, table 2", "status": "confirmatory",
}  # fmt: skip


def result(pages, *claims, **study):
    stated = {"name": "batch_size", "scale": "quick", "title": "Error", "source": CLAIM["source"]}
    return pages.Result("batch_size", {**stated, **study}, list(claims or [CLAIM]))


# --- what is committed ---------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_a_page_agrees_with_the_results(pages, page):
    text = (ROOT / page).read_text()
    assert text == pages.filled(text), "run: python scripts/pages.py"


def test_the_headline_draws_the_results(pages):
    """By its numbers: the bytes of an SVG are those of one matplotlib."""
    text = pages.headline_points().to_csv(index=False)
    here = pd.read_csv(io.StringIO(text))
    pd.testing.assert_frame_equal(pd.read_csv(ROOT / "docs/images/headline.csv"), here)
    assert (ROOT / "docs/images/headline.svg").is_file()


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_links_lead_somewhere(page):
    for target, anchor in LINK.findall((ROOT / page).read_text()):
        place = (ROOT / page).parent / target if target else ROOT / page
        assert place.exists(), f"{page}: {target}"
        if anchor and place.suffix == ".md":
            heads = re.findall(r"^#+ (.*)", place.read_text(), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in heads}


def test_the_first_screen_is_short_and_says_what_is_asked():
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= 145
    head = text.splitlines()[:40]
    for word in ("headline.svg", "bash scripts/demo.sh", "bash scripts/test.sh",
                 "results/report.html", "bnstudy advise"):  # fmt: skip
        assert any(word in line for line in head), word


def test_every_source_of_every_study_has_a_row(pages):
    index = (ROOT / "docs" / "papers.md").read_text()
    for found in pages.results():
        for source in str(found.study["source"]).split(";"):
            assert pages.linked(source.strip()) in index


def test_papers_are_linked_as_the_studies_files_say(pages):
    text = (ROOT / "docs" / "papers.md").read_text()
    assert set(re.findall(r"https://arxiv[^)]*", text)) <= set(pages.papers().values())


# --- what the script does ------------------------------------------------------------------------


def test_only_marked_blocks_are_filled(pages, monkeypatch):
    monkeypatch.setitem(pages.BLOCKS, "x", lambda: "new")
    text = "a\n<!-- results: x -->\nold\n<!-- end -->\nb\n"
    filled = pages.filled(text)
    assert filled == "a\n<!-- results: x -->\nnew\n<!-- end -->\nb\n"
    assert pages.filled(filled) == filled
    with pytest.raises(KeyError, match="typo"):
        pages.filled(text.replace("x -->", "typo -->"))


def test_check_names_a_page_that_differs_and_leaves_it(pages, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    monkeypatch.setitem(pages.BLOCKS, "x", lambda: "new")
    page = tmp_path / "README.md"
    page.write_text("<!-- results: x -->\nold\n<!-- end -->\n")
    assert pages.main(check=True) == 1
    assert "README.md" in capsys.readouterr().out
    assert "old" in page.read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "yes"),
        ({"low": -7.0, "high": -2.0}, "no"),
        ({"low": -1.0}, "open: the interval includes zero"),
        ({"low": 0.0}, "open: the interval includes zero"),
        ({"published_effect": -3.0}, "no"),
        ({"published_effect": None}, "\N{EN DASH}"),
        ({"verdict": "invalid"}, "not judged"),
        ({"low": None}, "not judged"),
    ],
)
def test_direction_follows_the_interval(pages, change, said):
    assert pages.direction({**CLAIM, **change}) == said


def test_numbers_have_the_decimals_of_their_interval(pages):
    assert pages.measured(CLAIM) == "+5.1 pp [2.4, 7.9]"
    assert pages.measured({**CLAIM, "level": 0.9}) == "+5.1 pp [2.4, 7.9] (90 %)"
    assert pages.measured({**CLAIM, "kind": "identical", "verdict": "true"}) == "equal to the bit"


def test_results_of_earlier_versions_say_so_and_are_not_on_the_first_screen(pages, monkeypatch):
    earlier = {k: v for k, v in CLAIM.items() if k != "status"}
    old, new = result(pages, earlier), result(pages)
    monkeypatch.setattr(pages, "results", lambda: (old,))
    assert "of an earlier version" in pages.answers()
    assert "of an earlier version" in pages.index()
    assert pages.headline_panels() == []
    assert "1 result is of an earlier version" in pages.counts()
    monkeypatch.setattr(pages, "results", lambda: (new,))
    assert "earlier" not in pages.answers() + pages.counts()


def test_verdicts_are_counted_in_their_order(pages, monkeypatch):
    verdicts = ["inconclusive", "refuted", "refuted", "invalid", "supported"]
    made = tuple(result(pages, {**CLAIM, "verdict": verdict}) for verdict in verdicts)
    monkeypatch.setattr(pages, "results", lambda: made)
    assert "5 (1 supported, 2 refuted, 1 inconclusive, 1 invalid)" in pages.counts()


def test_a_verdict_that_changes_changes_the_pages(pages, monkeypatch):
    monkeypatch.setattr(pages, "results", lambda: (result(pages),))
    before = pages.answers(), pages.counts(), pages.claims_of("batch_size")
    refuted = result(pages, {**CLAIM, "verdict": "refuted"})
    monkeypatch.setattr(pages, "results", lambda: (refuted,))
    after = pages.answers(), pages.counts(), pages.claims_of("batch_size")
    for then, now in zip(before, after, strict=True):
        assert "supported" in then
        assert "supported" not in now
        assert "refuted" in now


def test_each_claim_of_the_articles_has_a_line(pages, monkeypatch):
    said, folder, name = pages.ARTICLES[0]
    own = result(pages, {**CLAIM, "name": name})
    monkeypatch.setattr(pages, "results", lambda: (dataclasses.replace(own, folder=folder),))
    first, *others = pages.articles().splitlines()[2:]
    assert first == f"| {said} | `{folder}` | it grows | +5.1 pp [2.4, 7.9] | supported |"
    assert len(others) == len(pages.ARTICLES) - 1
    assert all(line.endswith("| \N{EN DASH} | \N{EN DASH} | \N{EN DASH} |") for line in others)


def test_the_articles_claims_are_claims_of_studies(pages):
    with hydra_session() as session:
        for _, name, claim in pages.ARTICLES:
            study = session.study(name)
            asked = session.request(["scale=quick"], study=study)
            made = module(study).claims(planned.stand_in(asked.cells, asked.seeds[:2]))
            assert claim in {own.name for own in made}


def test_a_source_shows_its_first_claim_with_a_number(pages, monkeypatch):
    without = {**CLAIM, "text": "no number", "published": "", "published_effect": None}
    other = {**CLAIM, "text": "of another paper", "source": "Ioffe 2017, section 4"}
    monkeypatch.setattr(pages, "results", lambda: (result(pages, without, CLAIM, other),))
    rows = pages.index().splitlines()[2:]
    assert len(rows) == 2
    assert "it grows" in rows[0]
    assert "of another paper" in rows[1]


def test_the_command_is_the_studys_own(pages):
    assert result(pages, command="bnstudy study all scale=quick").command == (
        "bnstudy study batch_size scale=quick"
    )
    own = "bnstudy study batch_size data=cifar10"
    assert result(pages, command=own).command == own


def test_results_are_read_once_and_not_changed(pages):
    assert dataclasses.is_dataclass(pages.Result)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result(pages).folder = "other"


# --- what lies beside the code -------------------------------------------------------------------


def test_the_citation_has_what_its_format_requires():
    stated = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= stated.keys()
    assert stated["cff-version"] == "1.2.0"
    assert all({"name"} <= a.keys() or {"family-names"} <= a.keys() for a in stated["authors"])
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{stated["version"]}"' in project
    assert f'license = "{stated["license"]}"' in project
    assert (ROOT / "LICENSE").read_text().startswith(f"{stated['license']} License")


def test_the_changelog_has_its_form():
    text = (ROOT / "CHANGELOG.md").read_text()
    sections = re.findall(r"^### (\w+)", text, re.M)
    assert re.search(r"^## \[Unreleased\]", text, re.M)
    assert set(sections) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
