"""Every norm against torch.nn, against the other backend, and against its limits.

Tolerance: float64, unfriendly input (mean 3, std 0.01 to 100). Two summation orders of the mean
differ by about 1e-16 * |x| * sqrt(m) ~ 1e-13 absolute on the widest channel, 1e-15 once divided
by its std; on the narrowest channel, 1e-16 * 3 / 0.01 = 3e-14; the backward divides by the std
again: 3e-12. 1e-9 leaves 2.5 decimal digits over that and is 1e5 below any wrong formula.
"""

import numpy as np
import pytest
import torch
from torch import nn

from bnstudy.norms import (
    NORMS,
    BatchNorm,
    GhostBatchNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    make,
)

TOLERANCE = {"rtol": 1e-9, "atol": 1e-9}
SHAPES = [(8, 6), (8, 6, 5), (8, 6, 4, 5), (4, 6, 3, 4, 2)]
BACKENDS = ["fused", "reference"]
TORCH_BN = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
TORCH_IN = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


def unfriendly(shape, seed=0, contiguous=False):
    """Mean 3, std 0.01 to 100 over the channels, one constant channel, not contiguous."""
    rng = torch.Generator().manual_seed(seed)
    n, c, *rest = shape
    std = torch.logspace(-2, 2, c, dtype=torch.float64)
    std[-1] = 0.0
    x = torch.randn(c, n, *rest, generator=rng, dtype=torch.float64)
    x = (x * std.view(-1, 1, *[1] * len(rest)) + 3).transpose(0, 1)
    return x.contiguous() if contiguous else x


def randomize(layer, seed=1):
    rng = torch.Generator().manual_seed(seed)
    for p in layer.parameters():
        p.data = torch.randn(p.shape, generator=rng, dtype=torch.float64)
    return layer


def train_together(ours, theirs, shape, steps=3, lr=0.1):
    """Train both on the same stream; compare outputs, gradients and buffers at every step."""
    for step in range(steps):
        x = unfriendly(shape, seed=step)
        upstream = unfriendly(shape, seed=100 + step) - 3
        results = []
        for layer in (ours, theirs):
            leaf = x.clone().requires_grad_()
            y = layer(leaf)
            layer.zero_grad()
            y.backward(upstream)
            gradients = [p.grad for p in layer.parameters()]
            with torch.no_grad():
                for p in layer.parameters():
                    p -= lr * p.grad
            results.append([y, leaf.grad, *gradients, *layer.buffers()])
        assert len(results[0]) == len(results[1])
        for a, b in zip(*results, strict=True):
            scale = max(1.0, b.abs().max().item())  # sums of large terms: relative to the largest
            torch.testing.assert_close(a / scale, b / scale, **TOLERANCE)


@pytest.mark.parametrize("momentum", [0.1, 1.0, None])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_batch_norm_trains_like_torch(shape, backend, momentum):
    ours = randomize(BatchNorm(6, backend=backend, momentum=momentum).double())
    theirs = TORCH_BN[len(shape)](6, momentum=momentum).double()
    theirs.load_state_dict(ours.state_dict())
    train_together(ours, theirs, shape)
    assert ours.num_batches_tracked == 3
    train_together(ours.eval(), theirs.eval(), shape)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_group_layer_and_instance_norm_train_like_torch(shape, backend):
    pairs = [
        (GroupNorm(6, num_groups=2, backend=backend), nn.GroupNorm(2, 6)),
        (LayerNorm(6, backend=backend), nn.GroupNorm(1, 6)),
    ]
    if len(shape) == 2:
        pairs.append((LayerNorm(6, backend=backend), nn.LayerNorm(6)))
    else:
        pairs.append((InstanceNorm(6, backend=backend), TORCH_IN[len(shape)](6, affine=True)))
    for ours, theirs in pairs:
        randomize(ours.double())
        theirs.double().load_state_dict(ours.state_dict())
        train_together(ours, theirs, shape)


