"""Grid minus store, as stacks: a function of the request and of what is held, nothing else."""

from bnstudy.config import Config
from bnstudy.sweep import cost
from bnstudy.sweep.plan import addresses, balance, make_plan, partition
from bnstudy.sweep.protocol import StackPlan


def cell(**train) -> Config:
    return Config.model_validate({"train": {"steps": 3, **train}})


CELLS = tuple(cell(batch_size=size) for size in (2, 4, 8))
SEEDS = (3, 5, 7)


def seconds(config, networks):
    return float(networks)


def plan(cells=CELLS, seeds=SEEDS, held=(), **more):
    return make_plan(cells, seeds, set(held), seconds, **more)


def test_an_empty_store_lacks_everything():
    found = plan()
    assert (found.runs, found.missing, found.held) == (9, 9, 0)
    assert sorted(a for s in found.stacks for a in s.addresses) == sorted(found.addresses)


def test_a_full_store_lacks_nothing_and_nothing_is_estimated():
    everything = [a for c in CELLS for a in addresses(c, SEEDS)]
    found = make_plan(CELLS, SEEDS, set(everything), lambda *a: 1 / 0)
    assert (found.missing, found.held, found.stacks) == (0, 9, ())


def test_stacks_are_those_of_the_full_grid_whatever_is_held():
    """So that a sweep that was killed trains the same stacks again, to the same bits."""
    whole = [s.addresses for s in plan().stacks]
    for done in whole:
        left = [s.addresses for s in plan(held=done).stacks]
        assert left == [s for s in whole if s != done]


def test_of_a_stack_only_the_missing_seeds_train():
    held = addresses(CELLS[0], (3, 7))
    (first, *_) = plan(held=held).stacks
    assert first.addresses == addresses(CELLS[0], (5,))


def test_a_cell_given_twice_counts_once():
    assert plan(cells=(*CELLS, CELLS[0])).runs == 9


def test_the_grid_is_named_by_its_runs_not_by_their_order():
    assert plan().grid_hash == plan(cells=CELLS[::-1]).grid_hash
    assert plan().grid_hash != plan(seeds=(3, 5)).grid_hash


def test_stacks_are_no_larger_than_asked():
    for most in (1, 2, 4):
        assert max(len(s) for s in partition(CELLS, SEEDS, most)) <= most


def stacks(*lengths):
    return [StackPlan(configs=[CELLS[0]], seconds=t) for t in lengths]


def test_workers_end_together_and_nothing_is_lost():
    packs = balance(stacks(5, 4, 3, 3, 3), 2)
    assert sorted(sum(s.seconds for s in pack) for pack in packs) == [8, 10]
    assert len(balance(stacks(1, 2), 5)) == 2, "no empty packs"
    assert balance([], 3) == [[]]


def test_minutes_are_those_of_the_longest_pack():
    found = plan()  # three stacks of 3 s
    assert 60 * found.minutes(1) == cost.START + 9
    assert 60 * found.minutes(2) == cost.START + 6
    assert 60 * found.minutes(5) == cost.START + 3
