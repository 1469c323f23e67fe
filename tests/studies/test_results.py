"""Results are written whole, kept while they hold, and valid JSON."""

import importlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bnstudy import stats, studies
from bnstudy.config import Config, Grid, StudyConfig
from bnstudy.errors import UserError
from bnstudy.numbers import estimate
from bnstudy.studies import results, sheets

ROOT = Path(__file__).parents[2]
MODULE = """
from bnstudy.figures import Panel
from bnstudy.stats import Claim
from bnstudy.studies.drawing import curve
from bnstudy.studies.kit import Published

PUBLISHED = Published("published", "A 2020", "error in %", {"error": [1.0, float("nan")]})

def headline(table):
    return [Panel("own", [curve(table, "data.name", "test_error", norm="batch")], x="names",
                  claim="low")]

def claims(table):
    values = dict(zip(table["seed"], table["test_error"]))
    values[5]  # needs them all
    return [Claim("low", "the error is above zero", "greater", values, primary=True)]
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A study of one's own; its module is imported anew for each test."""
    name = f"study_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    words = dict.fromkeys(("title", "claim", "source", "rule", "cost", "expected"), "words")
    return StudyConfig(name="own", entry=name, scales={"quick": Grid(seeds=[0], axes={})}, **words)


def table(seeds=range(6)) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {"address": f"a{seed}", "created": "2026-01-01", "seed": seed, "steps": 9,
             "diverged_at": None, "test_error": 0.1 + 0.01 * rng.random(), "torch": "2",
             "data.name": "digits", "train_error": 0.01, "num_classes": 10, "cell": "c"}
            for seed in seeds
        ]
    )  # fmt: skip


def write(study, folder, rows=None, **protocol):
    rows = table() if rows is None else rows
    records = {a: str(hash(t)) for a, t in zip(rows["address"], rows["created"], strict=True)}
    return studies.results_of(
        study, records, lambda: rows, folder,
        scale="quick", cells=[Config()], planned=6, command="bnstudy study own",
        protocol=results.Protocol(**{"seeds": range(6), **protocol}),
    )  # fmt: skip


def times(folder):
    return {name: (folder / name).stat().st_mtime_ns for name in results.FILES}


def test_results_are_written_once_while_they_hold(own, tmp_path, monkeypatch):
    folder = tmp_path / "results"
    verdicts = write(own, folder)
    assert [v["verdict"] for v in verdicts] == ["supported"]
    before = times(folder)
    monkeypatch.setattr(results, "_write", lambda *a: pytest.fail("it is written again"))
    assert write(own, folder) == verdicts
    assert times(folder) == before


