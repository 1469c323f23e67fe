"""Grid minus store: which networks are missing, and which of them train together. Pure."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from bnstudy.config import Config, digest
from bnstudy.sweep import cost
from bnstudy.sweep.protocol import StackPlan

Estimate = Callable[[Config, int], float]
"""(config, number of networks) -> seconds"""
Divide = Callable[[Sequence[StackPlan]], list[list[StackPlan]]]
"""Stacks -> packs of them."""


@dataclass(frozen=True)
class Plan:
    """What a grid still needs."""

    cells: tuple[Config, ...]
    seeds: tuple[int, ...]
    stacks: tuple[StackPlan, ...]  # missing
    held: int  # runs that the store has

    @property
    def runs(self) -> int:
        """Networks in the whole grid."""
        return len(self.cells) * len(self.seeds)

    @property
    def missing(self) -> int:
        """Networks still to train."""
        return sum(len(s.configs) for s in self.stacks)

    @property
    def addresses(self) -> list[str]:
        """Of all runs of the grid."""
        return [a for cell in self.cells for a in addresses(cell, self.seeds)]

    @property
    def grid_hash(self) -> str:
        """Names the grid: the folder of its study's results."""
        return digest(sorted(self.addresses))[:8]

    def minutes(self, workers: int) -> float:
        """Estimated minutes with this many workers."""
        packs = balance(self.stacks, workers)
        return (cost.START + max((sum(s.seconds for s in p) for p in packs), default=0.0)) / 60


def seeded(cell: Config, seeds: Sequence[int]) -> list[Config]:
    """A cell's runs."""
    return [cell.model_copy(update={"seed": seed}) for seed in seeds]


def addresses(cell: Config, seeds: Sequence[int]) -> list[str]:
    """Addresses of a cell's runs."""
    return [config.address for config in seeded(cell, seeds)]


def make_plan(
    cells: Sequence[Config],
    seeds: Sequence[int],
    held: Collection[str],
    estimate: Estimate,
    max_stack: int | None = None,
) -> Plan:
    """Subtract what the store holds from the grid; the rest, as stacks.

    Cells that differ in mixable numbers only train together. The networks of such a family are
    cut into stacks by the full request alone, never by what the store holds. A stack is stored all
    or nothing, so what is missing after a kill is whole stacks, and they train again exactly as
    they would have; runs that another request left are kept.

    Args:
        cells: with the hashes of what lies outside them filled in; repeated ones count once.
        seeds: of every cell.
        held: addresses in the store.
        estimate: called for missing stacks only.
        max_stack: most networks in a stack; None: by the table of costs.
    """
    named = {cell.cell: cell for cell in cells}
    stacks, there = [], 0
    for members in partition(tuple(named.values()), seeds, max_stack):
        missing = [c for c in members if c.address not in held]
        there += len(members) - len(missing)
        if missing:
            stacks.append(StackPlan(configs=missing, seconds=estimate(missing[0], len(missing))))
    return Plan(tuple(named.values()), tuple(seeds), tuple(stacks), there)


def partition(
    cells: Sequence[Config], seeds: Sequence[int], max_stack: int | None
) -> Iterator[list[Config]]:
    """The networks of a grid as stacks: those of a family together, at most `max_stack` each.

    The seeds of a cell stay together where they fit.
    """
    families: dict[str, list[Config]] = {}
    for cell in cells:
        families.setdefault(cell.family, []).append(cell)
    for family in families.values():
        size = max_stack or cost.stack_size(family[0])
        whole = max(size // len(seeds), 1)  # cells in a stack
        for start in range(0, len(family), whole):
            networks = [c for cell in family[start : start + whole] for c in seeded(cell, seeds)]
            # equal parts: 10 networks at 8 a stack are 5 and 5, not 8 and 2
            part = -(-len(networks) // -(-len(networks) // size))
            for first in range(0, len(networks), part):
                yield networks[first : first + part]


def balance(stacks: Sequence[StackPlan], workers: int) -> list[list[StackPlan]]:
    """Longest first, each to the worker with the least to do: short ones last, all end together."""
    packs: list[list[StackPlan]] = [[] for _ in range(max(1, min(workers, len(stacks))))]
    load = [0.0] * len(packs)
    for stack in sorted(stacks, key=lambda s: -s.seconds):
        lightest = load.index(min(load))
        packs[lightest].append(stack)
        load[lightest] += stack.seconds
    return packs


def fill(stacks: Sequence[StackPlan], minutes: float) -> list[list[StackPlan]]:
    """Longest first, each into the first pack that has room for it: few packs of so many minutes.

    A stack that is longer than that has a pack of its own.
    """
    packs: list[list[StackPlan]] = []
    load: list[float] = []
    for stack in sorted(stacks, key=lambda s: -s.seconds):
        room = (i for i, seconds in enumerate(load) if seconds + stack.seconds <= 60 * minutes)
        place = next(room, len(packs))
        if place == len(packs):
            packs.append([])
            load.append(0.0)
        packs[place].append(stack)
        load[place] += stack.seconds
    return packs
