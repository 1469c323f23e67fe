"""Estimating population statistics anew, and switching evaluation, leave nothing else behind."""

import pytest
import torch
from torch import nn

from bnstudy.norms import (
    BatchNorm,
    Calibrator,
    InstanceNorm,
    NoisyBatchNorm,
    StepBatchNorm,
    batch_norms,
    calibrate,
    evaluation_mode,
)


def network(**norm):
    torch.manual_seed(0)
    return nn.Sequential(
        BatchNorm(3, **norm), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Dropout(), BatchNorm(4, **norm)
    ).double()


def images(n=24):
    return 2 + 3 * torch.randn(n, 3, 5, 5, generator=torch.Generator().manual_seed(1)).double()


def state(model):
    attributes = ("training", "momentum", "group_size", "frozen", "evaluation")
    layers = [[getattr(m, a) for a in attributes] for m in batch_norms(model).values()]
    training = [m.training for m in model.modules()]
    hooks = [len(m._forward_pre_hooks) for m in model.modules()]
    return layers, training, hooks, {k: v.clone() for k, v in model.state_dict().items()}


def assert_same_state(a, b):
    assert a[:3] == b[:3]
    for key in a[3]:
        assert torch.equal(a[3][key], b[3][key])


def test_one_pass_over_the_whole_batch_gives_two_pass_population_statistics():
    x = images()
    model = calibrate(network().eval(), [x])
    torch.testing.assert_close(model[0].running_mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(model[0].running_var, x.var((0, 2, 3), correction=0))
    hidden = model[3](model[2](model[1](network()[0](x))))
    torch.testing.assert_close(model[4].running_mean, hidden.mean((0, 2, 3)))


@pytest.mark.parametrize("cut", [(24,), (8, 8, 8), (2, 22), (1, 7, 16)])
def test_the_first_layer_does_not_depend_on_how_the_data_is_cut(cut):
    x = images()
    model = calibrate(network().eval(), x.split(cut))
    torch.testing.assert_close(model[0].running_mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(model[0].running_var, x.var((0, 2, 3), correction=0))


def test_the_mean_of_batch_variances_misses_the_variance_between_batches():
    x = images(8)
    x[:4] += 10
    pooled = calibrate(network(), x.split(4))[0].running_var
    averaged = calibrate(network(), x.split(4), "mean_of_batches")[0].running_var
    expected = torch.stack([part.var((0, 2, 3)) for part in x.split(4)]).mean(0)
    torch.testing.assert_close(averaged, expected)
    assert (pooled > averaged + 20).all()  # means differ by 10: 25 of variance between batches


def test_calibration_uses_the_whole_batch_where_training_uses_groups_or_is_frozen():
    x = images(8)
    plain = calibrate(network(), [x]).state_dict()
    for norm in ({"group_size": 3}, {"frozen": True}, {"momentum": None}):
        other = calibrate(network(**norm), [(x, "label")]).state_dict()
        for key, value in plain.items():
            torch.testing.assert_close(other[key], value)


@pytest.mark.parametrize("training", [True, False])
def test_calibration_changes_two_buffers_and_nothing_else(training):
    model = network(momentum=0.3, group_size=4).train(training)
    before = state(model)
    calibrate(model, [images()])
    after = state(model)
    assert after[:3] == before[:3]
    for key, value in before[3].items():
        assert torch.equal(after[3][key], value) == ("running" not in key)


def test_an_exception_in_the_data_leaves_the_model_as_it_was():
    def broken():
        yield images()
        raise OSError("disk")

    model = network(group_size=4).eval()
    before = state(model)
    with pytest.raises(OSError, match="disk"):
        calibrate(model, broken())
    assert_same_state(before, state(model))


def test_evaluation_mode_is_undone_also_after_an_exception():
    model = network().eval()
    before = state(model)
    with pytest.raises(RuntimeError), evaluation_mode(model, "batch", 4):  # noqa: PT012
        assert all(m.evaluation_group_size == 4 for m in batch_norms(model).values())
        model(images())
        raise RuntimeError
    assert_same_state(before, state(model))
    with pytest.raises(ValueError, match="population"), evaluation_mode(model, "populaton"):
        pass


def test_calibration_refuses_what_has_no_population():
    with pytest.raises(ValueError, match="no batches"):
        calibrate(network(), [])
    with pytest.raises(ValueError, match="no BatchNorm"):
        calibrate(InstanceNorm(3), [])
    shared = BatchNorm(3).double()
    twice = nn.Sequential(shared, nn.Conv2d(3, 3, 1).double(), shared)
    before = state(twice)
    with pytest.raises(ValueError, match="ran twice"):
        calibrate(twice, [images()])
    assert_same_state(before, state(twice))
    with pytest.raises(ValueError, match="update"), Calibrator(network()) as calibrator:
        calibrator.update()


def test_the_noise_of_training_enters_no_population_statistic_and_no_generator_moves():
    def noisy(seed):
        torch.manual_seed(0)
        layers = [NoisyBatchNorm(3), nn.Conv2d(3, 4, 3), nn.ReLU(), NoisyBatchNorm(4)]
        model = nn.Sequential(*layers).double()
        model[3].generator = torch.Generator().manual_seed(seed)
        return model

    plain = nn.Sequential(BatchNorm(3), nn.Conv2d(3, 4, 3), nn.ReLU(), BatchNorm(4)).double()
    plain.load_state_dict(noisy(0).state_dict())
    expected = calibrate(plain, [images()]).state_dict()
    for seed in (1, 2):
        model = noisy(seed)
        before = torch.get_rng_state(), model[3].generator.get_state()
        calibrate(model, [images()])
        assert torch.equal(torch.get_rng_state(), before[0])
        assert torch.equal(model[3].generator.get_state(), before[1])
        for key, value in expected.items():
            assert torch.equal(model.state_dict()[key], value)
    first = model.train()(images())
    assert not torch.equal(model(images()), first), "training is noisy again"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_statistics_that_are_not_finite_are_refused_and_the_first_layer_named(bad):
    model = nn.Sequential(nn.Identity(), network())
    before = state(model)
    x = images()
    x[3, 1, 2, 2] = bad
    with pytest.raises(ValueError, match=r"running_mean of BatchNorm layer '1\.0'.*finite"):
        calibrate(model, [images(), x])
    assert_same_state(before, state(model))


def test_empty_batches_weigh_nothing_and_alone_make_no_population():
    x, nothing = images(), images()[:0]
    found = calibrate(network().eval(), [nothing, x[:8], nothing, x[8:]])
    expected = calibrate(network().eval(), [x[:8], x[8:]])
    for a, b in zip(found.buffers(), expected.buffers(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="no batches"):
        calibrate(network(), [nothing])


def test_layers_without_running_statistics_are_left_out():
    model = nn.Sequential(BatchNorm(3, track_running_stats=False), BatchNorm(3)).double().eval()
    calibrate(model, [images()])
    assert model[0].running_mean is None
    assert model[1].running_mean.abs().max() < 1e-12  # of a normalized input
    with pytest.raises(ValueError, match="track_running_stats=False"):
        calibrate(model[0], [images()])


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = StepBatchNorm(3, time_steps=2).double()

    def forward(self, x):
        for t in range(x.shape[1]):
            self.norm(x[:, t], step=t) if t else self.norm(x[:, t], t)


def test_every_time_step_is_calibrated_by_its_own_values():
    x = images().flatten(2)[:, :2, :3]  # 24 sequences of two steps of three channels
    model = calibrate(Recurrent(), x.split(8))
    torch.testing.assert_close(model.norm.running_mean, x.mean(0))
    torch.testing.assert_close(model.norm.running_var, x.var(0, correction=0))
    model = calibrate(Recurrent(), [x[:, :1]])  # nothing reaches step 1: as step 0
    torch.testing.assert_close(model.norm.running_mean[1], x[:, 0].mean(0))
