"""The store: whole or absent, one address one result, damage named."""

import contextlib
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from bnstudy.config import RESULTS_VERSION, Config, TrainConfig
from bnstudy.errors import UserError
from bnstudy.store import PROVENANCE, Store, stack_id, without_provenance


def record(seed=0, batch_size=4, error=0.25, wall=1.0, **summary):
    config = Config(seed=seed, train=TrainConfig(batch_size=batch_size, epochs=1))
    return {
        "address": config.address,
        "cell": config.cell,
        "results_version": RESULTS_VERSION,
        "seed": seed,
        "config": config.canonical(),
        "summary": {"test_error": error, "diverged_at": math.nan, **summary},
        "layers": [{"name": "norm1", "channels": 8, "groups": None}],
        "provenance": {"wall_seconds": wall, "device": "cpu", "torch": "2", "x": 1},
        "stack": {"seeds": [0, 1]},
    }


def history(seeds=(0, 1)):
    return [
        {"seed": s, "step": 10 * e, "epoch": e, "examples": 40 * e, "train_loss": s + 0.5**e}
        for s in seeds
        for e in (1, 2)
    ]


def put(store, seeds=(0, 1), weights=None, **settings):
    records = [record(seed, **settings) for seed in seeds]
    store.put(records, history(seeds), weights)
    return [r["address"] for r in records]


@pytest.fixture
def said():
    return []


@pytest.fixture
def store(tmp_path, said):
    return Store(tmp_path / "runs", say=said.append)


def folder_of(store, addresses):
    (path,) = store.root.glob(f"cells/*/{stack_id(addresses)}")
    return path