@pytest.mark.parametrize("name", ["group", "layer", "instance"])
def test_a_large_mean_costs_no_more_digits_where_channels_lie_last(name):
    norm = make(name, **({"channels_per_group": 2} if name == "group" else {}))(8)
    g = torch.Generator().manual_seed(0)
    x = 100 + torch.randn(4, 8, 12, 12, generator=g)
    exact = norm.double()(x.double())
    last = norm.float()(x.contiguous(memory_format=torch.channels_last))
    # the input itself is rounded at 100 * 2^-24; torch's own kernel for this layout is off by 1e-2
    assert (last - exact).abs().max() < 100 * 100 * 2**-24


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("name", ["batch", "group", "layer", "instance", "rms"])
def test_where_channels_lie_last_in_memory_they_do_so_afterwards(name, axes, training):
    layer = make(name, **({"num_groups": 2} if name == "group" else {}))(6).train(training)
    x = 3 + torch.randn(4, 6, *(3, 5, 2)[:axes], generator=torch.Generator().manual_seed(0))
    layout = (torch.channels_last, torch.channels_last_3d)[axes - 2]
    last = x.contiguous(memory_format=layout).requires_grad_()
    y = layer(last)
    assert y.stride() == last.stride()
    torch.testing.assert_close(y, layer(x))
    assert layer(x).is_contiguous()
    weights = y.detach().cos()
    (theirs,) = torch.autograd.grad((y * weights).sum(), last)
    plain = x.requires_grad_()
    (ours,) = torch.autograd.grad((layer(plain) * weights).sum(), plain)
    torch.testing.assert_close(theirs, ours)


@pytest.mark.parametrize("affine", ["both", "gamma", "beta", "none"])
@pytest.mark.parametrize("name", ["batch", "ghost", "group", "layer", "instance"])
def test_both_backends_train_alike(name, affine):
    own = {"ghost": {"group_size": 4}, "group": {"channels_per_group": 2}}.get(name, {})
    a, b = (
        make(name, affine=affine, gamma_init=0.5, backend=backend, **own)(6).double()
        for backend in BACKENDS
    )
    assert (a.weight is not None) == (affine in ("both", "gamma"))
    assert (a.bias is not None) == (affine in ("both", "beta"))
    if a.weight is not None:
        assert (a.weight == 0.5).all()
    randomize(a)
    b.load_state_dict(a.state_dict())
    train_together(a, b, (8, 6, 4, 5))
    train_together(a.eval(), b.eval(), (8, 6, 4, 5))


