"""One job of networks: which train together, on which data, and what is said about it."""

import pytest
import torch

from bnstudy import data
from bnstudy.config import Config
from bnstudy.engine.distributed import Shard
from bnstudy.sweep.protocol import Execution
from bnstudy.work import trainer
from bnstudy.work.trainer import End, Trainer, stack_part, stack_rows

CPU = torch.device("cpu")


def tiny(seed=0, optimizer=(), **more) -> Config:
    return Config.model_validate(
        {
            "model": {"name": "mlp", "hidden": (6,)},
            "data": {"train_size": 40, **more.pop("data", {})},
            "train": {"batch_size": 8, "steps": 3, **more.pop("train", {})},
            "optimizer": dict(optimizer),
            "seed": seed,
            **more,
        }
    )


def trained(tmp_path, configs, **execution):
    settings = {"results_dir": str(tmp_path), **execution}
    return Trainer(Execution(**settings), tmp_path / "runs", CPU).train(configs)


def test_cells_that_differ_in_numbers_share_a_stack(tmp_path):
    job = trained(tmp_path, [tiny(s, {"lr": lr}) for lr in (0.1, 0.2) for s in (3, 5)])
    assert [h["networks"] for h in job.how] == [4] * 4
    assert {h["kind"] for h in job.how} == {"widened"}
    assert job.how[0]["steps"].startswith("eager: 3 steps would save")
    assert [rows[-1]["seed"] for rows in job.history] == [3, 5, 3, 5]
    assert job.weights == [{}] * 4


def test_progress_is_the_fraction_of_all_networks(tmp_path):
    """Of networks that train one after the other, too."""
    seen = []
    options = Execution(results_dir=str(tmp_path))
    configs = [tiny(s, norm={"name": "noisy"}) for s in range(2)]
    job = Trainer(options, tmp_path, CPU).train(configs, seen.append)
    assert {h["kind"] for h in job.how} == {"single"}
    assert seen == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])


def test_rows_come_with_the_configs_they_belong_to(tmp_path):
    seen = []
    options = Execution(results_dir=str(tmp_path))
    configs = [tiny(s, norm={"name": "noisy"}) for s in (4, 7)]
    Trainer(options, tmp_path, CPU).train(
        configs, on_rows=lambda own, rows: seen.append(([c.seed for c in own], len(rows)))
    )
    assert seen == [([4], 1), ([7], 1)]


def test_a_stack_that_does_not_fit_is_halved_and_says_so(tmp_path, monkeypatch):
    whole, sizes = trainer.stack_rows, []

    def small_memory(configs, *rest):
        sizes.append(len(configs))
        if len(configs) > 2:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return whole(configs, *rest)

    monkeypatch.setattr(trainer, "stack_rows", small_memory)
    job = trained(tmp_path, [tiny(s) for s in range(5)])
    assert sizes == [5, 2, 3, 1, 2]
    assert [h["networks"] for h in job.how] == [2, 2, 1, 2, 2]
    assert {h["note"] for h in job.how} == {"stacks halved until they fitted the GPU's memory"}
    assert [rows[-1]["seed"] for rows in job.history] == [0, 1, 2, 3, 4]


def test_one_network_that_does_not_fit_is_an_error(tmp_path, monkeypatch):
    def no_memory(*a):
        raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr(trainer, "stack_rows", no_memory)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        trained(tmp_path, [tiny()])


@pytest.mark.parametrize(
    ("wanted", "said"), [("never", "eager: compile=never"), ("auto", "eager: 3 steps would save")]
)
def test_it_is_said_why_steps_are_not_compiled(tmp_path, wanted, said):
    assert trained(tmp_path, [tiny()], compile=wanted).how[0]["steps"].startswith(said)


def test_without_a_compiler_steps_stay_eager_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    said = trained(tmp_path, [tiny()], compile="always").how[0]["steps"]
    assert "there is no C++ compiler (no-such-compiler)" in said


def test_kept_weights_are_each_networks_own(tmp_path):
    job = trained(tmp_path, [tiny(s) for s in range(2)], save_weights=True)
    alone = trained(tmp_path, [tiny(1)], save_weights=True)
    assert job.weights[1].keys() == alone.weights[0].keys()
    for name, tensor in alone.weights[0].items():
        # three steps of float32 in another order of sums
        assert torch.allclose(job.weights[1][name], tensor, atol=1e-5), name


def test_layers_that_draw_random_numbers_draw_those_of_their_seed(tmp_path):
    """And leave torch's generator where it was."""
    config = tiny(3, norm={"name": "noisy"})
    torch.manual_seed(1)
    first = trained(tmp_path, [config]).history[0][-1]["train_loss"]
    after = torch.rand(1)
    torch.manual_seed(2)
    assert trained(tmp_path, [config]).history[0][-1]["train_loss"] == first
    torch.manual_seed(1)
    assert torch.rand(1) == after


CONTRASTS = [tiny(s, data={"contrast": c}) for c in (0.0, 1.0) for s in (0, 1)]


@pytest.mark.parametrize("way", ["one process", "one of two"])
def test_every_network_of_a_stack_sees_its_own_data(tmp_path, monkeypatch, way):
    """Cells with another contrast are other data; in one process and in several."""
    seen = {}

    def train(stack, dataset, configs, *rest):
        seen["data"] = dataset
        yield [{"seed": c.seed} for c in configs]

    monkeypatch.setattr(trainer, "train", train)
    if way == "one process":
        list(stack_rows(CONTRASTS, tmp_path, CPU, "never", False, lambda *a: None))
    else:
        shard = Shard(rank=0, world=2)
        list(stack_part(shard, lambda what: None, CONTRASTS, str(tmp_path), False))
    index = torch.arange(5)[:, None].expand(5, 4)
    images, labels = seen["data"].take("test", index)
    for k, config in enumerate(CONTRASTS):
        own = data.load(config.data, seed=config.seed)
        assert torch.equal(images[:, k], own.test_x[:5])
        assert torch.equal(labels[:, k], own.test_y[:5])
        trained_on, _ = seen["data"].take("train", index)
        assert torch.equal(trained_on[:, k], own.train_x[:5])
    assert not torch.equal(images[:, 0], images[:, 2])
    assert not torch.equal(trained_on[:, 0], trained_on[:, 1]), "seeds draw their own examples"


@pytest.mark.slow
def test_two_processes_train_cells_of_different_contrast_as_each_would_alone(tmp_path):
    both = [
        tiny(0, data={"contrast": c}, train={"processes": 2}, norm={"name": "batch", "sync": True})
        for c in (0.0, 1.0)
    ]
    job = trained(tmp_path, both, save_weights=True)
    for i, config in enumerate(both):
        alone = trained(tmp_path, [config], save_weights=True)
        for name, tensor in alone.weights[0].items():
            assert torch.allclose(job.weights[i][name], tensor, atol=1e-5), name
        assert job.history[i][-1]["test_loss"] == pytest.approx(
            alone.history[0][-1]["test_loss"], abs=1e-4
        )


def test_a_part_sends_weights_that_outlive_its_process(tmp_path, monkeypatch):
    """As arrays: a tensor's shared memory would end with the process that made it."""

    def train(stack, dataset, configs, *rest):
        yield [{"seed": c.seed} for c in configs]

    monkeypatch.setattr(trainer, "train", train)
    words = Shard(rank=0, world=2), lambda what: None, [tiny(train={"processes": 2})]
    *_, end = stack_part(*words, str(tmp_path), True)
    assert isinstance(end, End)
    assert end.how["steps"] == "eager: 2 processes"
    assert {type(a).__name__ for a in end.weights[0].values()} == {"ndarray"}
