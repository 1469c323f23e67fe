"""The norms beyond Wu & He's four, each against a few lines of numpy and its own limits."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from bnstudy.norms import (
    BatchNorm,
    ContinualNorm,
    FilterResponseNorm,
    GroupNorm,
    NoisyBatchNorm,
    OnlineNorm,
    RMSNorm,
    calibrate,
    debug,
    standardize_weights,
)

EXACT = {"rtol": 1e-10, "atol": 1e-10}  # float64, sums of some hundred terms of order one
BACKENDS = ["fused", "reference"]


def sample(*shape, seed=0):
    return 1 + 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def randomize(layer):
    rng = torch.Generator().manual_seed(1)
    for p in layer.parameters():
        p.data = torch.randn(p.shape, generator=rng).double()
    return layer.double()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(8, 3), (8, 3, 5), (8, 3, 2, 4)], ids=str)
def test_rms_norm_equals_its_formula(shape, backend):
    layer, x = randomize(RMSNorm(3, backend=backend)), sample(*shape)
    a = x.numpy()
    rms = np.sqrt((a**2).mean(axis=tuple(range(1, a.ndim)), keepdims=True) + 1e-5)
    per = (1, 3, *[1] * (a.ndim - 2))
    gamma, beta = (p.detach().numpy().reshape(per) for p in (layer.weight, layer.bias))
    np.testing.assert_allclose(layer(x).detach(), a / rms * gamma + beta, **EXACT)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("learn_eps", [False, True])
def test_filter_response_norm_equals_its_formula(learn_eps, backend):
    layer, x = (
        randomize(FilterResponseNorm(3, learn_eps=learn_eps, backend=backend)),
        sample(8, 3, 5),
    )
    eps = layer.learned_eps.detach().abs().numpy() if learn_eps else np.full(3, 1e-6)
    a = x.numpy()
    nu2 = (a**2).mean(axis=2, keepdims=True)
    gamma, beta, tau = (p.detach().numpy()[:, None] for p in (layer.weight, layer.bias, layer.tau))
    expected = np.maximum(a / np.sqrt(nu2 + eps[:, None]) * gamma + beta, tau)
    np.testing.assert_allclose(layer(x).detach(), expected, **EXACT)


def test_filter_response_norm_starts_as_relu_after_it_and_needs_positions():
    x = sample(8, 3, 5)
    y, plain = FilterResponseNorm(3).double()(x), FilterResponseNorm(3, tlu=False).double()(x)
    torch.testing.assert_close(y, plain.relu())
    with pytest.raises(ValueError, match="sign of the input"):
        FilterResponseNorm(3)(torch.ones(8, 3))
    FilterResponseNorm(3, learn_eps=True)(torch.ones(8, 3))


# --- online normalization ------------------------------------------------------------------------


def online_oracle(x, grad, state, a=0.9, b=0.8, eps=1e-5):
    """One example after the other, as the paper's equations stand."""
    mean, var, u, v = (s.copy() for s in state)
    ys, stds, dxs = [], [], []
    for t in range(len(x)):
        std = np.sqrt(var + eps)
        ys.append((x[t] - mean[:, None]) / std[:, None])
        stds.append(std)
        mu, own = x[t].mean(1), x[t].var(1)
        var = a * var + (1 - a) * own + a * (1 - a) * (mu - mean) ** 2
        mean = a * mean + (1 - a) * mu
    for t in range(len(x)):
        g = grad[t] - (1 - b) * v[:, None] * ys[t]
        dx = g / stds[t][:, None] - (1 - b) * u[:, None]
        v = v + (g * ys[t]).mean(1)
        u = u + dx.mean(1)
        dxs.append(dx)
    return np.stack(ys), np.stack(dxs), (mean, var, u, v)


