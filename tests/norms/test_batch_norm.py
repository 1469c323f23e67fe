"""What can be changed about batch normalization: scope, correction, evaluation, precision."""

import copy
import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from bnstudy.norms import BatchNorm, GhostBatchNorm, evaluation_mode, freeze
from bnstudy.norms.distributed import moments_across

BACKENDS = ["fused", "reference"]
EXACT = {"rtol": 1e-10, "atol": 1e-10}  # float64, sums of some hundred terms of order one


def sample(*shape, seed=0):
    return 1 + 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def trained(**params):
    """A layer whose population statistics and affine map are not the initial ones."""
    layer = BatchNorm(3, **params).double()
    rng = torch.Generator().manual_seed(9)
    for tensor in (layer.weight, layer.bias, layer.running_mean):
        if tensor is not None:
            tensor.data = torch.randn(tensor.shape, generator=rng).double()
    layer.running_var.copy_(torch.tensor([0.5, 1.0, 4.0]))
    return layer


# --- Batch Renormalization (Ioffe 2017) ----------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_renormalization_within_bounds_one_and_zero_is_batch_norm(backend):
    renorm = trained(backend=backend, r_max=1.0, d_max=0.0)
    plain = trained(backend=backend)
    for step in range(3):
        x = sample(8, 3, 4, seed=step)
        torch.testing.assert_close(renorm(x), plain(x), **EXACT)
    for a, b in zip(renorm.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_renormalization_without_bounds_gives_population_values_in_training(backend):
    renorm = trained(backend=backend, r_max=math.inf, d_max=math.inf)
    x = sample(8, 3, 4)
    expected = copy.deepcopy(renorm).eval()(x)
    torch.testing.assert_close(renorm(x), expected, **EXACT)


@pytest.mark.parametrize("backend", BACKENDS)
def test_renormalization_equals_the_paper_and_takes_r_and_d_as_constants(backend):
    renorm = trained(backend=backend, r_max=1.2, d_max=0.3)
    mean, var = renorm.running_mean.clone(), renorm.running_var.clone()
    x = sample(8, 3, 4).requires_grad_()
    batch_mean, batch_var = x.mean((0, 2)), x.var((0, 2), correction=0)
    std, batch_std = (var + 1e-5).sqrt(), (batch_var + 1e-5).sqrt()
    r = (batch_std / std).clamp(1 / 1.2, 1.2).detach()
    d = ((batch_mean - mean) / std).clamp(-0.3, 0.3).detach()
    assert not torch.equal(r, torch.ones(3))
    assert not torch.equal(d, torch.zeros(3))
    hat = (x - batch_mean[:, None]) / batch_std[:, None] * r[:, None] + d[:, None]
    expected = hat * renorm.weight[:, None] + renorm.bias[:, None]
    upstream = sample(8, 3, 4, seed=1)
    y = renorm(x)
    torch.testing.assert_close(y, expected, **EXACT)
    grads = torch.autograd.grad(y, [x, renorm.weight, renorm.bias], upstream)
    expected = torch.autograd.grad(expected, [x, renorm.weight, renorm.bias], upstream)
    for a, b in zip(grads, expected, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_renormalization_corrects_each_ghost_group_by_its_own_moments():
    ghost = trained(group_size=2, r_max=1.2, d_max=0.3)
    x = sample(8, 3, 4)
    parts = [trained(r_max=1.2, d_max=0.3)(part) for part in x.split(2)]
    torch.testing.assert_close(ghost(x), torch.cat(parts), **EXACT)


def test_the_bounds_of_renormalization_open_linearly_after_the_hold():
    # r saturates at the bound because the batch's std is 100 times the population's
    layer = BatchNorm(1, r_max=3.0, d_max=5.0, renorm_warmup=(2, 6, 4), affine="none").double()
    x = torch.tensor([-1.0, 1.0, -1.0, 1.0]).double()[:, None] * 100 + 1000
    for updates in range(8):
        layer.running_mean.fill_(0)
        layer.running_var.fill_(1)
        y = layer(x).squeeze()
        r = 1 + 2 * min(max((updates - 2) / 4, 0), 1)
        d = 5 * min(max((updates - 2) / 2, 0), 1)
        expected = torch.tensor([-r + d, r + d]).double().repeat(2)
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=0)  # eps = 1e-5 in both stds


# --- evaluation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mixture_runs_from_the_batch_to_the_population(backend):
    layer, x = trained(backend=backend).eval(), sample(8, 3, 4)
    with evaluation_mode(layer, "batch", 4):
        batch = layer(x)
    with evaluation_mode(layer, "mixture", 4, prior_examples=0):
        torch.testing.assert_close(layer(x), batch, **EXACT)
    with evaluation_mode(layer, "mixture", 4, prior_examples=1e15):
        torch.testing.assert_close(layer(x), trained().eval()(x), **EXACT)
    mean, var = layer.running_mean, layer.running_var
    first = x[:4]
    mean = (16 * mean + 4 * first.mean((0, 2))) / 20
    var = (16 * var + 4 * first.var((0, 2), correction=0)) / 20
    expected = (first - mean[:, None]) / (var[:, None] + 1e-5).sqrt()
    expected = expected * layer.weight[:, None] + layer.bias[:, None]
    with evaluation_mode(layer, "mixture", 4, prior_examples=16):
        torch.testing.assert_close(layer(x)[:4], expected, **EXACT)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_examples_share_of_its_statistics_runs_from_population_to_instance_norm(backend):
    layer, x = trained(backend=backend, affine="none").eval(), sample(8, 3, 4)
    population = layer(x)
    with evaluation_mode(layer, "example", alpha=0.0):
        torch.testing.assert_close(layer(x), population, **EXACT)
    with evaluation_mode(layer, "example", alpha=1.0):
        torch.testing.assert_close(layer(x), nn.functional.instance_norm(x), **EXACT)
    # in between: the moments of a population of which alpha are this example's values
    with evaluation_mode(layer, "example", alpha=0.25):
        y = layer(x)[0, 1]
    own = x[0, 1]
    mean = 0.75 * layer.running_mean[1] + 0.25 * own.mean()
    square = 0.75 * (layer.running_var[1] + layer.running_mean[1] ** 2) + 0.25 * (own**2).mean()
    torch.testing.assert_close(y, (own - mean) / (square - mean**2 + 1e-5).sqrt(), **EXACT)


def test_mixed_statistics_let_a_single_vector_through():
    layer, x = trained().eval(), sample(1, 3)
    for mode in ({"evaluation": "mixture", "prior_examples": 16}, {"evaluation": "example"}):
        with evaluation_mode(layer, **{"alpha": 0.5, **mode}):
            assert layer(x).isfinite().all()


def test_a_frozen_layer_is_still_evaluated_as_asked():
    layer, x = freeze(trained()).eval(), sample(8, 3)
    with evaluation_mode(layer, "batch"):
        expected = nn.functional.batch_norm(x, None, None, layer.weight, layer.bias, True)
        torch.testing.assert_close(layer(x), expected)
    assert not freeze(layer, False).frozen


# --- scope: processes -----------------------------------------------------------------------------


def test_moments_across_one_process_are_the_batch_moments(tmp_path):
    store = f"file://{tmp_path}/store"
    dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        x = sample(8, 3, 4).requires_grad_()
        found = moments_across(x, "world")
        assert found.count == 32
        torch.testing.assert_close(found.mean[0], x.mean((0, 2)))
        torch.testing.assert_close(found.var_biased[0], x.var((0, 2), correction=0))
        (grad,) = torch.autograd.grad(found.var_biased[0, 1], x)
        expected = torch.autograd.grad(x.var((0, 2), correction=0)[1], x)[0]
        torch.testing.assert_close(grad, expected)
        x = sample(8, 3)  # one process: the fused path
        torch.testing.assert_close(trained(process_group="world")(x), trained()(x))
    finally:
        dist.destroy_process_group()


def network(**params):
    torch.manual_seed(0)
    layers = [nn.Linear(5, 3), BatchNorm(3, **params), nn.Tanh(), nn.Linear(3, 3)]
    return nn.Sequential(*layers, BatchNorm(3, **params)).double()


CUT = [0, 7, 10]  # the examples of process 0 and of process 1


def descend(net, x, lo, hi):
    """One step on the sum over examples: gradients of processes add."""
    net.zero_grad()
    (net(x[lo:hi]) ** 3).sum().backward()
    grads = [p.grad for p in net.parameters()]
    if dist.is_initialized():
        for grad in grads:
            dist.all_reduce(grad)
    with torch.no_grad():
        for p, grad in zip(net.parameters(), grads, strict=True):
            p -= 0.01 * grad


def one_of_two(rank, store, params, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    net = network(process_group="world", **params)
    for step in range(5):
        descend(net, sample(10, 5, seed=step), CUT[rank], CUT[rank + 1])
    torch.save(net.state_dict(), f"{results}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("params", [{}, {"r_max": 1.5, "d_max": 0.5}, {"momentum": None}], ids=str)
def test_two_processes_with_uneven_batches_train_like_one(tmp_path, params):
    store = f"file://{tmp_path}/store"
    mp.start_processes(one_of_two, (store, params, tmp_path), nprocs=2, start_method="spawn")
    alone = network(**params)
    for step in range(5):
        descend(alone, sample(10, 5, seed=step), 0, 10)
    for rank in range(2):
        for name, value in torch.load(tmp_path / f"{rank}.pt").items():
            torch.testing.assert_close(value, alone.state_dict()[name], **EXACT)


# --- moments, precision, memory format -----------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("std", [1e-7, 1e-2, 1e2])
@pytest.mark.parametrize("params", [{}, {"group_size": 4}, {"momentum": None}], ids=str)
def test_moments_kept_are_exact_at_every_scale_and_hold_no_graph(params, std, backend):
    layer = BatchNorm(3, keep_moments=True, backend=backend, **params).double()
    x = (torch.randn(8, 3, 5, dtype=torch.float64) * std).requires_grad_()
    layer(x)
    mean, var, count = layer.moments
    groups = torch.stack(x.split(params.get("group_size", 8)))
    # 1e-9: at var = eps, the first where it is taken from invstd, 1e-16 * 2 is lost
    torch.testing.assert_close(var, groups.var((1, 3), correction=0), rtol=1e-9, atol=0)
    torch.testing.assert_close(mean, groups.mean((1, 3)), rtol=1e-9, atol=1e-15)
    assert count == groups[0, :, 0].numel()
    assert not var.requires_grad
    assert not mean.requires_grad


def test_moments_are_readable_within_a_stack():
    x = torch.randn(4, 8, 3, dtype=torch.float64) * torch.tensor([1e-7, 1e-2, 1.0])
    layer = BatchNorm(3, keep_moments=True).double()

    def run(buffers, x):
        torch.func.functional_call(layer, buffers, (x,))
        return layer.moments.var_biased[0]

    buffers = {k: torch.stack([v] * 4) for k, v in layer.named_buffers()}
    var = torch.func.vmap(run)(buffers, x)
    torch.testing.assert_close(var, x.var(1, correction=0), rtol=1e-9, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("params", [{}, {"group_size": 4}, {"r_max": 1.5, "d_max": 0.5}], ids=str)
def test_half_precision_input_has_float32_statistics(dtype, backend, params):
    # a mean of 100 with std 0.5: half precision sums would lose the variance altogether
    x = (100 + 0.5 * torch.randn(8, 3, 16, 16)).to(dtype)
    half, full = BatchNorm(3, backend=backend, **params), BatchNorm(3, **params)
    with torch.autocast("cpu", dtype):
        y = half(x)
    assert y.dtype == dtype
    expected = full(x.float())
    torch.testing.assert_close(half.running_var, full.running_var)
    torch.testing.assert_close(half.running_mean, full.running_mean)
    ulp = torch.finfo(dtype).eps  # y rounded at most twice (renormalization); |y| < 8
    torch.testing.assert_close(y.float(), expected, rtol=2 * ulp, atol=4 * ulp)
    y = half.eval()(x)
    torch.testing.assert_close(y.float(), full.eval()(x.float()), rtol=2 * ulp, atol=4 * ulp)


def test_channels_last_stays_channels_last():
    x = torch.randn(8, 6, 4, 5).to(memory_format=torch.channels_last)
    layer, plain = BatchNorm(6), BatchNorm(6)
    for mode in (True, False):
        y = layer.train(mode)(x)
        assert y.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(y, plain.train(mode)(x.contiguous()))


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: BatchNorm(3, r_max=2.0), ["r_max", "d_max"]),
        (lambda: BatchNorm(3, r_max=0.5, d_max=0.0), ["r_max=0.5", "at least 1"]),
        (lambda: BatchNorm(3, renorm_warmup=(1, 2, 3)), ["renorm_warmup", "r_max"]),
        (
            lambda: BatchNorm(3, r_max=2.0, d_max=1.0, renorm_warmup=(5, 2, 3)),
            ["hold", "(5, 2, 3)"],
        ),
        (
            lambda: BatchNorm(3, r_max=math.inf, d_max=1.0, renorm_warmup=(1, 2, 3)),
            ["infinite"],
        ),
        (lambda: BatchNorm(3, group_size=2, process_group="world"), ["group_size", "one"]),
        (lambda: BatchNorm(3, evaluation="mean"), ["evaluation", "population, batch"]),
        (lambda: BatchNorm(3, evaluation="mixture").eval()(torch.ones(4, 3)), ["prior_examples"]),
        (lambda: BatchNorm(3, evaluation="example").eval()(torch.ones(4, 3)), ["alpha"]),
        (lambda: GhostBatchNorm(3, group_size=0), ["group_size=0"]),
    ],
)
def test_mistakes_end_in_one_message_that_names_them(call, words):
    with pytest.raises(ValueError) as error:
        call()
    for word in words:
        assert word in str(error.value)
