"""until=conclusive trains look by look, and stops where the primary claim is decided."""

import json
from pathlib import Path

import pandas as pd
import pytest
from planted import Planted
from shell import bnstudy_, own_folder, said

from bnstudy.cli import looks
from bnstudy.config.compose import hydra_session
from bnstudy.stats.looks import levels

__all__ = ["own_folder"]

MODULE = """
from bnstudy.figures import Panel
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import curve
from bnstudy.studies.kit import values

def headline(table):
    return [Panel("own", [curve(rows, "train.batch_size", "test_error", norm=name)
                          for name, rows in table.groupby("norm.name")])]

def claims(table):
    arms = [values(table, "test_error", {"norm.name": name}) for name in ("batch", "group")]
    return [Claim("worse", "batch norm is worse", "greater", paired_differences(*arms),
                  primary=True),
            Claim("alike", "both norms are alike", "equivalent", paired_differences(*arms),
                  threshold=5.0)]
"""
STATED = """
title: Mine
claim: Group norm is better.
source: me
rule: equal steps
cost: seconds
expected: nothing
entry: {entry}
fixed: {{model: mlp, data.train_size: 40, train.steps: 4, train.batch_size: 8}}
scales:
  quick: {{seeds: 24, looks: [8, 12, 24], axes: {{norm: [batch, group]}}}}
  smoke: {{seeds: 24, axes: {{norm: [batch, group]}}}}
"""
LOOKS = (8, 12, 24)
COMMAND = ("--config-dir", "conf", "tracker.mode=disabled", "workers=1")


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    """A study whose module has a name of its own in each test: modules are imported once."""
    entry = f"mine_{abs(hash(str(tmp_path)))}"
    (tmp_path / "conf" / "study").mkdir(parents=True)
    (tmp_path / "conf" / "study" / "mine.yaml").write_text(STATED.format(entry=entry))
    (tmp_path / f"{entry}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("bnstudy.figures.save", unpainted)
    return tmp_path / f"{entry}.py"


def unpainted(figure, folder, stem) -> None:
    """Files without a figure in them: three formats take seconds."""
    for kind in ("svg", "pdf", "png"):
        (folder / f"{stem}.{kind}").write_text("")


def easy(config) -> float:
    """Batch norm is worse by 10 pp and 0 to 2 pp more by seed; 10.81 on average over 8 seeds."""
    worse = 0.10 + 0.005 * (config.seed % 5) if config.norm.name == "batch" else 0.0
    return 0.1 + 0.001 * (config.seed % 7) + worse


def null(config) -> float:
    """Differences of 1 pp in pairs of opposite sign: their mean is zero at every look."""
    sign = 1 if config.seed % 2 else -1
    return 0.2 + (0.01 * sign * (1 + config.seed // 2 % 3) if config.norm.name == "batch" else 0.0)


def trains(monkeypatch, error, stacks=None) -> Planted:
    planted = Planted(error, stacks)
    monkeypatch.setattr("bnstudy.cli.execute.launch", planted)
    return planted


def study(*words: str, until="until=conclusive") -> str:
    return said(bnstudy_("study", "mine", *COMMAND, until, *words))


def results(where="results") -> Path:
    (found,) = (Path(where) / "runs" / "studies").rglob("study.json")
    return found.parent


def read(name: str, where="results"):
    return json.loads((results(where) / name).read_text())


def test_an_easy_claim_is_decided_at_its_first_look(monkeypatch):
    planted = trains(monkeypatch, easy)
    text = study()
    level = levels(LOOKS)[0]
    assert f"look 1 of 3 (8 seeds): supported, level {level:.3g}: +10.81 pp [" in text
    assert "look 2" not in text
    assert sum(map(len, planted.launched)) == 2 * 8
    found = read("study.json")
    assert found["seeds"] == list(range(8))
    assert found["looks"] == {
        "of": 3, "level": level, "stopped": "it was decided",
        "taken": [{"look": 1, "seeds": 8, "level": level, "primary": "supported"}],
    }  # fmt: skip
    assert len(pd.read_csv(results() / "table.csv")) == 2 * 8
    claims = read("claims.json")
    # secondary claims spend the level of the look that ended it; equivalence is 90 % two-sided
    assert [c["alpha"] for c in claims] == [level, level]
    assert [c["level"] for c in claims] == pytest.approx([1 - level, 1 - 2 * level])
    assert {c["status"] for c in claims} == {"confirmatory"}


def test_a_null_claim_goes_to_its_last_look(monkeypatch):
    planted = trains(monkeypatch, null)
    text = study()
    for number, (n, level) in enumerate(zip(LOOKS, levels(LOOKS), strict=True), 1):
        assert f"look {number} of 3 ({n} seeds): inconclusive, level {level:.3g}: " in text
    assert sum(map(len, planted.launched)) == 2 * 24
    assert read("study.json")["looks"]["stopped"] == "it was the last look"
    assert [c["n"] for c in read("claims.json")] == [24, 24]


def test_until_all_trains_all_and_judges_once_at_five_per_cent(monkeypatch):
    planted = trains(monkeypatch, easy)
    assert "look 1" not in study(until="until=all")
    assert sum(map(len, planted.launched)) == 2 * 24
    assert {c["alpha"] for c in read("claims.json")} == {0.05}
    assert read("study.json")["looks"] == {}


def test_the_same_records_give_the_same_verdict_however_they_came(monkeypatch):
    trains(monkeypatch, easy)
    study("results_dir=looked")
    study("results_dir=whole", until="until=all")
    study("results_dir=whole")  # the records of all looks are there: the first one still ends it
    (looked, whole) = (read("claims.json", where) for where in ("looked", "whole"))
    for claims in (looked, whole):
        for claim in claims:
            del claim["status"], claim["status_reason"]
    assert looked == whole


@pytest.mark.parametrize("stacks", [1, 8])
def test_a_killed_sweep_trains_the_same_stacks_when_it_goes_on(monkeypatch, stacks):
    whole = trains(monkeypatch, null)
    study("max_stack=3", "results_dir=whole")
    # 8, 4 and 12 seeds of two cells in equal parts of at most 3, whatever the looks before left
    assert [len(s) for s in whole.launched] == 2 * [3, 3, 2] + 2 * [2, 2] + 2 * [3, 3, 3, 3]
    killed = trains(monkeypatch, null, stacks)
    bnstudy_("study", "mine", *COMMAND, "until=conclusive", "max_stack=3", "results_dir=killed")
    rest = trains(monkeypatch, null)
    study("max_stack=3", "results_dir=killed")
    trained = [*killed.launched[:stacks], *rest.launched]
    assert sorted(trained) == sorted(whole.launched)
    assert {c["status"] for c in read("claims.json", "killed")} == {"confirmatory"}


def test_an_unfinished_first_look_is_not_judged(monkeypatch):
    trains(monkeypatch, easy, 1)
    result = bnstudy_("study", "mine", *COMMAND, "until=conclusive", "max_stack=5")
    assert result.exit_code == 2
    assert "too few for its figure and claims" in result.stderr
    assert "look 1" not in result.stdout


def test_an_unfinished_later_look_leaves_the_one_before(monkeypatch):
    trains(monkeypatch, null, 5)  # 16 networks in 4 stacks are the first look
    assert "look 1 of 3" in study("max_stack=5")
    found = read("study.json")
    assert (found["looks"]["stopped"], len(found["seeds"])) == ("the next look lacks runs", 8)


def test_another_stopping_rule_is_exploratory(monkeypatch):
    trains(monkeypatch, easy)
    assert "confirmatory" in study()
    text = study(until="until=all")
    assert "exploratory: until and the looks were changed after 16 of 48 runs were there" in text
    assert "exploratory" not in study()


def test_verdicts_by_other_code_than_was_registered_say_so(monkeypatch):
    trains(monkeypatch, easy)
    first = study()
    assert "judged by other code" not in first
    assert "was not registered" not in first
    monkeypatch.setattr("bnstudy.sweep.registration.rules", lambda: "edited")
    (stamp,) = Path("results/runs/studies/mine").rglob("complete")
    stamp.unlink()  # as it does not hold for other code
    again = study()
    told = "; judged by other code of bnstudy.stats or studies/kit.py than was registered"
    assert told in again
    assert read("study.json")["registered"].endswith(told)
    assert "confirmatory\n" in again


def test_edited_claims_are_exploratory_and_edited_back_confirmatory(monkeypatch, mine):
    trains(monkeypatch, easy)
    study()
    edited = MODULE.replace("threshold=5.0", "threshold=9.0")
    for text, status in ((edited, "exploratory"), (MODULE, "confirmatory")):
        monkeypatch.setattr("bnstudy.studies.results.module", lambda _, t=text: _module(t))
        monkeypatch.setattr("bnstudy.studies.planned.module", lambda _, t=text: _module(t))
        mine.write_text(text)
        assert f"{status}\n" in study()
        assert {c["status"] for c in read("claims.json")} == {status}
    reason = "the claims were changed after 16 of 48 runs were there"
    assert [e["held"] for e in read("registration.json")] == [0, 16, 16]
    mine.write_text(edited)
    monkeypatch.setattr("bnstudy.studies.results.module", lambda _: _module(edited))
    monkeypatch.setattr("bnstudy.studies.planned.module", lambda _: _module(edited))
    assert f"exploratory: {reason}" in study()
    assert reason in read("study.json")["caption"]
    assert f"exploratory: {reason}" in said(bnstudy_("show", "mine", "--config-dir", "conf",
                                                     "until=conclusive"))  # fmt: skip


def test_each_of_several_studies_records_the_command_of_its_own(monkeypatch, mine):
    trains(monkeypatch, easy)
    conf = Path("conf") / "study"
    (conf / "other.yaml").write_text((conf / "mine.yaml").read_text())
    said(bnstudy_("study", "mine", "other", *COMMAND, "until=conclusive"))
    for name in ("mine", "other"):
        (folder,) = Path("results/runs/studies", name).iterdir()
        told = json.loads((folder / "study.json").read_text())
        assert told["command"] == (
            f"bnstudy study {name} --config-dir conf tracker.mode=disabled workers=1 "
            "until=conclusive"
        )
        assert told["command"] in told["caption"]


def _module(text: str):
    """A module of this text, as a new process would import it."""
    from types import SimpleNamespace

    names: dict = {"__name__": "edited"}
    exec(text, names)
    return SimpleNamespace(**{**names, "__file__": None})


def test_a_dry_run_registers_and_trains_nothing(monkeypatch, tmp_path):
    planted = trains(monkeypatch, easy)
    text = study("--dry-run")
    assert "looks    after 8, 12, 24 seeds" in text
    assert "48 models" in text
    assert planted.launched == []
    assert not (tmp_path / "results").exists()


def test_max_minutes_are_those_of_all_looks():
    with hydra_session() as composer:
        request = composer.request(["max_minutes=3"])
    left = looks._with_time_left(request, 60.0).settings.max_minutes
    assert left == pytest.approx(2.0)
    assert 0 < looks._with_time_left(request, 600.0).settings.max_minutes < 0.01


BAD = {
    "looks=[12,8,24]": ["looks=[12, 8, 24]", "must grow"],
    "looks=[12,12]": ["must grow"],
    "looks=[4,12]": ["at least 6 seeds"],
    "looks=[6,12,24]": ["is too early"],
    "looks=[12,24,48]": ["needs 48 seeds", "the study mine has 24", "seeds=0..47"],
    "scale=smoke": ["states no looks", "looks=[12,24,48]"],
    "looks=8,12,24": ["write looks=[8,12,24]"],
    "seeds=12": ["needs 24 seeds and there are 12"],
}


@pytest.mark.parametrize("words", BAD)
def test_bad_looks_are_one_message_before_training(monkeypatch, tmp_path, words):
    planted = trains(monkeypatch, easy)
    result = bnstudy_("study", "mine", *COMMAND, "until=conclusive", words)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("bnstudy: ")
    for part in BAD[words]:
        assert part in result.stderr
    assert planted.launched == []
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("study", "mine", *COMMAND, "looks=[8,24]"), "with until=conclusive only"),
        (("train", "until=conclusive"), "for 'bnstudy study' and 'bnstudy compare'"),
        (("study", "mine", *COMMAND, "until=conclusiv"), "Did you mean 'conclusive'"),
    ],
)
def test_looks_that_nothing_would_use_are_refused(words, part, tmp_path):
    result = bnstudy_(*words)
    assert result.exit_code == 2
    assert part in result.stderr
    assert not (tmp_path / "results").exists()


