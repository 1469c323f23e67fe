"""Empty batches: what torch.nn makes of them, in every norm, mode and backend.

A kernel that divides by the number of values can end the process, so another process tries the
cases one by one and reports each before the next; where it ends, a new one goes on behind.
"""

import json
import subprocess
import sys

import pytest

SHAPES = [(0, 3), (0, 3, 9), (0, 3, 2, 4), (0, 3, 2, 2, 2), (4, 3, 0), (0, 3, 0)]
MODES = ["train", "frozen", "eval"]
BACKENDS = ["fused", "reference"]
# ours -> torch.nn's of as many axes; None: torch has none, and nothing in gives nothing out
NORMS = {
    "BatchNorm(3)": "torch_batch(3)",
    "BatchNorm(3, momentum=None)": "torch_batch(3, momentum=None)",
    "BatchNorm(3, affine=False)": "torch_batch(3, affine=False)",
    "BatchNorm(3, bias=False)": "torch_batch(3, bias=False)",
    "BatchNorm(3, track_running_stats=False)": "torch_batch(3, track_running_stats=False)",
    "BatchNorm(3, evaluation='batch')": "torch_batch(3)",
    "BatchNorm(3, evaluation='mixture', prior_examples=4)": "torch_batch(3)",
    "BatchNorm(3, evaluation='example', alpha=0.5)": "torch_batch(3)",
    "BatchNorm(3, r_max=2.0, d_max=1.0)": "torch_batch(3)",
    "BatchNorm(3, keep_moments=True)": "torch_batch(3)",
    "GhostBatchNorm(3, group_size=2)": "torch_batch(3)",
    "ContinualNorm(3, num_groups=1)": "torch_batch(3)",
    "NoisyBatchNorm(3)": "torch_batch(3)",
    "GroupNorm(3, num_groups=1)": "nn.GroupNorm(1, 3)",
    "LayerNorm(3)": "nn.LayerNorm(SHAPE[1:], elementwise_affine=False)",
    "RMSNorm(3)": "nn.RMSNorm(SHAPE[1:], elementwise_affine=False)",
    "InstanceNorm(3)": "torch_instance(3, affine=True)",
    "InstanceNorm(3, affine=False)": "torch_instance(3)",
    "FilterResponseNorm(3)": None,
    "FilterResponseNorm(3, learn_eps=True)": None,
    "DynamicTanh(3)": None,
    "PowerNorm(3)": None,
    "OnlineNorm(3)": None,
    "OnlineNorm(3, guard='layer')": None,
    "NoNorm(3)": None,
}
WITHOUT_BACKEND = ("NoNorm", "DynamicTanh")

CHILD = """
import json, sys
import torch
from torch import nn
from bnstudy.norms import *

def outcome(make, SHAPE, mode):
    batch = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    instance = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}
    scope = globals() | {"SHAPE": SHAPE, "torch_batch": batch[len(SHAPE)],
                         "torch_instance": instance.get(len(SHAPE))}
    torch.manual_seed(0)
    layer = eval(make, scope)
    for name, buffer in layer.named_buffers():
        if buffer.is_floating_point():
            buffer.fill_(2.0)
    layer.train(mode == "train")
    if mode == "frozen" and hasattr(layer, "frozen"):
        layer.train().frozen = True
    x = torch.zeros(SHAPE, requires_grad=True)
    try:
        y = layer(x)
        y.sum().backward()
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}
    gradients = {n: p.grad if p.grad is None else p.grad.tolist()
                 for n, p in layer.named_parameters()}
    return {"shape": list(y.shape), "grad": list(x.grad.shape), "gradients": gradients,
            "buffers": {n: b.tolist() for n, b in layer.named_buffers()}}

for make, shape, mode in json.loads(sys.argv[1]):
    print(json.dumps(outcome(make, tuple(shape), mode)), flush=True)
"""


def outcomes(cases):
    """What each case gives, or how it ended the process; after three ends, no more is tried."""
    found = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", CHILD, json.dumps(cases[len(found) :])],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        found += [json.loads(line) for line in done.stdout.splitlines()]
        if len(found) < len(cases):
            found.append({"error": f"exit {done.returncode}", "message": done.stderr[-300:]})
    return found + [{"error": "not tried", "message": ""}] * (len(cases) - len(found))


def cases_of(ours, backend):
    """(ours, torch's, shape, mode) of all that a norm is asked."""
    own = ours if ours.startswith(WITHOUT_BACKEND) else f"{ours[:-1]}, backend={backend!r})"
    for shape in SHAPES:
        if len(shape) == 2 and ours.startswith(("Instance", "Filter")):
            continue  # refused whatever the batch
        for mode in MODES:
            if mode != "frozen" or (ours.startswith("Batch") and "track" not in ours):
                yield own, NORMS[ours], shape, mode


@pytest.fixture(scope="module")
def found():
    """(norm, shape, mode) -> what it gives, ours and torch's."""
    ours, theirs = set(), set()
    for name in NORMS:
        for backend in BACKENDS:
            for own, other, shape, mode in cases_of(name, backend):
                ours.add((own, shape, mode))
                # a frozen layer is torch's in evaluation
                theirs.add((other, shape, "eval" if mode == "frozen" else mode))
    cases = sorted(ours) + sorted(case for case in theirs if case[0])
    return dict(zip(cases, outcomes(cases), strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ours", NORMS)
def test_an_empty_batch_gives_what_torch_gives(ours, backend, found):
    for own, theirs, shape, mode in cases_of(ours, backend):
        got = found[own, shape, mode]
        want = found.get((theirs, shape, "eval" if mode == "frozen" else mode))
        if want and "error" in want:
            assert got.get("error") == "ValueError", (shape, mode, got)
            assert str(shape) in got["message"]
            continue
        assert got.get("shape") == list(shape), (shape, mode, got)
        assert got["grad"] == list(shape)
        assert all(not any(gradient) for gradient in got["gradients"].values())
        if want:
            assert got["buffers"] == want["buffers"], (shape, mode)
            for name, value in want["gradients"].items():
                assert got["gradients"][name] == value


@pytest.mark.parametrize("evaluation", ["population", "batch"])
def test_empty_sequences_give_nothing_and_leave_every_step_alone(evaluation):
    make = f"StepBatchNorm(3, time_steps=2, evaluation={evaluation!r})"
    child = """
import torch
from bnstudy.norms import StepBatchNorm
layer = EVAL
before = {n: b.clone() for n, b in layer.named_buffers()}
for mode in (True, False):
    layer.train(mode)
    for x, step in ((torch.zeros(0, 3, requires_grad=True), 1),
                    (torch.zeros(0, 2, 3, requires_grad=True), None)):
        y = layer(x, step)
        y.sum().backward()
        assert y.shape == x.grad.shape == x.shape
assert not layer.weight.grad.any()
assert all(torch.equal(b, before[n]) for n, b in layer.named_buffers())
print("done")
""".replace("EVAL", make)
    done = subprocess.run(
        [sys.executable, "-c", child], capture_output=True, text=True, check=False
    )
    assert done.stdout == "done\n", done.stderr
