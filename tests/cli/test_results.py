"""What lies on disk after a command, and what a second one does with it."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from shell import GRID, STUDY, TINY, bnstudy_, files, own_folder, said

from bnstudy.store import Store, without_provenance

__all__ = ["own_folder"]  # a fixture that acts by being here


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A results folder with the tiny grid and the tiny study in it; tests do not change it."""
    results = tmp_path_factory.mktemp("trained") / "results"
    assert "trained  4 models" in said(bnstudy_(*GRID, f"results_dir={results}"))
    said(bnstudy_(*STUDY, f"results_dir={results}"))
    return results


def test_what_a_grid_leaves(trained):
    table = Store(trained / "runs").table()
    ours = table[table["train.batch_size"] == 8]
    assert sorted(zip(ours["norm.name"], ours["seed"], strict=True)) == [
        ("batch", 0), ("batch", 1), ("group", 0), ("group", 1),
    ]  # fmt: skip
    assert Store(trained / "runs").weights_path(ours["address"].iloc[0]).exists()  # train keeps it


@pytest.mark.parametrize("command", [GRID, STUDY, ["compare", *GRID[2:]]])
def test_again_nothing_is_missing_and_no_torch_is_needed(command, trained, monkeypatch):
    monkeypatch.setattr("bnstudy.cli.execute.launch", lambda *a, **k: pytest.fail("it trains"))
    monkeypatch.setitem(
        sys.modules, "bnstudy.work.trainer", None
    )  # planning a full store needs no network
    assert "nothing is missing" in said(bnstudy_(*command, f"results_dir={trained}"))


def test_more_seeds_train_only_the_new_ones(trained):
    words = [w for w in GRID if not w.startswith("seeds")]
    text = said(bnstudy_(*words, "seeds=3", f"results_dir={trained}", "--dry-run"))
    assert "missing  2 models in 2 stacks (4 are in the store)" in text


def test_a_study_writes_table_figure_and_verdicts(trained):
    (folder,) = (trained / "runs" / "studies" / "batch_size").iterdir()
    names = {p.name for p in folder.iterdir()}
    assert {"study.json", "table.csv", "claims.json", "figure.svg", "figure.pdf",
            "figure.png"} <= names  # fmt: skip
    claims = json.loads((folder / "claims.json").read_text())
    assert sum(c["primary"] for c in claims) == 1
    text = said(bnstudy_(*STUDY, f"results_dir={trained}"))
    assert str(folder / "figure.png") in text
    for claim in claims:
        assert claim["text"] in text


def test_compare_prints_arms_and_writes_the_table_in_every_form(trained):
    text = said(bnstudy_("compare", *GRID[2:], f"results_dir={trained}"))
    written = [Path(line) for line in text.splitlines() if line.startswith(str(trained))]
    csv, plain, markdown, latex = written
    assert [p.name for p in written] == ["table.csv", "table.txt", "table.md", "table.tex"]
    table = pd.read_csv(csv)
    assert list(table["norm"]) == ["batch", "group"]
    assert list(table["n"]) == [2, 2]
    runs = Store(trained / "runs").table()
    runs = runs[runs["train.batch_size"] == 8].groupby("norm.name")["test_error"].mean()
    # 1e-12: the same few numbers, added in another order
    assert table["mean"].tolist() == pytest.approx(runs[["batch", "group"]].tolist(), abs=1e-12)
    for path in (plain, markdown, latex):
        assert "vs batch" in path.read_text()
    assert not (csv.parent / "figure.png").exists()


def test_compare_draws_a_figure_when_asked(trained):
    text = said(bnstudy_("compare", *GRID[2:], "--figure", f"results_dir={trained}"))
    path = Path(text.splitlines()[-1])
    assert path.name == "figure.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.with_suffix(".pdf").exists()
    path.unlink()


@pytest.mark.parametrize(
    ("axis", "arms"),
    [
        ("norm.momentum=null,0.1", ["null", "0.1"]),
        ("model.hidden=[8],[4,4]", ["[8]", "[4, 4]"]),
        ("scale=smoke,quick", ["smoke", "quick"]),
        ("norm=mine,group", ["mine", "group"]),
    ],
)
def test_compare_calls_arms_what_the_command_line_calls_them(axis, arms, tmp_path):
    (tmp_path / "own" / "norm").mkdir(parents=True)
    (tmp_path / "own" / "norm" / "mine.yaml").write_text("name: group\nnum_groups: 4\n")
    words = [w for w in TINY if not axis.startswith("scale") or not w.startswith("data")]
    text = said(bnstudy_("compare", "--config-dir", "own", *words, axis))
    (csv,) = (line for line in text.splitlines() if line.endswith("table.csv"))
    table = pd.read_csv(csv, dtype=str, keep_default_na=False)
    assert list(table.iloc[:, 0]) == arms
    assert list(table["n"]) == ["2", "2"]


