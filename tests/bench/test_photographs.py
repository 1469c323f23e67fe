"""The arithmetic that rates are reckoned by, and what is said of them."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from bnstudy.bench import photographs
from bnstudy.bench.engine import CLASSES, flops
from bnstudy.models import build
from bnstudy.norms import make


def test_a_training_step_is_three_times_a_forward():
    shape = (3, 16, 16)
    net = build(photographs.MODEL, shape, CLASSES, make("batch"))
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(2, *shape))
    assert flops(net, shape) == 3 * counter.get_total_flops() // 2
    assert not any(layer._forward_hooks for layer in net.modules())


def test_the_reference_is_as_many_convolutions_as_networks_forward_and_backward():
    _, found = photographs.convolution(2, torch.device("cpu"))
    side, width = photographs.REFERENCE_SIDE, photographs.MODEL.width
    with FlopCounterMode(display=False) as counter:  # of groups it counts the backward wrongly
        F.conv2d(torch.zeros(2, width, side, side), torch.zeros(width, width, 3, 3), padding=1)
    assert found == 3 * photographs.NETWORKS * counter.get_total_flops()


@pytest.mark.parametrize(("low", "word"), [(0.49, "MISSED"), (0.5, "reached")])
def test_a_share_is_reached_when_its_whole_interval_is_there(low, word):
    row = {
        "image": 16,
        "batch": 2,
        "milliseconds": {"eager": [9.0, 8.0, 10.0]},
        "gflops": {"eager": [30.0, 29.0, 31.0], "reference": [50.0, 49.0, 51.0]},
        "share": {"eager": [0.6, low, 0.7]},
    }
    heading, line = photographs.lines([row])
    assert "0.5 of the rate" in heading
    assert line.endswith(f"30.0 of 50.0 GFLOP/s: 0.60 [{low:.2f}, 0.70]  {word}")
