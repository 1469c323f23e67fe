"""tune, power and tune=: pilots are trained, choices written, and used by what comes after."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from shell import TINY, bnstudy_, files, own_folder, said

from bnstudy.store import Store
from bnstudy.studies import batch_size

__all__ = ["own_folder"]

QUIET = ["tracker.mode=disabled", "workers=1"]
SMALL = ["scale=smoke", "data.train_size=40", "train.steps=4", "model=resnet", *QUIET]
SMOKE = ["batch_size", "scale=smoke", *QUIET, "--config-dir", "conf"]
COMPARE = ["compare", "norm=batch,group", *TINY, "tune=optimizer.lr=0.1,0.2"]


def records(results="results") -> pd.DataFrame:
    return Store(Path(results) / "runs").table()


def choices(path) -> dict:
    return yaml.safe_load(Path(path).read_text())


@pytest.fixture
def conf(tmp_path):
    (tmp_path / "conf").mkdir()
    return tmp_path / "conf"


def test_tune_then_study(conf):
    """A real smoke run: pilots by the store, the file, the study's cells at what was chosen."""
    printed = said(bnstudy_("tune", *SMOKE))
    path = conf / "tuned" / "batch_size-smoke.yaml"
    assert printed.splitlines()[-1] == str(path)
    found = choices(path)
    assert len(found["choices"]) == 8  # 2 models x 2 norms x 2 batch sizes
    pilots = records()
    assert set(pilots["seed"]) == {0, 1}
    assert set(pilots["data.test_part"]) == {"validation"}
    by_address = pilots.set_index("address")
    behind = set()
    for choice in found["choices"]:
        errors, measured = [], []
        for trial in choice["trials"]:
            runs = by_address.loc[trial["runs"]]
            behind |= set(trial["runs"])
            assert set(runs["optimizer.lr"]) == {trial["set"]["optimizer.lr"]}
            assert set(runs["model.name"]) == {choice["where"]["model"]}
            assert set(runs["norm.name"]) == {choice["where"]["norm"]}
            assert set(runs["train.batch_size"]) == {choice["where"]["train.batch_size"]}
            bad = runs["train_error"] > 0.45
            assert trial["failed"] == bad.sum()
            assert trial["per_seed"] == runs["val_error"].mask(bad, 0.9).tolist()
            errors.append(sum(trial["per_seed"]) / 2)
            # where all pilots failed, what was measured decides
            all_failed = trial["failed"] == 2
            measured.append(runs["val_error"].fillna(0.9).mean() if all_failed else 0.0)
        ranks = list(zip(errors, measured, strict=True))
        rates = [trial["set"]["optimizer.lr"] for trial in choice["trials"]]
        assert choice["set"]["optimizer.lr"] == rates[ranks.index(min(ranks))]
    assert behind == set(pilots["address"])

    before = path.read_bytes()
    again = said(bnstudy_("tune", *SMOKE))
    assert again.count("nothing is missing") == again.count("pilots   seeds 0, 1")
    assert path.read_bytes() == before
    assert len(records()) == len(pilots)

    planned = said(bnstudy_("study", *SMOKE))
    assert f"tuned    8 of 8 cells by {path}" in planned
    study = records()
    study = study[~study["address"].isin(pilots["address"])]
    assert len(study) == 16
    assert set(study["seed"]) == {10, 11}
    chosen = {
        (*(c["where"][k] for k in ("model", "norm", "train.batch_size")), c["set"]["optimizer.lr"])
        for c in found["choices"]
    }
    columns = ["model.name", "norm.name", "train.batch_size", "optimizer.lr"]
    assert set(study[columns].itertuples(index=False, name=None)) == chosen
    # and what selects records by the study finds these
    assert "status   16 of 16 runs" in said(bnstudy_("show", *SMOKE[:2], *SMOKE[-2:]))


def test_the_published_protocol_and_the_untuned_say_so():
    plan = said(bnstudy_("study", "batch_size", "scale=smoke", "tune=published", "--dry-run"))
    assert "tuned    no: published protocol, optimizer.lr=0.1, lr_rule=linear" in plan
    plan = said(bnstudy_("study", "batch_size", *SMALL, "--dry-run"))
    assert "optimizer.lr as in the YAML, not tuned for data.train_size=40" in plan
    assert "tune=auto trains pilots first" in plan
    assert (
        "run `bnstudy tune batch_size scale=smoke data.train_size=40 train.steps=4 model=resnet`"
        in plan
    )
    plan = said(bnstudy_("study", "batch_size", *SMALL, "optimizer.lr=0.2", "--dry-run"))
    assert [row for row in plan.splitlines() if row.startswith("tuned")] == [
        "tuned    not optimizer.lr: set by hand"
    ]


