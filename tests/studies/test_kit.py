"""Panels, cells, preconditions and published numbers, on tables of a few rows."""

import pandas as pd
import pytest

from bnstudy import stats
from bnstudy.studies import kit


def table(**columns) -> pd.DataFrame:
    base = {"data.name": "digits", "model.name": "mlp", "seed": [0, 1], "train_error": 0.3,
            "device": "cpu", "torch": "2"}  # fmt: skip
    return pd.DataFrame({**base, **columns})


@pytest.mark.parametrize(
    ("classes", "error", "holds"),
    # half of chance is 45 % with ten classes, 25 % with two
    [(10, 0.44, True), (10, 0.45, True), (10, 0.46, False), (2, 0.24, True), (2, 0.3, False)],
)
def test_a_network_has_trained_below_half_of_its_own_chance(classes, error, holds):
    assert kit.trained(table(num_classes=classes, train_error=error), "it")[1] is holds


def test_one_failed_run_fails_the_precondition_and_is_named():
    """The mean of 0.0 and 0.61 is below the limit of 0.45, which hid such runs before."""
    text, holds, detail = kit.trained(table(num_classes=10, train_error=[0.0, 0.61]), "it")
    assert not holds
    assert detail == "train_error of 1 of 2 runs: seed 1 61 %"
    assert text == "it trains in every run"


def test_many_failed_runs_are_counted():
    rows = pd.concat([table(num_classes=10, train_error=0.9).assign(seed=s) for s in range(5)])
    detail = kit.trained(rows, "it")[2]
    assert detail.startswith("train_error of 10 of 10 runs: seed 0 90 %")
    assert detail.endswith("and 5 more")


def test_a_diverged_run_has_failed_whatever_its_error():
    rows = table(num_classes=10, train_error=0.0, diverged_at=[None, 7.0])
    assert list(kit.failed(rows)) == [False, True]


def test_a_run_without_a_training_error_has_failed():
    assert list(kit.failed(table(num_classes=10, train_error=[0.1, float("nan")]))) == [False, True]


def test_a_text_fails_at_the_loss_of_guessing():
    """An error of 60 % is a good one for the next of 64 characters; ln 64 = 4.16 nats."""
    rows = table(**{"data.name": "text"}, num_classes=64, train_error=0.6, train_loss=[2.0, 4.2])
    assert list(kit.failed(rows)) == [False, True]


def test_a_text_has_fitted_below_a_loss_in_every_run():
    rows = table(train_loss=[2.0, 3.5])
    assert kit.fitted(rows, "it", 4.0)[1]
    assert kit.fitted(rows, "it", 3.0)[1:] == (False, "train_loss of 1 of 2 runs: seed 1 3.5 nats")
    assert not kit.fitted(table(train_loss=[2.0, float("nan")]), "it", 3.0)[1]


def test_chance_needs_the_number_of_classes():
    with pytest.raises(ValueError, match="no column num_classes"):
        kit.trained(table(), "it")
    with pytest.raises(ValueError, match="no column num_classes"):
        kit.chance(table(num_classes=[10, None]))


@pytest.mark.parametrize(
    ("sizes", "model", "wanted"),
    [
        ([64, 2, 4], "mlp", (4, True)),
        ([64, 2, 4], "resnet", (2, False)),
        ([4, 32], "mlp", (4, False)),
        ([2, 32], "mlp", (2, False)),  # nothing else below the largest: a demonstration only
    ],
)
def test_what_vectors_lose_over_two_examples_is_not_judged(sizes, model, wanted):
    assert kit.smallest_judged(sizes, model) == wanted


def test_missing_runs_have_not_trained():
    assert kit.trained(table(num_classes=10).iloc[:0], "it")[1:] == (False, "no run")


