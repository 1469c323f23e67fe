"""The commands about norms themselves."""

import json

import pytest
import torch
from shell import GRID, bnstudy_, own_folder
from torch import nn

from bnstudy.bench import interleaved, median_interval
from bnstudy.store import Store

__all__ = ["own_folder"]  # a fixture that acts by being here

TINY = ("train", *GRID[3:], "model.hidden=[6]")


def test_audit_passes_torch_and_names_what_is_wrong_elsewhere(tmp_path):
    fine = bnstudy_("audit", "torch.nn:BatchNorm2d")
    assert fine.exit_code == 0
    assert "nothing found" in fine.stdout
    (tmp_path / "wrong.py").write_text(
        "from torch import nn\n"
        "class Wrong(nn.BatchNorm2d):\n"
        "    def __init__(self, num_features):\n"
        "        super().__init__(num_features, momentum=0.9)\n"
    )
    found = bnstudy_("audit", "wrong:Wrong")
    assert found.exit_code == 1
    assert "momentum" in found.stdout
    assert "breaks" in found.stdout


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("torch.nn:Linear", "no"),
        ("torch.nn:NoSuchNorm", "has no 'NoSuchNorm'"),
        ("nowhere:Norm", "importing 'nowhere' failed"),
        ("torch.nn.BatchNorm2d", "package.module:function"),
    ],
)
def test_audit_refuses_what_is_no_batch_norm(target, said):
    result = bnstudy_("audit", target)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_fold_shows_equality_with_kept_weights_and_with_weights_trained_again():
    kept = bnstudy_(*TINY)
    assert kept.exit_code == 0, kept.stderr
    cell = kept.stdout.splitlines()[-1].split()[0]
    address = Store("results/runs").table()["address"][0]
    result = bnstudy_("fold", address)
    assert result.exit_code == 0, (result.stdout, result.stderr)
    assert "1 folded" in result.stdout
    assert "same class for 100.00 %" in result.stdout
    assert "times as fast" in result.stdout
    assert "trained again" not in result.stdout

    bnstudy_(*TINY, "save_weights=false", "results_dir=lean")
    again = bnstudy_("fold", address, "results_dir=lean")
    assert again.exit_code == 0, (again.stdout, again.stderr)
    assert "the same to the bit" in again.stdout
    assert "same class for 100.00 %" in again.stdout
    assert cell


def test_fold_compares_what_a_network_makes_of_patches():
    pytest.importorskip("skimage")
    made = bnstudy_("train", "task=restoration", "data=photos", "model=dncnn", "norm=batch",
                    "model.depth=3", "model.width=4", "data.patch_size=40", "train.examples=8",
                    "train.batch_size=4", "data.degradation=noise")  # fmt: skip
    assert made.exit_code == 0, made.stderr
    result = bnstudy_("fold", Store("results/runs").table()["address"][0])
    assert result.exit_code == 0, (result.stdout, result.stderr)
    assert "1 folded" in result.stdout
    assert "test patches: largest difference" in result.stdout
    assert "class" not in result.stdout


def test_fold_refuses_a_network_without_batch_norm():
    bnstudy_(*TINY, "norm=none")
    result = bnstudy_("fold", Store("results/runs").table()["address"][0])
    assert result.exit_code in (0, 2)
    assert "Traceback" not in result.stderr


def test_an_unknown_benchmark_is_named():
    result = bnstudy_("bench", "norm")
    assert result.exit_code == 2
    assert "Did you mean 'norms'" in result.stderr


def test_median_interval_covers_the_median():
    """Order statistics: 95 % or more of the intervals hold the true median, whatever the shape."""
    import numpy as np

    rng = np.random.default_rng(0)
    true = np.exp(0.0)
    hits = 0
    for _ in range(2000):
        mid, low, high = median_interval(rng.lognormal(size=15))
        assert low <= mid <= high
        hits += low <= true <= high
    # exact coverage of the 4th to 12th of 15 values is 96.5 %; 2,000 draws: s.d. 0.4 %
    assert 0.95 <= hits / 2000 <= 0.98


def test_interleaved_times_every_way_in_every_round():
    calls = []
    ways = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    seconds = interleaved(ways, rounds=4, least=0, warmup=1)
    assert {k: len(v) for k, v in seconds.items()} == {"a": 4, "b": 4}
    # in every round each way runs twice in a row: once untimed, once timed
    rounds = [calls[-16:][i : i + 4] for i in range(0, 16, 4)]
    assert all(r in (["a", "a", "b", "b"], ["b", "b", "a", "a"]) for r in rounds)
    assert len({tuple(r) for r in rounds}) == 2, "the order never changes"


@pytest.mark.slow
def test_theory_agrees():
    result = bnstudy_("theory")
    assert result.exit_code == 0
    assert "everything agrees" in result.stdout


@pytest.mark.slow
def test_bench_norms_writes_its_table_and_figure(tmp_path, monkeypatch):
    monkeypatch.setattr("bnstudy.bench.norms.SHAPES", ((2, 6, 8, 8), (4, 8, 4, 4)))
    result = bnstudy_("bench", "norms", "--rounds", "6", "--folder", "out")
    assert result.exit_code == 0, result.stderr
    found = json.loads((tmp_path / "out" / "norms.json").read_text())
    assert {row["way"] for row in found["rows"]} >= {"torch", "fused", "reference", "from scratch"}
    assert all(row["ratio"][0] == 1 for row in found["rows"] if row["way"] == "torch")
    assert (tmp_path / "out" / "norms.png").exists()


def test_from_scratch_is_batch_norm():
    from bnstudy.bench.norms import FromScratch

    x = torch.randn(4, 3, 5, 5)
    assert torch.allclose(FromScratch(3)(x), nn.BatchNorm2d(3)(x), atol=1e-5)


def test_fold_trains_the_whole_stack_of_a_grid_again():
    """The stack of a run may hold other cells: without them its bits would be others."""
    words = [w for w in TINY[1:] if not w.startswith("seeds")]
    grid = ("train", "-m", "optimizer.lr=0.05,0.1,0.2", "seeds=2", "save_weights=false", *words)
    assert bnstudy_(*grid).exit_code == 0
    store = Store("results/runs")
    address = store.table()["address"][2]
    assert store.get(address)["stack"]["networks"] == 6
    result = bnstudy_("fold", address)
    assert result.exit_code == 0, result.stderr
    assert "trained again: its test loss is the same to the bit" in result.stdout
    assert "are not in the store" not in result.stdout
    store.remove(store.table()["address"][0])
    assert "1 of the 6 networks that trained together are not" in bnstudy_("fold", address).stdout
