"""The norms here stand in for torch.nn's: its own test inputs, its arguments, its state dicts."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from bnstudy.norms import (
    NORMS,
    BatchNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    RMSNorm,
    StepBatchNorm,
    make,
    parameters_of,
)

# float64, at most 150 x 6 values of order ten: sums lose 1e-13
EXACT = {"rtol": 1e-10, "atol": 1e-10}
BACKENDS = ["fused", "reference"]


def batch(*args, **kwargs):
    return BatchNorm(*args, **kwargs)


def group(num_groups, num_channels, eps=1e-5, affine=True, **kwargs):
    return GroupNorm(num_channels, num_groups=num_groups, eps=eps, affine=affine, **kwargs)


def instance(spatial_dims):
    def made(*args, **kwargs):
        return InstanceNorm(*args, spatial_dims=spatial_dims, **kwargs)

    return made


OURS = {
    "BatchNorm1d": batch,
    "BatchNorm2d": batch,
    "BatchNorm3d": batch,
    "GroupNorm": group,
    "InstanceNorm1d": instance(1),
    "InstanceNorm2d": instance(2),
    "InstanceNorm3d": instance(3),
}
COUNTS = dict(zip(OURS, (8, 7, 7, 10, 6, 6, 6), strict=True))
# in a process of its own: the import changes global settings of torch
CHILD = """
import sys
import torch
from torch.testing._internal.common_modules import module_db

found = {}
for info in module_db:
    if info.module_cls.__module__.startswith("torch.nn") and info.name[3:] in sys.argv[2:]:
        for training in (True, False):
            settings = {"device": "cpu", "dtype": torch.float64, "requires_grad": True}
            for one in info.module_inputs_func(info, **settings, training=training):
                made, (x,) = one.constructor_input, one.forward_input.args
                case = (one.desc, made.args, made.kwargs, x.detach(), training)
                found.setdefault(info.name[3:], []).append(case)
torch.save(found, sys.argv[1])
"""


@pytest.fixture(scope="module")
def module_inputs(tmp_path_factory):
    """torch's own inputs of its norms: (description, constructor's, forward's, training)."""
    path = tmp_path_factory.mktemp("inputs") / "inputs.pt"
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(path), *OURS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return torch.load(path)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", OURS)
def test_torchs_own_module_inputs_give_the_same(name, backend, module_inputs):
    cases = module_inputs[name]
    assert len(cases) == 2 * COUNTS[name]
    for description, args, kwargs, x, training in cases:
        layers = (
            OURS[name](*args, **kwargs, backend=backend, dtype=torch.float64),
            getattr(nn, name)(*args, **kwargs, dtype=torch.float64),
        )
        for ours, theirs in training_together(*layers, x, training):
            torch.testing.assert_close(ours, theirs, **EXACT, msg=f"{description}: {training=}")


def training_together(ours, theirs, x, training):
    """Outputs, gradients and buffers of both, over three steps from the same state."""
    rng = torch.Generator().manual_seed(0)
    for (name, own), (other, value) in zip(
        ours.named_buffers(), theirs.named_buffers(), strict=True
    ):
        assert name == other
        if value.is_floating_point():
            value.copy_(0.5 + torch.rand(value.shape, generator=rng, dtype=value.dtype))
            own.copy_(value)
    if theirs.weight is not None:
        assert (ours.bias is None) == (theirs.bias is None)
    own = dict(ours.named_parameters())
    for name, value in theirs.named_parameters():
        value.data = torch.randn(value.shape, generator=rng, dtype=torch.float64)
        own[name].data = value.data.clone()
    for _ in range(3):
        results = []
        for layer in (ours.train(training), theirs.train(training)):
            leaf = x.clone().requires_grad_()
            layer.zero_grad()
            y = layer(leaf)
            weights = torch.arange(y.numel(), dtype=y.dtype).cos().view(y.shape)
            (y * weights).sum().backward()
            own = dict(layer.named_parameters())
            gradients = [own[name].grad for name, _ in theirs.named_parameters()]
            results.append([y, leaf.grad, *gradients, *layer.buffers()])
        yield from zip(*results, strict=True)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch_dim", [True, False])
def test_instance_norm_tracks_statistics_like_torch(batch_dim, backend, training):
    ours = InstanceNorm(3, 1e-3, 0.3, True, True, spatial_dims=2, backend=backend).double()
    theirs = nn.InstanceNorm2d(3, 1e-3, 0.3, True, True).double()
    x = 2 + 3 * torch.randn(4, 3, 5, 2, generator=torch.Generator().manual_seed(1)).double()
    x = x if batch_dim else x[0]
    for a, b in training_together(ours, theirs, x, training):
        torch.testing.assert_close(a, b, **EXACT)


REQUIRED = {
    "ghost": {"group_size": 2},
    "group": {"num_groups": 3},
    "continual": {"num_groups": 3},
    "filter_response": {"learn_eps": True},
}


@pytest.mark.parametrize("name", NORMS)
def test_every_norm_is_made_where_and_of_what_type_it_is_told(name):
    layer = make(name, dtype=torch.float64, device="meta", **REQUIRED.get(name, {}))(6)
    for tensor in [*layer.parameters(), *layer.buffers()]:
        assert tensor.device.type == "meta"
        assert tensor.dtype in (torch.float64, torch.long)
    x = torch.randn(4, 6, 3, dtype=torch.float64)
    layer = make(name, dtype=torch.float64, **REQUIRED.get(name, {}))(6)
    assert layer(x).dtype == torch.float64


