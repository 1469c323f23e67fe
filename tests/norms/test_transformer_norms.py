"""Dynamic tanh and power normalization, each against a few lines of numpy and its own limits."""

import numpy as np
import pytest
import torch

from bnstudy.norms import DynamicTanh, PowerNorm, make

EXACT = {"rtol": 1e-10, "atol": 1e-10}  # float64, sums of some hundred terms of order one
SHAPES = [(8, 3), (8, 3, 5), (8, 3, 2, 4)]


def sample(*shape, seed=0):
    return 1 + 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def randomize(layer):
    rng = torch.Generator().manual_seed(1)
    for p in layer.parameters():
        p.data = torch.randn(p.shape, generator=rng).double()
    return layer.double()


def along(values, x):
    """A number for each channel, as it broadcasts over x."""
    return np.asarray(values).reshape(-1, *[1] * (x.ndim - 2))


# --- dynamic tanh --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dynamic_tanh_equals_its_formula_and_gradient(shape):
    layer, x = randomize(DynamicTanh(3)), sample(*shape).requires_grad_()
    alpha = layer.scale.item()
    gamma, beta = (along(p.detach(), x) for p in (layer.weight, layer.bias))
    grad = sample(*shape, seed=1)
    y = layer(x)
    y.backward(grad)
    a, g = x.detach().numpy(), grad.numpy()
    inner = np.tanh(alpha * a)
    slope = g * gamma * (1 - inner**2)
    np.testing.assert_allclose(y.detach(), gamma * inner + beta, **EXACT)
    np.testing.assert_allclose(x.grad, slope * alpha, **EXACT)
    np.testing.assert_allclose(layer.scale.grad, [(slope * a).sum()], **EXACT)


def test_dynamic_tanh_starts_at_half_maps_values_alone_and_saturates():
    layer, x = DynamicTanh(3).double(), sample(8, 3, 5)
    assert layer.scale.tolist() == [0.5]
    assert DynamicTanh(3, initial_alpha=0.2).scale.item() == pytest.approx(0.2)
    torch.testing.assert_close(layer(x)[2:3, :, 1:2], layer(x[2:3, :, 1:2]))
    torch.testing.assert_close(layer.eval()(x), layer.train()(x))
    torch.testing.assert_close(layer(1e6 * x), x.sign())
    layer.scale.data.fill_(3.0)
    layer.reset_parameters()
    assert layer.scale.item() == 0.5


# --- power normalization -------------------------------------------------------------------------


def power_oracle(x, grad, square, product, warm, m=0.3, eps=1e-5):
    """One step of algorithm 2 on (N, C, *): y, dx, and both running terms after it."""
    over = (0, *range(2, x.ndim))
    own = (x**2).mean(over)
    std = along(np.sqrt((own if warm else square) + eps), x)
    y = x / std
    own_product = (grad * y).mean(over)
    dx = (grad - along(own_product if warm else product, x) * y) / std
    product = product * (1 - m * (y**2).mean(over)) + m * own_product
    return y, dx, (1 - m) * square + m * own, product


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("warmup", [0, 2])
def test_power_norm_equals_the_paper_forward_and_backward_over_several_steps(warmup, shape):
    layer = PowerNorm(3, momentum=0.3, warmup=warmup, affine=False).double()
    square, product = np.ones(3), np.zeros(3)
    for step in range(5):
        x = sample(*shape, seed=step).requires_grad_()
        grad = sample(*shape, seed=50 + step)
        y = layer(x)
        y.backward(grad)
        expected, dx, square, product = power_oracle(
            x.detach().numpy(), grad.numpy(), square, product, step < warmup
        )
        np.testing.assert_allclose(y.detach(), expected, **EXACT)
        np.testing.assert_allclose(x.grad, dx, **EXACT)
        np.testing.assert_allclose(layer.running_square, square, **EXACT)
        np.testing.assert_allclose(layer.running_product, product, **EXACT)
    assert int(layer.num_batches_tracked) == 5


def test_while_power_norm_warms_up_its_gradient_is_exact_and_afterwards_it_is_not():
    def fresh(x, warmup):
        return PowerNorm(3, warmup=warmup).double()(x)

    x = sample(6, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: fresh(x, 1), x)

    def settled(x):
        layer = PowerNorm(3, momentum=1.0).double()
        leaf = sample(6, 3, 2, seed=1).requires_grad_()
        layer(leaf).square().sum().backward()  # a running term that is not zero
        return layer(x)

    assert not torch.autograd.gradcheck(settled, x, raise_exception=False)


def test_evaluation_of_power_norm_uses_the_running_square_and_changes_nothing():
    layer, x = randomize(PowerNorm(3)), sample(8, 3, 5)
    layer(x).sum().backward()
    before = {name: b.clone() for name, b in layer.named_buffers()}
    std = (before["running_square"] + 1e-5).sqrt()[:, None]
    gamma, beta = layer.weight[:, None], layer.bias[:, None]
    torch.testing.assert_close(layer.eval()(x), x / std * gamma + beta)
    for name, value in layer.named_buffers():
        assert torch.equal(value, before[name])


def test_power_norm_of_networks_side_by_side_keeps_them_apart_in_both_directions():
    alone = [randomize(PowerNorm(2, warmup=1)) for _ in range(3)]
    wide = PowerNorm(2, warmup=1).double().widened(3)
    with torch.no_grad():
        for name in ("weight", "bias"):
            getattr(wide, name).copy_(torch.cat([getattr(net, name) for net in alone]))
    for step in range(3):
        parts = [sample(8, 2, 4, seed=10 * step + k).requires_grad_() for k in range(3)]
        x = torch.cat([p.detach() for p in parts], 1).requires_grad_()
        (wide(x) ** 3).sum().backward()
        for net, part in zip(alone, parts, strict=True):
            (net(part) ** 3).sum().backward()
        torch.testing.assert_close(x.grad, torch.cat([p.grad for p in parts], 1))
    for name in ("running_square", "running_product"):
        torch.testing.assert_close(
            wide.get_buffer(name), torch.cat([net.get_buffer(name) for net in alone])
        )


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"momentum": None}, "momentum=None"), ({"momentum": 0.0}, "momentum=0"),
     ({"warmup": -1}, "warmup=-1")],
)  # fmt: skip
def test_power_norm_refuses_what_makes_no_average(settings, said):
    with pytest.raises(ValueError, match=said):
        make("power", **settings)
