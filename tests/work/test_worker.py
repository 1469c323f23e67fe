"""A worker at its pack, in this process: one state a stack, and nothing raised."""

import os
import signal
import time
from pathlib import Path
from typing import ClassVar

import pytest

from bnstudy.config import Config, TrackerConfig
from bnstudy.errors import UserError
from bnstudy.store import Store
from bnstudy.sweep.protocol import (
    Execution,
    Pack,
    StackPlan,
    State,
    Status,
    stop_file,
)
from bnstudy.work import worker
from bnstudy.work.checkpoint import Checkpoint
from bnstudy.work.failures import Failures
from bnstudy.work.trainer import Trainer


def tiny(**train) -> Config:
    return Config.model_validate(
        {
            "model": {"name": "mlp", "hidden": (6,)},
            "data": {"train_size": 40},
            "train": {"batch_size": 8, "steps": 3, **train},
        }
    )


def seeds(config: Config, *numbers: int) -> list[Config]:
    return [config.model_copy(update={"seed": s}) for s in numbers]


def pack(tmp_path: Path, *stacks: list[Config], **execution) -> Pack:
    """A pack written where its worker finds it; the planner is this process."""
    made = Pack(
        index=0,
        folder=str(tmp_path),
        execution=Execution(
            results_dir=str(tmp_path),
            device="cpu",
            tracker=TrackerConfig(mode="disabled"),
            command="a test",
            **execution,
        ),
        stacks=[StackPlan(configs=configs, seconds=1.0) for configs in stacks],
    )
    made.write()
    (tmp_path / "planner.pid").write_text(str(os.getpid()))
    return made


def states(tmp_path: Path) -> list[State]:
    return [s.state for s in Status.read(tmp_path)[0].stacks.values()]


def test_a_pack_becomes_records(tmp_path):
    made = pack(tmp_path, seeds(tiny(), 3, 5), seeds(tiny(batch_size=4), 3))
    assert worker.run_pack(str(made.path))["done"] == 2
    assert states(tmp_path) == [State.DONE, State.DONE]
    status = Status.read(tmp_path)[0]
    assert status.done == 2
    assert status.done_seconds == status.total_seconds == 2.0
    assert Store(tmp_path / "runs").held() == {a for s in made.stacks for a in s.addresses}


def test_one_stack_that_fails_leaves_the_others_alone(tmp_path, monkeypatch):
    whole = Trainer.train

    def train(self, configs, *rest):
        if configs[0].train.batch_size == 4:
            raise ZeroDivisionError("in the middle")
        return whole(self, configs, *rest)

    monkeypatch.setattr(Trainer, "train", train)
    stacks = seeds(tiny(batch_size=4), 0), seeds(tiny(), 0)
    made = pack(tmp_path, *stacks)
    counts = worker.run_pack(str(made.path))
    assert (counts["failed"], counts["done"]) == (1, 1)
    assert states(tmp_path) == [State.FAILED, State.DONE]
    error = Status.read(tmp_path)[0].stacks[made.stacks[0].name].error
    assert "Traceback" in error
    assert "ZeroDivisionError: in the middle" in error
    failures = Failures(tmp_path / "runs")
    assert failures.of(made.stacks) == {made.stacks[0].name: error}
    monkeypatch.setattr(Trainer, "train", whole)
    worker.run_pack(str(made.path))
    assert states(tmp_path) == [State.DONE, State.DONE]
    assert failures.of(made.stacks) == {}


def test_a_failure_stands_for_the_same_networks_and_the_same_code(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "train", lambda *a: 1 / 0)
    made = pack(tmp_path, seeds(tiny(), 0, 1))
    worker.run_pack(str(made.path))
    failures = Failures(tmp_path / "runs")
    assert set(failures.of(made.stacks)) == {made.stacks[0].name}
    fewer = StackPlan(configs=made.stacks[0].configs[:1], seconds=1.0)
    assert failures.of([fewer]) == {}
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("bnstudy.work.failures.git_state", lambda: {"commit": "another"})
        assert failures.of(made.stacks) == {}
    for damage in ("", "[]", "{", "null"):
        failures.path(made.stacks[0]).write_text(damage)
        assert failures.of(made.stacks) == {}
    failures.path(made.stacks[0]).unlink()
    os.mkfifo(failures.path(made.stacks[0]))
    assert failures.of(made.stacks) == {}


