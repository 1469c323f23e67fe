"""Damage is noticed, named and set aside; what is no damage is left alone."""

import struct

import pytest
from store_samples import folder_of, put, record

from bnstudy.errors import UserError
from bnstudy.store import Store, stack_id


def flip(path, value):
    """The lowest bit of the last byte of a value in a file: what is there can still be read."""
    content = bytearray(path.read_bytes())
    content[content.index(value) + len(value) - 1] ^= 1
    path.write_bytes(content)


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
        flip(record, b'"wall_seconds": 1')


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
        with pytest.raises(UserError, match="repeat the command"):
            store.get(broken[0])
    elif read == "table":
        assert sorted(store.table()["address"]) == sorted(whole)
    else:
        assert {r["address"] for r in store} == set(whole)
    assert store.held() == set(whole)
    assert len(said) == 1


def test_a_flipped_bit_in_history_or_weights_is_noticed_when_read(store, said):
    for name, read, value in (
        ("history.parquet", store.history, struct.pack("<d", 1.25)),
        ("weights.pt", store.weights_path, b"weights"),
    ):
        address, other = put(store, weights=lambda path: path.write_bytes(b"weights"))
        flip(folder_of(store, [address, other]) / name, value)
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
