"""Planted effects come out as they were planted; figures draw what the table says."""

import itertools
import zlib

import matplotlib
import numpy as np
import pandas as pd
import pytest

from bnstudy import figures, stats
from bnstudy.studies import batch_size, normalization_batch

SEEDS = range(6)


def noise(*key) -> float:
    """Half a percentage point of seed noise, the same for the same key."""
    return 0.005 * np.random.default_rng(zlib.crc32(repr(key).encode())).standard_normal()


def batch_table(error, train_error=0.05, data=("contrast_digits",), models=("resnet",)):
    """A table of the batch_size study: error(norm, size) is the true test error."""
    rows = []
    grid = itertools.product(data, models, ("batch", "group"), (2, 32), SEEDS)
    for d, m, norm, size, seed in grid:
        value = error(norm, size) + noise(norm == "batch", size, seed)
        rows.append(
            {
                "data.name": d, "model.name": m, "norm.name": norm, "train.batch_size": size,
                "seed": seed, "test_error": value, "test_error_precise": value,
                "test_error_batch": value, "test_error_large_batch": value,
                "train_error": train_error, "train_loss": 0.1, "diverged_at": np.nan,
                "smallest_m": 4 * size, "device": "cpu", "torch": "2",
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def verdicts(module, table) -> dict[str, stats.Verdict]:
    return {v.name: v for v in stats.judge(module.claims(table))}


@pytest.mark.parametrize(
    ("effect", "wanted"), [(0.05, "supported"), (-0.05, "refuted"), (0.0, "inconclusive")]
)
def test_a_planted_difference_in_differences_is_found(effect, wanted):
    table = batch_table(lambda n, b: 0.2 + (effect if (n, b) == ("batch", 2) else 0))
    found = verdicts(batch_size, table)["contrast_digits resnet: BN loses more"]
    assert found.primary
    assert found.verdict == wanted
    # 6 paired seeds, s.d. of a double difference 4 * 0.5^2 -> 1 pp: interval half width about 1 pp
    assert found.mean == pytest.approx(100 * effect, abs=1.5)


def test_what_lowers_every_arm_alike_is_no_effect():
    table = batch_table(lambda n, b: 0.2 + (0.3 if b == 2 else 0))
    assert (
        verdicts(batch_size, table)["contrast_digits resnet: BN loses more"].verdict != "supported"
    )


def test_untrained_arms_are_invalid_whatever_they_show():
    table = batch_table(lambda n, b: 0.2 + (0.5 if (n, b) == ("batch", 2) else 0), train_error=0.6)
    found = verdicts(batch_size, table)["contrast_digits resnet: BN loses more"]
    assert found.verdict == "invalid"
    assert any("trains" in reason for reason in found.reasons)


def test_a_failing_arm_in_the_tested_cell_is_the_effect():
    table = batch_table(lambda n, b: 0.9 if (n, b) == ("batch", 2) else 0.1)
    tested = (table["norm.name"] == "batch") & (table["train.batch_size"] == 2)
    table.loc[tested, "train_error"] = 0.9
    table.loc[tested, "diverged_at"] = 7
    found = verdicts(batch_size, table)["contrast_digits resnet: BN loses more"]
    assert found.verdict == "supported"
    assert any("diverged" in reason for reason in found.reasons)


def test_mixed_devices_are_invalid():
    table = batch_table(lambda n, b: 0.2 + (0.1 if (n, b) == ("batch", 2) else 0))
    table.loc[table["seed"] == 0, "device"] = "cuda"
    found = verdicts(batch_size, table)["contrast_digits resnet: BN loses more"]
    assert found.verdict == "invalid"


def test_another_grid_has_a_primary_claim_of_its_own():
    table = batch_table(lambda n, b: 0.2, data=("mnist",), models=("lenet",))
    assert [v.name for v in verdicts(batch_size, table).values() if v.primary] == [
        "mnist lenet: BN loses more"
    ]


def test_batch_size_figure_draws_the_means():
    table = batch_table(
        lambda n, b: 0.2 + (0.1 if (n, b) == ("batch", 2) else 0),
        data=("digits", "contrast_digits"),
    )
    with matplotlib.rc_context(figures.rc()):
        rows, columns = batch_size.shape(table)
        figure, axes = figures.canvas(columns, rows)
        batch_size.figure(table, axes)
        figure.canvas.draw()
    first = axes[0, 0].lines
    means = (
        100
        * table[table["data.name"] == "digits"]
        .groupby(["norm.name", "train.batch_size"])["test_error"]
        .mean()
    )
    drawn = [line.get_ydata() for line in first if len(line.get_ydata()) == 2]
    assert any(np.allclose(y, means["batch"].to_numpy()) for y in drawn)
    published = [line.get_ydata() for line in axes[-1, 0].lines]
    assert any(np.allclose(sorted(y), sorted(batch_size.PUBLISHED["batch"])) for y in published)


def ghost_table(train_error, test_error):
    rows = []
    for m, size, freeze, seed in itertools.product(("mlp",), (2, 64), (1.0, 0.8), SEEDS):
        rows.append(
            {
                "data.name": "digits", "model.name": m, "norm.name": "ghost", "seed": seed,
                "norm.group_size": size, "norm.freeze_at": freeze,
                "train_error": train_error(size) + abs(noise(size, seed)),
                "test_error": test_error(size, freeze) + noise(size, freeze, seed),
                "test_error_precise": 0.1, "test_error_batch": 0.1 + noise("b", size, seed),
                "test_error_large_batch": 0.1, "diverged_at": np.nan,
                "device": "cpu", "torch": "2",
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def test_normalization_batch_claims_and_figure():
    table = ghost_table(
        lambda size: 0.2 if size == 2 else 0.01,
        lambda size, freeze: 0.1 + (0.2 if (size, freeze) == (2, 1.0) else 0),
    )
    found = verdicts(normalization_batch, table)
    assert found["digits mlp: training noise"].verdict == "supported"
    assert found["digits mlp: frozen finish"].verdict == "supported"
    assert found["digits mlp: inconsistency"].verdict == "supported"
    with matplotlib.rc_context(figures.rc()):
        rows, columns = normalization_batch.shape(table)
        figure, axes = figures.canvas(columns, rows)
        normalization_batch.figure(table, axes)
        figure.canvas.draw()


def test_no_planted_effect_is_not_supported():
    table = ghost_table(lambda size: 0.01, lambda size, freeze: 0.1)
    assert all(v.verdict != "supported" for v in verdicts(normalization_batch, table).values())
