"""The run of a study: what arrives, once, and that nothing there can touch the results."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image
from planted import Planted, record
from shell import bnstudy_
from wandb_files import history, only_run, push, runs_in, summary
from wandb_server import WandbServer

from bnstudy.cli import mirror
from bnstudy.config import TrackerConfig
from bnstudy.stats import Claim, judge
from bnstudy.studies.planned import measured
from bnstudy.sweep.launch import Outcome
from bnstudy.sweep.launchers import threads
from bnstudy.tracking import mirror_study, session, study

STUDY = {
    "name": "batch_size",
    "scale": "smoke",
    "claim": "BN loses more than group norm",
    "source": "Wu & He 2018",
    "seeds": [0, 1, 2, 3, 4, 5],
    "command": "bnstudy study batch_size scale=smoke",
    "registered": "registered 2026-01-01 at commit abc, clean",
    "status": "confirmatory",
    "caption": "Mean over 6 paired seeds",
}


def claims():
    found = judge(
        [
            Claim("loses", "BN loses more", "greater", {s: 9 + s / 9 for s in range(6)}, unit="pp",
                  primary=True, published="+11.1 pp", published_effect=11.1),
            Claim("flat", "group norm is flat", "equivalent", {s: s / 9 for s in range(6)}, 1.0),
            Claim("same", "both are equal", "identical", dict.fromkeys(range(6), 0.0)),
        ]
    )  # fmt: skip
    return [{**v.to_dict(), "status": "confirmatory"} for v in found]


@pytest.fixture
def results(tmp_path):
    """A folder of results as a study writes them."""
    folder = tmp_path / "results/runs/studies/batch_size/smoke-0a1b2c3d"
    folder.mkdir(parents=True)
    (folder / "study.json").write_text(json.dumps(STUDY))
    text = json.dumps(claims()).replace("NaN", "null").replace("Infinity", "null")
    (folder / "claims.json").write_text(text)
    Image.new("RGB", (8, 6), "teal").save(folder / "figure.png")
    return folder


def here(function, *arguments):
    return function(*arguments)


def mirrored(results, stamp="0123456789abcdef", mode="offline", call=here):
    folder = results.parents[3] / "wandb"
    return mirror_study(TrackerConfig(mode=mode), folder, results, stamp, call)


def untouched(*_):
    pytest.fail("W&B is asked")


# ---- what arrives


def check_run(run, group, kind, name):
    assert (run[group], run[kind], run[name]) == ("batch_size", "study", "batch_size smoke")
    assert run["tags"][:3] == ["batch_size", "smoke", "confirmatory"]
    assert run["notes"] == "BN loses more than group norm (Wu & He 2018)"


def check_config(config):
    own = {key: STUDY[key] for key in ("scale", "seeds", "command", "registered")}
    stated = {"study": "batch_size", **own, "stamp": "0123456789abcdef"}
    assert {k: v for k, v in config.items() if k != "_wandb"} == stated


def check_logged(logged, final, files, figure):
    """Of the history's row and the summary; files: path -> content."""
    assert logged["figure"]["caption"] == STUDY["caption"]
    assert (logged["figure"]["width"], logged["figure"]["height"]) == (8, 6)
    assert files[logged["figure"]["path"]] == figure
    table = json.loads(files[logged["claims"]["path"]])
    assert tuple(table["columns"]) == study.COLUMNS
    told = [dict(zip(study.COLUMNS, row, strict=True)) for row in table["data"]]
    for row, claim in zip(told, claims(), strict=True):
        p = claim["p"] if claim["p_holm"] is None else claim["p_holm"]
        assert row["claim"] == claim["text"]
        assert row["verdict"] == claim["verdict"]
        assert row["p"] == (pytest.approx(p) if p == p else None)
        assert row["mean"] == pytest.approx(claim["mean"])
    assert told[0]["published"] == "+11.1 pp"
    assert (told[2]["low"], told[2]["kind"]) == (None, "identical")
    assert final["primary/claim"] == "BN loses more"
    assert final["primary/verdict"] == "supported"
    assert final["primary/mean"] == pytest.approx(9 + 15 / 54)
    assert final["primary/low"] < final["primary/mean"] < final["primary/high"]
    assert final["verdicts/supported"] == 2


