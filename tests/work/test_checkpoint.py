"""A job that is stopped and goes on from its checkpoint ends as one that was never stopped."""

import os
import time
from pathlib import Path

import pytest
import torch

from bnstudy.config import Config
from bnstudy.sweep.protocol import Execution
from bnstudy.work import checkpoint
from bnstudy.work.checkpoint import BINDING, Checkpoint
from bnstudy.work.trainer import Trainer

CPU = torch.device("cpu")
MADE_BY = dict.fromkeys(BINDING, "here")

IMAGES = {"data": {"train_size": 40}, "model": {"name": "mlp", "hidden": [6]}}
ROWS = {"data": {"sequence": "rows", "train_size": 40},
        "model": {"name": "recurrent", "hidden": [4], "initial_noise": 0.1}}  # fmt: skip
KINDS = {
    "classification": IMAGES,
    "adam, averaged and scheduled": {
        **IMAGES, "optimizer": {"name": "adam", "lr": 0.01, "weight_average": 20.0,
                                "schedule": "cosine", "weight_decay": 0.1, "clip_norm": 1.0}},
    "averaged late, statistics, too": {
        **IMAGES, "optimizer": {"weight_average": 1e9, "average_from": 0.3},
        "evaluate": {"probes": ["averaged_weights"]}},
    "a residual network": {**IMAGES, "model": {"name": "resnet", "width": 2}},
    "recurrent": {**ROWS, "evaluate": {"steps": 6, "probes": ["step_statistics"]}},
    "lengths that are cut": {
        **ROWS, "data": {"sequence": "rows", "min_length": 5, "train_size": 40}},
    "online stream": {
        **IMAGES, "norm": {"name": "online"}, "evaluate": {"online": True, "steps": 3}},
    "a stream of tasks": {
        **IMAGES, "train": {"classes_per_task": 2},
        "evaluate": {"steps": 3, "online": True, "probes": ["forgetting"]}},
    # seed 0 has six classes of which there is a piece of 61 twice, seed 3 five: epochs end apart
    "few classes a batch": {
        "model": {"name": "mlp", "hidden": [6]},
        "train": {"classes_per_batch": 2, "batch_size": 122, "steps": 22}},
    "frozen finish": {**IMAGES, "norm": {"freeze_at": 0.3}},
    "frozen later": {**IMAGES, "norm": {"freeze_at": 0.8}},
    "renorm": {
        **IMAGES, "evaluate": {"steps": 2, "probes": ["renorm", "checkpoints"]},
        "norm": {"r_max": 3.0, "d_max": 5.0, "renorm_warmup": [2, 6, 9]}},
    "cumulative statistics": {**IMAGES, "norm": {"momentum": None}},
    "noise every step": {
        **IMAGES, "data": {"train_size": 40, "pixel_noise": 0.3, "noise_every_step": True}},
    "federation": {
        **IMAGES, "federation": {"clients": 2, "local_steps": 3, "contrast": 0.5},
        "optimizer": {"clip_adaptive": 0.05}},
    "dropout": {**IMAGES, "model": {"name": "mlp", "hidden": [6, 5], "dropout": 0.4}},
    "noise in a layer": {**IMAGES, "norm": {"name": "noisy"}},
}  # fmt: skip


def configs_of(plain: dict, seeds=(0, 3)) -> list[Config]:
    train = {"batch_size": 8, "steps": 11, **plain.get("train", {})}
    config = Config.model_validate({**plain, "train": train})
    return [config.model_copy(update={"seed": s}) for s in seeds]


class Stop(BaseException):
    """As a worker stops."""


def stopping(*fractions: float):
    """An `on_step` that raises once at each of these fractions of a job."""
    waiting = list(fractions)

    def on_step(fraction: float) -> None:
        if waiting and fraction >= waiting[0] - 1e-9:
            del waiting[0]
            raise Stop

    return on_step


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(checkpoint, "WORTH", 0.0)


def job(folder: Path, configs, on_step=lambda fraction: None, made_by=MADE_BY, rows=None, **how):
    """Train, perhaps from a checkpoint; what was said about it, too."""
    said: list[str] = []
    kept = Checkpoint(folder, configs, how.pop("minutes", 1e9), made_by, said.append)
    execution = Execution(results_dir=str(folder), save_weights=True, **how)
    told = [] if rows is None else rows
    trainer = Trainer(execution, folder, CPU)
    trained = trainer.train(configs, on_step, lambda own, r: told.append((own, r)), kept)
    return trained, kept, said


