"""A person's own code that does not work is one message with its line; what works is trained."""

import itertools
import json
from pathlib import Path

import pytest
from shell import bnstudy_, own_folder, said

__all__ = ["own_folder"]  # a fixture that acts by being here

NAMES = (f"own_code_{i}" for i in itertools.count())
SMALL = ["data.train_size=40", "train.steps=3", "train.batch_size=8", "seeds=2",
         "tracker.mode=disabled", "workers=1"]  # fmt: skip

NORM = """
import torch
from torch import nn
class Own(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.register_buffer("seen", torch.zeros(()))
    def forward(self, x):
        @
def factory(channels):
    return Own(channels)
"""
MODEL = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, inputs, classes, norm):
        super().__init__()
        self.first, self.norm = nn.Linear(inputs, 6), norm(6)
        self.last = nn.Linear(6, classes)
    def forward(self, x):
        h = self.norm(self.first(x.flatten(1)))
        @
        return self.last(h.relu())
def build(config, shape, num_classes, norm):
    return Net(64, num_classes, norm)
"""
DATA = """
import numpy as np, torch
from bnstudy.data import Dataset
def load(config):
    x = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(60) % 10
    @
    return Dataset(x, y, x[:20], y[:20], x[20:40], y[20:40], num_classes=10)
"""


def norm(text: str, template: str = NORM) -> tuple[str, list[str]]:
    name = next(NAMES)  # a new one each time: Python remembers modules
    Path(f"{name}.py").write_text(template.replace("@", text))
    return name, ["model=mlp", "norm=custom", f"norm.entry={name}:factory"]


def model(text: str, template: str = MODEL) -> tuple[str, list[str]]:
    name = next(NAMES)
    Path(f"{name}.py").write_text(template.replace("@", text))
    return name, ["model=custom", f"model.entry={name}:build"]


def data(text: str) -> tuple[str, list[str]]:
    name = next(NAMES)
    Path(f"{name}.py").write_text(DATA.replace("@", text))
    return name, ["model=mlp", "data=custom", f"data.entry={name}:load"]


SEQUENTIAL = """
from torch import nn
def build(config, shape, num_classes, norm):
    return nn.Sequential(nn.Flatten(), @, norm(6), nn.Linear(6, num_classes))