ARMS = ("compare", "norm=batch,group", "model=mlp", "data.train_size=40", "train.steps=4",
        "train.batch_size=8", "tracker.mode=disabled", "workers=1",
        "until=conclusive")  # fmt: skip


def test_compare_stops_when_all_differences_are_decided(monkeypatch):
    planted = trains(monkeypatch, easy)
    text = said(bnstudy_(*ARMS))
    level = levels((12, 24, 48))[0]
    assert f"look 1 of 3 (12 seeds): 1 of 1 differences decided, level {level:.3g}" in text
    assert sum(map(len, planted.launched)) == 2 * 12
    (table,) = Path("results/runs/compare").rglob("table.md")
    for part in ("repeated", "not adjusted for several arms", "looks at 12, 24, 48 seeds"):
        assert part in table.read_text()
    # group norm minus batch norm: planted at -10 to -12 pp, -10.875 on average over 12 seeds
    assert "−10.88 [−11." in table.read_text()


def test_compare_of_equals_goes_to_the_last_look(monkeypatch):
    planted = trains(monkeypatch, null)
    text = said(bnstudy_(*ARMS, "looks=[8,24]"))
    assert "look 1 of 2 (8 seeds): 0 of 1 differences decided" in text
    assert "look 2 of 2 (24 seeds): 0 of 1 differences decided" in text
    assert sum(map(len, planted.launched)) == 2 * 24


@pytest.mark.slow
def test_real_training_is_looked_at_too(tmp_path):
    """Batch norm of vectors at batch size 2 is a sign function: no look is easier to decide."""
    text = said(bnstudy_("study", "mine", *COMMAND, "until=conclusive", "train.batch_size=2",
                         "train.steps=150", "data.train_size=300"))  # fmt: skip
    assert "look 1 of 3 (8 seeds): supported" in text
    assert "confirmatory" in text
    assert len(pd.read_csv(results() / "table.csv")) == 16