@pytest.mark.parametrize("positions", [(), (6,), (2, 3)], ids=str)
def test_online_norm_equals_the_paper_forward_and_backward_over_several_steps(positions):
    layer = OnlineNorm(3, alpha_forward=0.9, alpha_backward=0.8, guard="none").double()
    state = (np.zeros(3), np.ones(3), np.zeros(3), np.zeros(3))
    for step in range(4):
        x = sample(5, 3, *positions, seed=step).requires_grad_()
        grad = sample(5, 3, *positions, seed=50 + step)
        y = layer(x)
        y.backward(grad)
        flat = (v.detach().numpy().reshape(5, 3, -1) for v in (x, grad))
        expected_y, expected_dx, state = online_oracle(*flat, state)
        np.testing.assert_allclose(y.detach().reshape(5, 3, -1), expected_y, **EXACT)
        np.testing.assert_allclose(x.grad.reshape(5, 3, -1), expected_dx, **EXACT)
        for buffer, expected in zip(layer.buffers(), state, strict=True):
            np.testing.assert_allclose(buffer, expected, **EXACT)


def test_online_norm_does_not_depend_on_how_the_stream_is_cut_into_batches():
    whole, single = OnlineNorm(3).double(), OnlineNorm(3).double()
    x, grad = sample(6, 3, 4), sample(6, 3, 4, seed=1)
    a = x.clone().requires_grad_()
    y = whole(a)
    y.backward(grad)
    outputs, grads = [], []
    for part, up in zip(x.split(1), grad.split(1), strict=True):
        leaf = part.clone().requires_grad_()
        outputs.append(single(leaf))
        outputs[-1].backward(up)
        grads.append(leaf.grad)
    torch.testing.assert_close(torch.cat(outputs), y)
    torch.testing.assert_close(torch.cat(grads), a.grad)
    for p, q in zip(whole.state_dict().values(), single.state_dict().values(), strict=True):
        torch.testing.assert_close(p, q)


def test_the_guards_of_online_norm_bound_the_output_and_evaluation_is_plain():
    x = 100 * sample(4, 3, 5)  # far from the initial statistics
    assert OnlineNorm(3).double()(x).abs().max() == 5
    rms = OnlineNorm(3, guard="layer").double()(x).square().mean((1, 2)).sqrt()
    torch.testing.assert_close(rms, torch.ones_like(rms))
    layer = OnlineNorm(3, guard="none").double()
    layer(x)
    before = {k: v.clone() for k, v in layer.named_buffers()}
    mean, var = before["running_mean"][:, None], before["running_var"][:, None]
    torch.testing.assert_close(layer.eval()(x), (x - mean) / (var + 1e-5).sqrt())
    for name, value in layer.named_buffers():
        assert torch.equal(value, before[name])


# --- weight standardization, continual, noisy ----------------------------------------------------


def test_standardized_weights_have_mean_zero_and_variance_one_and_still_learn():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6, 4)).double()
    raw = model[0].weight.detach().clone()
    standardize_weights(model, eps=1e-12)
    for layer in (model[0], model[3]):
        rows = layer.weight.flatten(1)
        torch.testing.assert_close(rows.mean(1), torch.zeros_like(rows[:, 0]))
        # Linear(6, 4) weights have variance 1/18: eps is 2e-11 of it
        torch.testing.assert_close(rows.var(1, correction=0), torch.ones_like(rows[:, 0]))
    model(sample(2, 3, 3, 3)).square().sum().backward()
    original = model[0].parametrizations.weight.original
    assert torch.equal(original, raw)
    assert original.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="once"):
        standardize_weights(model)
    with pytest.raises(ValueError, match="no convolution"):
        standardize_weights(nn.ReLU())


def test_weight_standardization_of_convolutions_leaves_the_classifier():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(6, 4))
    head = model[2].weight
    standardize_weights(model, layers="convolutions")
    assert model[2].weight is head
    assert (model[0].weight.flatten(1).mean(1).abs() < 1e-6).all()
    with pytest.raises(ValueError, match="no convolution whose"):
        standardize_weights(nn.Linear(6, 4), layers="convolutions")
    with pytest.raises(ValueError, match="'all' or 'convolutions'"):
        standardize_weights(nn.Linear(6, 4), layers="linear")


