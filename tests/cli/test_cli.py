"""What a person types and what comes back: exit codes, messages, and what lies on disk after."""

import ast
import json
import os
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner, Result

import bnstudy
from bnstudy import cli
from bnstudy.store import Store, without_provenance

# one small grid: 2 norms x 2 seeds, 4 steps on 40 digits
TINY = ["model=mlp", "data.train_size=40", "train.steps=4", "train.batch_size=8", "seeds=2",
        "tracker.mode=disabled", "workers=1"]  # fmt: skip
GRID = ["train", "-m", "norm=batch,group", *TINY]
STUDY = ["study", "batch_size", "scale=smoke", "data.train_size=40", "train.steps=4",
         "data=digits", "tracker.mode=disabled", "workers=1"]  # fmt: skip


def bnstudy_(*words: str) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(cli.main, list(words), prog_name="bnstudy")


def said(result: Result) -> str:
    """What a command that went well printed."""
    assert result.exit_code == 0, (result.stdout, result.stderr, result.exception)
    return result.stdout


@pytest.fixture(autouse=True)
def _as_before(tmp_path, monkeypatch):
    """In a folder of its own, without the caller's data; the worker's torch settings undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BNSTUDY_DATA", raising=False)
    torch = sys.modules.get("torch")
    before = torch and (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    yield
    if before:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A results folder with the tiny grid and the tiny study in it; tests do not change it."""
    results = tmp_path_factory.mktemp("trained") / "results"
    assert "trained  4 models" in said(bnstudy_(*GRID, f"results_dir={results}"))
    said(bnstudy_(*STUDY, f"results_dir={results}"))
    return results


def files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- mistakes -----------------------------------------------------------------------------------

