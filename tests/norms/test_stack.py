"""A stack of networks trained as one array axis equals a loop over the networks."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from bnstudy.norms import Calibrator, batch_norms, calibrate, evaluation_mode, make

CASES = [
    ("none", {}),
    ("batch", {}),
    ("batch", {"momentum": None}),
    ("batch", {"frozen": True}),
    ("ghost", {"group_size": 4}),
    ("group", {"channels_per_group": 2}),
    ("layer", {}),
    ("instance", {}),
    ("rms", {}),
    ("filter_response", {}),
    ("filter_response", {"learn_eps": True}),
    ("continual", {"channels_per_group": 2}),
    ("batch", {"r_max": 1.5, "d_max": 0.5, "renorm_warmup": (1, 2, 3)}),
    ("ghost", {"group_size": 4, "r_max": 1.5, "d_max": 0.5}),
]


def network(norm):
    layers = [norm(3), nn.Conv2d(3, 6, 3), norm(6), nn.Sigmoid(), nn.Conv2d(6, 4, 3), norm(4)]
    return nn.Sequential(*layers).double()


def data(seed):
    return torch.randn(8, 3, 7, 7, generator=torch.Generator().manual_seed(seed)).double()


def score(y):
    y = y.tanh()  # bounded, so that no network runs away
    return (y**3).mean() + y[:, :, 0, 0].mean()


@pytest.mark.parametrize("backend", ["fused", "reference"])
@pytest.mark.parametrize(("name", "params"), CASES, ids=lambda v: str(v))
def test_a_stack_trains_and_evaluates_like_a_loop(name, params, backend):
    if name != "none":
        params = {**params, "backend": backend}
    torch.manual_seed(0)
    nets = [network(make(name, **params)) for _ in range(3)]
    loop = copy.deepcopy(nets)
    weights, buffers = stack_module_state(nets)
    weights = {k: v.detach() for k, v in weights.items()}

    def loss(w, b, x):
        return score(functional_call(nets[0], (w, b), (x,)))

    for step in range(3):
        x = data(step)  # the same for all: the first layer sees an unstacked input
        grads, losses = vmap(grad_and_value(loss), in_dims=(0, 0, None))(weights, buffers, x)
        weights = {k: v - 0.1 * grads[k] for k, v in weights.items()}
        for i, net in enumerate(loop):
            net.zero_grad()
            expected = score(net(x))
            expected.backward()
            torch.testing.assert_close(losses[i], expected.detach())
            with torch.no_grad():
                for p in net.parameters():
                    p -= 0.1 * p.grad
    for i, net in enumerate(loop):
        for key, value in [*net.named_parameters(), *net.named_buffers()]:
            stacked = weights[key] if key in weights else buffers[key]
            torch.testing.assert_close(stacked[i], value.detach())

    for net in [*nets, *loop]:
        net.eval()
    modes = [
        {"evaluation": "population"},
        {"evaluation": "batch"},
        {"evaluation": "batch", "group_size": 2},
        {"evaluation": "mixture", "group_size": 4, "prior_examples": 16},
        {"evaluation": "example", "alpha": 0.3},
    ]
    if not batch_norms(nets[0]):
        modes = []
        torch.testing.assert_close(
            vmap(lambda w, b: functional_call(nets[0], (w, b), (x,)))(weights, buffers),
            torch.stack([net(x) for net in loop]),
        )
    for mode in modes:
        with evaluation_mode(nets[0], **mode):
            y = vmap(lambda w, b: functional_call(nets[0], (w, b), (x,)))(weights, buffers)
        for i, net in enumerate(loop):
            with evaluation_mode(net, **mode):
                torch.testing.assert_close(y[i], net(x).detach())


@pytest.mark.parametrize("estimator", ["population", "mean_of_batches"])
def test_a_stack_is_calibrated_like_a_loop(estimator):
    torch.manual_seed(0)
    nets = [network(make("batch")) for _ in range(3)]
    weights, buffers = stack_module_state(nets)
    weights = {k: v.detach() for k, v in weights.items()}
    batches = [data(0), data(1)[:5]]

    def forward(w, b, x):
        return functional_call(nets[0], (w, b), (x,))

    with Calibrator(nets[0], estimator) as calibrator:
        for x in batches:
            vmap(forward, in_dims=(0, 0, None))(weights, buffers, x)
            calibrator.update(buffers)
    stacked = calibrator.statistics()
    for i, net in enumerate(nets):
        calibrate(net, batches, estimator)
        for name, value in stacked.items():
            torch.testing.assert_close(value[i], net.get_buffer(name))