def test_auto_puts_pilots_first_and_goes_on_where_it_was(tmp_path):
    plan = said(bnstudy_("study", "batch_size", *SMALL, "tune=auto", "--dry-run"))
    assert plan.count("plan ") == 2  # pilots and study
    assert "8 cells x 2 seeds" in plan
    assert "4 cells x 2 seeds" in plan
    assert not files(tmp_path)
    first = said(bnstudy_("study", "batch_size", *SMALL, "tune=auto"))
    assert "first    pilots; then 8 models, about" in first
    (path,) = Path("results/runs/tuned").glob("batch_size-smoke-*.yaml")
    assert f"tuned    4 of 4 cells by {path}" in first
    table = records()
    assert len(table[table["seed"] >= 10]) == 8
    again = said(bnstudy_("study", "batch_size", *SMALL, "tune=auto"))
    assert "trained  " not in again
    assert len(records()) == len(table)
    # without the word, the choices made for this grid are found
    assert f"tuned    4 of 4 cells by {path}" in said(bnstudy_("study", "batch_size", *SMALL))
    assert len(records()) == len(table)


def test_a_study_judged_nowhere_trains_no_pilots():
    result = bnstudy_("study", "batch_size", *SMALL, "tune=auto", "norm=layer,none")
    assert result.exit_code == 2
    assert "cannot judge this grid" in result.stderr
    assert not Path("results").exists()


def test_compare_tunes_every_arm_and_tells_the_choices():
    printed = said(bnstudy_(*COMPARE))
    assert "pilots   seeds 2, 3, 4, measured on the validation part" in printed
    (path,) = Path("results/runs/tuned").glob("compare-*.yaml")
    found = choices(path)
    command = found["command"]
    assert command.startswith("bnstudy compare scale=quick norm=batch,group model=mlp")
    assert command.endswith("seeds=2 tune=optimizer.lr=0.1,0.2")
    table = records()
    own = table[table["seed"] < 2].groupby("norm.name")["optimizer.lr"].unique()
    for choice in found["choices"]:
        rate = choice["set"]["optimizer.lr"]
        assert list(own[choice["where"]["norm"]]) == [rate]
        assert f"tuned    norm={choice['where']['norm']}: optimizer.lr={rate}" in printed
    assert printed.count("edge)") == 2 * sum(choice["edge"] for choice in found["choices"])
    before = path.read_bytes()
    assert "trained  " not in said(bnstudy_(*COMPARE))
    assert path.read_bytes() == before


def test_an_edge_extends_the_grid_and_only_at_its_points(monkeypatch):
    """Outcomes are planted: batch norm is best beyond the grid, group norm within it."""
    from bnstudy.cli import tuning

    best = {"batch": 100.0, "group": 0.2}

    def planted(pilots, plan):
        far = [abs(1 - cell.optimizer.lr / best[cell.norm.name]) for cell in plan.cells]
        return [([error] * 3, 0, [error] * 3) for error in far]

    monkeypatch.setattr(tuning, "_outcomes", planted)
    said(bnstudy_(*COMPARE[:-1], "tune=optimizer.lr=0.1,0.2,0.4"))
    (path,) = Path("results/runs/tuned").glob("compare-*.yaml")
    rates = {
        c["where"]["norm"]: (c["set"]["optimizer.lr"], c["edge"],
                             [t["set"]["optimizer.lr"] for t in c["trials"]])
        for c in choices(path)["choices"]
    }  # fmt: skip
    assert rates == {"batch": (1.6, True, [0.1, 0.2, 0.4, 0.8, 1.6]),
                     "group": (0.2, False, [0.1, 0.2, 0.4])}  # fmt: skip
    table = records()
    pilots = table[table["seed"] >= 2].groupby("norm.name")["optimizer.lr"].nunique()
    assert pilots.to_dict() == {"batch": 5, "group": 3}


def test_a_run_that_failed_does_not_beat_a_restoration_that_learned():
    """A failed run counts at chance; a restored image worse than the noisy one as it is."""
    from bnstudy.cli import tuning

    measured = pd.Series([0.2, 0.95, 3.9, 6.3, float("nan")])
    failed = pd.Series([False, True, False, True, True])
    errors, seen = tuning.counted(measured, failed, pd.Series([0.9] * 5))
    assert errors == [0.2, 0.9, 3.9, 6.3, 0.9]
    assert seen == [0.2, 0.95, 3.9, 6.3, 0.9]


