"""What is refused before any training, and what a worker leaves behind."""

import pytest
import torch

from bnstudy.config import Config, TrackerConfig
from bnstudy.data import Dataset
from bnstudy.errors import UserError
from bnstudy.sweep.protocol import Pack, StackPlan, Status
from bnstudy.work import trainer as run


def data(n=20, shape=(1, 8, 8), classes=10) -> Dataset:
    x, y = torch.zeros(n, *shape), torch.arange(n) % classes
    return Dataset(x, y, x, y, x, y, num_classes=classes)


def config(model="mlp", norm="batch", batch_size=4, model_args=(), **norm_args) -> Config:
    return Config.model_validate(
        {
            "model": {"name": model, **dict(model_args)},
            "norm": {"name": norm, **norm_args},
            "train": {"batch_size": batch_size, "steps": 1},
        }
    )


@pytest.mark.parametrize(
    ("cfg", "said"),
    [
        (config(batch_size=21), ["batch_size=21", "20 examples", "at most 20"]),
        (config(batch_size=1), ["layer '2'", "no variance", "group norm"]),
        (config(norm="instance"), ["layer '2'", "instance"]),
        (
            config("resnet", "group", num_groups=3),
            ["layer '1' (8 channels)", "num_groups=3"],
        ),
        (config(norm="grop"), ["unknown norm 'grop'", "Did you mean 'group'"]),
        (config("resnet", model_args={"depth": 10}), ["depth=10", "8, 14"]),
        (config("mlp", "ghost", 6, group_size=4), ["groups of 4", "batch of 6"]),
        (config(norm="layer", group_size=2), ["norm.group_size=2", "layer norm has no group_size"]),
    ],
)
def test_what_cannot_train_is_refused_by_name(cfg, said):
    with pytest.raises(UserError) as error:
        run.preflight(cfg, data())
    for words in said:
        assert words in str(error.value)


def test_m_is_batch_times_positions():
    """m = B*H*W of every norm layer: 8x8, 8x8, 8x8, 4x4 (and shortcut), 2x2 in the ResNet."""
    anatomy = run.preflight(config("resnet", batch_size=2), data())
    assert [layer["positions"] for layer in anatomy.layers] == [64, 64, 64, 16, 16, 16, 4, 4, 4]
    assert [layer["m"] for layer in anatomy.layers] == [
        2 * layer["positions"] for layer in anatomy.layers
    ]
    assert len({layer["name"] for layer in anatomy.layers}) == 9


def test_groups_are_listed_for_each_layer():
    """channels_per_group=8: one group of 8 channels, two of 16, four of 32; m counts one group."""
    cfg = config("resnet", "group", channels_per_group=8)
    layers = run.preflight(cfg, data()).layers
    assert [layer["num_groups"] for layer in layers] == [1, 1, 1, 2, 2, 2, 4, 4, 4]
    assert [layer["m"] for layer in layers] == [8 * layer["positions"] for layer in layers]


def test_macs_of_an_mlp_are_its_weights():
    anatomy = run.preflight(config(model_args={"hidden": (7, 5)}), data())
    assert anatomy.macs == 64 * 7 + 7 * 5 + 5 * 10


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


def test_lenet_adapts_to_small_images():
    assert len(run.preflight(config("lenet"), data()).layers) == 4
    big = run.preflight(config("lenet"), data(shape=(1, 28, 28)))
    assert [layer["positions"] for layer in big.layers] == [24 * 24, 8 * 8, 1, 1]


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
    assert record["stack"]["kind"] == "widened"
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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes_per_batch": 16, "batch_size": 16}, "classes_per_batch=16: digits has 10"),
        ({"classes_per_task": 11}, "classes_per_task=11: digits has 10 classes"),
    ],
)
def test_more_classes_than_there_are_is_refused(change, said):
    cfg = tiny()
    cfg = cfg.model_copy(update={"train": cfg.train.model_copy(update=change)})
    with pytest.raises(UserError, match=said):
        run.preflight(cfg, data(n=40))
