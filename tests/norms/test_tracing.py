"""Norms within what torch makes of models: scripts, graphs, traces, features, ONNX files."""

import copy
import importlib.util
import io
import warnings

import pytest
import torch
from torch import fx, nn
from torchvision.models.feature_extraction import create_feature_extractor

from bnstudy.norms import BatchNorm, InstanceNorm, StepBatchNorm, make

PLAIN = {
    "none": {},
    "batch": {},
    "group": {"num_groups": 3},
    "layer": {},
    "instance": {},
    "rms": {},
}
VARIANTS = {
    "ghost": {"group_size": 4},
    "continual": {"num_groups": 3},
    "online": {},
    "filter_response": {},
    "dyt": {},
    "power": {"warmup": 2},
}
X = 3 + 2 * torch.randn(8, 4, 5, 5, generator=torch.Generator().manual_seed(0))

# torch says of TorchScript that torch.compile and torch.export follow it
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")


def network(name, training=False, **params):
    torch.manual_seed(0)
    norm = make(name, **(PLAIN | VARIANTS)[name], **params)
    layers = nn.Sequential(nn.Conv2d(4, 6, 3), norm(6), nn.ReLU(), nn.Conv2d(6, 6, 1), norm(6))
    for p in layers.parameters():
        nn.init.normal_(p)
    layers.train()(X)  # statistics unlike those at first
    return layers.train(training)


def traced(net):
    return fx.symbolic_trace(net)


def features(net):
    made = create_feature_extractor(net, {"4": "last"})
    return lambda x: made(x)["last"]


def jit_traced(net):
    return torch.jit.trace(copy.deepcopy(net), X[:3])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("made", [torch.jit.script, traced, features], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_norm_gives_the_same_scripted_and_traced(name, made, training):
    net = network(name, training)
    other = made(copy.deepcopy(net))
    for _ in range(2):  # the second from the statistics that the first left
        assert torch.equal(other(X), net(X))


@pytest.mark.parametrize("name", PLAIN)
def test_a_trace_warns_of_nothing_and_serves_other_batch_sizes(name):
    net = network(name)
    assert torch.equal(jit_traced(net)(X), net(X))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("made", [traced, features], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", VARIANTS)
def test_a_graph_holds_every_variant_as_one_node_with_its_checks(name, made, training):
    net = network(name, training)
    assert torch.equal(made(copy.deepcopy(net))(X), net(X))
    with pytest.raises(ValueError, match="num_features=6"):
        traced(net[1:])(X)


def test_a_graph_holds_the_norm_of_time_steps():
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = StepBatchNorm(3, time_steps=2)

        def forward(self, x, mask):
            return self.norm(x[:, 0], 1) + self.norm(x, mask=mask)[:, 1]

    net, x, mask = Steps(), X[:, :2, :3, 0], torch.ones(8, 2, 1, dtype=torch.bool)
    other = traced(copy.deepcopy(net))
    assert torch.equal(other(x, mask), net(x, mask))


def test_a_norm_alone_is_no_graph_and_says_so():
    with pytest.raises(ValueError, match="Sequential"):
        traced(BatchNorm(4))


@pytest.mark.parametrize(
    "layer",
    [
        BatchNorm(4, track_running_stats=False),
        BatchNorm(4, momentum=None).eval(),
        BatchNorm(4, affine=False),
        BatchNorm(4, frozen=True),
        BatchNorm(4, group_size=2).eval(),
        InstanceNorm(4, spatial_dims=2),
    ],
    ids=str,
)
def test_a_script_holds_what_its_settings_say(layer):
    assert torch.equal(torch.jit.script(copy.deepcopy(layer))(X), layer(X))
    if isinstance(layer, InstanceNorm):
        assert torch.equal(torch.jit.script(layer)(X[0]), layer(X[0]))


@pytest.mark.parametrize(
    ("layer", "word"),
    [
        (BatchNorm(4, group_size=2), "group_size"),
        (BatchNorm(4, process_group="world"), "process_group"),
        (BatchNorm(4, r_max=2.0, d_max=1.0), "r_max"),
        (BatchNorm(4, momentum=None), "momentum"),
        (BatchNorm(4, evaluation="batch").eval(), "evaluation=batch"),
        (BatchNorm(4, evaluation_group_size=2).eval(), "evaluation_group_size"),
        (BatchNorm(4, keep_moments=True), "keep_moments"),
        (InstanceNorm(4, track_running_stats=True), "track_running_stats"),
        (make("continual", num_groups=2)(4), "ContinualNorm"),
        (make("noisy")(4), "NoisyBatchNorm"),
        (StepBatchNorm(4, time_steps=2), "StepBatchNorm"),
        (make("online")(4), "OnlineNorm"),
        (make("filter_response")(4), "FilterResponseNorm"),
    ],
    ids=str,
)
def test_a_script_refuses_by_name_what_it_would_pass_over(layer, word):
    scripted = torch.jit.script(layer)
    with pytest.raises(torch.jit.Error, match=word):
        scripted(X)


@pytest.mark.parametrize("name", PLAIN)
def test_it_compiles_to_one_graph_and_exports(name):
    net = network(name)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(X), net(X))
    torch.testing.assert_close(torch.export.export(net, (X,)).module()(X), net(X))


@pytest.mark.skipif(importlib.util.find_spec("onnx") is None, reason="onnx is not installed")
@pytest.mark.parametrize("name", PLAIN)
def test_the_legacy_exporter_writes_a_file_that_computes_the_same(name):
    from onnx import load_model_from_string
    from onnx.reference import ReferenceEvaluator

    net, file = network(name), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(net, (X,), file, dynamo=False, input_names=["x"])
    (y,) = ReferenceEvaluator(load_model_from_string(file.getvalue())).run(None, {"x": X.numpy()})
    # two convolutions of 36 and 6 products and two norms of values of order ten in float32
    torch.testing.assert_close(torch.from_numpy(y), net(X), rtol=1e-4, atol=1e-4)
