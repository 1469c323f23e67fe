"""Stacks that raise: noted, named, left out until somebody asks for them; and stops that keep."""

import os
import signal
import time
from pathlib import Path

import pytest
from shell import TINY, bnstudy_, own_folder, process, said

from bnstudy.store import Store, without_provenance

__all__ = ["own_folder"]  # a fixture that acts by being here

# fails in training, at some batch sizes, as long as a file says so
NORM = """
from pathlib import Path
from torch import nn

class Sometimes(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0
    def forward(self, x):
        self.calls += self.training
        if self.calls > 3 and len(x) < 8 and Path("broken").exists():
            raise RuntimeError("broken on purpose")
        return x

def factory(channels):
    return Sometimes()
"""
WORDS = ["train", "-m", "norm=custom", "norm.entry=sometimes_norm:factory",
         *(word for word in TINY if "batch_size" not in word)]  # fmt: skip


@pytest.fixture(autouse=True)
def _norm(own_folder):
    Path("sometimes_norm.py").write_text(NORM)
    Path("broken").touch()


def held() -> int:
    return len(Store("results/runs").held())


def test_a_failure_is_named_left_out_and_tried_again_when_asked():
    words = [*WORDS, "train.batch_size=4,8"]
    first = bnstudy_(*words)
    assert first.exit_code == 1
    assert "broken on purpose" in first.stderr
    assert "failed   1 stack; retry=failed trains what failed again" in first.stderr
    assert held() == 2, "the other stack has trained"
    (note,) = Path("results/runs/failures").iterdir()
    assert "broken on purpose" in note.read_text()

    Path("broken").unlink()
    again = bnstudy_(*words)
    assert again.exit_code == 1
    assert "failed   before, and left out now: digits mlp custom B=4" in again.stderr
    assert "nothing is missing" not in again.stdout
    assert held() == 2

    assert "missing  2 models in 1 stack" in said(bnstudy_(*words, "retry=failed", "--dry-run"))
    said(bnstudy_(*words, "retry=failed"))
    assert held() == 4
    assert not note.exists()
    assert "nothing is missing" in said(bnstudy_(*words))


@pytest.mark.parametrize("command", [["train", "-m"], ["compare"]])
def test_where_everything_fails_there_is_no_traceback_of_ours(command):
    result = bnstudy_(*command, *WORDS[2:], "train.batch_size=2,4")
    assert result.exit_code == 1, (result.stderr, result.exception)
    assert "failed   2 stacks" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("fast", "failed"), [(True, 1), (False, 2)])
def test_fail_fast_stops_at_the_first(fast, failed):
    result = bnstudy_(*WORDS, "train.batch_size=2,4", f"fail_fast={fast}".lower())
    assert result.exit_code == 1
    assert f"failed   {failed} stack" in result.stderr
    assert ("1 stack (fail_fast=true stopped at the first failure)" in result.stderr) == fast


def test_divergence_is_no_failure():
    result = bnstudy_(*WORDS, "train.batch_size=8", "optimizer.lr=1e30")
    assert said(result)
    assert not Path("results/runs/failures").exists()


def test_what_is_removed_as_soon_as_it_is_stored_is_named_and_is_no_death(monkeypatch):
    Path("broken").unlink()
    monkeypatch.setattr(Store, "put_all", lambda self, deliveries: None)
    result = bnstudy_(*WORDS, "train.batch_size=8")
    assert result.exit_code == 1
    assert "gone     digits mlp custom B=8: stored and removed again, 3 times" in result.stderr
    assert "left     1 stack (removed while they were trained); the same command" in result.stderr
    assert "killed" not in result.stderr
    assert "died" not in result.stderr


@pytest.mark.parametrize("word", ["retry=faild", "checkpoint_minutes=0", "fail_fast=maybe"])
def test_a_mistake_in_them_is_one_message(word):
    result = bnstudy_(*WORDS, word)
    assert result.exit_code == 2
    assert word.partition("=")[0] in result.stderr


def test_they_are_not_part_of_the_address(tmp_path):
    from bnstudy.config import Config

    fields = Config.model_json_schema()["properties"]
    assert not fields.keys() & {"retry", "fail_fast", "checkpoint_minutes"}


LONG = ["train", "model=mlp", "model.hidden=[8]", "data.train_size=40", "train.batch_size=8",
        "train.steps=4000", "evaluate.steps=2000", "seeds=2", "checkpoint_minutes=0.02",
        "tracker.mode=disabled"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "how"),
    [(signal.SIGTERM, ["workers=1"]), (signal.SIGUSR2, ["workers=1"]),
     (signal.SIGINT, ["hydra/launcher=joblib", "workers=2"])],
)  # fmt: skip
def test_a_signal_leaves_a_checkpoint_and_the_same_command_goes_on(tmp_path, number, how):
    """A command in the middle of one long stack; the table is that of one never stopped."""
    running = process(*LONG, *how, stdin=-3)
    end = time.monotonic() + 240
    while not (left := list(Path("results/runs/checkpoints").glob("*.checkpoint"))):
        assert time.monotonic() < end, running.poll()
        time.sleep(0.1)
    os.kill(running.pid, number)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 128 + number, (out, err)
    assert "Traceback" not in err
    assert list(Path("results/runs/checkpoints").iterdir()) == left
    assert held() == 0
    again = process(*LONG, *how, stdin=-3)
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert list(Path("results/runs/checkpoints").iterdir()) == []
    store = Store("results/runs")
    assert {record["provenance"]["resumed"] for record in store} == {1}
    straight = process(*LONG, "results_dir=other", *how, stdin=-3)
    straight.communicate(timeout=300)
    assert without_provenance(store.table()).equals(without_provenance(Store("other/runs").table()))
