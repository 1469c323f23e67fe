"""Statistics for each time step: which values make them, which are read, what if there are few."""

import pytest
import torch
from torch import nn

from bnstudy.norms import BatchNorm, StepBatchNorm, calibrate, evaluation_mode
from bnstudy.norms.base import attributes
from bnstudy.norms.functional import masked_moments


def sample(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def norm(steps=4, channels=3, **params):
    return StepBatchNorm(channels, time_steps=steps, **params).double()


def mask_of(lengths, steps):
    return (torch.arange(steps) < torch.tensor(lengths)[:, None])[..., None]  # (N, T, 1)


def test_each_time_step_has_its_own_statistics_and_later_ones_use_the_last():
    layer, single = norm(), [BatchNorm(3).double() for _ in range(4)]
    for update in range(3):
        for t in range(4):
            x = sample(8, 3, seed=10 * update + t) * (t + 1)
            torch.testing.assert_close(layer(x, t), single[t](x))
    for key in ("running_mean", "running_var"):
        expected = torch.stack([getattr(one, key) for one in single])
        torch.testing.assert_close(getattr(layer, key), expected)
    assert layer.num_batches_tracked.flatten().tolist() == [3] * 4
    layer.eval()
    torch.testing.assert_close(layer(x, 17), single[3].eval()(x))
    torch.testing.assert_close(layer(x, 1), single[1].eval()(x))


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("lengths", [None, [4, 4, 3, 2, 2, 3, 4, 1]])
def test_whole_sequences_are_the_steps_one_by_one(lengths, momentum):
    whole, steps = norm(momentum=momentum), norm(momentum=momentum)
    mask = None if lengths is None else mask_of(lengths, 4)
    for update in range(2):
        x = sample(8, 4, 3, seed=update)
        y = whole(x, mask=mask)
        for t in range(4):
            own = None if mask is None else mask[:, t]
            torch.testing.assert_close(steps(x[:, t], t, own), y[:, t])
    for (name, a), (_, b) in zip(whole.named_buffers(), steps.named_buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    with attributes([whole, steps], training=False):
        torch.testing.assert_close(whole(x)[:, 2], steps(x[:, 2], 2))


def test_masked_moments_are_those_of_the_valid_values():
    x = sample(6, 4)
    mask = torch.tensor([[1, 1], [0, 1], [1, 1], [1, 0], [0, 0], [1, 0]], dtype=torch.bool)
    x[~mask[:, 0], :2] = torch.inf  # what is masked may be anything
    found = masked_moments(x, mask, 6)
    for block, columns in ((0, slice(0, 2)), (1, slice(2, 4))):
        own = x[mask[:, block], columns]
        torch.testing.assert_close(found.mean[0, block], own.mean(0))
        torch.testing.assert_close(found.var_biased[0, block], own.var(0, correction=0))
        assert found.count[0, block, 0] == len(own)
    halves = masked_moments(x, mask, 3)
    torch.testing.assert_close(halves.mean[1, 0], x[[3, 5], :2].mean(0))


def test_gradients_of_masked_statistics_are_those_of_the_valid_rows():
    mask = mask_of([3, 1, 2, 3], 3)
    x = sample(4, 3, 3).requires_grad_()
    weights = sample(4, 3, 3, seed=1)
    y = norm(3)(x, mask=mask)
    (found,) = torch.autograd.grad((y * weights * mask).sum(), x)
    expected = torch.zeros_like(x)
    for t, rows in ((0, [0, 1, 2, 3]), (1, [0, 2, 3]), (2, [0, 3])):
        own = x[rows, t].detach().requires_grad_()
        z = nn.functional.batch_norm(own, None, None, training=True)
        expected[rows, t] = torch.autograd.grad((z * weights[rows, t]).sum(), own)[0]
    torch.testing.assert_close(found, expected)


def test_a_sequence_wide_scope_is_one_batch_norm_over_valid_positions():
    layer, mask = norm(scope="sequence"), mask_of([4, 2, 3, 4], 4)
    x = sample(4, 4, 3)
    y = layer(x, mask=mask)
    own = x[mask[..., 0]]
    expected = nn.functional.batch_norm(own, None, None, training=True)
    torch.testing.assert_close(y[mask[..., 0]], expected)
    torch.testing.assert_close(layer.running_mean[0], 0.1 * own.mean(0))
    assert layer.examples[0].item() == pytest.approx(0.1 * len(own))
    assert not layer.examples[1:].any()


def test_shared_reads_the_moments_of_all_steps_and_truncate_fewer_steps():
    layer = norm(momentum=1.0)
    x = sample(8, 4, 3) * torch.arange(1, 5)[:, None] + torch.arange(4)[:, None]
    layer(x)
    layer.eval()
    flat = x.reshape(-1, 3)
    with attributes([layer], scope="shared"):
        y = layer(x)
    # the running variances are Bessel-corrected step by step, 8 / 7 of the biased ones
    between = x.mean(0).var(0, correction=0)
    var = x.var(0).mean(0) + between
    expected = (x - flat.mean(0)) / (var + layer.eps).sqrt()
    torch.testing.assert_close(y, expected)
    with attributes([layer], truncate=2):
        torch.testing.assert_close(layer(x[:, 3], 3), layer(x[:, 3], 1))
    assert not torch.equal(layer(x[:, 3], 3), layer(x[:, 3], 1))


def test_steps_that_training_never_reached_are_read_as_the_last_it_did():
    layer, short = norm(6), norm(3)
    x = sample(8, 3, 3)
    for one in (layer, short):
        one(x)
        one.eval()
    longer = sample(8, 9, 3)
    torch.testing.assert_close(layer(longer), short(longer))
    torch.testing.assert_close(layer(longer[:, 5], 5), short(longer[:, 5], 2))


def test_batch_statistics_in_evaluation_by_groups_with_masks():
    layer = norm(evaluation="batch").eval()
    mask = mask_of([4, 4, 2, 4, 3, 4, 4, 4], 4)
    x = sample(8, 4, 3)
    layer.evaluation_group_size = 4
    y = layer(x, mask=mask)
    for rows in (slice(0, 4), slice(4, 8)):
        own = norm()(x[rows], mask=mask[rows])
        torch.testing.assert_close(y[rows] * mask[rows], own * mask[rows])
    assert not layer.examples.any(), "evaluation leaves the estimate"


def test_too_few_examples_at_a_step():
    mask = mask_of([4, 2, 2, 2], 4)  # one example at steps 2 and 3
    x = sample(4, 4, 3)
    with pytest.raises(ValueError, match=r"time step 2: 1 valid .*min_count=2"):
        norm(below_min="error")(x, mask=mask)
    layer = norm()
    before = layer.running_mean[2:].clone()
    y = layer(x, mask=mask)
    mean, var = x[:, 1].mean(0), x[:, 1].var(0, correction=0)  # of the last step with enough
    torch.testing.assert_close(y[0, 3], (x[0, 3] - mean) / (var + layer.eps).sqrt())
    assert layer.reused.item() == 2
    assert torch.equal(layer.running_mean[2:], before)
    with pytest.raises(ValueError, match=r"time step 0.*no earlier step"):
        layer(x, mask=mask_of([4, 0, 0, 0], 4))
    with pytest.raises(ValueError, match=r"time step 1: 2 valid .*min_count=3"):
        norm(min_count=3, below_min="error")(x, mask=mask_of([4, 4, 1, 1], 4))


def test_calibration_weighs_every_valid_example_alike():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = norm(3)

        def forward(self, x):
            return self.norm(x[..., :3], mask=x[..., 3:] > 0)

    lengths = [[3, 3, 2, 3], [3, 2, 2, 1], [3, 3, 3, 3]]
    batches = [
        torch.cat([sample(4, 3, 3, seed=i), mask_of(own, 3).double()], -1)
        for i, own in enumerate(lengths)
    ]
    net = calibrate(Net(), batches)
    every = torch.cat(batches)
    for t in (0, 1):
        own = every[every[:, t, 3] > 0, t, :3]
        torch.testing.assert_close(net.norm.running_mean[t], own.mean(0))
        torch.testing.assert_close(net.norm.running_var[t], own.var(0, correction=0))
    # in the second batch nobody but one reaches step 2: it has no statistics there
    rest = torch.cat([batches[0], batches[2]])
    own = rest[rest[:, 2, 3] > 0, 2, :3]
    torch.testing.assert_close(net.norm.running_mean[2], own.mean(0))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: norm(0), ["time_steps=0"]),
        (lambda: norm(min_count=1), ["min_count=1"]),
        (lambda: norm(scope="time"), ["scope", "step, shared, sequence"]),
        (lambda: norm(group_size=2), ["group_size"]),
        (lambda: norm(r_max=2.0, d_max=1.0), ["r_max"]),
        (lambda: norm(evaluation="example"), ["population or batch"]),
        (lambda: norm()(sample(4, 3)), ["norm(x, t)"]),
        (lambda: norm()(sample(4, 3), -1), ["-1"]),
        (lambda: norm(2)(sample(4, 3), 2), ["time_steps=2", "longest"]),
        (lambda: norm()(sample(4, 5), 0), ["C = 3", "(4, 5)"]),
        (lambda: norm()(sample(1, 3), 0), ["1 example", "min_count=2"]),
    ],
)
def test_mistakes_end_in_one_message_that_names_them(call, words):
    with pytest.raises(ValueError) as error:
        call()
    for word in words:
        assert word in str(error.value)


def test_calibrated_steps_are_read_though_training_never_reached_them():
    net = norm(3)
    x = sample(8, 3, 3)
    for t in (0, 1):
        net(x[:, t], t)
    calibrate(Whole(net), [x * torch.tensor([1.0, 1.0, 5.0]).view(3, 1) + 7])
    net.eval()
    y = net(x[:, 2] * 5 + 7, 2)
    torch.testing.assert_close(y.mean(0), torch.zeros(3, dtype=y.dtype), atol=1e-6, rtol=0)


class Whole(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)


def test_a_layer_without_any_statistics_reads_mean_0_and_variance_1():
    x = sample(8, 3, 3)
    for scope in ("step", "shared", "sequence"):
        torch.testing.assert_close(norm(3, scope=scope).eval()(x), x / (1 + 1e-5) ** 0.5)


def test_mixtures_are_refused_where_they_are_asked_for():
    layer = norm().eval()
    for evaluation in ("mixture", "example"):
        with (
            evaluation_mode(layer, evaluation, prior_examples=4, alpha=0.5),
            pytest.raises(ValueError, match="population or batch"),
        ):
            layer(sample(8, 4, 3))