# command -> what its one message holds
MISTAKES = {
    "train norm=bath": ["unknown norm 'bath'", "'batch'", "group"],
    "train norm.name=bath": ["unknown norm 'bath'", "'batch'", "group"],
    "train model=resnt": ["unknown model 'resnt'", "'resnet'", "lenet"],
    "train model.name=resnt": ["unknown model 'resnt'", "'resnet'", "lenet"],
    "train data=dgits": ["unknown data 'dgits'", "'digits'", "mnist"],
    "train data.name=dgits": ["unknown data set 'dgits'", "'digits'", "mnist"],
    "study batch_sise": ["unknown study 'batch_sise'", "'batch_size'"],
    "study batch_size norm=bath": ["unknown norm 'bath'", "'batch'"],
    "train optimizer.lrr=1": ["unknown key 'optimizer.lrr'", "'optimizer.lr'"],
    "train +optimizer.lrr=1": ["unknown key 'optimizer.lrr'", "'optimizer.lr'"],
    "train ++optimizer.lrr=1": ["unknown key 'optimizer.lrr'", "'optimizer.lr'"],
    "study batch_size +lr=1": ["unknown key 'lr'", "'optimizer.lr'"],
    "compare norm=batch,group lr=1": ["unknown key 'lr'", "'optimizer.lr'"],
    "train train.batch_size=0": ["train.batch_size=0", "greater than or equal to 1"],
    "train train.batch_size=41 data.train_size=40": ["batch_size=41", "40 examples", "at most 40"],
    "train model=mlp train.batch_size=1": ["layer '2'", "no variance", "layer or group norm"],
    "train norm=group norm.num_groups=3": ["layer '1' (8 channels)", "num_groups=3", "1, 2, 4, 8"],
    "train model=mlp norm=instance": ["layer '2'", "InstanceNorm", "spatial"],
    "train model=lenet norm=instance": ["layer", "InstanceNorm", "spatial"],
    "train train.epochs=1 train.steps=2": ["train.epochs and train.steps", "exactly one"],
    "train -m train.classes_per_batch=2,16 --dry-run": ["classes_per_batch=16", "10 classes"],
    "train optimizer.lr=0": ["optimizer.lr=0", "greater than 0"],
    "train optimizer.lr=-0.1": ["optimizer.lr=-0.1", "greater than 0"],
    "train data=mnist": ["BNSTUDY_DATA", "data.root=FOLDER", "data.download=true"],
    "train data=mnist data.root=nowhere": ["data.root=nowhere", "data.download=true"],
    "train data=mnist data.root=empty": ["MNIST is not under", "data.download=true"],
    "train data=mnist data.root=a_file": ["a_file is a file"],
    "train data=mnist data.root=a_file/x": ["does not exist", "data.download=true"],
    "train data=image_folder data.root=empty": ["two class folders", "found none"],
    "train data=mnist data.root=locked": ["data.root=locked cannot be read", "permissions"],
    "train results_dir=a_file/below": ["results folder 'a_file/below'", "results_dir=DIR"],
    "study batch_size scale=smoke results_dir=a_file": ["results folder", "results_dir=DIR"],
    "compare norm=batch,none results_dir=a_file/below": ["results folder", "results_dir=DIR"],
    "report results_dir=a_file/below": ["results folder", "results_dir=DIR"],
    "train norm=batch,group": ["bnstudy train -m", "bnstudy compare"],
    "train -m workers=1,2": ["workers", "cannot be an axis"],
    "compare norm=batch": ["nothing to compare", "norm=batch,group"],
    "train seeds=0": ["seeds", "not 0"],
    "train device=tpu": ["device=tpu", "'cpu' or 'cuda'"],
    "train model.depth=9": ["model.depth=9", "8, 14"],
    "train norm=ghost norm.group_size=7": ["groups of 7", "32"],
    "train norm=layer norm.freeze_at=0.5": ["freeze_at", "layer norm"],
    "train norm=custom": ["norm.entry", "package.module:function"],
    "train model=custom model.entry=nothing.here:build": ["importing 'nothing.here' failed"],
    "train --config-dir nowhere": ["--config-dir nowhere", "no such folder"],
    "trian": ["unknown command 'trian'", "'train'"],
    "ls norm=batch": ["'norm=batch'", "results_dir=DIR"],
    "show abc": ["no run with the address 'abc'"],
    "rm abc": ["no run with the address 'abc'"],
    "rm": ["give an address, or --stale"],
    "rm abc --stale": ["not both"],
    "export": ["--csv FILE", "--parquet FILE"],
    "export --csv nowhere/table.csv": ["cannot be written", "nowhere"],
    "export --parquet nowhere/table.parquet": ["cannot be written", "nowhere"],
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_one_message_and_leaves_nothing(command, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "locked").mkdir()
    (tmp_path / "a_file").write_text("x")
    # tests may run as root, who may read everything
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: Path(p).name != "locked" and allowed(p, mode))
    monkeypatch.setattr("bnstudy.sweep.launch.launch", lambda *a, **k: pytest.fail("it trains"))
    before = sorted(tmp_path.rglob("*"))
    result = bnstudy_(*command.split())
    assert result.exit_code == 2, (result.stdout, result.exception)
    assert result.stderr.startswith("bnstudy: ")
    assert result.stderr.count("bnstudy: ") == 1
    assert "Traceback" not in result.output
    for words in MISTAKES[command]:
        assert words in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_mistake_found_after_reading_data_leaves_nothing_either(tmp_path, monkeypatch):
    """Hashes and decoded images are kept beside the results, but not for a refused command."""
    import numpy as np
    from PIL import Image

    for label in "ab":
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(20):
            pixels = np.full((8, 8), 5 * i, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{i}.png")
    words = ["data=image_folder", "data.root=images", *TINY[:1], *TINY[2:]]
    refused = bnstudy_("train", *words, "data.train_size=7")
    assert refused.exit_code == 2
    assert "7 examples" in refused.stderr
    words.append("data.train_size=20")
    said(bnstudy_("train", *words, "--dry-run"))
    assert not (tmp_path / "results").exists()
    monkeypatch.setattr("bnstudy.data._kept", OrderedDict())  # as in a process of its own
    said(bnstudy_("train", *words))
    kept = [p.name for p in (tmp_path / "results" / "runs" / "cache").iterdir()]
    assert any(name.startswith("fingerprint-") for name in kept)
    assert any(name.startswith("images-") for name in kept)


def test_a_mistake_in_a_terminal():
    """Once as a person has it: another process, its exit code, its two streams."""
    done = subprocess.run(
        [sys.executable, "-c", "from bnstudy.cli import main; main()", "train", "norm=bath"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "unknown norm 'bath'. Did you mean 'batch'?" in done.stderr
    assert not Path("results").exists()


def test_a_broken_worker_is_no_mistake_of_the_person(monkeypatch, tmp_path):
    """Ours keeps its traceback: said on stderr, exit code 1 when nothing came out of it."""
    monkeypatch.setattr("bnstudy.work.trainer.train", lambda *a: 1 / 0)
    result = bnstudy_("train", *TINY)
    assert result.exit_code == 1
    assert "ZeroDivisionError" in result.stderr


# --- before anything is trained -----------------------------------------------------------------

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


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_completion_script(shell):
    script = said(bnstudy_("completion", shell))
    assert "_BNSTUDY_COMPLETE" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize(
    ("words", "incomplete", "offered"),
    [
        (["train"], "norm=", {"norm=batch", "norm=group", "norm=none"}),
        (["train"], "norm.nu", {"norm.num_groups="}),
        (["train"], "sc", {"scale="}),
        (["study"], "batch", {"batch_size"}),
        ([], "st", {"study"}),
    ],
)
def test_completion_offers_keys_choices_and_studies(words, incomplete, offered):
    from click.shell_completion import ShellComplete

    complete = ShellComplete(cli.main, {}, "bnstudy", "_BNSTUDY_COMPLETE")
    found = {item.value for item in complete.get_completions(words, incomplete)}
    assert offered <= found
    assert all(value.startswith(incomplete) for value in found)


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
    monkeypatch.setattr("bnstudy.sweep.launch.launch", lambda *a, **k: pytest.fail("it trains"))
    text = said(bnstudy_(*command, "--dry-run"))
    for word in ("plan", "cell", "models", "missing", "minutes", "MB"):
        assert word in text
    assert list(tmp_path.iterdir()) == []


def test_a_long_plan_says_how_to_shrink_it():
    text = said(bnstudy_("study", "batch_size", "data=digits", "train.epochs=500", "--dry-run"))
    for way in ("scale=smoke", "seeds=5", "data.train_size", "max_minutes"):
        assert way in text
    assert "max_minutes" not in said(bnstudy_(*STUDY, "--dry-run"))


def test_the_list_of_studies():
    text = said(bnstudy_("study"))
    for word in ("batch_size", "normalization_batch", "claim", "source", "cost", "Wu & He 2018"):
        assert word in text


# --- after training -----------------------------------------------------------------------------


def test_what_a_grid_leaves(trained):
    table = Store(trained / "runs").table()
    ours = table[table["train.batch_size"] == 8]
    assert sorted(zip(ours["norm.name"], ours["seed"], strict=True)) == [
        ("batch", 0), ("batch", 1), ("group", 0), ("group", 1),
    ]  # fmt: skip
    assert Store(trained / "runs").weights_path(ours["address"].iloc[0]).exists()  # train keeps it


@pytest.mark.parametrize("command", [GRID, STUDY, ["compare", *GRID[2:]]])
def test_again_nothing_is_missing_and_no_torch_is_needed(command, trained, monkeypatch):
    monkeypatch.setattr("bnstudy.sweep.launch.launch", lambda *a, **k: pytest.fail("it trains"))
    monkeypatch.setitem(
        sys.modules, "bnstudy.work.trainer", None
    )  # planning a full store needs no network
    assert "nothing is missing" in said(bnstudy_(*command, f"results_dir={trained}"))


def test_more_seeds_train_only_the_new_ones(trained):
    words = [w for w in GRID if not w.startswith("seeds")]
    text = said(bnstudy_(*words, "seeds=3", f"results_dir={trained}", "--dry-run"))
    assert "missing  2 models in 2 stacks (4 are in the store)" in text


def test_a_study_writes_table_figure_and_verdicts(trained):
    (folder,) = (trained / "runs" / "studies" / "batch_size").iterdir()
    names = {p.name for p in folder.iterdir()}
    assert {"study.json", "table.csv", "claims.json", "figure.svg", "figure.pdf",
            "figure.png"} <= names  # fmt: skip
    claims = json.loads((folder / "claims.json").read_text())
    assert sum(c["primary"] for c in claims) == 1
    text = said(bnstudy_(*STUDY, f"results_dir={trained}"))
    assert str(folder / "figure.png") in text
    for claim in claims:
        assert claim["text"] in text


def test_compare_prints_arms_and_writes_csv_and_markdown(trained):
    text = said(bnstudy_("compare", *GRID[2:], f"results_dir={trained}"))
    csv, markdown = (Path(line) for line in text.splitlines()[-2:])
    table = pd.read_csv(csv)
    assert list(table["norm"]) == ["batch", "group"]
    assert list(table["n"]) == [2, 2]
    runs = Store(trained / "runs").table()
    runs = runs[runs["train.batch_size"] == 8].groupby("norm.name")["test_error"].mean()
    # 1e-12: the same few numbers, added in another order
    assert table["mean"].tolist() == pytest.approx(runs[["batch", "group"]].tolist(), abs=1e-12)
    assert "vs batch" in markdown.read_text()


@pytest.mark.parametrize(
    ("axis", "arms"),
    [
        ("norm.momentum=null,0.1", ["null", "0.1"]),
        ("model.hidden=[8],[4,4]", ["[8]", "[4, 4]"]),
        ("scale=smoke,quick", ["smoke", "quick"]),
        ("norm=mine,group", ["mine", "group"]),
    ],
)
def test_compare_calls_arms_what_the_command_line_calls_them(axis, arms, tmp_path):
    (tmp_path / "own" / "norm").mkdir(parents=True)
    (tmp_path / "own" / "norm" / "mine.yaml").write_text("name: group\nnum_groups: 4\n")
    words = [w for w in TINY if not axis.startswith("scale") or not w.startswith("data")]
    text = said(bnstudy_("compare", "--config-dir", "own", *words, axis))
    table = pd.read_csv(text.splitlines()[-2], dtype=str, keep_default_na=False)
    assert list(table.iloc[:, 0]) == arms
    assert list(table["n"]) == ["2", "2"]


def test_report_is_one_page(trained):
    text = said(bnstudy_("report", f"results_dir={trained}"))
    page = Path(text.strip().rpartition(": ")[2]).read_text()
    assert "<img" in page or "<svg" in page
    assert 'src="http' not in page  # it opens without a network
    assert "Error against batch size" in page


def test_ls_show_export_doctor(trained, tmp_path):
    where = f"results_dir={trained}"
    table = Store(trained / "runs").table()
    listed = said(bnstudy_("ls", where))
    for cell in set(table["cell"]):
        assert listed.count(cell) == 1
    assert f"{table['cell'].nunique()} cells, {len(table)} runs" in listed

    address = table["address"][0]
    record = json.loads(said(bnstudy_("show", address, where)))
    assert record["address"] == address
    assert {"config", "summary", "layers", "provenance"} <= record.keys()
    assert said(bnstudy_("show", address[:12], where)) == said(bnstudy_("show", address, where))

    said(bnstudy_("export", "--csv", "t.csv", "--parquet", "t.parquet", where))
    for back in (pd.read_csv("t.csv"), pd.read_parquet("t.parquet")):
        assert list(back["address"]) == list(table["address"])
        assert list(back.columns) == list(table.columns)
    result = bnstudy_("export", "--csv", "-", where)
    assert said(result).startswith("address,cell,seed,")
    assert f"{len(table)} runs" in result.stderr  # beside the table, not in it

    found = said(bnstudy_("doctor", where))
    for name in ("torch", "device", "cores", "results", "W&B", "data=digits", "data=mnist"):
        assert name in found


def test_ls_of_an_empty_store_says_what_to_do():
    assert "bnstudy study batch_size" in said(bnstudy_("ls"))
    assert not Path("results").exists()


def test_a_study_is_drawn_anew_from_runs_that_were_trained_again():
    said(bnstudy_(*STUDY))
    (path,) = Path("results/runs/studies").rglob("table.csv")
    before = pd.read_csv(path).set_index("address")["created"]
    written = path.stat().st_mtime_ns
    said(bnstudy_(*STUDY))
    assert path.stat().st_mtime_ns == written  # nothing is new
    victim = before.index[0]
    said(bnstudy_("rm", victim))
    said(bnstudy_(*STUDY))
    after = pd.read_csv(path).set_index("address")["created"]
    assert set(after.index) == set(before.index)
    assert after[victim] != before[victim]


def test_what_was_removed_or_damaged_is_trained_again_to_the_same_numbers(capfd):
    said(bnstudy_(*GRID))
    store = Store("results/runs")
    first = store.table()

    said(bnstudy_("rm", first["address"][0]))
    assert len(store.table()) == 3
    assert "missing  1 model " in said(bnstudy_(*GRID, "--dry-run"))
    assert "trained  1 model " in said(bnstudy_(*GRID))

    victim = next(Path("results/runs/cells").rglob("history.parquet"))
    victim.write_bytes(victim.read_bytes()[:-1])  # torn
    result = bnstudy_(*GRID)
    assert "trained  " in said(result)
    assert f"damaged: stack {victim.parent.name}" in result.stderr
    assert "count as missing" in result.stderr
    assert len(list(Path("results/runs/damaged").iterdir())) == 1
    again = without_provenance(store.table())
    # the removed run trained alone, its stack mate is not with it: equal up to rounding, which
    # 4 steps of float32 grow to less than 1e-4
    pd.testing.assert_frame_equal(again, without_provenance(first), rtol=1e-4, atol=1e-4)


def test_stale_records_are_named_and_removed_together(monkeypatch):
    said(bnstudy_("train", *TINY))
    assert "removed 0 records" in said(bnstudy_("rm", "--stale"))
    monkeypatch.setattr("bnstudy.config.RESULTS_VERSION", 99)
    monkeypatch.setattr("bnstudy.config.address.RESULTS_VERSION", 99)
    monkeypatch.setattr("bnstudy.store.records.RESULTS_VERSION", 99)
    assert "stale" in said(bnstudy_("ls"))
    assert "removed 2 records" in said(bnstudy_("rm", "--stale"))
    assert "the store is empty" in said(bnstudy_("ls"))


def test_results_of_a_command_are_nowhere_else(trained):
    """One folder: what is below it is all there is."""
    assert {p.name for p in trained.parent.iterdir()} == {"results"}
    assert {p.name for p in trained.iterdir()} == {"runs"}
    before = files(trained / "runs" / "cells")
    said(bnstudy_("ls", f"results_dir={trained}"))
    assert files(trained / "runs" / "cells") == before
