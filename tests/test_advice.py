"""Advice follows from verdicts: every rule has a claim, and another verdict is another advice."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from bnstudy import advice
from bnstudy.config.compose import hydra_session
from bnstudy.errors import UserError
from bnstudy.studies import module, planned

RESULTS = Path(advice.__file__).parents[1] / "results"
VERDICTS = {"demonstration": {"shown"}, "identical": {"true"}}  # that a sentence can follow from
HELD = advice.evidence(RESULTS)
BACKED = [r for r in advice.rules() if (r.study, r.claim) in HELD]
NUMBERS = {"effect": "4.8 pp [2.4, 7.3]", "reverse": "1.0", "signed": "+1.0"}


def identified(rule):
    return f"{rule.study}: {rule.claim}"


def of(study, path):
    """Whether a path lies in one of a study's folders, STUDY or STUDY-DATA."""
    return path.parent.name.partition("-")[0] == study


@pytest.fixture(scope="module")
def tables():
    """Study -> itself, and the tables that its grids of committed results would give."""
    found = {}
    with hydra_session() as session:
        for name in session.choices("study"):
            study = session.study(name)
            made = RESULTS.glob(f"{name}*/study.json")
            scales = {"quick"} | {json.loads(p.read_text())["scale"] for p in made if of(name, p)}
            asked = [session.request([f"scale={s}"], study=study) for s in sorted(scales)]
            found[name] = (study, [planned.stand_in(r.cells, r.seeds[:2]) for r in asked])
    return found


@pytest.fixture(scope="module")
def kinds(tables):
    """(study, claim) -> kind of claim, of all claims that the quick grids of studies have."""
    return {
        (name, claim.name): claim.kind
        for name, (study, grids) in tables.items()
        for table in grids
        for claim in module(study).claims(table)
    }


def problems(rule, kinds):
    """What is wrong with a rule; empty where nothing is."""
    kind = kinds.get((rule.study, rule.claim))
    if kind is None:
        return ["there is no such claim"]
    found = []
    if not set(rule.sentences) <= VERDICTS.get(kind, {"supported", "refuted"}):
        found.append(f"a claim of kind {kind} cannot be {', '.join(rule.sentences)}")
    if not rule.sentences:
        found.append("nothing follows from any verdict")
    for text in (*rule.sentences.values(), rule.limits):
        if re.search(r"[{}]", text.format(**NUMBERS)):
            found.append(f"an open place in '{text}'")
    for key, value in rule.where.items():
        if key in advice.COUNTS:
            if not re.fullmatch(r"[1-9]\d*(\.\.[1-9]\d*)?", str(value)):
                found.append(f"{key}={value}")
        elif value not in advice.NAMES.get(key, ()):
            found.append(f"{key}={value}")
    data = rule.claim.split()[0].rstrip(":")
    if data in advice.NAMES["data"] and data != rule.where["data"]:
        found.append(f"the claim is about {data}")
    return found


def test_every_rule_names_a_claim_and_says_what_can_follow(kinds):
    found = {identified(rule): p for rule in advice.rules() if (p := problems(rule, kinds))}
    assert found == {}
    twice = [(r.study, r.claim) for r in advice.rules()]
    assert len(set(twice)) == len(twice)


def test_every_setting_is_one_that_the_study_has(tables):
    """Its model and data, and its batch size: a batch, a group, or a process's share of a batch."""
    for rule in advice.rules():
        table = pd.concat(tables[rule.study][1])
        assert rule.where["model"] in set(table["model.name"]), identified(rule)
        assert rule.where["data"] in set(table["data.name"]), identified(rule)
        sizes = set(table["train.batch_size"])
        if "norm.group_size" in table:
            sizes |= set(table["norm.group_size"].dropna())
        if "train.processes" in table:
            shares = table["train.batch_size"] / table["train.processes"].fillna(1)
            sizes |= set(shares)
        assert rule.where.get("batch_size", next(iter(sizes))) in sizes, identified(rule)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"claim": "contrast_digits resnet: nothing of the kind"}, "no such claim"),
        ({"study": "batch_sise"}, "no such claim"),
        ({"sentences": {"shown": "use it"}}, "cannot be shown"),
        ({"sentences": {}}, "nothing follows"),
        ({"sentences": {"supported": "use {{norm}}"}}, "an open place"),
        ({"where": {"task": "classification", "model": "resnt", "data": "contrast_digits"}},
         "model=resnt"),
        ({"where": {"batch_size": 0, "data": "contrast_digits"}}, "batch_size=0"),
        ({"where": {"data": "digits"}}, "the claim is about contrast_digits"),
    ],
)  # fmt: skip
def test_a_broken_rule_is_found(kinds, change, problem):
    broken = dataclasses.replace(advice.rules()[0], **change)
    assert problem in " ".join(problems(broken, kinds))


