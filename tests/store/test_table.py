"""One row per run, and nothing read that was not asked for."""

import sys

import pandas as pd
import pytest
from store_samples import put, record

from bnstudy.store import PROVENANCE, Store, without_provenance

_watched = None  # paths that are opened or listed, while somebody wants to know


def _watch(event, arguments):
    if _watched is not None and event in ("open", "os.listdir", "os.scandir"):
        _watched.append(str(arguments[0]))


sys.addaudithook(_watch)  # sees every way to open a file; can never be taken off


@pytest.fixture
def opened(monkeypatch):
    """What is opened or listed in a `cells` folder from here on."""
    monkeypatch.setattr(sys.modules[__name__], "_watched", [])
    return lambda: [path for path in _watched if "/cells/" in path]


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


@pytest.mark.parametrize("others", [0, 5])
def test_reading_costs_what_is_asked_for_not_what_is_there(store, opened, others):
    asked, cell = put(store, seeds=(0, 1, 2)), record()["cell"]
    for i in range(others):
        put(store, batch_size=8 + i)
    one = asked[:1]
    for read, files in (
        (lambda: store.table(asked, cells=[cell])["address"].tolist() == asked, 4),
        (lambda: store.table(one, cells=[cell])["address"].tolist() == one, 2),
        (lambda: len(store.table(cells=[cell])) == 3, 4),
        (lambda: store.held([cell]) == set(asked), 1),
        (lambda: store.holds(asked, [cell]), 1),
    ):
        before = len(opened())
        assert read()
        now = opened()[before:]
        assert all(f"/cells/{cell}" in path for path in now)
        assert len([path for path in now if path.endswith(".json")]) == files


def test_without_cells_every_manifest_is_read_but_no_record_beside_those_asked(store, opened):
    first, _ = put(store)
    put(store, batch_size=8)
    store.table([first])
    names = [path.rpartition("/")[2] for path in opened()]
    assert sorted(n for n in names if n.endswith(".json")) == sorted(
        [f"{first}.json", "manifest.json", "manifest.json"]
    )


def test_a_store_holds_a_request_when_every_run_of_it_is_there(store):
    four, eight = put(store), put(store, batch_size=8)
    cells = [record()["cell"], record(batch_size=8)["cell"]]
    assert store.holds(four + eight, cells)
    assert not store.holds(four + eight, cells[:1])
    assert not store.holds([*four, "0" * 16], cells)
    store.remove(eight[0])
    assert not store.holds(eight, cells)
    assert store.holds(eight[1:], cells)
    assert store.holds([], [])
