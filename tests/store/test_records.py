"""What goes in comes out; one address, one result."""

import json
import math
import subprocess
import sys

import pytest
from store_samples import history, put, record, snapshot

from bnstudy.config import RESULTS_VERSION, digest
from bnstudy.errors import UserError
from bnstudy.store import Store, stack_id


def test_importing_the_store_is_cheap():
    code = "import sys, bnstudy.store; assert not {'pandas', 'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_record_comes_back(store):
    first, _ = put(store, error=0.1)
    back, given = store.get(first), record(0, error=0.1)
    assert math.isnan(back["summary"].pop("diverged_at"))
    del given["summary"]["diverged_at"]
    assert back.pop("stack") == {"seeds": [0, 1], "id": stack_id(put(store))}
    del given["stack"]
    assert back == json.loads(json.dumps(given))


def test_history_is_that_of_one_seed(store):
    _, second = put(store)
    rows = store.history(second)
    assert rows["seed"].tolist() == [1, 1]
    assert rows["train_loss"].tolist() == [1.5, 1.25]


def test_weights_are_written_by_the_function_handed_in(store):
    address, _ = put(store, weights=lambda path: path.write_bytes(b"weights"))
    assert store.weights_path(address).read_bytes() == b"weights"


def test_weights_that_were_not_kept_are_a_message(store):
    address, _ = put(store)
    with pytest.raises(UserError, match="save_weights=true"):
        store.weights_path(address)


def test_held_knows_cells(store):
    four, eight = put(store), put(store, batch_size=8)
    assert store.held() == {*four, *eight}
    assert store.held([record()["cell"]]) == set(four)
    assert store.held(["0" * 16]) == set()


def test_an_absent_store_is_empty_and_is_not_made(store):
    assert store.held() == set()
    assert list(store) == []
    assert store.table().empty
    assert not store.root.exists()


def test_iteration_yields_every_record_once(store):
    addresses = [*put(store), *put(store, batch_size=8)]
    assert sorted(r["address"] for r in store) == sorted(addresses)


def test_the_beginning_of_an_address_is_enough(store):
    first, _ = put(store)
    assert store.get(first[:10])["address"] == first


def test_an_unknown_address_names_the_nearest(store):
    first, _ = put(store)
    near = first[:-1] + ("0" if first[-1] != "0" else "1")
    with pytest.raises(UserError, match=f"Did you mean '{first}'.* holds 2 runs"):
        store.get(near)


def test_an_unknown_name_suggests_the_nearest_cell(store):
    """Cells are what `bnstudy ls` shows."""
    put(store)
    cell = record()["cell"]
    with pytest.raises(UserError, match=f"Did you mean '{cell}'"):
        store.runs(cell[:-1] + ("0" if cell[-1] != "0" else "1"))


def test_an_ambiguous_beginning_lists_what_it_fits(store):
    for batch_size in range(1, 19):  # 18 addresses, 16 first digits
        put(store, seeds=(0,), batch_size=batch_size)
    firsts = [a[0] for a in store.held()]
    twice = max(firsts, key=firsts.count)
    with pytest.raises(UserError, match=rf"beginning of {firsts.count(twice)} addresses: {twice}"):
        store.get(twice)
    with pytest.raises(UserError, match="no run with the address ''"):
        store.get("")


def test_a_cell_names_all_its_runs_and_a_run_itself(store):
    small, large = put(store, batch_size=4), put(store, batch_size=8)
    cell = record(batch_size=4)["cell"]
    assert store.runs(cell) == sorted(small)
    assert store.runs(cell[:9]) == sorted(small)
    assert store.runs(large[0]) == [large[0]]
    with pytest.raises(UserError, match="no run with the address 'zzz'"):
        store.runs("zzz")


def test_the_first_result_stays(store):
    address, _ = put(store, error=0.1)
    put(store, error=0.9)
    assert store.get(address)["summary"]["test_error"] == 0.1
    assert not list((store.root / "tmp").iterdir())


def test_of_two_stacks_with_one_address_the_first_name_counts(tmp_path):
    stacks = {(0, 1): 0.1, (0, 2): 0.2}
    first = min(stacks, key=lambda seeds: stack_id(record(s)["address"] for s in seeds))
    for name, order in (("one", stacks), ("other", reversed(stacks))):
        store = Store(tmp_path / name)
        for seeds in order:
            address, _ = put(store, seeds=seeds, error=stacks[seeds])
        table = store.table().set_index("seed")
        assert store.get(address)["summary"]["test_error"] == stacks[first]
        assert table.loc[0, "test_error"] == stacks[first]
        assert len(table) == 3


def test_a_stack_that_lost_a_run_is_replaced_by_a_whole_one(store):
    first, second = put(store, error=0.1)
    store.remove(first)
    assert store.held() == {second}
    put(store, error=0.3)
    assert store.held() == {first, second}
    assert store.get(second)["summary"]["test_error"] == 0.3


def test_weights_can_be_added_by_running_again(store):
    address, _ = put(store)
    put(store, weights=lambda path: path.write_bytes(b"weights"))
    assert store.weights_path(address).read_bytes() == b"weights"
    put(store)  # without weights: what is there has more
    assert store.weights_path(address).read_bytes() == b"weights"


def test_removing_a_run_leaves_its_mates(store, said):
    first, second = put(store)
    store.remove(first)
    assert store.held() == {second}
    assert store.table()["address"].tolist() == [second]
    assert len(store.history(second)) == 2
    store.remove(second[:12])
    assert store.held() == set()
    assert not list((store.root / "cells").iterdir())
    assert said == []


def test_stale_records_are_those_of_an_older_version(store, tmp_path):
    put(store)
    old = {**record(5), "results_version": RESULTS_VERSION - 1}
    old["address"] = digest(old["config"], RESULTS_VERSION - 1)
    store.put([old], history([5]))
    assert store.stale() == {old["address"]}
    for address in store.stale():
        store.remove(address)
    assert store.stale() == set()
    assert len(store.held()) == 2


def test_a_failure_while_writing_leaves_nothing(store):
    def fail(path):
        path.write_bytes(b"half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        put(store, weights=fail)
    assert store.held() == set()
    assert snapshot(store.root) == {}
