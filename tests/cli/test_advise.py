"""`bnstudy advise`: what it prints, and its exit codes."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from shell import bnstudy_, own_folder, said

import bnstudy
from bnstudy import advice, cli

__all__ = ["own_folder"]

RESULTS = Path(bnstudy.__file__).parents[1] / "results"


def test_a_question_with_evidence_prints_its_lines():
    words = ("batch_size=2", "model=resnet", "task=classification")
    text = said(bnstudy_("advise", *words, "--all"))
    lines = [f"* {line}" for line in advice.advise({"batch_size": 2, "model": "resnet"}, RESULTS)]
    assert text.splitlines()[: len(lines)] == lines
    assert "Tested, but no advice follows:" in text


def test_an_answer_is_followed_by_what_is_near():
    text = said(bnstudy_("advise", "batch_size=2", "model=mlp", "task=classification"))
    head, near = text.split("Near it, for task=classification model=mlp batch_size=4:\n")
    assert "statistics of 2 examples" in head
    assert "layer norm" in near


def test_a_question_without_evidence_is_answered_so():
    text = said(bnstudy_("advise", "task=recurrent", "model=resnet"))
    assert text.startswith("No evidence for task=recurrent model=resnet. The nearest is for")
    assert "task=recurrent model=recurrent:" in text.splitlines()[0]


def test_long_answers_are_cut_and_all_is_all():
    short = said(bnstudy_("advise", "task=classification"))
    assert "more lines: say more of the setting, or --all" in short
    whole = said(bnstudy_("advise", "task=classification", "--all"))
    assert "more line" not in whole
    for line in advice.advise({"task": "classification"}, RESULTS):
        assert str(line) in whole


def test_without_a_question_the_strongest_lines_are_printed():
    text = said(bnstudy_("advise"))
    for line in advice.strongest(RESULTS):
        assert f"* {line}\n" in text
    assert text.count("* ") == 3


def test_evidence_of_a_folder_that_is_named_is_all_there_is(tmp_path):
    shutil.copytree(RESULTS / "sync", tmp_path / "own" / "sync")
    text = said(bnstudy_("advise", "model=mlp", "results_dir=own"))
    assert "(sync)" in text
    assert "(micro_batch)" not in text
    (tmp_path / "empty").mkdir()
    text = said(bnstudy_("advise", "model=mlp", "results_dir=empty"))
    assert text == "No evidence: no study has results in empty; bnstudy study makes them.\n"


def test_results_of_the_working_directory_count_beside_those_of_the_package(tmp_path):
    own = tmp_path / "results" / "runs" / "studies" / "sync" / "full-abc"
    own.parent.mkdir(parents=True)
    shutil.copytree(RESULTS / "sync", own)
    claims = own / "claims.json"
    claims.write_text(claims.read_text().replace('"n": 10', '"n": 77'))
    text = said(bnstudy_("advise", "model=mlp", "problem=processes"))
    assert "n = 77" in text
    assert "n = 10" not in text


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["batch_size=0"], ["batch_size=0", "1 or more"]),
        (["task=clasification"], ["unknown task", "'classification'"]),
        (["model=mpl"], ["unknown model", "'mlp'"]),
        (["results_dir=nowhere"], ["results_dir=nowhere", "no such folder"]),
        (["nrom=batch"], ["unknown key", "Allowed"]),
    ],
)
def test_a_mistake_is_one_message(words, parts):
    result = bnstudy_("advise", *words)
    assert result.exit_code == 2
    assert result.stderr.startswith("bnstudy: ")
    for part in parts:
        assert part in result.stderr


def test_the_help_names_every_key_task_and_problem():
    text = CliRunner().invoke(cli.main, ["advise", "--help"]).output
    for word in (*advice.KEYS, *advice.TASKS, *advice.PROBLEMS, "results_dir=DIR"):
        assert word in text
    for key, meaning in advice.PROBLEMS.items():
        assert f"{key}: {meaning}" in text
    assert "advise" in said(bnstudy_("--help"))
