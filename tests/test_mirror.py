"""Seeds and cells of a stack in W&B: whose numbers are whose, and when."""

import threading

import pytest

from bnstudy.config import Config, TrackerConfig
from bnstudy.tracking import Mirror, Tracker

CONFIG = {"norm": {"name": "batch"}}
CELL, STACK = "c" * 16, "abcdef012345"


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    monkeypatch.setattr("bnstudy.tracking._failure", None)


def rows(epoch, seeds=(0, 3)):
    return [{"seed": s, "step": 10 * epoch, "test_error": 0.1 * s + 1 / (1 + epoch)} for s in seeds]


class Silent:
    """A run of W&B that keeps what it is told."""

    def __init__(self):
        self.told, self.summary, self.exit_code = [], {}, None

    def log(self, values):
        self.told.append(values)

    def finish(self, exit_code):
        self.exit_code = exit_code


@pytest.fixture
def silent(monkeypatch):
    """Every tracker's run, in the order in which they start."""
    runs = []

    def init(self, *rest):
        runs.append(Silent())
        self._run = runs[-1]

    monkeypatch.setattr(Tracker, "_init", init)
    return runs


def test_of_seeds_that_train_one_after_the_other_the_mean_is_of_all(tmp_path, silent):
    """Networks that do not stack: each seed has its own course, the mean waits for the last."""
    tracker = Tracker(TrackerConfig(), tmp_path, "g", (), seeds=(0, 3))
    tracker.start(CELL, STACK, CONFIG, "n")
    for seed in (0, 3):
        for epoch in (1, 2):
            tracker.log(rows(epoch, [seed]))
    tracker.finish()
    told = silent[0].told
    assert [t["seed_0/step"] for t in told if "seed_0/step" in t] == [10, 20]
    assert [t["seed_3/step"] for t in told if "seed_3/step" in t] == [10, 20]
    of_all = [t for t in told if "test_error" in t]
    assert [t["step"] for t in of_all] == [10, 20], "the step never goes back"
    assert [t["test_error"] for t in of_all] == pytest.approx([0.65, 0.15 + 1 / 3])


def test_seeds_that_train_together_are_one_call_an_evaluation(tmp_path, silent):
    tracker = Tracker(TrackerConfig(), tmp_path, "g", (), seeds=(0, 3))
    tracker.start(CELL, STACK, CONFIG, "n")
    for epoch in (1, 2):
        tracker.log(rows(epoch))
    assert len(silent[0].told) == 2
    assert silent[0].told[0]["test_error"] == pytest.approx(0.65)


def test_a_summary_of_some_seeds_claims_no_mean(tmp_path, silent):
    tracker = Tracker(TrackerConfig(), tmp_path, "g", (), seeds=(0, 3))
    tracker.start(CELL, STACK, CONFIG, "n")
    tracker.finish({0: {"test_error": 0.5}})
    assert silent[0].summary == {"seed_0/test_error": 0.5}


def networks():
    cells = [Config.model_validate({"optimizer": {"lr": lr}}) for lr in (0.1, 0.2)]
    return [c.model_copy(update={"seed": s}) for c in cells for s in (0, 3)]


def test_every_cell_of_a_stack_is_a_run_of_its_own(tmp_path, silent):
    configs = networks()
    with Mirror(TrackerConfig(), tmp_path, "g", ["t"], configs) as here:
        here.log(configs, [{"seed": c.seed, "step": 1, "lr": c.optimizer.lr} for c in configs])
        here.log(configs[:1], [{"seed": 0, "step": 2, "lr": 0.0}])
        here.summaries = {c.address: {"test_error": c.optimizer.lr} for c in configs}
    assert here.status == "mirrored"  # and all is told
    assert [run.exit_code for run in silent] == [0, 0]
    assert [run.told[0]["lr"] for run in silent] == [0.1, 0.2]
    assert [len(run.told) for run in silent] == [2, 1]
    assert [run.summary["test_error"] for run in silent] == [0.1, 0.2]


def test_training_does_not_wait_for_wandb_but_its_record_does(tmp_path, monkeypatch):
    """W&B starts beside the first steps; before a record is stored its mirror is complete."""
    gate, told = threading.Event(), []

    def init(self, *rest):
        gate.wait(30)
        self._run = Silent()
        told.append("started")

    monkeypatch.setattr(Tracker, "_init", init)
    monkeypatch.setattr(Tracker, "_log", lambda self, rows: told.append("logged"))
    configs = networks()
    with Mirror(TrackerConfig(), tmp_path, "g", [], configs[:2]) as here:
        here.log(configs[:2], [{"seed": c.seed, "step": 1} for c in configs[:2]])
        assert told == []
        gate.set()
    assert here.status == "mirrored"
    assert told == ["started", "logged"]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_what_breaks_off_does_not_finish_as_a_success(tmp_path, silent, error):
    with (
        pytest.raises(error),
        Mirror(TrackerConfig(), tmp_path, "g", [], networks()) as here,
    ):
        raise error
    assert [run.exit_code for run in silent] == [1, 1]
    assert here.status == "mirrored"
