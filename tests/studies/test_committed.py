"""The committed results are what the present code makes of the committed tables."""

import json
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
import yaml

from bnstudy import figures, stats
from bnstudy.config import CONFIGS, StudyConfig
from bnstudy.studies import module
from bnstudy.studies.kit import Published

RESULTS = Path(__file__).parents[2] / "results"
STUDIES = sorted(p.stem for p in (CONFIGS / "study").glob("*.yaml"))


def described(name):
    plain = yaml.safe_load((CONFIGS / "study" / f"{name}.yaml").read_text())
    return StudyConfig(name=name, **plain)


def table(name):
    return pd.read_csv(RESULTS / name / "table.csv")


@pytest.fixture(params=STUDIES)
def study(request):
    if not (RESULTS / request.param / "table.csv").exists():
        pytest.skip("no committed results")
    return request.param


def test_every_study_has_committed_results():
    assert [n for n in STUDIES if not (RESULTS / n / "claims.json").exists()] == []


def test_every_study_states_itself_and_names_one_primary_claim(study):
    plain = described(study)
    assert all([plain.title, plain.claim, plain.source, plain.rule, plain.cost, plain.expected])
    assert {"smoke", "quick", "full"} <= plain.scales.keys()
    claims = module(plain).claims(table(study))
    assert sum(c.primary for c in claims) == 1
    assert all(c.preconditions for c in claims)
    assert len({c.name for c in claims}) == len(claims)


def test_committed_verdicts_follow_from_the_committed_table(study):
    found = [v.to_dict() for v in stats.judge(module(described(study)).claims(table(study)))]
    committed = json.loads((RESULTS / study / "claims.json").read_text())
    assert [(v["name"], v["verdict"]) for v in found] == [
        (v["name"], v["verdict"]) for v in committed
    ]
    for ours, theirs in zip(found, committed, strict=True):
        # CSV keeps 17 digits: only the last may move
        assert ours["mean"] == pytest.approx(theirs["mean"], rel=1e-9, abs=1e-9)


def test_figures_are_drawn_from_the_table_alone_and_alike(study, tmp_path):
    found = module(described(study))
    pages = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        with matplotlib.rc_context(figures.rc()):
            rows = table(study)
            if folder.name == "b":  # the order of rows does not matter
                rows = rows.sample(frac=1, random_state=0)
            height, width = found.shape(rows)
            drawing, axes = figures.canvas(width, height)
            found.figure(rows, axes)
            figures.save(drawing, folder)
        pages.append((folder / "figure.svg").read_bytes())
    assert pages[0] == pages[1]
    assert b"nan" not in pages[0].lower().replace(b"nanometer", b"")


def test_published_numbers_say_where_they_come_from(study):
    published = module(described(study)).PUBLISHED
    assert isinstance(published, Published)
    assert published.source
    # one of three kinds is all that Published accepts: it is in front of what the report shows
    assert published.to_dict()["what"].startswith(("published", "digitised", "unconfirmed"))
