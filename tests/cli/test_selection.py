"""One grammar for ls, show, export and rm: an address, filters, or the runs of a study."""

import io
import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from shell import STUDY, TINY, bnstudy_, own_folder, process, said

from bnstudy.store import Store
from bnstudy.store.table import select

__all__ = ["own_folder"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Two norms at two batch sizes, and a study; tests do not change it."""
    results = tmp_path_factory.mktemp("selection") / "results"
    words = [w for w in TINY if not w.startswith("train.batch_size")]
    said(bnstudy_("train", "-m", "norm=batch,group", "train.batch_size=4,8", *words,
                  f"results_dir={results}"))  # fmt: skip
    said(bnstudy_(*STUDY, f"results_dir={results}"))
    return results


@pytest.fixture
def copied(trained, tmp_path) -> Path:
    return shutil.copytree(trained, tmp_path / "results")


def exported(results: Path, *words: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(said(bnstudy_("export", "--csv", "-", *words,
                                                 f"results_dir={results}"))))  # fmt: skip


FILTERS = {
    "norm.name=group": lambda t: t["norm.name"] == "group",
    "norm=group": lambda t: t["norm.name"] == "group",
    "norm=glob(g*)": lambda t: t["norm.name"] == "group",
    "train.batch_size=4": lambda t: t["train.batch_size"] == 4,
    "batch_size=4,8 norm=batch": lambda t: (
        t["train.batch_size"].isin([4, 8]) & (t["norm.name"] == "batch")
    ),
    "seed=0": lambda t: t["seed"] == 0,
    "norm.group_size=null": lambda t: t["norm.group_size"].isna(),
    "model.hidden=[64,32]": lambda t: t["model.hidden"] == "[64, 32]",
    "optimizer.lr=0.1,7": lambda t: t["optimizer.lr"] == 0.1,
}


@pytest.mark.parametrize("words", FILTERS)
def test_filters_are_columns_and_the_values_they_may_have(trained, words):
    whole = Store(trained / "runs").table()
    wanted = whole[FILTERS[words](whole)]
    assert len(wanted) > 0
    assert list(exported(trained, *words.split())["address"]) == list(wanted["address"])
    listed = said(bnstudy_("ls", *words.split(), f"results_dir={trained}"))
    assert f"{wanted['cell'].nunique()} cell" in listed
    assert f"{len(wanted)} run" in listed


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("norm=layer", ["no run has norm=layer", "batch, group"]),
        ("nrom=batch", ["unknown column 'nrom'", "Did you mean 'norm'"]),
        ("momentum=0.9", ["norm.momentum or optimizer.momentum"]),
    ],
)
def test_a_filter_that_finds_nothing_says_what_there_is(trained, word, parts):
    for command in (["ls"], ["show"], ["export", "--csv", "-"], ["rm"]):
        result = bnstudy_(*command, word, f"results_dir={trained}")
        assert result.exit_code == 2
        for part in parts:
            assert part in result.stderr


def test_a_table_without_rows_has_no_unknown_columns():
    assert select(pd.DataFrame(columns=["cell"]), {"norm": ["batch"]}).empty


def test_a_study_names_the_runs_of_its_grid_as_overrides_change_it(trained):
    grid = [w for w in STUDY[1:] if "=" in w and not w.startswith(("workers", "tracker"))]
    whole = Store(trained / "runs").table()
    own = whole[whole["seed"] >= 10]
    found = exported(trained, "batch_size", *grid)
    assert set(found["address"]) == set(own["address"])
    found = exported(trained, "batch_size", *grid, "norm=group")
    assert set(found["address"]) == set(own[own["norm.name"] == "group"]["address"])
    assert exported(trained, "batch_size", "scale=smoke", "optimizer.lr=7").empty


def test_show_of_a_study_says_its_claim_grid_status_and_verdicts(trained):
    grid = [w for w in STUDY[1:] if "=" in w]
    text = said(bnstudy_("show", "batch_size", *grid, f"results_dir={trained}"))
    assert "\nclaim    From the reference batch" in text
    assert "scale=smoke: 4 cells, seeds 10, 11" in text
    assert "train.batch_size: 2, 32" in text
    assert "8 of 8 runs" in text
    assert "primary" in text
    text = said(bnstudy_("show", "batch_size", "scale=smoke", f"results_dir={trained}"))
    assert "0 of 16 runs" in text
    assert "primary" not in text


def test_show_gives_the_records_that_filters_name(trained):
    words = ["norm=group", "batch_size=4", f"results_dir={trained}"]
    records = json.loads(said(bnstudy_("show", *words)))
    assert [(r["config"]["norm"]["name"], r["seed"]) for r in records] == [("group", 0),
                                                                          ("group", 1)]  # fmt: skip


def test_show_gives_all_cells_that_filters_name(trained):
    shown = json.loads(said(bnstudy_("show", "norm=group,batch", f"results_dir={trained}")))
    assert len({record["cell"] for record in shown}) > 1


def test_rm_of_one_cell_by_its_address_needs_no_more_words(copied):
    cell = Store(copied / "runs").table()["cell"][0]
    assert "removed 2 records" in said(bnstudy_("rm", cell[:6]))
    assert cell not in set(Store(copied / "runs").table()["cell"])


@pytest.mark.parametrize("words", ["short", "norm=group", "batch_size scale=smoke"])
def test_rm_of_more_or_by_a_short_beginning_says_what_would_go(copied, words):
    store = Store(copied / "runs")
    before = store.table()
    chosen = [before["cell"][0][:3]] if words == "short" else words.split()
    if "scale=smoke" in chosen:
        chosen = ["batch_size", *(w for w in STUDY if "=" in w)]
    refused = bnstudy_("rm", *chosen)
    assert refused.exit_code == 2
    assert "this would remove" in refused.stderr
    assert "--yes" in refused.stderr
    assert any(cell in refused.stderr for cell in before["cell"])
    assert len(store.table()) == len(before)
    count = int(refused.stderr.partition("would remove ")[2].split()[0])
    assert f"removed {count} record" in said(bnstudy_("rm", *chosen, "--yes"))
    assert len(Store(copied / "runs").table()) == len(before) - count


def test_where_nothing_is_the_place_is_named(tmp_path):
    assert "results/runs" in said(bnstudy_("ls"))
    (tmp_path / "results" / "runs").mkdir(parents=True)
    assert "the store is empty (results/runs)" in said(bnstudy_("ls"))
    assert not (tmp_path / "typo").exists()


def test_a_reader_that_has_seen_enough_is_no_error(trained):
    reading, writing = os.pipe()
    os.close(reading)  # as `| head` after its last line
    running = process("export", "--csv", "-", f"results_dir={trained}", stdout=writing)
    os.close(writing)
    _, err = running.communicate(timeout=60)
    assert err == ""