def test_fail_fast_stops_at_the_first_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "train", lambda *a: 1 / 0)
    stacks = seeds(tiny(batch_size=4), 0), seeds(tiny(), 0)
    worker.run_pack(str(pack(tmp_path, *stacks, fail_fast=True).path))
    assert states(tmp_path) == [State.FAILED, State.STOPPED]
    assert stop_file(tmp_path).exists(), "other workers stop, too"


def test_a_stopped_stack_goes_on_from_its_checkpoint_which_ends_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "LOOK_EVERY", 0.0)
    monkeypatch.setattr("bnstudy.work.checkpoint.WORTH", 0.0)
    whole, steps = Trainer.train, []

    def train(self, configs, on_step, *rest):
        def at(fraction):
            steps.append(fraction)
            if len(steps) == 2:
                stop_file(tmp_path).touch()
            on_step(fraction)

        return whole(self, configs, at, *rest)

    monkeypatch.setattr(Trainer, "train", train)
    made = pack(tmp_path, seeds(tiny(), 0, 1), checkpoint_minutes=10.0)
    worker.run_pack(str(made.path))
    assert states(tmp_path) == [State.STOPPED]
    (left,) = (tmp_path / "runs/checkpoints").iterdir()
    stop_file(tmp_path).unlink()
    worker.run_pack(str(made.path))
    assert states(tmp_path) == [State.DONE]
    assert Status.read(tmp_path)[0].notes == []
    assert steps == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3])
    assert not left.exists()
    record = Store(tmp_path / "runs").get(made.stacks[0].name)
    assert record["provenance"]["resumed"] == 1
    other = tmp_path / "other"
    other.mkdir()
    worker.run_pack(str(pack(other, seeds(tiny(), 0, 1)).path))
    straight = Store(other / "runs").get(made.stacks[0].name)
    assert "resumed" not in straight["provenance"]
    assert record["summary"] == straight["summary"]


def test_a_checkpoint_of_what_somebody_else_stored_is_removed(tmp_path):
    made = pack(tmp_path, seeds(tiny(), 0), checkpoint_minutes=10.0)
    worker.run_pack(str(made.path))
    path = Checkpoint(tmp_path / "runs", made.stacks[0].configs).path
    path.parent.mkdir(exist_ok=True)
    path.touch()
    worker.run_pack(str(made.path))
    assert not path.exists()


def test_a_worker_whose_planner_is_gone_leaves_a_checkpoint_and_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "LOOK_EVERY", 0.0)
    monkeypatch.setattr("bnstudy.work.checkpoint.WORTH", 0.0)
    ended = []
    monkeypatch.setattr(worker.os, "_exit", ended.append)
    made = pack(tmp_path, seeds(tiny(), 0), checkpoint_minutes=10.0)
    (tmp_path / "planner.pid").write_text("1")  # so this process is a worker of its own
    parents = iter([1, 1, 1])
    monkeypatch.setattr(worker.os, "getppid", lambda: next(parents, 2))
    worker.run_pack(str(made.path))
    assert ended == [1]
    assert len(list((tmp_path / "runs/checkpoints").iterdir())) == 1


def test_a_mistake_of_the_person_is_its_message_without_a_traceback(tmp_path, monkeypatch):
    def train(self, configs, *rest):
        raise UserError("that cannot train")

    monkeypatch.setattr(Trainer, "train", train)
    made = pack(tmp_path, seeds(tiny(), 0))
    worker.run_pack(str(made.path))
    assert Status.read(tmp_path)[0].stacks[made.stacks[0].name].error == "that cannot train"


def test_a_worker_that_cannot_begin_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "Trainer", lambda *a: 1 / 0)
    made = pack(tmp_path, seeds(tiny(), 0))
    worker.run_pack(str(made.path))
    assert "ZeroDivisionError" in Status.read(tmp_path)[0].error


def test_the_stop_file_ends_the_work_between_two_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "LOOK_EVERY", 0.0)
    stop_file(tmp_path).touch()
    made = pack(tmp_path, seeds(tiny(), 0), seeds(tiny(batch_size=4), 0))
    worker.run_pack(str(made.path))
    assert states(tmp_path) == [State.STOPPED]
    assert Store(tmp_path / "runs").held() == set()