def in_parts(folder: Path, configs, *fractions: float, **how):
    """The same job, stopped at these fractions, each time by another process."""
    on_step = stopping(*fractions)
    for _ in fractions:
        with pytest.raises(Stop):
            job(folder, configs, on_step, **how)
        torch.manual_seed(12345)  # another process has other streams of its own
    return job(folder, configs, on_step, **how)


def same(a, b) -> bool:
    """Equal to the bit, NaN to NaN."""
    return repr(a) == repr(b)


def check_equal(whole, resumed):
    assert same(resumed.history, whole.history)
    assert resumed.how == whole.how
    for own, expected in zip(resumed.weights, whole.weights, strict=True):
        assert own.keys() == expected.keys()
        for name, tensor in own.items():
            assert torch.equal(tensor, expected[name]), name
            assert tensor.dtype == expected[name].dtype


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_job_ends_as_one_that_was_not(tmp_path, kind):
    """Weights, buffers, rows of every evaluation, the online log and what probes remember."""
    configs = configs_of(KINDS[kind])
    whole, _, _ = job(tmp_path / "whole", configs)
    resumed, kept, said = in_parts(tmp_path / "parts", configs, 4 / 11, 7 / 11)
    assert said == []
    assert kept.resumed == 2
    check_equal(whole, resumed)


def test_what_is_left_of_a_longer_epoch_is_kept(tmp_path):
    """The case above stops where one seed has batches of its epoch left and the other has none."""
    configs = configs_of(KINDS["few classes a batch"])
    with pytest.raises(Stop):
        job(tmp_path, configs, stopping(4 / 11))
    (path,) = (tmp_path / "checkpoints").iterdir()
    training = checkpoint._unpacked(path.read_bytes(), CPU)["job"]["training"]
    assert [len(own) > 0 for own in training["left"]] == [True, False]


@pytest.mark.slow
def test_compiled_steps_go_on_bit_for_bit(tmp_path):
    configs = configs_of({**KINDS["a residual network"], "evaluate": {"steps": 4}})
    whole, _, _ = job(tmp_path / "whole", configs, compile="always")
    assert whole.how[0]["steps"].startswith("compiled")
    torch._dynamo.reset()
    resumed, _, _ = in_parts(tmp_path / "parts", configs, 5 / 11, compile="always")
    check_equal(whole, resumed)


def test_networks_that_train_one_after_the_other_go_on_with_the_one_that_was_stopped(tmp_path):
    configs = configs_of(KINDS["noise in a layer"], seeds=(0, 1, 2))
    whole, _, _ = job(tmp_path / "whole", configs)
    with pytest.raises(Stop):
        job(tmp_path / "parts", configs, stopping(0.5))
    steps: list[float] = []
    resumed, _, _ = job(tmp_path / "parts", configs, steps.append)
    assert steps[0] == pytest.approx((11 + 6) / 33)
    check_equal(whole, resumed)


OWN = """
import torch
from torch import nn

class Counting(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.calls, self.mean, self.draws = 0, None, torch.Generator().manual_seed(1)
    def forward(self, x):
        if self.training:
            self.calls += 1
            self.mean = x.detach().mean()
        noise = torch.randn(x.shape, generator=self.draws) / self.calls if self.training else 0
        return x / (1 + self.calls / 10) + (0 if self.mean is None else self.mean) + noise

def factory(channels):
    return Counting(channels)
"""