def test_standardized_weights_train_in_a_stack():
    torch.manual_seed(0)
    nets = [standardize_weights(nn.Sequential(nn.Linear(6, 4))).double() for _ in range(3)]
    weights, buffers = stack_module_state(nets)
    x = sample(5, 6)

    def loss(w, b):
        return (functional_call(nets[0], (w, b), (x,)) ** 3).sum()

    grads, _ = vmap(grad_and_value(loss))(weights, buffers)
    for i, net in enumerate(nets):
        (net(x) ** 3).sum().backward()
        for name, p in net.named_parameters():
            torch.testing.assert_close(grads[name][i], p.grad)


def test_continual_norm_is_group_norm_then_batch_norm():
    layer = randomize(ContinualNorm(6, num_groups=2, momentum=0.3))
    group = GroupNorm(6, num_groups=2, affine="none").double()
    batch = BatchNorm(6, momentum=0.3).double()
    batch.load_state_dict(layer.state_dict())
    for step in range(3):
        x = sample(8, 6, 4, seed=step)
        torch.testing.assert_close(layer(x), batch(group(x)))
    torch.testing.assert_close(layer.running_var, batch.running_var)
    torch.testing.assert_close(layer.eval()(x), batch.eval()(group(x)))
    calibrate(nn.Sequential(layer), [x])
    torch.testing.assert_close(layer.running_mean, group(x).mean((0, 2)))
    with pytest.raises(ValueError, match="one value"):
        ContinualNorm(4, num_groups=4)(torch.ones(8, 4))


def test_noisy_batch_norm_is_noisy_in_training_and_batch_norm_in_evaluation():
    quiet = NoisyBatchNorm(3, noise_mean=0, noise_std=1, jitter=0).double()
    plain = BatchNorm(3).double()
    x = sample(8, 3, 4)
    torch.testing.assert_close(quiet(x), plain(x))
    noisy = NoisyBatchNorm(3).double()
    noisy.generator = torch.Generator().manual_seed(0)
    a, b = noisy(x), noisy(x)
    noisy.generator = torch.Generator().manual_seed(0)
    torch.testing.assert_close(noisy(x), a)
    assert (a - b).abs().max() > 0.1
    plain(x), plain(x)
    torch.testing.assert_close(noisy.eval()(x), copy.deepcopy(plain).eval()(x))


def test_the_noise_has_the_moments_it_says():
    # x = 0 after centring: the output is the shift; x = +-1: the scale
    noisy = NoisyBatchNorm(2000, noise_mean=0.5, noise_std=2.0, jitter=0.1, eps=1e-12)
    noisy.generator = torch.Generator().manual_seed(0)
    x = torch.tensor([-1.0, 0.0, 0.0, 1.0])[:, None].expand(4, 2000) * 0.5**0.5
    y = noisy(x * 2).detach()
    shift = y[1:3]
    # uniform(-a, a) has variance a^2 / 3; 2000 draws: 5 % is 3 standard errors of a variance
    assert shift.mean(0).var().item() == pytest.approx(0.5**2 / 3 + 0.1**2 / 3 / 2, rel=0.06)
    assert (shift[0] - shift[1]).var().item() == pytest.approx(2 * 0.1**2 / 3, rel=0.06)
    scale = (y[3] - y[0]) / 2 / 2**0.5  # mean of two scales and of two jitters
    assert scale.mean().item() == pytest.approx(1.5, rel=0.02)


def test_debug_mode_names_the_layer_that_a_nan_reaches():
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(BatchNorm(4)))
    x = torch.ones(8, 3)
    x[5, 1] = float("nan")
    with pytest.raises(ValueError, match=r"'1\.0'.*nan at \(5, 0\)"), debug(model):
        model(x)
    model(x)  # outside the block nothing is watched
    with debug(model):
        model(torch.ones(8, 3))


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: OnlineNorm(3, alpha_forward=2.0), "alpha_forward=2.0"),
        (lambda: OnlineNorm(3, guard="clmp"), "clamp"),
        (lambda: NoisyBatchNorm(3, noise_std=0.5), "noise_std=0.5"),
        (lambda: ContinualNorm(6), "exactly one"),
        (lambda: RMSNorm(3)(torch.ones(2, 4)), "num_features=3"),
    ],
)
def test_mistakes_end_in_one_message_that_names_them(call, word):
    with pytest.raises(ValueError, match=word):
        call()