def test_every_study_with_verdicts_has_a_rule():
    counted = {study for (study, _), claim in HELD.items() if claim["status"] == "confirmatory"}
    assert {rule.study for rule in advice.rules()} >= counted


def asked(rule):
    """The question that a rule's own setting answers."""
    low = {k: int(str(v).partition("..")[0]) for k, v in rule.where.items() if k in advice.COUNTS}
    return {**rule.where, **low}


def line_of(rule, folder):
    own = [
        line
        for line in advice.advise(asked(rule), folder)
        if (line.study, line.claim) == (rule.study, rule.claim)
    ]
    assert len(own) <= 1
    return own[0] if own else None


@pytest.fixture
def copied(tmp_path):
    """A function that copies one study's results into a folder of its own, which it returns."""

    def copy(study):
        for path in (p for p in RESULTS.glob(f"{study}*/claims.json") if of(study, p)):
            folder = tmp_path / "results" / path.parent.name
            folder.mkdir(parents=True)
            shutil.copy(path, folder)
        return tmp_path / "results"

    return copy


def change(folder, rule, **fields):
    for path in folder.glob(f"{rule.study}*/claims.json"):
        claims = json.loads(path.read_text())
        for claim in claims:
            claim |= fields if claim["name"] == rule.claim else {}
        path.write_text(json.dumps(claims))


@pytest.mark.parametrize("rule", BACKED, ids=identified)
def test_another_verdict_is_another_advice(rule, copied):
    folder = copied(rule.study)
    before = line_of(rule, folder)
    decided = HELD[rule.study, rule.claim]["verdict"] in rule.sentences
    assert (before is not None) == decided
    texts = set()
    for verdict in rule.sentences:
        change(folder, rule, verdict=verdict)
        line = line_of(rule, folder)
        assert "{" not in str(line)
        assert "?" not in str(line)  # a number that is not there
        texts.add(line.text)
    assert len(texts) == len(rule.sentences)
    for verdict in ("inconclusive", "invalid", "not shown", "false"):
        change(folder, rule, verdict=verdict)
        assert line_of(rule, folder) is None


@pytest.mark.parametrize("rule", [r for r in advice.rules() if r not in BACKED], ids=identified)
def test_rules_that_wait_for_results_answer_when_they_come(rule, kinds, tmp_path):
    """Results as a study would write them: each verdict has a sentence of its own."""
    kind = kinds[rule.study, rule.claim]
    claim = {"name": rule.claim, "text": "a claim", "kind": kind, "status": "confirmatory",
             "mean": 2.0, "low": 1.0, "high": 3.0, "unit": "pp", "level": 0.95, "n": 12,
             "t_verdict": ""}  # fmt: skip
    folder = tmp_path / rule.study
    folder.mkdir()
    texts = []
    for verdict in (*rule.sentences, "inconclusive"):
        (folder / "claims.json").write_text(json.dumps([{**claim, "verdict": verdict}]))
        texts += [line.text for line in advice.advise(asked(rule), tmp_path)]
    assert len(set(texts)) == len(texts) == len(rule.sentences)


