"""The clients of a federation: examples of their own, seen as each of them sees images."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bnstudy.config import FederationConfig
from bnstudy.data import Dataset
from bnstudy.data.samplers import generator


def clients(
    data: Dataset, seeds: Sequence[int], federation: FederationConfig, split_seed: int = 0
) -> Dataset:
    """The data of S federations of K clients: of S * K networks, each federation's side by side.

    The training examples of a network are dealt out among its clients, floor(n / K) to each, in the
    order of (seed, "clients"). All clients have all validation and test images, each as it sees
    them (`FederationConfig`); which client sees what, its noise included, is the same for all seeds
    and drawn from (split_seed, "client k"). Images are normalized as those of no client: a client
    does not undo its own contrast.

    Args:
        data: of S networks.
        seeds: one for each of them.
    """
    count, seen = federation.clients, {}

    def images(part: str) -> Tensor:
        x = getattr(data, f"{part}_x")
        if id(x) not in seen:
            purpose = "client test" if part == "test" else "client"
            streams = [generator(split_seed, f"{purpose} {k}") for k in range(count)]
            each = [view(data, part, federation, k, stream) for k, stream in enumerate(streams)]
            seen[id(x)] = torch.cat(each)
        return seen[id(x)]

    tensors, rows = {}, {}
    for part, x, y in data.parts():
        tensors |= {f"{part}_x": images(part), f"{part}_y": y.repeat(count)}
        of_network = data.rows.get(part, torch.arange(len(x))[:, None].expand(-1, len(seeds)))
        columns = []
        for index, seed in zip(of_network.unbind(1), seeds, strict=True):
            own = dealt(index, count, seed) if part == "train" else [index] * count
            columns += [i + k * len(x) for k, i in enumerate(own)]
        rows[part] = torch.stack(columns, dim=1)
    infos, member = data.infos or (data.info,), data.member or (0,) * len(seeds)
    return replace(
        data, **tensors, rows=rows, infos=infos * count,
        member=tuple(k * len(infos) + m for m in member for k in range(count)),
    )  # fmt: skip


def dealt(index: Tensor, count: int, seed: int) -> list[Tensor]:
    """Examples (n,) in `count` parts of floor(n / count), in the order of (seed, "clients")."""
    order = torch.randperm(len(index), generator=generator(seed, "clients"))
    each = len(index) // count
    return [index[order[k * each : (k + 1) * each]] for k in range(count)]


def view(
    data: Dataset, part: str, federation: FederationConfig, client: int, stream: torch.Generator
) -> Tensor:
    """The images of a part as one client sees them."""
    place = client / (federation.clients - 1)  # from 0 to 1
    factor, noise = math.exp(federation.contrast * (2 * place - 1)), federation.noise * place

    def change(raw: Tensor) -> Tensor:
        return factor * raw + noise * torch.randn(raw.shape, generator=stream)

    return getattr(data.with_raw(part, change), f"{part}_x")