@pytest.mark.parametrize(
    "what", ["code", "records", "study", "a lost file", "a flipped bit", "half a file", "a kill"]
)
def test_results_that_do_not_hold_are_written_again(own, tmp_path, what):
    folder, rows = tmp_path / "results", table()
    write(own, folder)
    before = times(folder)
    if what == "code":
        path = tmp_path / f"{own.entry}.py"
        path.write_text(path.read_text() + "# changed\n")
    elif what == "records":
        rows.loc[0, "created"] = "2026-01-02"
    elif what == "study":
        own = own.model_copy(update={"claim": "other words"})
    elif what == "a lost file":
        (folder / "figure.png").unlink()
    elif what == "a flipped bit":
        text = (folder / "claims.json").read_text()
        (folder / "claims.json").write_text(text.replace("0", "1", 1))
    elif what == "half a file":
        text = (folder / "study.json").read_text()
        (folder / "study.json").write_text(text[: len(text) // 2])
    else:
        (folder / results.STAMP).unlink()
    write(own, folder, rows)
    assert times(folder)["claims.json"] != before["claims.json"]


DETAILED = """
def details(table):
    return [Panel("every arm", headline(table)[0].curves, x="names")] * 4
"""


def test_a_study_with_details_has_a_second_figure(own, tmp_path):
    folder, path = tmp_path / "results", tmp_path / f"{own.entry}.py"
    path.write_text(MODULE + DETAILED)
    write(own, folder)
    assert (folder / "details.png").read_bytes() != (folder / "figure.png").read_bytes()
    before = times(folder)
    write(own, folder)
    assert times(folder) == before
    (folder / "details.svg").unlink()
    write(own, folder)
    assert (folder / "details.svg").exists()
    points = pd.read_csv(folder / "points.csv")
    assert points["figure"].value_counts().to_dict() == {"details": 4, "headline": 1}
    told = json.loads((folder / "study.json").read_text())["alt"]
    assert set(told) == {"figure", "details"}
    assert told["details"].count("every arm") == 4
    path.write_text(MODULE)  # without details
    importlib.invalidate_caches()
    del sys.modules[own.entry]
    write(own, folder)
    assert not list(folder.glob("details.*"))


def test_points_are_the_means_and_intervals_of_the_table(own, tmp_path):
    write(own, tmp_path / "results")
    (point,) = pd.read_csv(tmp_path / "results" / "points.csv").to_dict("records")
    interval = stats.t_interval(100 * table()["test_error"])
    assert [point[name] for name in ("mean", "low", "high")] == pytest.approx(
        list(interval),
        rel=1e-5,  # of six digits
    )
    assert (point["panel"], point["curve"], point["n"]) == ("own", "batch", 6)


def test_the_headline_says_the_verdict_with_its_number(own, tmp_path):
    verdicts = write(own, tmp_path / "results")
    panels = sheets.panels_of(studies.module(own), table())["figure"]
    told = sheets.drawn(panels, [{**verdicts[0], "published": "+2 pp (published)"}])
    number = estimate(*(verdicts[0][k] for k in ("mean", "low", "high", "unit")))
    expected = f"supported: {number} (95 % interval), n = 6; +2 pp (published)"
    assert told.get_suptitle().replace("\n", " ") == expected
    texts = [t.get_text().replace("\n", " ") for t in told.axes[0].texts]
    assert f"supported: {number} (95 %)" in texts


@pytest.mark.parametrize("number", [0, 4])
def test_a_headline_has_one_to_three_panels(own, tmp_path, number):
    path = tmp_path / f"{own.entry}.py"
    path.write_text(
        MODULE + f"\nfirst = headline\ndef headline(t):\n    return first(t) * {number}\n"
    )
    with pytest.raises(ValueError, match=f"one to 3 panels, not {number}"):
        sheets.panels_of(studies.module(own), table())


def test_study_json_says_group_papers_and_alternative_text(own, tmp_path):
    own = own.model_copy(update={"group": "batches", "papers": {"A 2020": "https://a.b/c"}})
    write(own, tmp_path / "results")
    told = json.loads((tmp_path / "results" / "study.json").read_text())
    assert (told["group"], told["papers"]) == ("batches", {"A 2020": "https://a.b/c"})
    assert told["alt"]["figure"].startswith("own: test error (%). batch: 1")
    assert told["command"] == "bnstudy study own"


def test_the_coverage_of_intervals_at_these_seeds_is_told(own, tmp_path):
    write(own, tmp_path / "results")
    told = json.loads((tmp_path / "results" / "study.json").read_text())["coverage"]
    assert told == stats.coverage.sentence(6)
    assert "95 % intervals over 6 seeds cover" in told


@pytest.mark.parametrize("room", ["stats/intervals.py", "figures/style.py", "studies/kit.py"])
def test_the_stamp_knows_all_code_that_draws_and_judges(own, tmp_path, monkeypatch, room):
    package = tmp_path / "package"
    for name in ("stats", "figures", "studies"):
        shutil.copytree(results.HERE / name, package / name)
    monkeypatch.setattr(results, "HERE", package)
    before = results.sources(own)
    path = package / room
    path.write_text(path.read_text() + "# changed\n")
    assert results.sources(own) != before


def test_study_json_is_json_for_every_reader(own, tmp_path):
    write(own, tmp_path / "results")

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    for name in ("study.json", "claims.json"):
        found = json.loads((tmp_path / "results" / name).read_text(), parse_constant=refuse)
    found = json.loads((tmp_path / "results" / "study.json").read_text())
    assert found["published"] == {
        "what": "published: error in %", "source": "A 2020", "error": [1.0, None]
    }  # fmt: skip


def test_an_unfinished_grid_says_that_runs_are_missing(own, tmp_path):
    with pytest.raises(UserError, match="the 3 runs in the store, of 6, are too few"):
        write(own, tmp_path / "results", table(range(3)))
    with pytest.raises(UserError, match="no run of this study"):
        write(own, tmp_path / "results", table().iloc[:0])


def test_a_broken_study_is_not_called_an_unfinished_grid(own, tmp_path):
    with pytest.raises(KeyError):
        write(own, tmp_path / "results", table(range(6)).assign(seed=[0, 1, 2, 3, 4, 9]))


def test_lines_give_each_verdict_and_its_reasons(own, tmp_path):
    line, why = studies.lines(write(own, tmp_path / "results"))
    number = r"\+0\.10\d\d pp \[0\.10\d\d, 0\.10\d\d\] \(95 % interval, detectable 0\.00\d\d\)"
    wanted = f"supported    primary  the error is above zero: {number} exploratory"
    assert re.fullmatch(wanted, line)
    assert why == "exploratory: there is no registration"
    told = tmp_path / "registered"
    (line,) = studies.lines(write(own, told, standing=lambda _: ("confirmatory", "why", "line")))
    assert line.endswith(") confirmatory")
    lost = {"verdict": "invalid", "primary": False, "text": "t", "mean": None, "level": 0.9,
            "low": None, "high": None, "unit": "pp", "reasons": ["lost cell"]}  # fmt: skip
    first, second = studies.lines([lost])
    assert first.endswith("t: not measured")
    assert second.strip() == "lost cell"


def test_claims_without_an_interval_have_none_in_their_line():
    told = {"verdict": "true", "primary": False, "text": "equal", "kind": "identical",
            "mean": 0.0, "level": None, "low": None, "high": None, "unit": "", "reasons": [],
            "status": "confirmatory"}  # fmt: skip
    assert studies.lines([told]) == ["true                  equal confirmatory"]


def test_standing_is_in_every_file_and_asks_for_the_times_of_the_records(own, tmp_path):
    asked = []

    def standing(created):
        asked.append(list(created))
        return "exploratory", "the claims were changed", "registered then"

    (verdict,) = write(own, tmp_path / "results", standing=standing)
    assert verdict["status"] == "exploratory"
    assert verdict["status_reason"] == "the claims were changed"
    assert asked == [["2026-01-01"] * 6]
    found = json.loads((tmp_path / "results" / "study.json").read_text())
    assert found["registered"] == "registered then"
    assert "Verdicts are exploratory: the claims were changed." in found["caption"]
    assert "95 % Student-t" in found["caption"]  # the bars
    assert "sign-flip" in found["caption"]  # the claims


@pytest.mark.parametrize("what", ["registration", "tuning", "fixed"])
def test_results_that_another_protocol_made_are_written_again(own, tmp_path, what):
    path = tmp_path / "protocol.json"
    path.write_text('["first"]')
    folder, given = tmp_path / "results", {what: "first" if what == "fixed" else path}
    write(own, folder, **given)
    before = times(folder)
    write(own, folder, **given)
    assert times(folder) == before
    path.write_text('["second"]')
    write(own, folder, **({what: "second"} if what == "fixed" else given))
    assert times(folder)["claims.json"] != before["claims.json"]
    if what != "fixed":
        assert json.loads((folder / f"{what}.json").read_text()) == ["second"]


def test_failed_runs_are_counted_and_told(own, tmp_path):
    rows = table()
    rows.loc[[1, 4], "train_error"] = 0.9
    write(own, tmp_path / "results", rows)
    (found,) = pd.read_csv(tmp_path / "results" / "failures.csv").to_dict("records")
    assert (found["failed"], found["n"]) == (2, 6)
    told = json.loads((tmp_path / "results" / "study.json").read_text())["failed_runs"]
    # Clopper-Pearson for 2 of 6: 4 to 78 %
    assert told == ["2 of 6 runs (33 %, 95 % interval 4 to 78 %)"]
    write(own, tmp_path / "other")
    assert json.loads((tmp_path / "other" / "study.json").read_text())["failed_runs"] == []


def test_the_comparison_rule_is_said_in_words():
    assert results.rule_of([Config()]) == results.rule_of([Config(), Config()])
    assert "equal" in results.rule_of([Config()])


def test_a_grid_that_a_command_changed_says_so():
    study = StudyConfig(
        name="own", scales={"quick": Grid(seeds=[0], axes={"norm": ["batch", "group"]})},
        **dict.fromkeys(("title", "claim", "source", "rule", "cost", "expected"), "words"),
    )  # fmt: skip
    command = "bnstudy study own scale=quick tune=auto workers=2 hydra.verbose=true"
    assert results.changed(study, f"{command} 'data.root=a b' data.root=\"$BNSTUDY_DATA\"") == []
    other = ["norm=layer,none", "train.steps=50", "seeds=3..9"]
    assert results.changed(study, f"{command} {' '.join(other)}") == other


@pytest.mark.parametrize("words", [[], ["quick"]], ids=["committed commands", "a scale"])
def test_reproduce_takes_the_grid_that_the_study_names_not_the_newest(tmp_path, words):
    """With a stand-in for the command that prints what `bnstudy study` prints."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "reproduce.sh", tmp_path / "scripts")
    (tmp_path / "scripts" / "pages.py").write_text("")
    (tmp_path / "scripts" / "setup.sh").write_text('set -euo pipefail\ncd "$(dirname "$0")/.."\n')
    runs = tmp_path / "results" / "runs"
    for i, grid in enumerate(("quick-planned", "quick-other")):
        folder = runs / "studies" / "sync" / grid
        folder.mkdir(parents=True)
        for name in ("table.csv", "figure.svg", "figure.png", "claims.json", "study.json",
                     "registration.json", "details.svg", "details.png"):  # fmt: skip
            (folder / name).write_text(grid)
        os.utime(folder, (i, i))  # the other grid is the newer one
    (tmp_path / "results" / "sync").mkdir()
    stated = json.dumps({"name": "sync", "command": "bnstudy study sync"}, indent=1)
    (tmp_path / "results" / "sync" / "study.json").write_text(stated)
    command = tmp_path / "bin" / "bnstudy"
    command.parent.mkdir()
    command.write_text(
        '#!/bin/sh\necho "$*" >> asked\n'
        "if [ $1 = study ]; then echo 'supported    primary  words'\n"
        "echo results/runs/studies/sync/quick-planned/table.csv\n"
        "echo results/runs/studies/sync/quick-planned/claims.json; fi\n"
        "if [ \"$*\" = 'report --folder results' ]; then echo page > results/report.html; fi\n"
    )
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    script = ["bash", str(tmp_path / "scripts" / "reproduce.sh"), *words]
    subprocess.run(script, check=True, env={**os.environ, "PATH": path}, capture_output=True)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[0] == ("study all scale=quick" if words else "study sync")
    copied = tmp_path / "results" / "sync"
    assert {p.read_text() for p in copied.iterdir()} == {"quick-planned"}
    for name in ("registration.json", "details.svg", "details.png"):
        assert (copied / name).exists()
    assert not (copied / "tuning.json").exists()
    assert (tmp_path / "results" / "report.html").read_text() == "page\n"