def test_the_norm_of_time_steps_is_made_where_and_of_what_type_it_is_told():
    layer = StepBatchNorm(3, time_steps=2, device="meta", dtype=torch.float64)
    for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
        assert tensor.device.type == "meta", name
        assert tensor.dtype in (torch.float64, torch.long), name


@pytest.mark.parametrize("name", [n for n in NORMS if n != "none"])
def test_affine_is_torchs_boolean_or_names_what_is_learned(name):
    def learned(**params):
        layer = make(name, **REQUIRED.get(name, {}), **params)(6)
        return layer.affine, layer.weight is not None, layer.bias is not None

    assert learned() == learned(affine=True) == ("both", True, True)
    assert learned(affine=False) == learned(affine=False, bias=False) == ("none", False, False)
    assert learned(bias=False) == learned(affine="gamma", bias=False) == ("gamma", True, False)
    with pytest.raises(ValueError, match="bias=False"):
        learned(affine="beta", bias=False)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (BatchNorm(4), nn.BatchNorm2d(4)),
        (BatchNorm(4, track_running_stats=False), nn.BatchNorm2d(4, track_running_stats=False)),
        (GroupNorm(4, num_groups=2), nn.GroupNorm(2, 4)),
        (InstanceNorm(4, affine=False), nn.InstanceNorm2d(4)),
        (InstanceNorm(4, track_running_stats=True), nn.InstanceNorm2d(4, 1e-5, 0.1, True, True)),
        (LayerNorm(4, 1e-3), nn.LayerNorm(4)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_state_dicts_are_exchanged_both_ways(ours, theirs):
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("momentum", [0.3, None])
def test_without_running_statistics_evaluation_is_the_batchs(momentum):
    layer = BatchNorm(3, 1e-5, momentum, True, False)
    assert layer.running_mean is layer.running_var is layer.num_batches_tracked is None
    assert not layer.state_dict().keys() & {"running_mean", "running_var"}
    x = 5 + torch.randn(4, 3, 2)
    y = layer(x)
    torch.testing.assert_close(y, nn.functional.batch_norm(x, None, None, training=True))
    assert torch.equal(layer.eval()(x), y)
    layer.reset_running_stats()
    copy.deepcopy(layer)
    with pytest.raises(ValueError, match="one value per channel"):
        layer(x[:1, :, :1])


# --- unbatched instance norm ---------------------------------------------------------------------


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("backend", BACKENDS)
def test_one_example_without_batch_is_a_batch_of_one(dims, backend):
    layer = InstanceNorm(3, spatial_dims=dims, backend=backend)
    x = torch.randn(3, *[4] * dims)
    torch.testing.assert_close(layer(x), layer(x[None])[0], rtol=0, atol=0)
    for wrong in (x[0], x[None, None]):
        with pytest.raises(ValueError, match=f"spatial_dims={dims}") as error:
            layer(wrong)
        assert str(tuple(wrong.shape)) in str(error.value)


def test_two_axes_are_a_batch_unless_the_number_of_spatial_axes_is_given():
    for shape, dims in (((3, 15), 1), ((3, 3), 1), ((3, 4, 5), 2), ((3, 4, 5, 6), 3)):
        with pytest.raises(ValueError, match=f"spatial_dims={dims}"):
            InstanceNorm(3)(torch.randn(shape))


# --- what torch has and the norms here have not --------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: LayerNorm(4, elementwise_affine=True), ["elementwise_affine", "affine=True"]),
        (lambda: RMSNorm(4, elementwise_affine=False), ["elementwise_affine", "affine=False"]),
        (lambda: LayerNorm(4, track_running_stats=True), ["LayerNorm has no argument 'track_run"]),
        (lambda: BatchNorm(4, momentun=0.1), ["'momentun'", "Did you mean 'momentum'?"]),
        (lambda: GroupNorm(num_features=4, num_groups=2, num_channels=4), ["first argument"]),
    ],
)
def test_an_argument_that_a_norm_does_not_have_is_refused_by_name(call, words):
    with pytest.raises(TypeError) as error:
        call()
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    "params",
    [
        {"frozen": True},
        {"r_max": 2.0, "d_max": 1.0},
        {"evaluation": "mixture", "prior_examples": 16},
        {"evaluation": "example", "alpha": 0.5},
    ],
    ids=str,
)
def test_what_needs_population_statistics_is_refused_without_them(params):
    with pytest.raises(ValueError, match="track_running_stats=False"):
        BatchNorm(4, track_running_stats=False, **params)
    with pytest.raises(ValueError, match="track_running_stats"):
        StepBatchNorm(4, time_steps=2, track_running_stats=False)


def test_a_norm_lists_the_arguments_of_its_bases_once():
    names = list(parameters_of(NORMS["noisy"]))
    assert len(names) == len(set(names))
    assert {"noise_mean", "momentum", "group_size", "eps", "affine", "device"} <= set(names)
    assert "num_features" not in names
    assert list(parameters_of(NORMS["none"])) == ["device", "dtype"]
