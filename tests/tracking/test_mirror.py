"""Seeds and cells of a stack in W&B: whose numbers are whose, and when."""

import threading

import pytest
from wandb_files import StandIn

from bnstudy.config import Config, TrackerConfig
from bnstudy.tracking import Mirror, Tracker

CONFIG = {"norm": {"name": "batch"}}
CELL, STACK = "c" * 16, "abcdef012345"


def rows(epoch, seeds=(0, 3)):
    return [{"seed": s, "step": 10 * epoch, "test_error": 0.1 * s + 1 / (1 + epoch)} for s in seeds]


@pytest.fixture
def silent(monkeypatch):
    """Every tracker's run, in the order in which they start."""
    runs = []

    def init(self, *rest):
        runs.append(StandIn())
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


def test_a_run_says_all_of_its_cell(tmp_path, monkeypatch):
    """Every setting, defaults too; which seeds, and where it belongs; no folder of this machine."""
    told = []
    monkeypatch.setattr(Tracker, "_init", lambda self, prefix, config, name: told.append(config))
    config = Config.model_validate({"norm": {"name": "batch"}, "data": {"root": "/home/me"}})
    members = [config.model_copy(update={"seed": s}) for s in (3, 5)]
    with Mirror(TrackerConfig(), tmp_path, "g", [], members, {"scale": "smoke"}) as here:
        pass
    assert here.status == "mirrored"
    every = config.model_dump(mode="python")
    for key in ("root", "path", "download"):
        del every["data"][key]
    del every["seed"], every["task"]["style_path"]
    assert told == [{**every, "cell": config.cell, "seeds": [3, 5], "scale": "smoke"}]
    assert "test_part" not in config.canonical()["data"], "a setting that addresses leave out"


@pytest.mark.parametrize(("part", "kind"), [("test", "cell"), ("validation", "pilot")])
def test_pilots_are_marked_as_such(tmp_path, part, kind):
    config = Config.model_validate({"data": {"test_part": part}})
    (tracker,) = Mirror(TrackerConfig(), tmp_path, "g", [], [config]).trackers.values()
    assert tracker.job_type == kind


def test_training_does_not_wait_for_wandb_but_its_record_does(tmp_path, monkeypatch):
    """W&B starts beside the first steps; before a record is stored its mirror is complete."""
    gate, told = threading.Event(), []

    def init(self, *rest):
        gate.wait(30)
        self._run = StandIn()
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
