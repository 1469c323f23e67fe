"""What the committed table decides: stack sizes and compilation, from the config alone."""

import pytest

from bnstudy.config import Config
from bnstudy.sweep import cost
from bnstudy.sweep.plan import partition

ROW = {
    "model": "mlp", "image": 8, "batch": 8, "device": "cpu", "compile_seconds": 10.0,
    "eager": {"1": 1.0, "8": 2.0, "32": 4.0, "96": 24.0},
    "compiled": {"1": 0.9, "8": 1.0},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _table(monkeypatch):
    rows = [ROW, {**ROW, "batch": 64, "eager": {"1": 1.0, "8": 9.0, "32": 40.0}}]
    monkeypatch.setattr(cost, "table", lambda: rows)


def config(batch_size=8, model="mlp", **data):
    return Config.model_validate(
        {"model": {"name": model}, "train": {"batch_size": batch_size, "steps": 10}, "data": data}
    )


def test_the_stack_is_as_large_as_it_gets_cheaper():
    # milliseconds for each network: 1, 0.25, 0.125, 0.25
    assert cost.stack_size(config(8)) == 32
    # the nearest row on a log scale; there a stack is dearer than its networks alone
    assert cost.stack_size(config(32)) == 1
    assert cost.stack_size(config(16)) == 32
    assert cost.stack_size(config(model="resnet")) == 8, "not measured"
    assert cost.stack_size(config(name="mnist", fingerprint="0" * 16)) == 8, "not measured"


def test_large_data_that_each_seed_distorts_are_not_copied_for_a_stack():
    large = {"name": "mnist", "fingerprint": "0" * 16}
    assert cost.stack_size(config(contrast=1.0, **large)) == 1
    assert cost.stack_size(config(pixel_noise=0.1, **large)) == 1
    assert cost.stack_size(config(8, contrast=1.0)) == 32, "digits are small"


def test_compiling_must_save_twice_what_it_costs():
    # saved a step: 1 ms for 8 networks; worth it above 20 s
    assert cost.compiles(config(), 20_001, 8, "cpu")[0]
    pays, reason = cost.compiles(config(), 19_999, 8, "cpu")
    assert not pays
    assert reason == "eager: 19999 steps would save 20 s, compiling costs 10 s"
    assert cost.compiles(config(), 10_001, 16, "cpu")[0], "twice the networks, twice the savings"
    assert "no measurement" in cost.compiles(config(), 10**9, 8, "cuda")[1]
    assert "no measurement" in cost.compiles(config(model="resnet"), 10**9, 8, "cpu")[1]


def cells(values):
    return tuple(
        config().model_copy(
            update={"optimizer": config().optimizer.model_copy(update={"lr": v, **o})}
        )
        for v, o in values
    )


def test_a_grid_of_twelve_rates_and_eight_seeds_is_three_stacks_of_32():
    grid = cells([(0.01 * (i + 1), {}) for i in range(12)])
    stacks = list(partition(grid, range(8), None))
    assert [len(s) for s in stacks] == [32, 32, 32]
    assert [len(s) for s in partition(grid, range(8), 96)] == [96]
    networks = [c.address for s in stacks for c in s]
    assert sorted(networks) == sorted(
        c.model_copy(update={"seed": seed}).address for c in grid for seed in range(8)
    )


def test_seeds_of_a_cell_stay_together_where_they_fit():
    grid = cells([(0.1, {}), (0.2, {}), (0.3, {"momentum": 0.5})])
    stacks = list(partition(grid, range(5), 8))
    assert [{c.cell for c in s} for s in stacks] == [{c.cell} for c in grid]
    assert [len(s) for s in partition(grid[:1], range(20), 8)] == [7, 7, 6]


def test_the_committed_table_is_whole():
    rows = cost.json.loads(cost.TABLE.read_text())["rows"]
    for row in rows:
        assert row.keys() == ROW.keys()
        assert {"1", "8"} <= row["eager"].keys()
        assert row["compiled"].keys() == {"1", "8"}
    measured = {(row["model"], row["image"]) for row in rows if row["device"] == "cpu"}
    assert measured >= {("mlp", 8), ("lenet", 8), ("resnet", 8), ("lenet", 28), ("resnet", 28)}
