"""Planted losses and gaps of Transformers come out as planted."""

import math
import zlib

import numpy as np
import pandas as pd
import pytest

from bnstudy import figures, stats
from bnstudy.studies import transformer_norms as study

SEEDS = range(30, 54)
SIZES = (4, 8, 16, 32)
COMMON = {
    "data.name": "text", "model.name": "transformer", "device": "cpu", "torch": "2",
    "num_classes": 60, "diverged_at": np.nan, "train_error": 0.5, "mean_gap": 0.1,
}  # fmt: skip


def noise(*key) -> float:
    """One hundredth of seed noise, the same for the same key."""
    return 0.01 * np.random.default_rng(zlib.crc32(repr(key).encode())).standard_normal()


def table(excess, within=0.0, dyt=0.0, loss=2.0) -> pd.DataFrame:
    """Runs whose gap is about 2 / batch size.

    excess: batch size -> batch norm's bits above layer norm's; within: what it follows, beside, of
    a run's own gap, in bits per 1 % of it; dyt: bits of dynamic tanh above layer norm's.
    """
    rows = []
    for seed in SEEDS:
        base = loss / math.log(2) + noise("base", seed)
        for size in SIZES:
            own = noise("gap", size, seed)
            found = {"layer": 0.0, "batch": excess(size) + 100 * within * own}
            if size == max(SIZES):
                found |= {"rms": 0.0, "dyt": dyt, "power": 0.05, "none": 0.3}
            for norm, more in found.items():
                batch = norm == "batch"
                bits = base + more + noise(norm, size, seed)
                rows.append(
                    {
                        **COMMON, "norm.name": norm, "train.batch_size": size, "seed": seed,
                        "test_loss": bits * math.log(2),
                        "test_loss_precise": (bits - 0.02) * math.log(2) if batch else np.nan,
                        "train_loss": bits * math.log(2),
                        "variance_gap": 2 / size * (1 + own) if batch else np.nan,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def verdicts(runs) -> dict[str, stats.Verdict]:
    return {v.name: v for v in stats.judge(study.claims(runs))}


def growing(size) -> float:
    return 0.1 + 1 / size


def test_planted_losses_are_found_and_told_apart():
    found = verdicts(table(growing))
    assert found["worse"].primary
    assert found["worse"].mean == pytest.approx(0.13125, abs=0.01)
    assert found["recomputed"].mean == pytest.approx(0.11125, abs=0.01)
    assert found["evaluation"].mean == pytest.approx(0.02, abs=1e-6)
    assert found["prediction"].mean > 0.9
    for name in ("worse", "recomputed", "prediction", "dynamic tanh", "root mean square",
                 "power against batch"):  # fmt: skip
        assert found[name].verdict == "supported", name
    assert found["power against layer"].verdict == "refuted"
    assert found["prediction within"].verdict == "inconclusive"


def test_the_other_way_round_is_refuted():
    found = verdicts(table(lambda size: -growing(size), dyt=0.2))
    assert found["worse"].verdict == found["prediction"].verdict == "refuted"
    assert found["dynamic tanh"].verdict == "refuted"


def test_an_excess_without_relation_to_the_gap_is_not_predicted():
    assert verdicts(table(lambda size: 0.1))["prediction"].verdict != "supported"


def test_a_relation_within_batch_sizes_is_seen_without_one_between_them():
    """The noise of two losses is 1.4 %, as large as 1.4 times what a gap of 1 % brings."""
    found = verdicts(table(lambda size: 0.1, within=0.05))
    assert found["prediction within"].verdict == "supported"
    assert found["prediction within"].mean == pytest.approx(0.96, abs=0.04)  # 5 / hypot(5, 1.4)


def test_parts_of_the_seeds_add_up_to_the_pooled_correlation():
    runs = study.pairs(study.prepared(table(growing, within=0.02)))
    each = [np.corrcoef(own["gap"], own["excess"])[0, 1] for _, own in
            runs.groupby("train.batch_size")]  # fmt: skip
    assert np.mean(list(study.shares(runs).values())) == pytest.approx(np.mean(each))


def test_correlations_are_with_the_gaps_logarithm():
    runs = pd.DataFrame({"seed": 1, "train.batch_size": SIZES, "gap": [8.0, 4, 2, 1],
                         "excess": [3.0, 2, 0, 1]})  # fmt: skip
    # deviations 1.5 0.5 -0.5 -1.5 of both, the last two of one exchanged: 4 / 5
    assert study.correlations(runs) == {1: pytest.approx(0.8)}


def test_a_lost_run_is_lost_and_an_untrained_reference_is_no_evidence():
    runs = table(growing)
    hit = (runs["norm.name"] == "batch") & (runs["train.batch_size"] == 8) & (runs["seed"] == 30)
    lost = runs.assign(test_loss=runs["test_loss"].mask(hit))
    assert math.isnan(study.claims(lost)[4].values[30])
    found = verdicts(lost)
    assert found["worse"].verdict == "supported"
    assert found["prediction"].verdict == found["prediction within"].verdict == "invalid"
    assert {v.verdict for v in verdicts(table(growing, loss=3.2)).values()} == {"invalid"}


def test_panels_show_every_run_and_the_claims():
    runs = table(growing)
    panels = [*study.headline(runs), *study.details(runs)]
    figures.draw(panels)
    against, prediction = panels[:2]
    assert (against.claim, prediction.claim) == ("worse", "prediction")
    assert [c.label for c in against.curves] == [
        "no norm", "batch", "batch, PreciseBN", "root mean square", "dynamic tanh", "power",
    ]  # fmt: skip
    assert [c.label for c in prediction.curves] == [f"batch of {n}" for n in SIZES]
    for size, own in zip(SIZES, prediction.curves, strict=True):
        assert len(own.points) == len(SEEDS)
        assert own.points["x"].mean() == pytest.approx(2 / size, rel=0.02)
