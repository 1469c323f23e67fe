"""norm=torch_batch: torch.nn's batch norm, trained by this package, ends where norm=batch does."""

import pytest
import torch
from torch import nn

from bnstudy.config import Config
from bnstudy.norms import BatchNorm, TorchBatchNorm, evaluation_mode
from bnstudy.sweep.protocol import Execution
from bnstudy.work.trainer import Trainer

CPU = torch.device("cpu")
MODELS = {
    "mlp": {"name": "mlp", "hidden": [16]},
    "lenet": {"name": "lenet"},
    "resnet": {"name": "resnet", "width": 4},
}


def trained(tmp_path, model, **norm):
    """Training loss at every fourth step and the four test errors, of two seeds."""
    configs = [
        Config.model_validate(
            {
                "seed": seed,
                "data": {"train_size": 200},
                "model": MODELS[model],
                "norm": norm,
                "optimizer": {"lr": 0.05, "schedule": "constant"},
                "train": {"batch_size": 16, "steps": 12},
                "evaluate": {"steps": 4},
            }
        )
        for seed in (0, 1)
    ]
    execution = Execution(results_dir=str(tmp_path), device="cpu", compile="never")
    job = Trainer(execution, tmp_path, CPU).train(configs)
    keys = [k for k in job.history[0][0] if k.startswith(("train_loss", "test_loss", "test_error"))]
    assert sum(k.startswith("test_error") for k in keys) == 4
    assert {how["networks"] for how in job.how} == {2}, "both seeds as one stack"
    values = {k: torch.tensor([[row[k] for row in own] for own in job.history]) for k in keys}
    return values, job.history


@pytest.mark.parametrize("model", MODELS)
def test_torchs_batch_norm_trains_as_this_packages_own(tmp_path, model):
    """Two roundings of one formula part by what float32 and the steps since make of it.

    The yardstick is measured: the same formula in plain operations (backend=reference) against the
    fused kernel. torch.nn's may lie ten times as far off, and an error by the two examples of 400
    that such a distance can turn.
    """
    own, _ = trained(tmp_path, model, name="batch")
    reference, _ = trained(tmp_path, model, name="batch", backend="reference")
    theirs, _ = trained(tmp_path, model, name="torch_batch")
    for key, values in own.items():
        rounding = (reference[key] - values).abs().max()
        if "loss" in key:
            assert rounding < 1e-2, "the horizon is too long to compare"
            assert (theirs[key] - values).abs().max() <= 10 * rounding + 1e-6, key
        else:
            assert (theirs[key] - values).abs().max() <= 2 / 400 + 1e-6, key


def test_another_momentum_would_be_seen(tmp_path):
    """The control: what the comparison allows is far below what a setting does."""
    own, _ = trained(tmp_path, "mlp", name="batch")
    other, _ = trained(tmp_path, "mlp", name="torch_batch", momentum=0.11)
    assert (other["test_loss"] - own["test_loss"]).abs().max() > 1e-3


def pair(channels=5):
    ours, theirs = BatchNorm(channels), TorchBatchNorm(channels)
    with torch.no_grad():
        for layer in (ours, theirs):
            layer.weight.copy_(torch.linspace(0.5, 2, channels))
            layer.bias.copy_(torch.linspace(-1, 1, channels))
            layer.running_mean.fill_(0.3)
            layer.running_var.fill_(2.0)
    return ours, theirs


@pytest.mark.parametrize("shape", [(12, 5), (12, 5, 7), (12, 5, 3, 4)])
@pytest.mark.parametrize("groups", [None, 3])
def test_every_evaluation_is_that_of_batch_norm(shape, groups):
    x = 3 + 2 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = (layer.eval() for layer in pair())
    torch.testing.assert_close(theirs(x), ours(x))
    with evaluation_mode(ours, "batch", groups), evaluation_mode(theirs, "batch", groups):
        torch.testing.assert_close(theirs(x), ours(x))
    settings = {"prior_examples": 8.0}
    with evaluation_mode(ours, "mixture", groups, **settings):
        expected = ours(x)
    with evaluation_mode(theirs, "mixture", groups, **settings):
        torch.testing.assert_close(theirs(x), expected)


def test_training_is_torchs_own_forward_and_frozen_training_leaves_the_statistics():
    x = torch.randn(12, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    _, layer = pair()
    oracle = nn.BatchNorm2d(5)
    oracle.load_state_dict(layer.state_dict())
    for _ in range(3):
        assert torch.equal(layer(x), oracle(x))
    for name, buffer in oracle.named_buffers():
        assert torch.equal(layer.get_buffer(name), buffer), name
    layer.frozen = True
    assert torch.equal(layer.train()(x), oracle.eval()(x))
    assert int(layer.num_batches_tracked) == 3


def test_a_cumulative_average_is_refused():
    with pytest.raises(ValueError, match=r"momentum=None: .* norm 'batch'"):
        TorchBatchNorm(4, momentum=None)


def test_networks_of_a_stack_share_its_momentum():
    """torch.nn's layer takes one number."""
    cells = [
        Config.model_validate({"model": {"name": "mlp"}, "norm": {"name": name, "momentum": m}})
        for name in ("torch_batch", "batch")
        for m in (0.1, 0.2)
    ]
    assert cells[0].family != cells[1].family
    assert cells[2].family == cells[3].family
