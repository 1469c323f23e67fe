"""The command line as tests use it: in this process, in a folder of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import bnstudy
from bnstudy import cli

# one small grid: 2 norms x 2 seeds, 4 steps on 40 digits
TINY = ["model=mlp", "data.train_size=40", "train.steps=4", "train.batch_size=8", "seeds=2",
        "tracker.mode=disabled", "workers=1"]  # fmt: skip
GRID = ["train", "-m", "norm=batch,group", *TINY]
STUDY = ["study", "batch_size", "scale=smoke", "data.train_size=40", "train.steps=4",
         "data=digits", "model=resnet", "tracker.mode=disabled", "workers=1"]  # fmt: skip


def bnstudy_(*words: str) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(cli.main, list(words), prog_name="bnstudy")


def said(result: Result) -> str:
    """What a command that went well printed."""
    assert result.exit_code == 0, (result.stdout, result.stderr, result.exception)
    return result.stdout


def process(*words: str, **more: Any) -> subprocess.Popen:
    """The command in a process of its own, as the installed script starts it: the working
    directory is not where modules are looked for."""
    path = {"PYTHONPATH": str(Path(bnstudy.__file__).parents[1]), **more.pop("env", {})}
    more.setdefault("stdout", subprocess.PIPE)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "bnstudy", *words],
        stderr=subprocess.PIPE, text=True, env={**os.environ, **path},
        **more,
    )  # fmt: skip


def finished(running: subprocess.Popen) -> str:
    """What a process printed that went well."""
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    return out


def files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """In a folder of its own, without the caller's data; the worker's torch settings undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BNSTUDY_DATA", raising=False)
    torch = sys.modules.get("torch")
    before = torch and (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    yield
    if before:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
