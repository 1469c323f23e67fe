"""Which examples come when. Every stream of random numbers is named by (seed, purpose)."""

import hashlib

import torch

from bnstudy.errors import UserError


def generator(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A stream of random numbers of its own for each seed and purpose.

    Streams of two purposes are unrelated, so drawing more from one leaves the others as they were.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    # 63 bits: what manual_seed takes on every device (on the CPU torch uses the lower 32 of them)
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def epoch_order(n: int, generator: torch.Generator) -> torch.Tensor:
    """A fresh order of all n examples: (n,) int64 on the generator's device."""
    return torch.randperm(n, generator=generator, device=generator.device)


def classwise_order(
    labels: torch.Tensor, batch_size: int, classes: int, generator: torch.Generator
) -> torch.Tensor:
    """An order whose consecutive batches hold `classes` classes each, equally many of each.

    Every class is shuffled and cut into pieces of batch_size / classes examples (what is left of
    it sits this epoch out); a batch takes pieces of different classes, as long as that many are
    left, and deals them out one example of each in turn, so that halves of a batch have the same
    classes. Batches come in random order. (n',) with n' a multiple of batch_size, n' <= n.
    """
    piece = batch_size // classes
    stacks = []
    for label in labels.unique():
        own = (labels == label).nonzero().flatten()
        own = own[torch.randperm(len(own), generator=generator)]
        stacks.append(list(own[: len(own) // piece * piece].split(piece)))
    chosen = []
    while sum(bool(s) for s in stacks) >= classes:
        # the fullest first, ties at random: otherwise the last batches could not be made up
        lot = torch.rand(len(stacks), generator=generator).tolist()
        ranked = sorted(range(len(stacks)), key=lambda i: (-len(stacks[i]), lot[i]))
        chosen.append(torch.stack([stacks[i].pop() for i in ranked[:classes]], 1).flatten())
    order = torch.randperm(len(chosen), generator=generator)
    return torch.cat([chosen[i] for i in order])


def sequential_order(
    labels: torch.Tensor, classes: int, generator: torch.Generator
) -> torch.Tensor:
    """All examples, classes in ascending groups of `classes`, shuffled within each group: (n,)."""
    order = torch.randperm(len(labels), generator=generator)
    return order[torch.argsort(labels[order] // classes, stable=True)]


def batches(order: torch.Tensor, batch_size: int) -> torch.Tensor:
    """An order cut into full batches, (..., n) to (..., steps, batch_size).

    The last incomplete batch is dropped: steps = floor(n / batch_size). Raises UserError when not
    even one batch is full.
    """
    n = order.shape[-1]
    steps = n // batch_size
    if not steps:
        raise UserError(
            f"train.batch_size={batch_size} is larger than the training set of {n} examples"
        )
    return order[..., : steps * batch_size].unflatten(-1, (steps, batch_size))


def evaluation_order(n: int, seed: int, multiple: int) -> tuple[torch.Tensor, int]:
    """One fixed shuffle of n examples for evaluation with batch statistics: (indices, n_scored).

    The first n_scored = n indices hold every example exactly once, in the order of the stream
    (seed, 'eval'). They are completed from the beginning of the shuffle to a whole number of
    batches of `multiple` examples; these companions fill the last batch's statistics and are not
    scored.
    """
    order = epoch_order(n, generator(seed, "eval"))
    padded = -(-n // multiple) * multiple
    return order.repeat(-(-padded // n))[:padded], n
