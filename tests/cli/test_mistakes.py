"""A mistake is one message and exit code 2, before anything is written."""

import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
from shell import TINY, bnstudy_, own_folder, said

__all__ = ["own_folder"]  # a fixture that acts by being here

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
    "train -m train.classes_per_batch=2,16 --dry-run": ["classes_per_batch=16", "10 classes"],
    "train norm=custom": ["norm.entry", "package.module:function"],
    "train model=custom model.entry=nothing.here:build": ["importing 'nothing.here' failed"],
    "train --config-dir nowhere": ["--config-dir nowhere", "no such folder"],
    "trian": ["unknown command 'trian'", "'train'"],
    "report norm=batch": ["'norm=batch'", "results_dir=DIR"],
    "ls results_dir=typo": ["results_dir=typo", "no such folder"],
    "export --csv - results_dir=a_file": ["results_dir=a_file", "no such folder"],
    "ls abc def": ["abc and def", "one address or one study"],
    "show": ["nothing is named", "a study"],
    "ls batch_size norm=bath": ["unknown norm 'bath'", "'batch'"],
    "compare norm=batch,group --metric tst_error": ["unknown metric 'tst_error'", "'test_error'"],
    "compare norm=group,none --metric test_error_precise": ["unknown metric", "test_error"],
    "compare arms=batch": ["at least two", "batch; group num_groups=2"],
    "train -m hydra/sweeper=optuna norm=batch,group": ["hydra/sweeper=optuna", "comma lists"],
    "train hydra/launcher=submitit_slrum": ["Did you mean 'submitit_slurm'"],
    "show abc": ["no run with the address 'abc'"],
    "rm abc": ["no run with the address 'abc'"],
    "rm": ["give an address, a study or filters, or --stale"],
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
    monkeypatch.setattr("bnstudy.cli.execute.launch", lambda *a, **k: pytest.fail("it trains"))
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
