"""Panels, cells, preconditions and published numbers, on tables of a few rows."""

import math

import pandas as pd
import pytest

from bnstudy.studies import kit


def table(**columns) -> pd.DataFrame:
    base = {"data.name": "digits", "model.name": "mlp", "seed": [0, 1], "train_error": 0.3,
            "device": "cpu", "torch": "2"}  # fmt: skip
    return pd.DataFrame({**base, **columns})


@pytest.mark.parametrize(
    ("classes", "error", "holds"),
    # half of chance is 45 % with ten classes, 25 % with two
    [(10, 0.44, True), (10, 0.46, False), (2, 0.24, True), (2, 0.3, False)],
)
def test_a_network_has_trained_below_half_of_its_own_chance(classes, error, holds):
    assert kit.trained(table(num_classes=classes, train_error=error), "it")[1] is holds


def test_without_a_number_of_classes_images_have_ten_and_a_text_is_unknown():
    assert kit.chance(table()) == 0.9
    text = table(**{"data.name": "text"})
    assert math.isnan(kit.chance(text))
    assert not kit.trained(text, "it")[1]  # unknown is not below


def test_missing_runs_have_not_trained():
    assert not kit.trained(table().iloc[:0], "it")[1]


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
    with pytest.raises(ValueError, match="Allowed: published, digitised, unconfirmed"):
        kit.Published("guessed", "A 2020", "error")
