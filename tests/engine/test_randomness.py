"""Seeding torch's generators by purpose, on the CPU and on a GPU that is only pretended."""

from contextlib import nullcontext

import pytest
import torch

from bnstudy.data.samplers import generator
from bnstudy.engine.randomness import seeded

CPU, GPU = torch.device("cpu"), torch.device("cuda:1")


def test_within_the_block_torch_draws_the_stream_of_seed_and_purpose():
    with seeded(3, "layers", CPU):
        found = torch.randn(5)
    assert torch.equal(found, torch.randn(5, generator=generator(3, "layers")))


def test_after_the_block_torch_draws_as_if_it_had_not_been():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        expected = torch.randn(5)
        torch.manual_seed(0)
        with pytest.raises(RuntimeError), seeded(3, "layers", CPU):
            torch.randn(5) @ torch.randn(4)  # draws, then fails
        assert torch.equal(torch.randn(5), expected)


def test_a_gpu_is_seeded_with_the_same_number_and_restored(monkeypatch):
    said = []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: ("state of", device))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *restored: said.append(restored))
    monkeypatch.setattr(torch.cuda, "device", lambda device: said.append(device) or nullcontext())
    monkeypatch.setattr(torch.cuda, "manual_seed", said.append)
    with seeded(3, "layers", GPU):
        assert said == [GPU, generator(3, "layers").initial_seed()]
    assert [set(restored) for restored in said[2:]] == [{("state of", GPU), GPU}]
