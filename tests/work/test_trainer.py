"""What a worker leaves behind."""

import pytest
import torch

from bnstudy.config import Config, TrackerConfig
from bnstudy.sweep.protocol import Pack, StackPlan, Status
from bnstudy.work import trainer as run


def test_a_summary_holds_the_last_epoch_and_the_median_of_five():
    history = [{"seed": 0, "step": i, "test_error": e} for i, e in enumerate([9, 1, 5, 3, 4, 2])]
    found = run.summary(history)
    assert found["test_error"] == 2
    assert found["test_error_last5"] == 3


def test_a_summary_takes_what_only_the_last_evaluation_has():
    rows = [{"seed": 0, "step": t, "test_error": t} for t in (1, 2)]
    found = run.summary([*rows, {"seed": 0, "step": 3, "test_error": 3, "test_error_shared": 7}])
    assert (found["test_error_shared"], found["test_error_shared_last5"]) == (7, 7)
    assert found["test_error_last5"] == 2


def planned(tmp_path, configs, **settings):
    """A worker with one stack to train."""
    pack = Pack(
        index=0, folder=str(tmp_path), results_dir=str(tmp_path), device="cpu", save_weights=False,
        stacks=[StackPlan(configs=configs, seconds=1.0)], study="", command="a test",
        tracker=TrackerConfig(mode="disabled"), **settings,
    )  # fmt: skip
    return run.Runner(pack, Status(), None), pack.stacks[0]


def tiny(**optimizer):
    return Config.model_validate(
        {
            "model": {"name": "mlp", "hidden": (6,)},
            "data": {"train_size": 40},
            "train": {"batch_size": 8, "steps": 3},
            "optimizer": optimizer,
        }
    )


def test_a_stack_of_two_cells_is_stored_as_two_cells(tmp_path):
    cells = [tiny(lr=0.1), tiny(lr=0.2)]
    configs = [c.model_copy(update={"seed": s}) for c in cells for s in (3, 5)]
    worker, plan = planned(tmp_path, configs)
    worker.run(plan)
    assert worker.status.failures == []
    for cell in cells:
        held = worker.store.held([cell.cell])
        assert held == {cell.model_copy(update={"seed": s}).address for s in (3, 5)}
    record = worker.store.get(configs[0].address)
    assert record["stack"]["networks"] == 4
    assert record["stack"]["kind"] == "folded"
    assert record["stack"]["steps"].startswith("eager: 3 steps would save")
    assert record["summary"]["lr_initial"] == cells[0].optimizer.lr_at(8)
    history = worker.store.history(configs[3].address)
    assert history["seed"].unique().tolist() == [5]


def test_a_stack_that_does_not_fit_is_halved_and_says_so(tmp_path, monkeypatch):
    configs = [tiny().model_copy(update={"seed": s}) for s in range(5)]
    worker, plan = planned(tmp_path, configs)
    whole, sizes = run.Runner._train_together, []

    def small_memory(self, job, members, on_step):
        sizes.append(len(members))
        if len(members) > 2:
            raise torch.cuda.OutOfMemoryError("out of memory")
        whole(self, job, members, on_step)

    monkeypatch.setattr(run.Runner, "_train_together", small_memory)
    worker.run(plan)
    assert worker.status.failures == []
    assert sizes == [5, 2, 3, 1, 2]
    records = [worker.store.get(c.address) for c in configs]
    assert [r["stack"]["networks"] for r in records] == [2, 2, 1, 2, 2]
    assert {r["stack"]["note"] for r in records} == {
        "stacks halved until they fitted the GPU's memory"
    }
    assert [r["seed"] for r in records] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("wanted", "said"), [("never", "eager: compile=never"), ("auto", "eager: 3 steps would save")]
)
def test_the_record_says_why_steps_are_not_compiled(tmp_path, wanted, said):
    worker, plan = planned(tmp_path, [tiny()], compile=wanted)
    worker.run(plan)
    assert worker.store.get(plan.configs[0].address)["stack"]["steps"].startswith(said)


def test_without_a_compiler_steps_stay_eager_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    worker, plan = planned(tmp_path, [tiny()], compile="always")
    worker.run(plan)
    said = worker.store.get(plan.configs[0].address)["stack"]["steps"]
    assert "there is no C++ compiler (no-such-compiler)" in said