def test_pilots_that_are_missing_leave_no_choices():
    result = bnstudy_("tune", "batch_size", *SMALL, "max_minutes=0.000001")
    assert result.exit_code == 0
    assert "max_minutes is over" in result.stderr
    assert not list(Path("results").rglob("*.yaml"))
    assert "4 cells" in said(bnstudy_("tune", "batch_size", *SMALL, "norm=batch", "--dry-run"))


def test_a_dry_run_of_tune_and_power_writes_nothing(tmp_path):
    assert "8 cells x 2 seeds" in said(bnstudy_("tune", "batch_size", *SMALL, "--dry-run"))
    said(bnstudy_("power", "batch_size", *SMALL, "--effect", "2", "--dry-run"))
    assert not files(tmp_path)


def test_power_hands_the_primarys_pilots_to_the_computation(monkeypatch):
    asked = []

    def table(values, effect, **how):
        asked.append((values, effect, how))
        return pd.DataFrame({"n": [12, 16], "supported_at_effect": [0.5, 0.9]})

    stub = SimpleNamespace(table=table, seeds_needed=lambda values, effect, **how: 16,
                           check_effect=lambda *_: None)  # fmt: skip
    monkeypatch.setitem(sys.modules, "bnstudy.stats.power", stub)
    monkeypatch.setattr("bnstudy.stats.power", stub, raising=False)
    printed = said(bnstudy_("power", "batch_size", *SMALL, "--effect", "2.5"))
    pilots = records()
    assert set(pilots["seed"]) == {0, 1}
    assert set(pilots["data.test_part"]) == {"validation"}
    errors = {
        key: rows.set_index("seed")["test_error"]
        for key, rows in pilots.groupby(["norm.name", "train.batch_size"])
    }
    more = (errors["batch", 2] - errors["batch", 32]) - (errors["group", 2] - errors["group", 32])
    ((values, effect, how),) = asked
    assert values == pytest.approx((100 * more).tolist())
    assert (effect, how) == (2.5, {"kind": "greater", "threshold": batch_size.MORE})
    assert "16 seeds for power 0.9 at 2.5 pp" in printed
    assert "norm=batch train.batch_size=2: 2 of 2 pilots" in printed


MISTAKES = {
    ("tune",): "name one study",
    ("tune", "batch_size", "sync"): "name one study",
    ("tune", "batch_sise"): "Did you mean 'batch_size'",
    ("tune", "batch_size", "scale=smoke", "tune=auto"): "takes no tune=",
    ("tune", "batch_size", "scale=smoke", "optimizer.lr=0.1"): "optimizer.lr is tuned by",
    ("tune", "sync", "scale=smoke"): "states nothing to tune",
    ("power", "batch_size", "scale=smoke"): "give --effect X",
    ("power", "batch_size", "scale=smoke", "--effect", "2", "seeds=2"): "would be pilots",
    ("power", "batch_size", "scale=smoke", "--effect", "nan"): "must be a finite number",
    ("power", "batch_size", "scale=smoke", "--effect", "inf", "--dry-run"): "a finite number",
    ("power", "batch_size", "scale=smoke", "--effect", "2.4"): "2.4 is the threshold itself",
    ("power", "batch_size", "scale=smoke", "--effect", "2.4", "--dry-run"): "threshold itself",
    ("study", "sync", "scale=smoke", "tune=auto"): "sync states nothing to tune",
    ("study", "batch_size", "scale=smoke", "tune=auto", "seeds=2"): "seeds 0, 1 are pilots",
    ("study", "batch_size", "tune=optimizer.lr=0.1,0.2"): "in its YAML",
    ("train", "-m", "norm=batch,group", "tune=optimizer.lr=0.1,0.2"): "'bnstudy compare'",
    ("train", "tune=auto"): "nothing to tune",
    ("compare", "norm=batch,group", "tune=optimizer.rl=0.1,0.2"): "Did you mean 'optimizer.lr'",
    ("compare", "norm=batch,group", "tune=pubished"): "Did you mean 'published'",
    ("compare", "norm=none,layer", "tune=norm.momentum=0.1,0.2"): "no cell of the grid uses",
}  # fmt: skip


@pytest.mark.parametrize("words", MISTAKES, ids=" ".join)
def test_a_mistake_is_one_message_before_any_training(words, tmp_path):
    result = bnstudy_(*words)
    assert result.exit_code == 2, result.stdout
    assert MISTAKES[words] in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not files(tmp_path)