def test_a_layer_of_ones_own_keeps_its_attributes_and_streams(tmp_path, monkeypatch):
    (tmp_path / "counting_norm.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    plain = {**IMAGES, "norm": {"name": "custom", "entry": "counting_norm:factory"}}
    from bnstudy.work.sources import resolve

    configs = resolve(configs_of(plain, seeds=(0,)), tmp_path)
    whole, _, _ = job(tmp_path / "whole", configs)
    resumed, _, _ = in_parts(tmp_path / "parts", configs, 6 / 11)
    check_equal(whole, resumed)


# ---- when it is written


def test_a_short_job_writes_none(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "WORTH", 5.0)
    configs = configs_of(IMAGES)
    with pytest.raises(Stop):
        job(tmp_path, configs, stopping(0.5), minutes=10)
    assert not (tmp_path / "checkpoints").exists()


def test_it_is_written_every_few_minutes_and_a_killed_job_goes_on_from_the_last(tmp_path):
    configs = configs_of(IMAGES)
    whole, _, _ = job(tmp_path / "whole", configs)
    written: list[int] = []

    def on_step(fraction: float) -> None:
        if kept.path.is_file():
            written.append(kept.path.stat().st_mtime_ns)
        time.sleep(0.02)

    kept = Checkpoint(tmp_path, configs, 0.05 / 60)
    trainer = Trainer(Execution(results_dir=str(tmp_path), save_weights=True), tmp_path, CPU)
    trainer.train(configs, on_step, checkpoint=kept)
    # 11 steps of at least 20 ms, one every 50 ms: at least three, and not one a step
    assert 3 <= len(set(written)) <= 8
    resumed, kept, _ = job(tmp_path, configs, made_by={})
    assert kept.resumed == 1
    check_equal(whole, resumed)
    kept.remove()
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_without_minutes_there_is_none(tmp_path):
    configs = configs_of(IMAGES)
    with pytest.raises(Stop):
        job(tmp_path, configs, stopping(0.5), minutes=None)
    assert not (tmp_path / "checkpoints").exists()


def test_rows_of_before_are_told_again(tmp_path):
    """So that the mirror of the new attempt has the whole course."""
    configs = configs_of({**IMAGES, "evaluate": {"steps": 2}})
    first, second, whole = [], [], []
    with pytest.raises(Stop):
        job(tmp_path, configs, stopping(7 / 11), rows=first)
    job(tmp_path, configs, rows=second)
    job(tmp_path / "whole", configs, rows=whole)
    assert len(first) == 3
    assert same([r for _, r in second], [r for _, r in whole])


def test_time_adds_up(tmp_path):
    configs = configs_of(IMAGES)
    with pytest.raises(Stop):
        job(tmp_path, configs, stopping(0.5))
    (path,) = (tmp_path / "checkpoints").iterdir()
    before = checkpoint._unpacked(path.read_bytes(), CPU)["seconds"]
    _, kept, _ = job(tmp_path, configs)
    assert kept.elapsed > before > 0


# ---- when it is not used


@pytest.fixture
def left(tmp_path) -> Path:
    """The checkpoint of a job that was stopped."""
    with pytest.raises(Stop):
        job(tmp_path, configs_of(IMAGES), stopping(0.5))
    (path,) = (tmp_path / "checkpoints").iterdir()
    return path


def again(left: Path, **made_by):
    trained, kept, said = job(left.parents[1], configs_of(IMAGES), made_by={**MADE_BY, **made_by})
    whole, _, _ = job(left.parents[1] / "whole", configs_of(IMAGES))
    check_equal(whole, trained)
    return kept.resumed, said


@pytest.mark.parametrize("key", BINDING)
def test_one_of_other_code_or_another_device_is_not_used_and_that_is_said(left, key):
    resumed, (said,) = again(left, **{key: "elsewhere"})
    assert resumed == 0
    assert f"was made by another {key} (here)" in said


def test_one_of_another_version_of_results_is_not_used(left, monkeypatch):
    monkeypatch.setattr(checkpoint, "RESULTS_VERSION", 10**6)
    assert again(left)[0] == 0


DAMAGE = {
    "cut": lambda p: p.write_bytes(p.read_bytes()[:-100]),
    "a bit": lambda p: p.write_bytes(p.read_bytes()[:5000] + b"?" + p.read_bytes()[5001:]),
    "empty": lambda p: p.write_bytes(b""),
    "text": lambda p: p.write_text("not a checkpoint"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_not_used_and_that_is_said(left, damage):
    DAMAGE[damage](left)
    resumed, (said,) = again(left)
    assert resumed == 0
    assert "is damaged" in said


@pytest.mark.parametrize("damage", ["folder", "pipe"])
def test_what_is_no_file_is_not_read(left, damage):
    left.unlink()
    left.mkdir() if damage == "folder" else os.mkfifo(left)
    assert again(left)[0] == 0


def test_reading_one_executes_no_code(left):
    class Evil:
        def __reduce__(self):
            return (os.getcwd, ())  # harmless, and code all the same

    whole = checkpoint._unpacked(left.read_bytes(), CPU)
    left.write_bytes(checkpoint._packed({**whole, "job": Evil()}))
    resumed, (said,) = again(left)
    assert resumed == 0
    assert "is damaged" in said


def test_a_full_disk_costs_the_checkpoint_only(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_atomically", full)
    _, _, said = job(tmp_path, configs_of(IMAGES), minutes=1e-9)
    assert set(said) == {said[0]}
    assert "No space left on device" in said[0]


def test_several_processes_leave_none(tmp_path):
    """Their states are not in the one that would write it."""
    config = configs_of({**IMAGES, "train": {"processes": 2}}, seeds=(0,))
    kept = Checkpoint(tmp_path, config, 1e-9)
    trainer = Trainer(Execution(results_dir=str(tmp_path)), tmp_path, CPU)
    trainer._rows = lambda own, report, snapshot: iter([report(0, 1) or [{"seed": 0}]])
    trainer.train(config, checkpoint=kept)
    assert not kept.path.exists()
