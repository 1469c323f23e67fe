"""Planted effects come out as they were planted: convergence, rates, regularization, costs."""

import itertools
import zlib

import numpy as np
import pandas as pd
import pytest

from bnstudy import figures, stats
from bnstudy.studies import convergence, cost, learning_rate, planned, regularization
from bnstudy.studies.kit import FAILURES

SEEDS = range(8)
COMMON = {"diverged_at": np.nan, "num_classes": 10, "device": "cpu", "torch": "2"}


def noise(*key) -> float:
    """One per cent of seed noise, the same for the same key."""
    return 0.01 * np.random.default_rng(zlib.crc32(repr(key).encode())).standard_normal()


def verdicts(study, table) -> dict[str, stats.Verdict]:
    return {v.name: v for v in stats.judge(study.claims(table))}


def drawn(study, table) -> list[figures.Panel]:
    """All panels, which are also made into a figure; claims that they show are made."""
    panels = [*study.headline(table), *study.details(table)]
    figures.draw(panels)
    names = {claim.name for claim in study.claims(table)}
    assert {panel.claim for panel in panels if panel.claim} <= names
    return panels


# --- convergence ---------------------------------------------------------------------------------

RATES = (0.001, 0.002, 0.004)


def steps_table(batch, none, ratio=1.25, total=500):
    """Steps to 0.25 nats of each arm by rate; None where the level is not reached."""
    rows = []
    for norm, steps in (("batch", batch), ("none", none)):
        for (lr, own), seed in itertools.product(zip(RATES, steps, strict=True), SEEDS):
            taken = np.nan if own is None else own * (1 + noise(norm, lr, seed))
            rows.append(
                {
                    "data.name": "mnist_small", "model.name": "mlp", "norm.name": norm,
                    "optimizer.lr": lr, "seed": seed, "steps": total, "train_error": 0.1,
                    **{f"steps_to_{level:g}": taken for level in convergence.LEVELS},
                    "step_ratio": ratio if norm == "batch" else 1.0, "step_seconds": 0.01,
                    **{f"loss_course/{i:02d}": 1 / i for i in range(1, 21)},
                    **{f"{name}_mean/{i:02d}": 1.0 for name in ("gamma", "beta") for i in (1, 2)
                       if norm == "batch"},
                    **COMMON,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def test_each_arm_has_the_rate_at_which_the_other_seeds_are_fastest():
    """BN's best rate is 0.004 and takes 100 steps, that of no norm 0.001 and 400."""
    found = verdicts(convergence, steps_table((250, 160, 100), (400, 450, None)))
    own, same, time = (found[f"mnist_small mlp: {way}"] for way in
                       (convergence.OWN, convergence.SAME, convergence.TIME))  # fmt: skip
    assert own.primary
    assert own.mean == pytest.approx(2, abs=0.03)  # log2 of 400 / 100
    assert same.mean == pytest.approx(np.log2(400 / 250), abs=0.03)
    assert time.mean == pytest.approx(2 - np.log2(1.25), abs=0.03)
    assert own.verdict == same.verdict == time.verdict == "supported"


def test_no_seed_chooses_its_own_rate():
    wide = pd.DataFrame({0.1: [1.0, 5.0, 5.0], 0.2: [4.0, 4.0, 4.0]}, index=[7, 8, 9])
    # without seed 7 the second rate is the better one, although that seed is fast at the first
    assert convergence.best(wide) == {7: 0.2, 8: 0.1, 9: 0.1}
    assert convergence.best(wide.loc[[7]]) == {7: 0.1}


@pytest.mark.parametrize(("batch", "wanted"), [(100, "supported"), (420, "refuted")])
def test_fewer_and_more_steps_are_told_apart(batch, wanted):
    found = verdicts(convergence, steps_table((batch,) * 3, (400,) * 3))
    assert found[f"mnist_small mlp: {convergence.OWN}"].verdict == wanted


def test_what_is_not_reached_counts_with_all_its_steps_and_is_said():
    found = verdicts(convergence, steps_table((100, 100, 100), (None, None, None)))
    own = found[f"mnist_small mlp: {convergence.OWN}"]
    assert own.mean == pytest.approx(np.log2(500 / 100), abs=0.03)
    assert "none: 8 of 8 runs do not reach 0.25 nats at the best rate" in own.reasons
    # no rate is the best one without a norm: what BN does there would say nothing
    assert found[f"mnist_small mlp: {convergence.SAME}"].verdict == "invalid"
    # the other way round the bound is on the other side
    found = verdicts(convergence, steps_table((None,) * 3, (100,) * 3))
    assert found[f"mnist_small mlp: {convergence.OWN}"].verdict == "refuted"


def test_where_neither_arm_reaches_the_level_nothing_is_known():
    found = verdicts(convergence, steps_table((None,) * 3, (None,) * 3))
    assert {v.verdict for v in found.values()} == {"invalid"}


def test_convergence_draws_what_the_table_says():
    table = steps_table((250, 160, 100), (400, 450, None))
    by_rate, gains, *_ = drawn(convergence, table)
    batch, none = sorted(by_rate.curves, key=lambda c: c.label)
    np.testing.assert_allclose(batch.points["mean"], [250, 160, 100], rtol=0.01)
    assert none.points["mean"].iloc[-1] == 500
    published = [c.points["mean"].item() for c in gains.curves if c.source != "measured"]
    assert published == [3.81, 1.22]  # log2 of 14, and of 31.0 / 13.3


# --- learning rate -------------------------------------------------------------------------------

GRID = [2.0**k for k in range(-6, 4)]


def rates_table(batch=2.0**2, none=2.0**-3, equal=True, depth=20):
    """Runs are usable up to a rate of each arm; group norm's is half of BN's."""
    rows = []
    for norm, top in (("batch", batch), ("group", batch / 2), ("none", none)):
        for lr, seed in itertools.product(GRID, SEEDS):
            usable = lr <= top * 2 ** round(100 * noise(norm, seed))  # a step more or less
            error = 0.2 + (0.0 if equal or norm != "none" else 0.05) + noise(norm, lr, seed) / 5
            rows.append(
                {
                    "data.name": "digits", "model.name": "resnet", "norm.name": norm,
                    "model.depth": depth, "optimizer.lr": lr, "seed": seed,
                    "train_error": 0.1 + abs(noise(norm, lr, seed)) if usable else 0.9,
                    "test_error": error - 0.01 * np.log2(lr / GRID[0]) if usable else 0.9,
                    "val_error": error - 0.01 * np.log2(lr / GRID[0]) if usable else 0.9,
                    **COMMON,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("none", "wanted"), [(2.0**-3, "supported"), (2.0**2, "refuted"), (0.4, "inconclusive")]
)
def test_a_ratio_of_usable_rates_is_found(none, wanted):
    found = verdicts(learning_rate, rates_table(none=none))["digits ResNet-20: ten times"]
    assert found.primary
    assert found.verdict == wanted


def test_the_largest_usable_rate_is_where_the_training_error_crosses_half_of_chance():
    """Usable at 0.1, 0.2 and 0.8, between which it is not; at 1.6 the error is 0.9."""
    rates, errors = (0.1, 0.2, 0.4, 0.8, 1.6), (0.3, 0.2, 0.6, 0.15, 0.9)
    arm = {"data.name": "digits", "model.name": "resnet", "norm.name": "batch", "seed": 3}
    table = pd.DataFrame(
        {**arm, "optimizer.lr": rate, "train_error": error, **COMMON}
        for rate, error in zip(rates, errors, strict=True)
    )

    def found(table):
        (panel,) = learning_rate.main_first(table)
        return 10 ** learning_rate.largest(panel, "batch")[3]

    assert found(table) == pytest.approx(0.8 * 2 ** ((0.45 - 0.15) / (0.9 - 0.15)))
    table.loc[3:, ["train_error", "diverged_at"]] = 0.9, 4
    assert found(table) == pytest.approx(0.2 * 2 ** ((0.45 - 0.2) / (0.6 - 0.2)))
    assert found(table.iloc[:2]) == pytest.approx(0.2)
    assert np.isnan(found(table.iloc[2:3]))


def test_a_rate_above_the_grid_is_a_bound_and_is_said():
    found = verdicts(learning_rate, rates_table(batch=2.0**9))
    assert "batch: usable at the largest rate of the grid in 8 of 8" in (
        found["digits ResNet-20: ten times"].reasons
    )


def test_an_arm_that_learns_at_no_rate_has_no_largest_one():
    """It may be that its rates were too small, or that it never learns: nothing is claimed."""
    table = rates_table(none=2.0**-20)
    ten = verdicts(learning_rate, table)["digits ResNet-20: ten times"]
    assert ten.verdict == "invalid"
    assert any("at none in 8 of 8 seeds" in reason for reason in ten.reasons)
    _, ratios, *_ = drawn(learning_rate, table)
    assert [curve.label for curve in ratios.curves] == [
        "ResNet-110, at least", "ResNet-110, at most",
    ]  # fmt: skip


def test_at_one_small_rate_equality_needs_arms_that_learn():
    name = "digits ResNet-20: equal at one rate"
    assert verdicts(learning_rate, rates_table())[name].verdict == "supported"
    assert verdicts(learning_rate, rates_table(equal=False))[name].verdict == "refuted"
    assert verdicts(learning_rate, rates_table(none=2.0**-20))[name].verdict == "invalid"


def test_best_rates_are_chosen_by_validation_error():
    (panel,) = learning_rate.main_first(rates_table())
    table = panel.rows
    best = learning_rate.chosen(panel, "batch")
    own = table[(table["norm.name"] == "batch") & (table["seed"] == 2)]
    assert best[2] == pytest.approx(100 * own.loc[own["val_error"].idxmin(), "test_error"])


def test_learning_rate_draws_every_norm_and_the_published_numbers():
    errors, ratios, *_ = drawn(learning_rate, rates_table())
    assert [c.source for c in errors.curves] == ["measured"] * 3 + ["digitised"] * 2
    assert [c.points["mean"].item() for c in ratios.curves][-2:] == [1.48, 2.0]


def test_the_planner_knows_which_claims_need_a_failed_run():
    assert learning_rate.LARGEST in planned.OF_FAILURES
    assert FAILURES in planned.OF_FAILURES


# --- regularization ------------------------------------------------------------------------------


def regularization_table(replaced=0.0, dropout=-0.02, gap=0.03, train_error=0.1):
    """BN's error beside no norm's best, dropout's effect beside BN, what no norm's gap has more."""
    cells = [
        *((size, 0.0, 0.0) for size in (4, 32, 128)),
        *((32, drop, 0.0) for drop in (0.25, 0.5)),
        *((32, 0.0, decay) for decay in (0.001,)),
    ]
    rows = []
    for norm, (size, drop, decay), seed in itertools.product(("batch", "none"), cells, SEEDS):
        batch = norm == "batch"
        error = 0.15 + (replaced if batch else 0.04 - 0.04 * (drop == 0.25))
        error += dropout * (drop > 0) if batch else 0.0
        wide = 0.05 + (0.0 if batch else gap) + (0.01 * np.log2(size) if batch else 0.0)
        seen = noise(norm, size, drop, decay, seed) / 5
        rows.append(
            {
                "data.name": "mnist_small", "model.name": "mlp", "norm.name": norm,
                "train.batch_size": size, "model.dropout": drop,
                "optimizer.weight_decay": decay, "seed": seed, "train_error": train_error,
                "test_error": error + seen, "val_error": error + seen,
                "fit_error": error - wide, **COMMON,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("replaced", "wanted"), [(0.0, "supported"), (0.03, "refuted")])
def test_bn_replaces_dropout_or_does_not(replaced, wanted):
    found = verdicts(regularization, regularization_table(replaced))
    primary = found["mnist_small mlp: replaces dropout"]
    assert primary.primary
    assert primary.verdict == wanted
    assert primary.mean == pytest.approx(100 * replaced, abs=0.3)
    # the best rate of no norm is 0.25
    assert any("no norm: dropout 0.25" in reason for reason in primary.reasons)


@pytest.mark.parametrize(("dropout", "wanted"), [(0.0, "supported"), (-0.03, "refuted")])
def test_dropout_adds_to_bn_or_does_not(dropout, wanted):
    found = verdicts(regularization, regularization_table(dropout=dropout))
    assert found["mnist_small mlp: nothing to add"].verdict == wanted


def test_gaps_are_of_evaluation_and_shrink_with_the_batch():
    found = verdicts(regularization, regularization_table(gap=0.1))
    # at batch 32 no norm has 15 pp, BN 5 + 5
    assert found["mnist_small mlp: narrows the gap"].mean == pytest.approx(5, abs=0.3)
    # log2(128 / 4) = 5 pp for BN, nothing without it
    assert found["mnist_small mlp: by its noise"].mean == pytest.approx(5, abs=0.3)
    lost = verdicts(regularization, regularization_table(train_error=0.8))
    assert {v.verdict for v in lost.values()} == {"invalid"}


def test_regularization_draws_what_the_table_says():
    table = regularization_table()
    by_dropout, replaced, by_size, *_ = drawn(regularization, table)
    own = table[(table["train.batch_size"] == 32) & (table["optimizer.weight_decay"] == 0)]
    means = 100 * own.groupby(["norm.name", "model.dropout"])["test_error"].mean()
    (batch,) = (c for c in by_dropout.curves if c.label == "batch")
    np.testing.assert_allclose(batch.points["mean"], means["batch"])
    assert replaced.curves[-1].source == "unconfirmed"
    assert list(by_size.curves[0].points["x"]) == [4, 32, 128]


# --- cost ----------------------------------------------------------------------------------------


def cost_table(step=1.3, folded=1.0, clock=1.0, parameters=2, maps=1):
    """Ratios of ResNet-20's times; BN has so many parameters a channel and keeps so many maps."""
    rows = []
    for norm, seed in itertools.product(("none", "batch", "group"), SEEDS):
        batch, none = norm == "batch", norm == "none"
        ratio = clock if none else step + 0.2 * (norm == "group")
        rows.append(
            {
                "data.name": "mnist_small", "model.name": "resnet", "model.depth": 20,
                "norm.name": norm, "seed": seed, "train_error": 0.9,
                "step_ratio": ratio + noise(norm, seed), "predict_ratio": ratio + noise(norm, seed),
                "folded_ratio": folded + noise("folded", seed) if batch else np.nan,
                "step_seconds": 0.02, "predict_seconds": 0.01, "normalized_channels": 100,
                "parameters": 5000 + (0 if none else parameters * 100),
                "normalized_bytes": 1000.0, "activation_bytes": 4000.0 + 1000 * maps * batch,
                **COMMON,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("step", "wanted"), [(1.3, "supported"), (1.02, "refuted"), (1.1, "inconclusive")]
)
def test_a_longer_step_is_found(step, wanted):
    found = verdicts(cost, cost_table(step))["mnist_small ResNet-20: training step"]
    assert found.primary
    assert found.verdict == wanted
    assert found.mean == pytest.approx(100 * (step - 1), abs=1)


def test_folding_and_the_clock_are_judged():
    found = verdicts(cost, cost_table())
    assert found["mnist_small ResNet-20: folded"].verdict == "supported"
    assert found["mnist_small ResNet-20: the clock"].verdict == "supported"
    assert found["mnist_small ResNet-20: group norm"].mean == pytest.approx(20, abs=1.5)
    found = verdicts(cost, cost_table(folded=1.3, clock=1.1))
    assert found["mnist_small ResNet-20: folded"].verdict == "refuted"
    assert found["mnist_small ResNet-20: the clock"].verdict == "refuted"


def test_parameters_and_bytes_are_identities():
    names = ("parameters, batch", "parameters, group", "bytes, batch")
    exact, more = verdicts(cost, cost_table()), verdicts(cost, cost_table(parameters=3, maps=1.01))
    for name in names:
        assert exact[f"mnist_small ResNet-20: {name}"].verdict == "true"
        assert more[f"mnist_small ResNet-20: {name}"].verdict == "false"


def test_costs_are_drawn_beside_the_published_share():
    steps, ways, *_ = drawn(cost, cost_table())
    assert steps.curves[-1].source == "unconfirmed"
    assert steps.curves[-1].points["mean"].item() == pytest.approx(100 * (1 / 0.76 - 1), abs=0.05)
    assert [c.label.rpartition("20, ")[2] for c in ways.curves] == [
        "training step", "prediction", "prediction, folded"
    ]  # fmt: skip