@pytest.mark.slow
def test_an_offline_run_holds_figure_table_and_verdicts(results, capfd):
    status = mirrored(results)
    out = capfd.readouterr()
    assert out.out + out.err == ""
    (path,) = runs_in(results.parents[3] / "wandb")
    assert status == f"mirrored offline, in {path.parent}; `bnstudy sync` pushes it"
    run = only_run(path)
    check_run(run, "run_group", "job_type", "display_name")
    check_config(run["config"]["update"])
    (logged,) = map(nested, history(path))
    folder = path.parent / "files"
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    check_logged(logged, summary(path), files, (results / "figure.png").read_bytes())


def nested(row):
    """A row whose media are dicts again: the reader shows them as `figure.caption`."""
    media = {name: {} for name in ("figure", "claims")}
    for key, value in row.items():
        name, _, inner = key.partition(".")
        if name in media:
            media[name][inner] = value
    return media


def check_arrived(server, results):
    ((name, run),) = server.runs.items()
    assert name.startswith("me/bnstudy/batch_size-smoke-0a1b2c3d-01234567-")
    check_run(run, "groupName", "jobType", "displayName")
    check_config(run["config"])
    (logged,) = run["history"]
    check_logged(logged, run["summary"], run["files"], (results / "figure.png").read_bytes())
    assert run["complete"]


ONLINE = """
import sys
sys.path[:0] = sys.argv[1].split(":")
from pathlib import Path
import test_study
print(test_study.mirrored(Path(sys.argv[2]), mode="online"))
"""
PATH = f"{Path(__file__).parent}:{Path(__file__).parents[1] / 'support'}"


def online(results, server):
    """The status of an online run, in a process of its own: W&B keeps its server's address."""
    done = subprocess.run(
        [sys.executable, "-c", ONLINE, PATH, str(results)], env={**os.environ, **server.env},
        capture_output=True, text=True, timeout=120, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.mark.slow
def test_an_online_run_arrives_whole(results):
    with WandbServer() as server:
        status = online(results, server)
        assert status.startswith(f"mirrored: {server.url}/me/bnstudy/runs/batch_size-smoke-")
        check_arrived(server, results)


@pytest.mark.slow
def test_the_line_of_the_docs_pushes_an_offline_run_once(results):
    mirrored(results)
    with WandbServer() as server:
        for _ in range(2):
            push(results.parents[4], server)
            check_arrived(server, results)


# ---- once


@pytest.fixture
def told(monkeypatch):
    """In W&B's place: every run that is opened."""
    opened = []

    class Run:
        dir = "results/wandb/wandb/offline-run-1/files"
        url = "http://server/run"

        def finish(self, exit_code):
            opened[-1]["exit_code"] = exit_code

    def init(settings, folder, **run):
        opened.append({**run, "mode": settings.mode})
        return Run()

    monkeypatch.setattr(session, "opened", init)
    monkeypatch.setattr(study, "_log", lambda *a: None)
    return opened


def test_the_same_results_have_one_run(results, told):
    first = mirrored(results)
    assert "wandb/wandb/offline-run-1;" in first
    assert mirrored(results, call=untouched) == first
    assert mirrored(results, call=untouched, mode="online") == first
    mirrored(results, "fedcba9876543210", mode="online")
    assert mirrored(results, "fedcba9876543210", call=untouched) == "mirrored: http://server/run"
    assert [run["id"].split("-")[3] for run in told] == ["01234567", "fedcba98"]
    assert [run["exit_code"] for run in told] == [0, 0]


def test_other_results_of_the_study_have_a_run_of_their_own(results, told):
    mirrored(results)
    other = shutil.copytree(results, results.with_name("quick-0a1b2c3d"))
    mirrored(other)
    assert len(told) == 2


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"stamp": "0123456789abcdef"}'])
def test_a_damaged_note_costs_another_run_only(results, told, damage):
    mirrored(results)
    (note,) = (results.parents[3] / "wandb/studies").rglob("*.json")
    note.write_text(damage)
    mirrored(results)
    assert len(told) == 2


def test_an_unfinished_grid_has_no_run(results):
    status = mirrored(results, stamp="", call=untouched)
    assert status == "has no run of this study yet: its grid is unfinished"


