"""Memory of a training step against a count by hand."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bnstudy import norms
from bnstudy.engine.mapped import Mapped
from bnstudy.engine.stack import make_stack
from bnstudy.probes.memory import activation_memory

CPU = torch.device("cpu")
WIDTH, SIDE, BATCH = 6, 8, 4
MAP = 4 * WIDTH * SIDE * SIDE  # bytes of a map of one example


class Squares:
    metrics = ()

    def score(self, output, y):
        return ((output - y).square().mean((0, 2, 3, 4)),)


class Images:
    def size(self, part):
        return 5

    def take(self, part, index):
        x = torch.randn(*index.shape, 1, SIDE, SIDE)
        return x, x.expand(-1, -1, WIDTH, -1, -1)


def memory(norm, networks=1, mapped=False, **settings):
    make = norms.make(norm, **settings)

    def net():
        layer = make(WIDTH)
        layer.is_norm = True
        return nn.Sequential(nn.Conv2d(1, WIDTH, 3, padding=1), layer, nn.ReLU())

    nets = [net() for _ in range(networks)]
    stack = Mapped(nets, CPU) if mapped else make_stack(nets, CPU, known=True)
    stack.task = Squares()
    buffers = {name: b.clone() for name, b in stack.buffers.items()}
    config = SimpleNamespace(train=SimpleNamespace(batch_size=BATCH))
    found = activation_memory(SimpleNamespace(stack=stack, data=Images(), config=config))
    assert all(torch.equal(b, buffers[name]) for name, b in stack.buffers.items())
    assert {len(value) for value in found.values()} == {networks}
    return {name: value[0].item() for name, value in found.items()}


@pytest.mark.parametrize(("networks", "mapped"), [(1, False), (3, False), (2, True)])
def test_it_is_what_a_count_by_hand_says(networks, mapped):
    """Kept are the convolution's input, the ReLU's output, and what is squared."""
    plain = memory("none", networks, mapped)
    image = 4 * SIDE * SIDE
    assert plain == {"activation_bytes": image + 2 * MAP, "normalized_bytes": MAP}
    fused = memory("batch", networks, mapped)
    assert fused["activation_bytes"] - plain["activation_bytes"] == MAP
    reference = memory("batch", networks, mapped, backend="reference")
    assert reference["activation_bytes"] - plain["activation_bytes"] == 3 * MAP


def test_statistics_of_each_example_count_those_of_the_batch_do_not():
    batch, instance = memory("batch"), memory("instance")
    # mean and inverse standard deviation, four bytes each
    assert instance["activation_bytes"] - batch["activation_bytes"] == 2 * 4 * WIDTH


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
def test_on_a_gpu_the_peak_is_measured_beside_it():
    make = norms.make("batch")
    stack = make_stack([nn.Sequential(nn.Conv2d(1, WIDTH, 3, padding=1), make(WIDTH))],
                       torch.device("cuda"), known=True)  # fmt: skip
    stack.task = Squares()

    class There(Images):
        def take(self, part, index):
            return tuple(t.cuda() for t in super().take(part, index))

    config = SimpleNamespace(train=SimpleNamespace(batch_size=1024))
    found = activation_memory(SimpleNamespace(stack=stack, data=There(), config=config))
    assert found["peak_bytes"][0] >= found["activation_bytes"][0] > 0