def test_the_line_of_a_question_has_number_evidence_and_limits():
    question = advice.question(["batch_size=2", "model=resnet", "task=classification"])
    found = {line.claim: line for line in advice.advise(question, RESULTS)}
    line = found["contrast_digits resnet: stale averages"]
    claim = HELD["batch_size", line.claim]
    assert f"{claim['mean']:.1f} pp [{claim['low']:.1f}, {claim['high']:.1f}]" in line.text
    assert "PreciseBN" in line.text
    assert line.limits == "maps, ResNet-8, contrast digits"
    assert f"n = {claim['n']}, claim supported, confirmatory" in line.evidence
    assert line.evidence.endswith("(batch_size)")
    assert str(line) == f"{line.limits}: {line.text}; {line.evidence}"


def first(model="resnet"):
    return next(r for r in BACKED if r.where["model"] == model and r.study == "batch_size")


def test_numbers_are_those_of_the_results(copied):
    rule, folder = first(), copied("batch_size")
    change(folder, rule, mean=9.0, low=8.0, high=10.0)
    assert "9.0 pp [8.0, 10.0]" in line_of(rule, folder).text
    change(folder, rule, mean=-9.0, low=-10.0, high=-8.0, verdict="refuted")
    turned = next(r for r in BACKED if "stale" in r.claim and r.study == "batch_size")
    change(folder, turned, mean=-9.0, low=-10.0, high=-8.0, verdict="refuted")
    assert "9.0 pp [8.0, 10.0] better" in line_of(turned, folder).text


def test_exploratory_evidence_is_marked_and_comes_last(copied):
    rule, folder = first(), copied("batch_size")
    change(folder, rule, status="exploratory")
    lines = advice.advise(asked(rule), folder)
    assert ["exploratory" in line.evidence for line in lines[-2:]] == [False, True]
    assert lines[-1].claim == rule.claim


def test_results_of_earlier_versions_never_count(copied):
    folder = copied("batch_size")
    for path in folder.glob("*/claims.json"):
        claims = json.loads(path.read_text())
        plain = [{k: v for k, v in claim.items() if k != "status"} for claim in claims]
        path.write_text(json.dumps(plain))
    assert advice.evidence(folder) == {}
    assert advice.advise({"model": "resnet"}, folder) == []
    assert advice.nearest({"model": "resnet"}, folder) == []
    assert advice.strongest(folder) == []


def test_confirmatory_counts_before_exploratory_and_then_more_seeds(copied):
    rule, folder = first(), copied("batch_size")
    own = folder / "runs" / "studies" / "batch_size" / "full-abc"
    own.mkdir(parents=True)
    shutil.copy(folder / "batch_size" / "claims.json", own)

    def here(**fields):
        path = own / "claims.json"
        claims = json.loads(path.read_text())
        path.write_text(json.dumps([{**claim, **fields} for claim in claims]))
        return line_of(rule, folder).evidence

    assert "n = 48" in here(n=30)
    assert "n = 99" in here(n=99)
    assert "n = 48" in here(n=99, status="exploratory")
    change(folder, rule, status="exploratory")
    assert "n = 99, claim supported, exploratory" in here(n=99)


def test_several_folders_are_one_body_of_evidence(copied, tmp_path):
    folder = copied("batch_size")
    both = advice.evidence([folder, RESULTS])
    assert both == advice.evidence(RESULTS)
    assert {study for study, _ in advice.evidence([folder, tmp_path / "none"])} == {"batch_size"}


def test_claims_that_cannot_be_read_are_a_message(copied):
    folder = copied("batch_size")
    for damage in ("{", "[1]", "{}x"):
        (folder / "batch_size" / "claims.json").write_text(damage)
        with pytest.raises(UserError, match=r"batch_size/claims\.json cannot be read"):
            advice.evidence(folder)


@pytest.mark.parametrize(
    ("where", "question", "answers"),
    [
        ({"batch_size": 2}, {"batch_size": 2}, True),
        ({"batch_size": 2}, {"batch_size": 3}, False),
        ({"length": "12..100"}, {"length": 12}, True),
        ({"length": "12..100"}, {"length": 100}, True),
        ({"length": "12..100"}, {"length": 101}, False),
        ({"model": "mlp"}, {}, True),
        ({"model": "mlp"}, {"model": "resnet"}, False),
        ({"model": "mlp"}, {"model": "mlp", "batch_size": 2}, False),
    ],
)
def test_a_rule_answers_what_its_setting_states(where, question, answers):
    assert advice.fits(where, question) == answers


