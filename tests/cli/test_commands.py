"""What commands print before anything is trained."""

import ast
import subprocess
import sys
import time

import pytest
import yaml
from shell import GRID, STUDY, TINY, bnstudy_, own_folder, said

import bnstudy

__all__ = ["own_folder"]  # a fixture that acts by being here

LIGHT = """
import sys, time
begin = time.perf_counter()
from bnstudy.cli import main
try:
    main([{word!r}], prog_name="bnstudy")
except SystemExit as end:
    assert not end.code, end.code
took = time.perf_counter() - begin
print([took, sorted({{m.partition(".")[0] for m in sys.modules}})])
"""


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_is_quick_and_loads_no_torch(word):
    """Half a second with the interpreter's own start, the best of three: others use the machine."""
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", LIGHT.format(word=word)],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        times.append(time.perf_counter() - begin)
        *shown, last = done.stdout.splitlines()
        _, modules = ast.literal_eval(last)
        assert not {"torch", "hydra", "pandas", "numpy", "wandb", "pydantic"} & set(modules)
    assert min(times) < 0.5
    assert any("bnstudy" in line for line in shown)


def test_help_names_every_command():
    text = said(bnstudy_("--help"))
    for name in ("train", "study", "compare", "report", "ls", "show", "rm", "export", "doctor"):
        assert f"  {name} " in text


def test_version():
    assert said(bnstudy_("--version")) == f"bnstudy, version {bnstudy.__version__}\n"


@pytest.mark.parametrize(
    "command", ["train norm=group", "compare norm=batch,group", "study batch_size scale=smoke"]
)
def test_cfg_prints_the_job_as_yaml_and_stops(command, tmp_path):
    text = said(bnstudy_(*command.split(), "--cfg", "job", "optimizer.lr=0.7"))
    config = yaml.safe_load(text)
    assert config["optimizer"]["lr"] == 0.7
    assert "hydra" not in config
    assert list(tmp_path.iterdir()) == []


def test_cfg_shows_hydras_own_part_too():
    assert "launcher" in yaml.safe_load(said(bnstudy_("train", "--cfg", "hydra")))["hydra"]
    everything = yaml.safe_load(said(bnstudy_("train", "--cfg", "all")))
    assert {"hydra", "optimizer"} <= everything.keys()


@pytest.mark.parametrize("command", [GRID, ["train", *TINY], STUDY, ["compare", *GRID[2:]]])
def test_a_dry_run_shows_the_plan_and_writes_nothing(command, tmp_path, monkeypatch):
    monkeypatch.setattr("bnstudy.cli.execute.launch", lambda *a, **k: pytest.fail("it trains"))
    text = said(bnstudy_(*command, "--dry-run"))
    for word in ("plan", "cell", "models", "missing", "minutes", "MB"):
        assert word in text
    assert list(tmp_path.iterdir()) == []


def test_a_long_plan_says_how_to_shrink_it():
    text = said(bnstudy_("study", "batch_size", "model=resnet", "train.epochs=500", "--dry-run"))
    for way in ("scale=smoke", "seeds=5", "data.train_size", "max_minutes"):
        assert way in text
    assert "max_minutes" not in said(bnstudy_(*STUDY, "--dry-run"))


def test_a_plan_says_when_training_is_judged_by_more_than_its_end():
    words = "train", "model=mlp", "train.steps=40", "--dry-run"
    text = said(bnstudy_(*words, "evaluate.steps=40"))
    assert "mean over the last 40 of 40 steps: evaluate.steps=38 measures the end alone" in text
    assert "note " not in said(bnstudy_(*words, "evaluate.steps=38"))


def test_the_list_of_studies():
    text = said(bnstudy_("study"))
    for word in ("batch_size", "normalization_batch", "claim", "source", "cost", "Wu & He 2018"):
        assert word in text
