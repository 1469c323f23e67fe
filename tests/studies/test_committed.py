"""What studies state, their figures, and that committed results follow from committed tables."""

import json
import re

import pandas as pd
import pytest
import yaml

from bnstudy import figures, stats
from bnstudy.config import CONFIGS, StudyConfig
from bnstudy.config.settings import seed_list
from bnstudy.studies import module, sheets
from bnstudy.studies.kit import Published
from tests.support.committed import EARLIER, RESULTS, stated

STUDIES = sorted(p.stem for p in (CONFIGS / "study").glob("*.yaml"))


def described(name):
    plain = yaml.safe_load((CONFIGS / "study" / f"{name}.yaml").read_text())
    return StudyConfig(name=name, **plain)


@pytest.fixture(params=STUDIES)
def study(request):
    return request.param


def test_every_study_has_committed_results_or_is_said_to_lack_them():
    ran = {json.loads(p.read_text())["name"] for p in RESULTS.glob("*/study.json")}
    page = (RESULTS.parent / "docs" / "studies.md").read_text()
    waiting = page.partition("<!-- results: waiting -->")[2].partition("<!-- end -->")[0]
    assert [name for name in STUDIES if name not in ran] == re.findall(r"`(\w+)`", waiting)


def test_every_study_states_itself(study):
    plain = described(study)
    assert all([plain.title, plain.claim, plain.source, plain.rule, plain.cost, plain.expected])
    assert {"smoke", "quick", "full"} <= plain.scales.keys()


def test_every_claim_says_what_it_is_about(study, table_of):
    claims = module(described(study)).claims(table_of(study))
    assert all(c.preconditions and c.estimand for c in claims)
    assert len({c.name for c in claims}) == len(claims)
    judged = [c for c in claims if c.kind not in stats.UNCOUNTED]
    assert sum(c.primary for c in judged) == sum(c.primary for c in claims) == bool(judged)


def test_a_fixed_sequence_starts_at_the_primary_claim_and_does_not_fork(study, table_of):
    claims = module(described(study)).claims(table_of(study))
    by, after = {c.name: c for c in claims}, [c.after for c in claims if c.after]
    assert len(set(after)) == len(after)  # one successor each
    for name in after:
        for _ in claims:  # as many steps as there are claims lead to the beginning, or never do
            name = by[name].after or name
        assert by[name].primary


def test_no_primary_claim_is_guaranteed_by_mathematics(study, table_of):
    """A vector normalized over two examples is a sign: what an MLP loses there is no finding."""
    claims = module(described(study)).claims(table_of(study))
    vectors = [c for c in claims if "MLP" in c.text and "groups of 2" in c.text]
    assert not any(c.primary for c in vectors)


def test_seeds_of_pilots_and_of_looks_are_apart_from_the_claims(study):
    plain = described(study)
    for grid in (plain.scales["quick"], plain.scales["full"]):
        seeds = seed_list(grid.seeds)
        tune = grid.tune or plain.tune
        if tune:
            pilots = {*seed_list(tune.seeds), *seed_list(tune.pilots)}
            assert not pilots & set(seeds)
        assert grid.looks == sorted(set(grid.looks))
        assert not grid.looks or grid.looks[-1] == len(seeds)


def test_committed_verdicts_follow_from_the_committed_table(study):
    if not stated(study):
        pytest.skip(EARLIER)
    rows = pd.read_csv(RESULTS / study / "table.csv")
    looks = json.loads((RESULTS / study / "study.json").read_text())["looks"]
    level = looks.get("level", stats.ALPHA)  # a study that ended at a look is judged at its level
    claims = module(described(study)).claims(rows)
    found = [v.to_dict() for v in stats.judge(claims, alpha=level)]
    committed = json.loads((RESULTS / study / "claims.json").read_text())
    assert [(v["name"], v["verdict"]) for v in found] == [
        (v["name"], v["verdict"]) for v in committed
    ]
    for ours, theirs in zip(found, committed, strict=True):
        if theirs["mean"] is None:  # nothing measured: such a claim is invalid
            assert ours["mean"] is None
            assert theirs["verdict"] == "invalid"
            continue
        # CSV keeps 17 digits: only the last may move
        assert ours["mean"] == pytest.approx(theirs["mean"], rel=1e-9, abs=1e-9)


def test_figures_are_drawn_from_the_table_alone_and_alike(study, table_of):
    found = module(described(study))
    rows = table_of(study)
    shuffled = rows.sample(frac=1, random_state=0)  # the order of rows does not matter
    first, second = (
        {stem: figures.content(sheets.drawn(panels, [], stem), "svg")
         for stem, panels in sheets.panels_of(found, table).items()}
        for table in (rows, shuffled)
    )  # fmt: skip
    assert first == second
    assert not [stem for stem, page in first.items() if b"nan" in page.lower()]


def test_panels_of_committed_tables_keep_the_rules(study):
    """Drawn at least once: limits, widths, names; a headline of one to three panels."""
    if not stated(study):
        pytest.skip(EARLIER)
    table = pd.read_csv(RESULTS / study / "table.csv", low_memory=False)
    found = module(described(study))
    names = {claim.name for claim in found.claims(table)}
    norms = {style.color for style in figures.STYLES.values()}
    for stem, panels in sheets.panels_of(found, table).items():
        assert sheets.drawn(panels, [], stem).get_size_inches()[0] <= 8.5
        for panel in panels:
            assert panel.claim in names | {""}
            assert panel.title
            assert panel.ylabel
            for curve in panel.curves:  # colors of norms come with their markers
                own = [s for s in figures.STYLES.values() if s.color == curve.style.color]
                assert curve.style.color not in norms or own[0].marker == curve.style.marker


def test_published_numbers_say_where_they_come_from(study):
    published = module(described(study)).PUBLISHED
    assert isinstance(published, Published)
    assert published.source
    # one of three kinds is all that Published accepts: it is in front of what the report shows
    assert published.to_dict()["what"].startswith(("published", "digitised", "unconfirmed"))