@pytest.mark.parametrize("backend", BACKENDS)
def test_tiny_variances_reach_the_running_variance(backend):
    # invstd**-2 - eps would give 0 or noise here: the variance is 1e-9 of eps
    layer = BatchNorm(3, group_size=4, momentum=1.0, backend=backend).double()
    x = torch.randn(8, 3, 5, dtype=torch.float64) * 1e-7
    layer(x)
    torch.testing.assert_close(layer.running_var, x.var((0, 2)), rtol=1e-9, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ghost_groups_are_batch_norm_of_each_group_and_one_update(backend):
    ghost = randomize(GhostBatchNorm(6, group_size=2, backend=backend).double())
    x = unfriendly((8, 6, 4, 5))
    parts = nn.BatchNorm2d(6).double()
    parts.load_state_dict(ghost.state_dict())
    expected = torch.cat([parts(part) for part in x.split(2)])
    torch.testing.assert_close(ghost(x), expected, **TOLERANCE)
    assert ghost.num_batches_tracked == 1
    whole = nn.BatchNorm2d(6).double()
    whole(x)  # the pooled moments of the groups are those of the whole batch
    torch.testing.assert_close(ghost.running_mean, whole.running_mean, **TOLERANCE)
    torch.testing.assert_close(ghost.running_var, whole.running_var, **TOLERANCE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_ghost_group_of_the_whole_batch_is_batch_norm(backend):
    ghost = randomize(GhostBatchNorm(6, group_size=8, backend=backend).double())
    plain = BatchNorm(6).double()
    plain.load_state_dict(ghost.state_dict())
    train_together(ghost, plain, (8, 6, 4, 5))


@pytest.mark.parametrize("backend", BACKENDS)
def test_frozen_uses_population_statistics_and_leaves_them(backend):
    layer = randomize(BatchNorm(6, backend=backend).double())
    layer(unfriendly((8, 6, 4)))
    before = {k: v.clone() for k, v in layer.named_buffers()}
    x = unfriendly((8, 6, 4), seed=5)
    expected = layer.eval()(x)
    layer.train().frozen = True
    y = layer(x)
    torch.testing.assert_close(y, expected, **TOLERANCE)
    y.sum().backward()
    assert layer.weight.grad is not None
    for name, value in layer.named_buffers():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("backend", BACKENDS)
def test_evaluation_in_groups_is_evaluation_of_each_small_batch(backend):
    layer = randomize(BatchNorm(6, backend=backend, evaluation="batch").double()).eval()
    before = {k: v.clone() for k, v in layer.named_buffers()}
    x = unfriendly((8, 6, 4))
    small = torch.cat([layer(part) for part in x.split(2)])
    layer.evaluation_group_size = 2
    torch.testing.assert_close(layer(x), small, **TOLERANCE)
    for name, value in layer.named_buffers():
        assert torch.equal(value, before[name])


# --- limits, as theorems ---------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_of_two_vectors_maps_to_plus_and_minus_one(backend):
    x = torch.randn(2, 50, dtype=torch.float64)
    y = BatchNorm(50, eps=1e-20, backend=backend).double()(x)
    torch.testing.assert_close(y[0], torch.sign(x[0] - x[1]), rtol=0, atol=1e-9)
    torch.testing.assert_close(y[1], -y[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_group_norm_runs_from_layer_to_instance_norm_and_batch_of_one_is_instance(backend):
    x = unfriendly((1, 6, 4, 5))

    def run(cls, **kw):
        return randomize(cls(6, backend=backend, **kw).double())(x)

    layer = randomize(nn.LayerNorm((6, 4, 5), elementwise_affine=False).double())
    plain = GroupNorm(6, num_groups=1, affine="none", backend=backend).double()
    torch.testing.assert_close(plain(x), layer(x), **TOLERANCE)
    torch.testing.assert_close(run(GroupNorm, num_groups=1), run(LayerNorm), **TOLERANCE)
    torch.testing.assert_close(run(GroupNorm, num_groups=6), run(InstanceNorm), **TOLERANCE)
    torch.testing.assert_close(run(BatchNorm), run(InstanceNorm), **TOLERANCE)


def test_convolution_then_batch_norm_ignores_contrast():
    conv = nn.Conv2d(3, 6, 3, bias=False).double()
    norm = BatchNorm(6, eps=1e-20).double()
    x = torch.randn(8, 3, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(norm(conv(17 * x)), norm(conv(x)), **TOLERANCE)


def test_instance_norm_ignores_each_images_contrast_and_brightness():
    norm = InstanceNorm(3, eps=1e-20).double()
    x = torch.randn(8, 3, 6, 6, dtype=torch.float64)
    contrast = torch.rand(8, 1, 1, 1, dtype=torch.float64) + 0.1
    torch.testing.assert_close(norm(contrast * x + 5), norm(x), **TOLERANCE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_norm_obeys_theorem_4_1_with_equality(backend):
    # Santurkar et al. 2018; eps -> 0. g: gradient with respect to the layer's output
    gamma, m = 1.5, 8 * 5
    norm = BatchNorm(4, eps=1e-20, gamma_init=gamma, backend=backend).double()
    x = torch.randn(8, 4, 5, dtype=torch.float64, requires_grad=True)
    g = torch.randn(8, 4, 5, dtype=torch.float64)
    norm(x).backward(g)
    std = x.var((0, 2), correction=0).sqrt()
    normalized = (x - x.mean((0, 2), keepdim=True)) / std.view(1, -1, 1)

    def dot(a, b):
        return (a * b).sum((0, 2))

    bound = dot(g, g) - g.sum((0, 2)) ** 2 / m - dot(g, normalized) ** 2 / m
    torch.testing.assert_close(dot(x.grad, x.grad), gamma**2 / std**2 * bound, **TOLERANCE)


def test_the_running_variance_exceeds_the_normalizing_one_by_m_over_m_minus_1():
    x = torch.randn(2, 5, dtype=torch.float64)
    norm = BatchNorm(5, momentum=1.0).double()
    norm(x)
    ratio = norm.running_var / x.var(0, correction=0)
    torch.testing.assert_close(ratio, torch.full_like(ratio, 2.0))


def test_batch_norm_equals_a_numpy_oracle():
    x = unfriendly((8, 6, 4)).numpy()
    mean = x.mean((0, 2), keepdims=True)
    var = ((x - mean) ** 2).mean((0, 2), keepdims=True)
    expected = (x - mean) / np.sqrt(var + 1e-5)
    y = BatchNorm(6).double()(torch.from_numpy(x)).detach()
    np.testing.assert_allclose(y.numpy(), expected, **TOLERANCE)


# --- choice by name, and mistakes --------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "per_group", "groups"),
    [
        (64, 8, 8),
        (6, 8, 1),
        (16, 8, 2),
        (120, 8, 15),
        (84, 8, 12),
        (24, 5, 4),
        (6, 4, 2),
        (8, 1, 8),
    ],
)
def test_groups_by_the_rule_nearest(channels, per_group, groups):
    # 24 / 5 = 4.8 lies nearest to 4 of (4, 6); 6 / 4 = 1.5 is a tie of 1 and 2: the larger
    assert GroupNorm(channels, channels_per_group=per_group).num_groups == groups


def test_every_norm_is_made_by_name():
    own = {
        "ghost": {"group_size": 4},
        "group": {"num_groups": 2},
        "continual": {"channels_per_group": 3},
    }
    x = torch.randn(8, 6, 3, 3)
    for name in NORMS:
        y = make(name, **own.get(name, {}))(6)(x)
        assert y.shape == x.shape


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: make("bacth"), ["'bacth'", "Did you mean 'batch'?"]),
        (lambda: make("batch", momentun=0.1), ["momentun", "momentum"]),
        (lambda: make("ghost"), ["ghost", "group_size"]),
        (lambda: make("none", eps=1), ["none", "eps"]),
        (lambda: make("layer", num_groups=2), ["num_groups"]),
        (lambda: make("group"), ["exactly one"]),
        (lambda: make("batch", affine="bth"), ["affine", "both"]),
        (lambda: make("batch", momentum=3.0), ["momentum=3.0"]),
        (lambda: BatchNorm(4, eps=0.0), ["eps", "reference"]),
        (lambda: BatchNorm(4, eps=-1e-5, backend="reference"), ["eps"]),
        (lambda: GroupNorm(6, num_groups=4), ["4", "C=6", "1, 2, 3, 6"]),
        (lambda: GroupNorm(6, num_groups=2, channels_per_group=3), ["exactly one"]),
        (lambda: BatchNorm(4)(torch.ones(8)), ["2 to 5 axes", "(8,)"]),
        (lambda: BatchNorm(4)(torch.ones(8, 5)), ["num_features=4", "5 channels"]),
        (lambda: LayerNorm(4)(torch.ones(8, 5)), ["num_features=4", "5 channels"]),
        (lambda: BatchNorm(4)(torch.ones(1, 4)), ["one value per channel", "layer"]),
        (lambda: BatchNorm(4)(torch.ones(1, 4, 1, 1)), ["one value per channel"]),
        (lambda: GhostBatchNorm(4, group_size=1)(torch.ones(8, 4)), ["one value per channel"]),
        (lambda: GhostBatchNorm(4, group_size=3)(torch.ones(8, 4)), ["3", "8", "divide"]),
        (lambda: InstanceNorm(4)(torch.ones(8, 4)), ["InstanceNorm", "without spatial extent"]),
        (lambda: InstanceNorm(4)(torch.ones(8, 4, 1, 1)), ["without spatial extent"]),
        (lambda: GroupNorm(4, num_groups=4)(torch.ones(8, 4)), ["one value", "constant"]),
    ],
)
def test_mistakes_end_in_one_message_that_names_them(call, words):
    with pytest.raises(ValueError) as error:
        call()
    for word in words:
        assert word in str(error.value)


def test_a_batch_of_one_vector_is_fine_with_population_statistics():
    BatchNorm(4).eval()(torch.ones(1, 4))
    BatchNorm(4, frozen=True)(torch.ones(1, 4))


@pytest.mark.parametrize("name", ["batch", "layer", "group"])
def test_the_plain_formula_takes_eps_zero_and_forgets_the_length_of_its_input(name):
    """(x - mean) / std, for which c x is x: with eps = 1e-5 and c = 0.01 they differ."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(16, 4, generator=g, dtype=torch.float64)
    plain = {"backend": "reference", **({"num_groups": 2} if name == "group" else {})}
    norm = make(name, eps=0.0, **plain)(4).double()
    # a product with c rounds, and then the arithmetic: some units in the last place
    assert torch.allclose(norm(0.01 * x), norm(x), rtol=0, atol=1e-12)
    other = make(name, eps=1e-5, **plain)(4).double()
    assert not torch.allclose(other(0.01 * x), other(x), rtol=0, atol=1e-3)