@pytest.mark.parametrize("number", worker.ENDING)
def test_a_signal_ends_the_work_and_handlers_are_as_before(tmp_path, monkeypatch, number):
    """Slurm sends it before it kills; nothing that `except Exception` catches may swallow it."""
    whole = Trainer.train

    def train(self, configs, on_step, *rest):
        def at(fraction):
            os.kill(os.getpid(), number)
            try:
                on_step(fraction)
            except Exception:
                pytest.fail("swallowed")

        return whole(self, configs, at, *rest)

    monkeypatch.setattr(Trainer, "train", train)
    made = pack(tmp_path, seeds(tiny(), 0))
    (tmp_path / "planner.pid").write_text("1")  # so this process is a worker of its own
    handed_on = []
    first = signal.signal(number, lambda *a: handed_on.append(a[0]))
    try:
        before = signal.getsignal(number), signal.getsignal(signal.SIGINT)
        worker.run_pack(str(made.path))
        assert (signal.getsignal(number), signal.getsignal(signal.SIGINT)) == before
    finally:
        signal.signal(number, first)
    assert states(tmp_path) == [State.STOPPED]
    assert handed_on == [number], "submitit queues the job again"


def test_after_the_deadline_no_stack_begins(tmp_path):
    made = pack(tmp_path, seeds(tiny(), 0), deadline=time.time() - 1)
    worker.run_pack(str(made.path))
    assert states(tmp_path) == []


def test_what_somebody_else_stored_meanwhile_is_not_trained_again(tmp_path, monkeypatch):
    """Two commands on one results folder share the work, stack by stack."""
    configs = seeds(tiny(), 0, 1)
    worker.run_pack(str(pack(tmp_path, configs).path))
    monkeypatch.setattr(Trainer, "train", lambda *a: pytest.fail("it trains"))
    worker.run_pack(str(pack(tmp_path, configs).path))
    assert states(tmp_path) == [State.DONE]
    # one seed more than is there: the stack is not there
    monkeypatch.setattr(Trainer, "train", lambda *a: 1 / 0)
    worker.run_pack(str(pack(tmp_path, [*configs, *seeds(tiny(), 2)]).path))
    assert states(tmp_path) == [State.FAILED]


class Spy:
    """In W&B's place: what was told of each cell."""

    made: ClassVar[list["Spy"]] = []

    def __init__(self, settings, folder, group, tags, configs, about, say):
        self.configs, self.tags, self.group, self.rows = configs, tags, group, []
        self.about = about
        self.summaries, self.status, self.ended = {}, "mirrored", None
        Spy.made.append(self)

    def __enter__(self):
        return self

    def log(self, configs, rows):
        self.rows += zip([c.address for c in configs], rows, strict=True)

    def __exit__(self, kind, *rest):
        self.ended = kind


@pytest.mark.parametrize("fails", [False, True])
def test_the_mirror_sees_every_row_and_how_it_ended(tmp_path, monkeypatch, fails):
    monkeypatch.setattr(Spy, "made", [])
    monkeypatch.setattr(worker, "Mirror", Spy)
    if fails:
        monkeypatch.setattr(Trainer, "train", lambda *a: 1 / 0)
    made = pack(tmp_path, seeds(tiny(), 3, 5), study="batch_size", scale="smoke")
    worker.run_pack(str(made.path))
    (spy,) = Spy.made
    assert spy.group == "batch_size"
    assert spy.tags[:5] == ["batch_size", "smoke", "digits", "mlp", "batch"]
    commit = spy.about.pop("git_commit")
    assert spy.tags[5] == commit[:7]
    assert spy.about == {"study": "batch_size", "scale": "smoke", "command": "a test"}
    if fails:
        assert spy.ended is ZeroDivisionError
        assert spy.rows == []
        return
    assert spy.ended is None
    assert {address for address, _ in spy.rows} == set(made.stacks[0].addresses)
    store = Store(tmp_path / "runs")
    for address, final in spy.summaries.items():
        assert store.get(address)["summary"]["test_error"] == final["test_error"]