"""
FACTORY = "from torch import nn\ndef factory(channels):\n    @\n"
BUILD = "from torch import nn\ndef build(config, shape, num_classes, norm):\n    @\n"

# what is wrong -> (how it is written, the line that is named, what else the message holds)
MISTAKES = {
    "a factory returns None": (
        lambda: norm("nn.BatchNorm1d(channels)", FACTORY), 2,
        ["returned None", "must return an nn.Module", "forget `return`"]),
    "a factory returns a function": (
        lambda: norm("return lambda x: x", FACTORY), 2,
        ["returned a value of type function", "must return an nn.Module"]),
    "a factory raises": (
        lambda: norm("return nn.BatchNorm1d(chanels)", FACTORY), 3, ["NameError", "'chanels'"]),
    "a builder returns None": (
        lambda: model("nn.Linear(2, 3)", BUILD), 2, ["returned None", "forget `return`"]),
    "a builder raises": (lambda: model("return [][1]", BUILD), 3, ["IndexError"]),
    "a builder takes other arguments": (
        lambda: model("", "def build(config):\n    return 1\n"), 1,
        ["called as build(config, shape, num_classes, norm)", "positional"]),
    "a model returns a tuple": (
        lambda: model("return self.last(h), h"), 9, ["type tuple", "return the tensor of logits"]),
    "a model returns features": (
        lambda: model("return h"), 9, ["gives (8, 6)", "not logits (8, 10)"]),
    "a layer is lazy": (
        lambda: model("nn.LazyLinear(6)", SEQUENTIAL), 3,
        ["layer '1'", "is lazy", "Linear(in_features=64, out_features=6"]),
    "another image size": (
        lambda: model("nn.Linear(784, 6)", SEQUENTIAL), 3,
        ["(1, 8, 8)", "called: '1'", "mat1 and mat2", "argument `shape`"]),
    "another image size in a forward": (
        lambda: model("", MODEL.replace("Net(64", "Net(784")), 10, ["mat1 and mat2", "`shape`"]),
    "a forward raises": (lambda: model("h = h.undefined"), 11, ["AttributeError", "undefined"]),
    "a forward makes arrays": (lambda: model("h = h.numpy()"), 11, ["RuntimeError", "numpy"]),
    "a forward knows the batch size": (
        lambda: model("h = h.view(8, 6)"), 11, ["evaluation on a batch of another size, 16"]),
    "a norm changes the shape": (
        lambda: norm("return x[:, :-1]"), 9, ["Own.forward", "shape of its input"]),
    "a norm returns None": (lambda: norm("x * 2"), 9, ["returns None for (8, 64)"]),
    "a norm's forward raises": (lambda: norm("return x * self.gamma"), 10, ["'gamma'"]),
    "a norm fails in evaluation": (
        lambda: norm("return x if self.training else x * self.mean"), 10, ["'mean'", "evaluation"]),
    "arrays instead of tensors": (
        lambda: data("x = x.numpy()"), 4, ["train_x must be a tensor", "torch.from_numpy"]),
    "labels that are arrays": (
        lambda: data("y = y.numpy()"), 4, ["train_y must be a tensor", "torch.from_numpy"]),
    "images with channels last": (
        lambda: data("x = x.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)"), 4,
        ["(60, 8, 8, 3)", "x.permute(0, 3, 1, 2)"]),
    "grey images with channels last": (
        lambda: data("x = x.permute(0, 2, 3, 1)"), 4, ["(60, 8, 8, 1)", "x.permute(0, 3, 1, 2)"]),
    "a loader that returns a pair": (lambda: data("return x, y"), 4, ["type tuple", "Dataset"]),
    "a loader that raises": (lambda: data("open('no_such_file')"), 7, ["FileNotFoundError"]),
    "a module that fails": (
        lambda: norm("", "import torch\n1/0\n"), 2, ["importing", "ZeroDivisionError"]),
    "a module that does not parse": (
        lambda: norm("", "import torch\ndef factory(:\n"), 2, ["importing", "SyntaxError"]),
    "a helper that is not there": (
        lambda: norm("", "\nimport no_helper\n"), 2, ["ModuleNotFoundError", "no_helper"]),
}  # fmt: skip


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_one_message_with_the_line(what, monkeypatch):
    monkeypatch.setattr("bnstudy.cli.execute.launch", lambda *a, **k: pytest.fail("it trains"))
    write, line, words = MISTAKES[what]
    module, arguments = write()
    result = bnstudy_("train", *arguments, *SMALL)
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stderr.count("bnstudy: ") == result.stderr.count("\n") == 1
    for text in (f"{module}.py:{line}", *words):
        assert text in result.stderr


def test_a_mistake_can_be_seen_whole(monkeypatch):
    """BNSTUDY_TRACEBACK=1: the message first, the traceback after it."""
    monkeypatch.setenv("BNSTUDY_TRACEBACK", "1")
    module, arguments = model("h = h.undefined")
    stderr = bnstudy_("train", *arguments, *SMALL).stderr
    assert stderr.index(f"{module}.py:11: AttributeError") < stderr.index("Traceback (most recent")
    assert "h = h.undefined" in stderr


def test_what_fails_in_the_middle_of_training_names_the_line_too():
    text = "self.seen += self.training; assert self.seen < 3, 'third'; return x"
    module, arguments = norm(text)
    result = bnstudy_("train", *arguments, *SMALL)
    assert result.exit_code == 1, result.stderr
    assert f"training failed at {Path.cwd()}/{module}.py:10: AssertionError: third" in result.stderr
    assert "Traceback" not in result.stderr


def stacks(results: str = "results") -> list[dict]:
    """How the networks of all records trained."""
    found = [json.loads(p.read_text()) for p in Path(results, "runs").rglob("*.json")]
    return [record["stack"] for record in found if "stack" in record]


MEAN = "m = x.mean(0); y = self.weight * (x - m)"
UNMAPPED = {
    "reads a value": ("return x * (1 + 0 * x.sum().item())", ".item()"),
    "branches on a value": ("return x if x.sum() > 0 else x * 2", "data-dependent control flow"),
    "draws random numbers": ("return x + torch.randn_like(x)", "random operation"),
    "assigns a buffer": (
        f"{MEAN}; self.seen = self.seen + m.sum().detach(); return y",
        "buffer '2.seen'",
    ),
}


@pytest.mark.parametrize("what", UNMAPPED)
def test_what_does_not_map_trains_one_network_at_a_time_and_says_so(what):
    text, why = UNMAPPED[what]
    _, arguments = norm(text)
    result = bnstudy_("compare", *arguments, *SMALL, "optimizer.lr=0.1,0.2")
    said(result)
    assert [stack["kind"] for stack in stacks()] == ["single"] * 4
    (note,) = {stack["note"] for stack in stacks()}
    assert note.startswith("one network at a time: ")
    assert why in note
    assert result.stderr.count(note) == 1


def test_what_maps_trains_as_a_map_and_says_nothing():
    _, arguments = norm(f"{MEAN}; self.seen.add_(m.detach().sum()); return y")
    result = bnstudy_("train", *arguments, *SMALL)
    said(result)
    assert {stack["kind"] for stack in stacks()} == {"mapped"}
    assert not any("note" in stack for stack in stacks())
    assert "one network at a time" not in result.stderr


def test_dropout_of_ones_own_is_a_reason_too():
    _, arguments = model("h = nn.functional.dropout(h, 0.5)")
    said(bnstudy_("train", *arguments, *SMALL))
    _, arguments = model("", SEQUENTIAL.replace("@", "nn.Dropout(0.5), nn.Linear(64, 6)"))
    said(bnstudy_("train", *arguments, *SMALL))
    assert [stack["kind"] for stack in stacks()] == ["single"] * 4
    assert {"random" in stack["note"] for stack in stacks()} == {True}


@pytest.mark.parametrize("arch", ["squeezenet1_1", "alexnet"])
def test_a_comparison_of_what_is_the_same_network_is_refused(arch):
    result = bnstudy_(
        "compare", "norm=batch,group", "model=torchvision", f"model.arch={arch}", *SMALL
    )
    assert result.exit_code == 2, result.output
    assert f"norm=batch would change nothing: model.arch={arch}" in result.stderr


def test_a_model_that_never_calls_norm_is_refused_with_its_line():
    text = SEQUENTIAL.replace(", norm(6)", "").replace("@", "nn.Linear(64, 6)")
    module, arguments = model("", text)
    result = bnstudy_("compare", *arguments, "norm=batch,layer", *SMALL)
    assert result.exit_code == 2, result.output
    assert f"{module}.py:3" in result.stderr
    assert "never calls norm(channels)" in result.stderr