def test_report_is_one_page(trained):
    text = said(bnstudy_("report", f"results_dir={trained}"))
    page = Path(text.strip().rpartition(": ")[2]).read_text()
    assert "<img" in page or "<svg" in page
    assert 'src="http' not in page  # it opens without a network
    assert "Error against batch size" in page


def test_ls_show_export_doctor(trained, tmp_path):
    where = f"results_dir={trained}"
    table = Store(trained / "runs").table()
    listed = said(bnstudy_("ls", where))
    for cell in set(table["cell"]):
        assert listed.count(cell) == 1
    assert f"{table['cell'].nunique()} cells, {len(table)} runs" in listed

    address = table["address"][0]
    record = json.loads(said(bnstudy_("show", address, where)))
    assert record["address"] == address
    assert {"config", "summary", "layers", "provenance"} <= record.keys()
    assert said(bnstudy_("show", address[:12], where)) == said(bnstudy_("show", address, where))

    said(bnstudy_("export", "--csv", "t.csv", "--parquet", "t.parquet", where))
    for back in (pd.read_csv("t.csv"), pd.read_parquet("t.parquet")):
        assert list(back["address"]) == list(table["address"])
        assert list(back.columns) == list(table.columns)
    result = bnstudy_("export", "--csv", "-", where)
    assert said(result).startswith("address,cell,seed,")
    assert f"{len(table)} runs" in result.stderr  # beside the table, not in it

    found = said(bnstudy_("doctor", where))
    for name in ("torch", "device", "cores", "results", "W&B", "data=digits", "data=mnist"):
        assert name in found


def test_ls_of_an_empty_store_says_what_to_do():
    assert "bnstudy study batch_size" in said(bnstudy_("ls"))
    assert not Path("results").exists()


def test_a_study_is_drawn_anew_from_runs_that_were_trained_again():
    said(bnstudy_(*STUDY))
    (path,) = Path("results/runs/studies").rglob("table.csv")
    before = pd.read_csv(path).set_index("address")["created"]
    written = path.stat().st_mtime_ns
    said(bnstudy_(*STUDY))
    assert path.stat().st_mtime_ns == written  # nothing is new
    victim = before.index[0]
    said(bnstudy_("rm", victim))
    said(bnstudy_(*STUDY))
    after = pd.read_csv(path).set_index("address")["created"]
    assert set(after.index) == set(before.index)
    assert after[victim] != before[victim]


def test_what_was_removed_or_damaged_is_trained_again_to_the_same_numbers(capfd):
    said(bnstudy_(*GRID))
    store = Store("results/runs")
    first = store.table()

    said(bnstudy_("rm", first["address"][0]))
    assert len(store.table()) == 3
    assert "missing  1 model " in said(bnstudy_(*GRID, "--dry-run"))
    assert "trained  1 model " in said(bnstudy_(*GRID))

    victim = next(Path("results/runs/cells").rglob("history.parquet"))
    victim.write_bytes(victim.read_bytes()[:-1])  # torn
    result = bnstudy_(*GRID)
    assert "trained  " in said(result)
    assert f"damaged: stack {victim.parent.name}" in result.stderr
    assert "count as missing" in result.stderr
    assert len(list(Path("results/runs/damaged").iterdir())) == 1
    again = without_provenance(store.table())
    # the removed run trained alone, its stack mate is not with it: equal up to rounding, which
    # 4 steps of float32 grow to less than 1e-4
    pd.testing.assert_frame_equal(again, without_provenance(first), rtol=1e-4, atol=1e-4)


def test_stale_records_are_named_and_removed_together(monkeypatch):
    said(bnstudy_("train", *TINY))
    assert "removed 0 records" in said(bnstudy_("rm", "--stale"))
    monkeypatch.setattr("bnstudy.config.RESULTS_VERSION", 99)
    monkeypatch.setattr("bnstudy.config.address.RESULTS_VERSION", 99)
    monkeypatch.setattr("bnstudy.store.records.RESULTS_VERSION", 99)
    assert "stale" in said(bnstudy_("ls"))
    assert "removed 2 records" in said(bnstudy_("rm", "--stale"))
    assert "the store is empty" in said(bnstudy_("ls"))


def test_results_of_a_command_are_nowhere_else(trained):
    """One folder: what is below it is all there is."""
    assert {p.name for p in trained.parent.iterdir()} == {"results"}
    assert {p.name for p in trained.iterdir()} == {"runs"}
    before = files(trained / "runs" / "cells")
    said(bnstudy_("ls", f"results_dir={trained}"))
    assert files(trained / "runs" / "cells") == before