def test_the_nearest_evidence_agrees_in_what_matters_most():
    near = advice.nearest({"task": "recurrent", "model": "mlp", "batch_size": 4}, RESULTS)
    assert {line.where["task"] for line in near} == {"recurrent"}
    near = advice.nearest({"model": "mlp", "data": "text", "batch_size": 4}, RESULTS)
    assert {line.where["model"] for line in near} == {"mlp"}
    assert {line.where["batch_size"] for line in near} == {4}
    (line,) = advice.nearest({"model": "lenet", "batch_size": 2}, RESULTS)
    assert line.where["batch_size"] == 4
    question = {"model": "mlp", "batch_size": 2}
    assert not {str(line) for line in advice.nearest(question, RESULTS)} & {
        str(line) for line in advice.advise(question, RESULTS)
    }


def test_what_was_tested_without_a_decision_is_told(copied):
    rule, folder = first(), copied("batch_size")
    change(folder, rule, verdict="inconclusive")
    lines = {line.claim: line for line in advice.undecided(asked(rule), folder)}
    assert "inconclusive" in lines[rule.claim].evidence
    assert lines[rule.claim].text == HELD[rule.study, rule.claim]["text"]


def test_the_strongest_lines_are_supported_and_confirmatory_one_a_study():
    lines = advice.strongest(RESULTS)
    assert len(lines) == len({line.study for line in lines}) == 3

    def strength(line):
        claim = HELD[line.study, line.claim]
        assert (claim["kind"], claim["verdict"], claim["status"]) == (
            "greater", "supported", "confirmatory",
        )  # fmt: skip
        return claim["mean"] / (claim["high"] - claim["low"])

    found = [strength(line) for line in lines]
    assert found == sorted(found, reverse=True)
    assert lines == advice.strongest(RESULTS, n=9)[:3]
    others = [r for r in BACKED if r.instead and r.study not in {line.study for line in lines}]
    for rule in others:
        claim = HELD[rule.study, rule.claim]
        if (claim["kind"], claim["verdict"]) == ("greater", "supported"):
            assert claim["mean"] / (claim["high"] - claim["low"]) <= found[-1]


def test_the_strongest_change_with_the_results(copied):
    folder = copied("batch_size")
    (line,) = advice.strongest(folder)
    rule = next(r for r in advice.rules() if (r.study, r.claim) == (line.study, line.claim))
    change(folder, rule, status="exploratory")
    assert line.claim not in {other.claim for other in advice.strongest(folder)}


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["batch_size=0"], ["batch_size=0", "1 or more"]),
        (["batch_size=-2"], ["batch_size=-2", "1 or more"]),
        (["batch_size=two"], ["batch_size=two", "whole number"]),
        (["task=clasification"], ["unknown task", "'classification'", "recurrent"]),
        (["model=resnt"], ["unknown model", "'resnet'", "mlp"]),
        (["problem=shifted"], ["unknown problem", "'shift'"]),
        (["data=dgits"], ["unknown data", "'digits'"]),
        (["batchsize=2"], ["unknown key", "'batch_size'", "model"]),
        (["mlp"], ["'mlp'", "model=mlp"]),
        (["model=mlp", "model=resnet"], ["'model'", "twice"]),
    ],
)
def test_a_mistaken_question_is_one_message(words, parts):
    with pytest.raises(UserError) as error:
        advice.question(words)
    for part in parts:
        assert part in str(error.value)


def test_python_questions_are_checked_like_typed_ones():
    with pytest.raises(UserError, match="Did you mean 'batch_size'"):
        advice.advise({"batchsize": 2}, RESULTS)
    with pytest.raises(UserError, match="1 or more"):
        advice.advise({"batch_size": 0}, RESULTS)