def test_disabled_means_nothing_is_written(results):
    assert mirrored(results, mode="disabled", call=untouched) == "disabled"
    assert not (results.parents[3] / "wandb").exists()


# ---- trouble


def test_an_installation_without_wandb_says_so_and_tries_again(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    before = {p: p.read_bytes() for p in results.iterdir()}
    for _ in range(2):
        status = mirrored(results)
        assert status == "has no run of this study: it is not installed; its results are complete"
    assert {p: p.read_bytes() for p in results.iterdir()} == before


@pytest.mark.parametrize("where", ["opened", "_log"])
def test_a_failure_is_a_status_and_the_next_process_tries_again(results, told, monkeypatch, where):
    def fails(*_, **__):
        raise OSError("the server is gone\nmore")

    with monkeypatch.context() as broken:
        broken.setattr(session if where == "opened" else study, where, fails)
        assert mirrored(results) == "failed: the server is gone"
    again = mirrored(results, call=untouched)
    assert again == "has no run of this study: it failed before; the next command tries again"
    monkeypatch.setattr(session, "failure", None)  # the next process
    assert mirrored(results).startswith("mirrored offline")


def test_a_failure_in_another_process_counts_in_this_one(results):
    assert mirrored(results, call=lambda *a: "failed: a timeout") == "failed: a timeout"
    assert session.failure == "a timeout"


def test_a_process_that_dies_is_a_status(results):
    def dies(*_):
        raise RuntimeError("_mirrored ended without an answer")

    assert mirrored(results, call=dies) == "failed: _mirrored ended without an answer"


def test_what_failed_while_cells_trained_is_not_tried_again(results):
    mirror.heed(Outcome([], tracker="mirrored"))
    assert session.failure is None
    mirror.heed(Outcome([], tracker="failed: starting a run: a timeout"))
    assert "failed before" in mirrored(results, call=untouched)


# ---- the command


WORDS = ["study", "batch_size", "scale=smoke", "data=digits", "model=resnet", "workers=1"]


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """Training replaced, in a folder of its own: every run has every metric."""

    def whole(config, error):
        made = record(config, error)
        return {**made, "summary": {**dict.fromkeys(measured(config), error), **made["summary"]}}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("planted.record", whole)
    monkeypatch.setattr("bnstudy.cli.execute.launch", Planted(lambda config: 0.1))


def line_of(result) -> str:
    assert result.exit_code == 0, (result.stdout, result.stderr, result.exception)
    (line,) = [row for row in result.stdout.splitlines() if row.startswith("W&B ")]
    return line


@pytest.mark.slow
def test_the_command_makes_one_run_where_it_wrote_results(planted):
    alone, before = threads() == 1, threading.active_count()
    line = line_of(bnstudy_(*WORDS))
    (path,) = runs_in(Path("results/wandb"))
    where = path.parent.absolute()
    assert line == f"W&B mirrored offline, in {where}; `bnstudy sync` pushes it"
    assert line_of(bnstudy_(*WORDS)) == line
    assert runs_in(Path("results/wandb")) == [path]
    run = only_run(path)
    assert run["config"]["update"]["registered"].startswith("registered 20")
    if alone:  # a process that has threads already, as one that ran torch, makes the run itself
        assert threading.active_count() == before, "workers of the next study are forked from here"


@pytest.mark.parametrize("trouble", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_command_ends_well_without_wandb(planted, monkeypatch, trouble):
    monkeypatch.setitem(sys.modules, "wandb", None)
    if trouble:
        monkeypatch.setattr("bnstudy.tracking.study._mirrored", lambda *a: "failed: a timeout")
    result = bnstudy_(*WORDS)
    if trouble:
        assert result.exit_code == 0
        told = "W&B failed: a timeout. The results are complete; tracker.mode=disabled leaves it"
        assert result.stderr.count(told) == 1
    else:
        assert "not installed" in line_of(result)
    assert len(list(Path("results/runs/studies").rglob("claims.json"))) == 1


@pytest.mark.slow
def test_a_disabled_tracker_is_not_mentioned(planted):
    result = bnstudy_(*WORDS, "tracker.mode=disabled")
    assert result.exit_code == 0
    assert "W&B" not in result.stdout + result.stderr
    assert not Path("results/wandb").exists()