def test_failures_are_counted_with_the_exact_interval():
    """Clopper & Pearson: none of n has the upper limit 1 - 0.025^(1 / n), all of n its mirror."""
    rows = pd.concat(
        [
            table(num_classes=10, train_error=error, **{"norm.name": norm, "norm.momentum": m})
            for norm, m, error in (("batch", None, 0.9), ("batch", 0.1, 0.0))
        ]
    )
    found = kit.failures(rows, ["norm.name", "norm.momentum"])
    assert list(found["norm.name"]) == ["batch", "batch"]
    assert list(found["n"]) == [2, 2]
    (none,) = found[found["norm.momentum"] == 0.1].itertuples()
    (all_,) = found[found["norm.momentum"].isna()].itertuples()
    assert (none.failed, all_.failed) == (0, 2)
    assert (none.rate, none.low) == (0, 0)
    assert none.high == pytest.approx(1 - 0.025**0.5)
    assert (all_.rate, all_.high) == (1, 1)
    assert all_.low == pytest.approx(0.025**0.5)


def test_failure_rates_are_differenced_by_seed():
    arms = {"a": [0.9, 0.9], "b": [0.9, 0.1]}
    rows = pd.concat(
        [table(num_classes=10, train_error=e, **{"norm.name": n}) for n, e in arms.items()]
    )
    (panel,) = kit.panels(rows)
    found = panel.failure_difference({"norm.name": "a"}, {"norm.name": "b"})
    assert found == {0: 0.0, 1: 100.0}


def claim(name, primary=False):
    return stats.Claim(name, name, "greater", {0: 1.0}, primary=primary)


def test_a_sequence_begins_at_the_primary_claim():
    found = kit.sequence(claim("a", primary=True), claim("b"), claim("c"))
    assert [c.after for c in found] == ["", "a", "b"]
    found = kit.sequence(claim("a"), claim("b"))
    assert [c.after for c in found] == ["", ""]


def test_none_selects_what_is_not_set():
    rows = table(**{"norm.momentum": [0.1, None]})
    assert list(kit.select(rows, {"norm.momentum": None})["seed"]) == [1]
    assert list(kit.select(rows, {"norm.momentum": 0.1})["seed"]) == [0]


def test_a_setting_at_its_neutral_value_is_filled_in():
    partly = table(**{"train.processes": [2, None]})
    for rows, wanted in ((partly, [2, 1]), (table(), [1, 1])):
        assert list(kit.filled(rows, {"train.processes": 1})["train.processes"]) == wanted
    assert kit.filled(table(), {"norm.group_size": None})["norm.group_size"].isna().all()


def test_the_main_panel_comes_first_and_the_others_in_a_fixed_order():
    names = [("mnist", "mlp"), ("digits", "mlp"), ("digits", "resnet")]
    rows = pd.concat([table(**{"data.name": d, "model.name": m}) for d, m in names])
    assert [p.key for p in kit.panels(rows)] == ["digits resnet", "digits mlp", "mnist mlp"]
    found = kit.panels(rows, model="mlp")
    assert [p.key for p in found] == ["digits mlp", "digits resnet", "mnist mlp"]
    assert [p.main for p in found] == [True, False, False]
    assert kit.panels(rows, model="lenet")[0].main  # the first where there is no such panel


def test_published_numbers_carry_their_kind_into_every_claim():
    numbers = kit.Published("digitised", "A 2020", "error", {"size": [2, 4], "bn": [16.6, 9.8]})
    effect = numbers.at("bn", size=2) - numbers.at("bn", size=4)  # 6.800000000000001
    assert numbers.cite("{} pp", effect) == {
        "published": "+6.8 pp (digitised)",
        "published_effect": 6.8,
    }
    assert list(numbers.curve("bn", "size")["mean"]) == [16.6, 9.8]
    assert numbers.cite("{} pp", numbers.at("bn", size=3) - 1) == {}  # no number for 3
    with pytest.raises(ValueError, match="Allowed: published, digitised, unconfirmed"):
        kit.Published("guessed", "A 2020", "error")
