"""Planted effects come out as they were planted; figures draw what the table says."""

import itertools
import zlib

import numpy as np
import pandas as pd
import pytest

from bnstudy import figures, stats
from bnstudy.studies import (
    batch_size,
    ema_vs_precise,
    eval_batch,
    normalization_batch,
    notebook,
    sync,
)

SEEDS = range(6)


def noise(*key) -> float:
    """Half a percentage point of seed noise, the same for the same key."""
    return 0.005 * np.random.default_rng(zlib.crc32(repr(key).encode())).standard_normal()


def batch_table(
    error, train_error=0.05, data=("contrast_digits",), models=("resnet",), sizes=(2, 32),
    norms=("batch", "group"),
):  # fmt: skip
    """A table of the batch_size study: error(norm, size) is the true test error."""
    rows = []
    grid = itertools.product(data, models, norms, sizes, SEEDS)
    for d, m, norm, size, seed in grid:
        value = error(norm, size) + noise(norm == "batch", size, seed)
        rows.append(
            {
                "data.name": d, "model.name": m, "norm.name": norm, "train.batch_size": size,
                "seed": seed, "test_error": value, "test_error_precise": value,
                "test_error_batch": value, "test_error_large_batch": value,
                "train_error": train_error, "train_loss": 0.1, "diverged_at": np.nan,
                "smallest_m": 4 * size, "num_classes": 10, "device": "cpu", "torch": "2",
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def verdicts(module, table) -> dict[str, stats.Verdict]:
    return {v.name: v for v in stats.judge(module.claims(table))}


@pytest.mark.parametrize(
    ("sizes", "lost"),  # by hand, from table 2 of Wu & He 2018
    [((2, 32), "+11.1 "), ((8, 32), "+1.3 "), ((4, 16), "+3.6 "), ((2, 64), "")],
)
def test_the_published_loss_is_that_of_the_same_two_sizes(sizes, lost):
    table = batch_table(lambda n, b: 0.2, sizes=sizes)
    claims = {claim.name: claim for claim in batch_size.claims(table)}
    published = claims["contrast_digits resnet: BN loses more"].published
    assert published.startswith(lost) if lost else published == ""


@pytest.mark.parametrize(
    ("effect", "wanted"), [(0.05, "supported"), (-0.05, "refuted"), (0.0, "inconclusive")]
)
def test_a_planted_difference_in_differences_is_found(effect, wanted):
    effect += batch_size.MORE / 100
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
    found = verdicts(batch_size, table)
    assert found["contrast_digits resnet: BN loses more"].verdict == "supported"
    assert found["contrast_digits resnet: failures"].mean == 100  # every run of one arm, in pp


def test_mixed_devices_are_invalid():
    table = batch_table(lambda n, b: 0.2 + (0.1 if (n, b) == ("batch", 2) else 0))
    table.loc[table["seed"] == 0, "device"] = "cuda"
    found = verdicts(batch_size, table)["contrast_digits resnet: BN loses more"]
    assert found.verdict == "invalid"


def test_one_reference_run_that_did_not_learn_makes_a_claim_invalid():
    table = batch_table(lambda n, b: 0.2 + (0.05 if (n, b) == ("batch", 2) else 0))
    lost = (table["norm.name"] == "group") & (table["train.batch_size"] == 32)
    table.loc[lost & (table["seed"] == 3), "train_error"] = 0.6  # the mean of six stays at 0.14
    found = verdicts(batch_size, table)["contrast_digits resnet: BN loses more"]
    assert found.verdict == "invalid"
    assert any("seed 3 60 %" in reason for reason in found.reasons)


def test_further_norms_have_claims_where_they_are_trained():
    errors = {("batch", 2): 0.4, ("batch", 32): 0.3, ("layer", 32): 0.36, ("instance", 2): 0.3}
    norms = ("batch", "group", "layer", "instance", "none")
    every = {"error": lambda n, b: errors.get((n, b), 0.35), "norms": norms}
    found = verdicts(batch_size, batch_table(**every, data=("cifar10_jpeg",)))
    for norm, more in {"layer": 11, "instance": 15, "none": 10}.items():
        own = found[f"cifar10_jpeg resnet: loses more, {norm}"]
        assert own.verdict == "supported"
        assert own.mean == pytest.approx(more, abs=1.5)
    above = found["cifar10_jpeg resnet: reference, layer"]
    assert above.mean == pytest.approx(6, abs=1)
    assert above.published == "+1.7 pp on ImageNet (published)"
    assert found["cifar10_jpeg resnet: small, instance"].mean == pytest.approx(10, abs=1)
    # contrast digits were registered with these norms and without claims about them
    assert "loses more, layer" not in " ".join(verdicts(batch_size, batch_table(**every)))


def test_another_grid_has_a_primary_claim_of_its_own():
    table = batch_table(lambda n, b: 0.2, data=("mnist",), models=("lenet",), sizes=(4, 32))
    assert [v.name for v in verdicts(batch_size, table).values() if v.primary] == [
        "mnist lenet: BN loses more"
    ]


def test_batch_size_draws_the_means_and_the_published_numbers():
    table = batch_table(
        lambda n, b: 0.2 + (0.1 if (n, b) == ("batch", 2) else 0),
        data=("digits", "contrast_digits"),
    )
    difference, errors = batch_size.headline(table)
    published, measured = difference.curves
    assert published.source == "published"
    assert dict(zip(published.points["x"], published.points["mean"], strict=True)) == {
        2: 10.6, 4: 3.1, 8: 0.8, 16: -0.5, 32: -0.5
    }  # fmt: skip
    by = ["data.name", "norm.name", "train.batch_size"]
    means = 100 * table.groupby(by)["test_error"].mean()
    # the panel of the primary claim comes first, in the headline and in the details
    for panel in (errors, batch_size.details(table)[0]):
        assert panel.title.startswith("contrast digits, ResNet")
        for norm in ("batch", "group"):
            (own,) = (c for c in panel.curves if c.label == norm)
            np.testing.assert_allclose(own.points["mean"], means["contrast_digits", norm])
    gap = means["contrast_digits", "batch"] - means["contrast_digits", "group"]
    np.testing.assert_allclose(measured.points["mean"], gap)


def test_the_headline_shows_the_primary_claim_and_details_its_number():
    table = batch_table(lambda n, b: 0.2 + (0.1 if (n, b) == ("batch", 2) else 0))
    primary = verdicts(batch_size, table)["contrast_digits resnet: BN loses more"]
    assert batch_size.headline(table)[0].claim == primary.name
    (row,) = (c for c in batch_size.details(table)[-1].curves if c.source == "measured")
    (found,) = row.points.to_dict("records")
    assert [found[k] for k in ("mean", "low", "high")] == pytest.approx(
        [primary.mean, primary.low, primary.high]
    )
    assert len(row.runs) == len(SEEDS)


def test_an_arm_without_control_has_no_difference():
    table = batch_table(lambda n, b: 0.2, data=("mnist_small",), models=("mlp", "lenet"))
    partly = table[(table["model.name"] == "lenet") & (table["norm.name"] == "batch")]
    partly = partly.assign(**{"model.normalized": "convolutions"})
    *_, differences, growth = batch_size.details(pd.concat([table, partly]))
    assert [c.label for c in differences.curves[1:]] == ["small MNIST, LeNet", "small MNIST, MLP"]
    assert [c.label.partition(", 32")[0] for c in growth.curves[1:]] == [
        "small MNIST, LeNet", "small MNIST, MLP"
    ]  # fmt: skip


def ghost_table(train_error, test_error, model="resnet", sizes=(2, 64)):
    rows = []
    for m, size, freeze, seed in itertools.product((model,), sizes, (1.0, 0.8), SEEDS):
        rows.append(
            {
                "data.name": "digits", "model.name": m, "norm.name": "ghost", "seed": seed,
                "norm.group_size": size, "norm.freeze_at": freeze,
                "train_error": train_error(size) + abs(noise(size, seed)),
                "test_error": test_error(size, freeze) + noise(size, freeze, seed),
                "test_error_precise": 0.1, "test_error_batch": 0.1 + noise("b", size, seed),
                "test_error_large_batch": 0.1, "diverged_at": np.nan,
                "num_classes": 10, "device": "cpu", "torch": "2",
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def test_normalization_batch_claims_and_figure():
    table = ghost_table(
        lambda size: 0.2 if size == 2 else 0.01,
        lambda size, freeze: 0.1 + (0.2 if (size, freeze) == (2, 1.0) else 0),
    )
    found = verdicts(normalization_batch, table)
    assert found["digits resnet: training noise"].verdict == "supported"
    assert found["digits resnet: frozen finish"].verdict == "supported"
    assert found["digits resnet: inconsistency"].verdict == "supported"
    *_, costs = normalization_batch.headline(table)
    dots = {c.label: c.points["mean"].iloc[0] for c in costs.curves if c.source == "measured"}
    assert dots == {
        "training error": pytest.approx(19, abs=0.5),
        "test error": pytest.approx(20, abs=0.5),
        "test error, won back": pytest.approx(20, abs=0.5),
    }
    figures.draw([*normalization_batch.headline(table), *normalization_batch.details(table)])


def test_no_planted_effect_is_not_supported():
    table = ghost_table(lambda size: 0.01, lambda size, freeze: 0.1)
    assert all(v.verdict != "supported" for v in verdicts(normalization_batch, table).values())


def test_what_vectors_lose_at_groups_of_two_is_a_demonstration():
    table = ghost_table(
        lambda size: 0.3 if size == 2 else 0.01, lambda size, freeze: 0.1, "mlp", (2, 4, 64)
    )
    found = verdicts(normalization_batch, table)
    assert (found["digits mlp: signs"].kind, found["digits mlp: signs"].verdict) == (
        "demonstration", "shown",
    )  # fmt: skip
    # the judged claim is about groups of four, which lose nothing here
    assert "groups of 4" in found["digits mlp: training noise"].text
    assert found["digits mlp: training noise"].verdict != "supported"


def sync_table(together):
    """One process, four apart, and four synchronised with this error."""
    rows = []
    for processes, shared, error in ((1, False, 0.1), (4, False, 0.5), (4, True, together)):
        for seed in SEEDS:
            rows.append(
                {
                    "data.name": "digits", "model.name": "mlp", "norm.name": "batch", "seed": seed,
                    "train.processes": processes, "norm.sync": shared, "train_error": 0.05,
                    "test_error": error + abs(noise(seed)) * (1 + 10 * (error == 0.5)),
                    "diverged_at": np.nan, "num_classes": 10, "device": "cpu", "torch": "2",
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("together", "wanted"), [(0.1, "true"), (0.1025, "false")])
def test_synchronised_processes_are_identical_or_not(together, wanted):
    found = verdicts(sync, sync_table(together))
    assert found["digits mlp: synchronised, 4"].verdict == wanted
    assert found["digits mlp: apart"].verdict == "shown"
    assert not any(v.primary for v in found.values())


def course_table(errors, precise):
    """Two rates of ema_vs_precise with errors at eight checkpoints, the same for all seeds."""
    rows = []
    for lr, seed in itertools.product((1.0, 0.1), SEEDS):
        row = {
            "data.name": "digits", "model.name": "lenet", "norm.name": "batch", "seed": seed,
            "optimizer.lr": lr, "optimizer.schedule": "constant", "least_train_loss": 0.2,
            "train_error": 0.1, "log_sd_ratio": 1 + noise(seed), "precise_1024_error": 0.1,
            "test_error_precise": 0.1 + noise("p", seed), "diverged_at": np.nan,
            "num_classes": 10, "device": "cpu", "torch": "2",
        }  # fmt: skip
        for i in range(8):
            seen = noise(lr, seed, i)
            row[f"ema_error/{i + 1:02d}"] = (errors[i] if lr == 1.0 else precise) + seen
            row[f"corrected_error/{i + 1:02d}"] = precise + noise("c", lr, seed, i)
            row[f"precise_error/{i + 1:02d}"] = precise + noise("q", lr, seed, i)
        rows.append(row)
    return pd.DataFrame(rows)


def test_a_gap_in_the_first_checkpoints_only_is_no_late_gap():
    """Initial values: 40 pp in two of eight checkpoints, nothing behind."""
    found = verdicts(ema_vs_precise, course_table([0.5, 0.5, *[0.1] * 6], 0.1))
    assert found["digits: late gap"].primary
    assert found["digits: late gap"].verdict != "supported"
    assert found["digits: initial values"].mean == pytest.approx(10, abs=0.5)  # 2 / 8 of 40 pp
    assert found["digits: initial values"].low > 5
    found = verdicts(ema_vs_precise, course_table([0.1, 0.1, *[0.2] * 6], 0.1))
    assert found["digits: late gap"].verdict == "supported"
    assert found["digits: late gap"].mean == pytest.approx(10, abs=0.5)
    assert found["digits: not initial values"].verdict != "supported"


def test_every_reading_within_the_margin_moves_the_crossover():
    """Batches of 8 and more are as good as the population, those of 4 and 2 are not."""
    rows = []
    for seed in SEEDS:
        errors = {size: 0.1 + (0.05 if size < 8 else 0) + noise(size, seed) / 10
                  for size in eval_batch.SIZES}  # fmt: skip
        rows.append(
            {
                "data.name": "digits", "model.name": "resnet", "norm.name": "batch", "seed": seed,
                "test_error": 0.1, "train_error": 0.05, "diverged_at": np.nan, "num_classes": 10,
                "prior_16_error_at_4": 0.1 + noise("p", seed), "device": "cpu", "torch": "2",
                "alpha_0.1_error": 0.1 + noise("a", seed),
                **{f"batch_{size}_error": error for size, error in errors.items()},
            }
        )  # fmt: skip
    found = verdicts(eval_batch, pd.DataFrame(rows))
    words = [found[f"digits resnet: batches of {size}"].verdict for size in eval_batch.SIZES]
    assert words == ["supported"] * 3 + ["refuted"] * 2


def notebook_table(theirs=0.2, none=0.3):
    """LeNet at eight checkpoints: its average 5 pp above PreciseBN, errors as given."""
    rows = []
    for norm, seed in itertools.product(("batch", "torch_batch", "none"), SEEDS):
        error = {"batch": 0.2, "torch_batch": theirs, "none": none}[norm] + noise(norm, seed) / 5
        row = {
            "data.name": "mnist", "model.name": "lenet", "norm.name": norm, "seed": seed,
            "test_error": error, "train_error": error, "diverged_at": np.nan, "num_classes": 10,
            "device": "cpu", "torch": "2", "log_sd_ratio": 1 + noise(seed),
            "test_error_precise": error - 0.05,
        }  # fmt: skip
        if norm != "none":
            row |= {f"ema_error/{i:02d}": error for i in range(1, 9)}
            precise = error - 0.05 + noise("precise", norm, seed) / 5
            row |= {f"precise_error/{i:02d}": precise for i in range(1, 9)}
            row |= {f"first_gamma/{i:02d}": 0.5 * i for i in range(1, 7)}
            row |= {f"{name}/{i:02d}": 1.0 for i in (1, 2)
                    for name in ("gamma_mean", "gamma_sd", "beta_mean", "beta_sd")}  # fmt: skip
        rows.append(row)
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("theirs", "wanted"), [(0.2, "supported"), (0.22, "refuted")])
def test_whose_batch_norm_it_is_matters_or_not(theirs, wanted):
    found = verdicts(notebook, notebook_table(theirs))
    assert found["mnist lenet: whose BN"].verdict == wanted
    gap = found["mnist lenet: late gap"]
    assert (gap.primary, gap.verdict) == (True, "supported")
    assert gap.mean == pytest.approx(5, abs=0.2)


def test_without_a_norm_the_error_is_higher_or_lower():
    assert verdicts(notebook, notebook_table())["mnist lenet: tests better"].mean == pytest.approx(
        10, abs=0.5
    )
    worse = verdicts(notebook, notebook_table(none=0.1))["mnist lenet: learns faster"]
    assert worse.mean == pytest.approx(-10, abs=0.5)  # six seeds: undecided after Holm


def test_the_notebooks_numbers_stand_beside_the_measured_ones():
    course, explained, gammas = notebook.headline(notebook_table())
    published = [c for c in course.curves if c.source == "digitised"]
    assert [len(c.points) for c in published] == [10, 10]
    assert explained.curves[-1].points["mean"].tolist() == [-9.9]
    assert gammas.curves[0].points["mean"].tolist() == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert gammas.curves[1].source == "published"
    assert all(panel.curves for panel in notebook.details(notebook_table()))