def snapshot(root):
    return {p: p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_importing_the_store_is_cheap():
    code = "import sys, bnstudy.store; assert not {'pandas', 'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- what goes in comes out


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


# ---- tables


def test_the_table_has_a_row_per_run_and_the_documented_columns(store):
    put(store, seeds=(3, 1, 0, 2, 4), train_loss=0.5)
    put(store, seeds=(0, 1, 2, 3, 4), batch_size=8)
    table = store.table()
    assert list(table.columns[:3]) == ["address", "cell", "seed"]
    assert table.groupby("cell")["seed"].apply(list).tolist() == [[0, 1, 2, 3, 4]] * 2
    assert sorted(table["train.batch_size"]) == [4] * 5 + [8] * 5
    assert set(table["model.hidden"]) == {"[64, 32]"}
    assert list(table.columns[-6:]) == [
        "train_loss", "stack", "results_version", "wall_seconds", "device", "torch"
    ]  # fmt: skip
    assert table["diverged_at"].isna().all()
    assert "x" not in table  # provenance that is not in PROVENANCE stays in the record


def test_the_table_takes_a_choice(store):
    first, _ = put(store)
    assert store.table({first})["address"].tolist() == [first]
    assert store.table([]).empty


def test_tables_of_one_experiment_are_equal_without_provenance(tmp_path):
    a, b = Store(tmp_path / "a"), Store(tmp_path / "b")
    put(a, wall=1), put(a, batch_size=8, wall=2)
    put(b, batch_size=8, wall=3), put(b, wall=4)
    texts = [without_provenance(s.table()).to_csv() for s in (a, b)]
    assert texts[0] == texts[1]
    assert a.table().to_csv() != b.table().to_csv()
    assert not any(c in PROVENANCE for c in without_provenance(a.table()))


def test_a_table_survives_parquet(store, tmp_path):
    put(store)
    store.table().to_parquet(tmp_path / "t.parquet")
    assert len(pd.read_parquet(tmp_path / "t.parquet")) == 2


# ---- addresses


def test_the_beginning_of_an_address_is_enough(store):
    first, _ = put(store)
    assert store.get(first[:10])["address"] == first


def test_an_unknown_address_names_the_nearest(store):
    first, _ = put(store)
    near = first[:-1] + ("0" if first[-1] != "0" else "1")
    with pytest.raises(UserError, match=f"Did you mean '{first}'.* holds 2 runs"):
        store.get(near)


def test_an_ambiguous_beginning_lists_what_it_fits(store):
    for batch_size in range(1, 19):  # 18 addresses, 16 first digits
        put(store, seeds=(0,), batch_size=batch_size)
    firsts = [a[0] for a in store.held()]
    twice = max(firsts, key=firsts.count)
    with pytest.raises(UserError, match=rf"beginning of {firsts.count(twice)} addresses: {twice}"):
        store.get(twice)
    with pytest.raises(UserError, match="no run with the address ''"):
        store.get("")


# ---- one address, one result


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


# ---- removal


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
    old = {**record(5), "results_version": RESULTS_VERSION - 1, "address": "0" * 16}
    store.put([old], history([5]))
    assert store.stale() == {"0" * 16}
    for address in store.stale():
        store.remove(address)
    assert store.stale() == set()
    assert len(store.held()) == 2


# ---- damage


def destroy(path, how, address):
    record, manifest = path / f"{address}.json", path / "manifest.json"
    if how == "manifest lost":
        manifest.unlink()
    elif how == "manifest torn":
        manifest.write_bytes(manifest.read_bytes()[:40])
    elif how == "record lost":
        record.unlink()
    elif how == "record torn":
        record.write_bytes(record.read_bytes()[:40])
    elif how == "history empty":
        (path / "history.parquet").write_bytes(b"")
    elif how == "bit flipped":
        content = bytearray(record.read_bytes())
        content[20] ^= 1
        record.write_bytes(content)


@pytest.mark.parametrize(
    "how",
    ["manifest lost", "manifest torn", "record lost", "record torn", "history empty"],
)
def test_damage_is_noticed_by_held_named_and_set_aside(store, said, how):
    broken, whole = put(store), put(store, batch_size=8)
    destroy(folder_of(store, broken), how, broken[0])
    assert store.held() == set(whole)
    (message,) = said
    assert stack_id(broken) in message
    assert record()["cell"] in message
    assert len(list((store.root / "damaged").iterdir())) == 1
    assert put(store) == broken  # and can be made again
    assert store.held() == {*broken, *whole}
    assert len(said) == 1


@pytest.mark.parametrize("read", ["get", "table", "iteration"])
def test_a_flipped_bit_is_noticed_when_read(store, said, read):
    broken, whole = put(store), put(store, batch_size=8)
    destroy(folder_of(store, broken), "bit flipped", broken[0])
    if read == "get":
        with pytest.raises(UserError, match="makes it again"):
            store.get(broken[0])
    elif read == "table":
        assert sorted(store.table()["address"]) == sorted(whole)
    else:
        assert {r["address"] for r in store} == set(whole)
    assert store.held() == set(whole)
    assert len(said) == 1


def test_a_flipped_bit_in_history_or_weights_is_noticed_when_read(store, said):
    for name, read in (("history.parquet", store.history), ("weights.pt", store.weights_path)):
        address, other = put(store, weights=lambda path: path.write_bytes(b"weights"))
        path = folder_of(store, [address, other]) / name
        content = bytearray(path.read_bytes())
        content[5] ^= 1
        path.write_bytes(content)
        with pytest.raises(UserError):
            read(address)
        assert store.held() == set()
    assert len(said) == 2


def test_another_stack_steps_in_for_a_damaged_one(store, said):
    names = {stack_id(record(s)["address"] for s in seeds): seeds for seeds in ((0, 1), (0, 2))}
    for seeds in names.values():
        put(store, seeds=seeds, error=sum(seeds) / 10)
    first, second = sorted(names)
    address = record(0)["address"]
    destroy(next(store.root.glob(f"cells/*/{first}")), "bit flipped", address)
    assert store.get(address)["stack"]["id"] == second
    assert len(said) == 1


def test_stray_files_are_no_damage(store, said):
    addresses = put(store)
    (store.root / "cells" / ".DS_Store").write_text("")
    (store.root / "cells" / record()["cell"] / "notes.txt").write_text("")
    (folder_of(store, addresses) / "notes.txt").write_text("")
    assert store.held() == set(addresses)
    assert len(store.table()) == 2
    assert said == []


def test_messages_go_to_stderr_by_default(tmp_path, capsys):
    store = Store(tmp_path)
    destroy(folder_of(store, put(store)), "manifest lost", "")
    store.held()
    assert "damaged: stack" in capsys.readouterr().err


def test_a_failure_while_writing_leaves_nothing(store):
    def fail(path):
        path.write_bytes(b"half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        put(store, weights=fail)
    assert store.held() == set()
    assert snapshot(store.root) == {}


# ---- several processes


def write_all(root, start, errors):
    start.wait()
    try:
        for batch_size in range(2, 12):
            put(Store(root), batch_size=batch_size, wall=os.getpid())
    except Exception as e:
        errors.put(repr(e))
        raise


def remove_all(root, start, errors):
    start.wait()
    store = Store(root)
    try:
        for _ in range(40):
            for address in sorted(store.held())[::2]:
                with contextlib.suppress(UserError):  # another remover was faster
                    store.remove(address)
    except Exception as e:
        errors.put(repr(e))
        raise


def read_all(root, start, errors):
    start.wait()
    store = Store(root, say=errors.put)
    try:
        for _ in range(40):
            store.held()
            store.table()
    except Exception as e:
        errors.put(repr(e))
        raise


def run_together(root, targets):
    # spawned, not forked: this process has threads
    context = multiprocessing.get_context("spawn")
    start, errors = context.Barrier(len(targets)), context.Queue()
    workers = [context.Process(target=t, args=(root, start, errors)) for t in targets]
    for w in workers:
        w.start()
    for w in workers:
        w.join(60)
    assert errors.empty(), errors.get()
    assert [w.exitcode for w in workers] == [0] * len(targets)


@pytest.mark.slow
def test_processes_that_write_the_same_lose_nothing(tmp_path, said):
    run_together(tmp_path, [write_all, write_all, write_all, read_all])
    store = Store(tmp_path, say=said.append)
    assert len(store.held()) == 20
    assert len(store.table()) == 20
    assert not list((tmp_path / "tmp").iterdir())
    assert said == []


@pytest.mark.slow
def test_removal_beside_reading_and_writing_is_never_taken_for_damage(tmp_path):
    put(Store(tmp_path))
    run_together(tmp_path, [write_all, write_all, remove_all, remove_all, read_all])
    assert not (tmp_path / "damaged").exists()


KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
import test_store
def hang(path):
    path.write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(60)
test_store.put(test_store.Store({root!r}), weights=hang)
"""


def test_a_killed_writer_leaves_nothing_that_counts_and_is_cleaned_up(tmp_path):
    code = KILLED.format(tests=os.path.dirname(__file__), root=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        store = Store(tmp_path)
        assert store.held() == set()
        put(store, batch_size=8)
        assert len(list((tmp_path / "tmp").iterdir())) == 1  # it lives: left alone
        process.send_signal(signal.SIGKILL)
    addresses = put(Store(tmp_path))
    assert not list((tmp_path / "tmp").iterdir())
    assert set(addresses) < Store(tmp_path).held()


def test_what_another_host_left_is_cleaned_after_a_day(store):
    for name, age in (("elsewhere-1-aa", 3600), ("elsewhere-1-bb", 90_000)):
        path = store.root / "tmp" / name
        path.mkdir(parents=True)
        os.utime(path, (time.time() - age,) * 2)
    put(store)
    assert [p.name for p in (store.root / "tmp").iterdir()] == ["elsewhere-1-aa"]


def test_a_cell_names_all_its_runs_and_a_run_itself(store):
    small, large = put(store, batch_size=4), put(store, batch_size=8)
    cell = record(batch_size=4)["cell"]
    assert store.runs(cell) == sorted(small)
    assert store.runs(cell[:9]) == sorted(small)
    assert store.runs(large[0]) == [large[0]]
    with pytest.raises(UserError, match="no run with the address 'zzz'"):
        store.runs("zzz")


def two_cells():
    """Stacks of two cells that were trained together, as `put_all` takes them."""
    return [
        ([record(seed, batch_size=size) for seed in (0, 1)], history(), None) for size in (4, 8)
    ]


def test_stacks_trained_together_appear_together(tmp_path):
    store = Store(tmp_path)
    names = store.put_all(two_cells())
    assert len(set(names)) == 2
    assert len(store.held()) == 4
    assert not any(n.endswith(".journal") for n in os.listdir(tmp_path / "tmp"))


@pytest.mark.parametrize("moved", [0, 1])
def test_a_kill_while_stacks_are_moved_in_loses_none_of_them(tmp_path, moved):
    """The journal is written, `moved` of two stacks are in place, the process dies."""
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from bnstudy.store import Store
from test_store import two_cells
move, calls = Store._move_in, []
def dying(self, *args):
    if len(calls) == {moved}:
        os._exit(9)
    calls.append(1)
    move(self, *args)
Store._move_in = dying
Store({str(tmp_path)!r}).put_all(two_cells())
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert len(Store(tmp_path).held()) == 4
    assert os.listdir(tmp_path / "tmp") == []
    assert len(Store(tmp_path).table()) == 4


def test_a_kill_before_the_journal_leaves_nothing(tmp_path):
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from bnstudy.store import Store
from test_store import two_cells
write, calls = Store._write_aside, []
def dying(self, *args):
    if calls:
        os._exit(9)
    calls.append(1)
    return write(self, *args)
Store._write_aside = dying
Store({str(tmp_path)!r}).put_all(two_cells())
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert Store(tmp_path).held() == set()
    assert os.listdir(tmp_path / "tmp") == []
