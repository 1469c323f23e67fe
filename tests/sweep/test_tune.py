"""The search for settings: what is tried, what is best, when a grid grows and when it stops."""

import math

import pytest

from bnstudy.config import Config
from bnstudy.config.settings import Tune
from bnstudy.config.tuning import Tuning
from bnstudy.errors import UserError
from bnstudy.sweep.tune import EXTENSIONS, Point, beyond, points

LR = "optimizer.lr"


def cell(**parts) -> Config:
    return Config.model_validate({"train": {"epochs": 1}, **parts})


def tuning(axes, shared=()) -> Tuning:
    return Tuning(Tune(axes=axes), tuple(shared))


def searched(point: Point, error, failed=lambda values: 0, seeds=2) -> list[tuple]:
    """Rounds of a search, as the command makes them; the combinations in the order of training."""
    order = []
    for extension in range(EXTENSIONS + 1):
        if extension and not point.extend():
            break
        for values, pilot in point.missing().items():
            order.append(values)
            errors = [error(*values)] * seeds
            point.tried(values, pilot, errors, failed(values), ["a"] * seeds, errors)
    return order


def test_the_best_value_is_that_of_least_error_and_a_grid_with_it_inside_does_not_grow():
    point = Point(tuning({LR: [0.05, 0.1, 0.2]}), {"norm": "batch"}, cell())
    tried = searched(point, lambda lr: abs(lr - 0.11))
    assert tried == [(0.05,), (0.1,), (0.2,)]
    choice = point.choice()
    assert choice.set == {LR: 0.1}
    assert not choice.edge
    assert [trial.set[LR] for trial in choice.trials] == [0.05, 0.1, 0.2]


@pytest.mark.parametrize(
    ("best", "more", "edge"),
    [
        (9.0, [0.4, 0.8], True),  # twice, then it is flagged
        (0.4, [0.4, 0.8], False),  # the second extension shows that 0.4 has a neighbour
        (0.0001, [0.025, 0.0125], True),
        (0.025, [0.025, 0.0125], False),
    ],
)
def test_a_best_value_at_the_edge_extends_the_grid_in_its_own_ratio_twice(best, more, edge):
    point = Point(tuning({LR: [0.05, 0.1, 0.2]}), {}, cell())
    tried = searched(point, lambda lr: abs(math.log(lr / best)))
    assert [lr for (lr,) in tried] == [0.05, 0.1, 0.2, *more]
    choice = point.choice()
    assert choice.edge is edge
    values = [trial.set[LR] for trial in choice.trials]
    assert values == sorted(values)


def test_where_every_pilot_fails_both_ends_are_open_and_the_middle_is_chosen():
    """Which way to go is not known, so both are tried; nothing speaks for an end."""
    point = Point(tuning({LR: [0.1, 0.2]}), {}, cell())
    tried = searched(point, lambda lr: 0.9, failed=lambda values: 2)
    assert sorted(lr for (lr,) in tried) == [0.025, 0.05, 0.1, 0.2, 0.4, 0.8]
    choice = point.choice()
    assert choice.set == {LR: 0.1}
    assert not choice.edge
    assert [trial.failed for trial in choice.trials] == [2] * 6


def test_where_every_pilot_fails_the_one_that_learned_most_is_chosen():
    """An arm that learns too little to count is shown where it learns most, not where least."""
    point = Point(tuning({LR: [0.1, 0.2, 0.4]}), {}, cell())
    for values, pilot in point.missing().items():
        measured = [0.6 if values == (0.4,) else 0.8, 0.7]
        point.tried(values, pilot, [0.9, 0.9], 2, ["a", "b"], measured)
    assert point.choice().set == {LR: 0.4}
    # a combination that did not fail counts before one that did
    point.tried((0.1,), pilot, [0.5, 0.9], 1, ["a", "b"], [0.5, 0.85])
    assert point.choice().set == {LR: 0.1}


def test_equal_errors_choose_the_first_value():
    point = Point(tuning({LR: [0.1, 0.2]}), {}, cell())
    searched(point, lambda lr: 0.2)
    assert point.choice().set == {LR: 0.025}


def test_every_combination_of_two_settings_is_tried_and_the_new_value_with_all_of_the_other():
    point = Point(tuning({LR: [0.1, 0.2], "optimizer.momentum": [0.5, 0.9]}), {}, cell())
    tried = searched(point, lambda lr, momentum: abs(lr - 0.4) + abs(momentum - 0.5))
    assert {(0.4, 0.5), (0.4, 0.9), (0.8, 0.5)} <= set(tried)
    assert len(tried) == len(set(tried))
    assert point.choice().set == {LR: 0.4, "optimizer.momentum": 0.5}


def test_names_are_no_grid_with_edges():
    point = Point(tuning({"optimizer.schedule": ["constant", "step"]}), {}, cell())
    tried = searched(point, lambda name: {"constant": 0.1, "step": 0.2}[name])
    assert tried == [("constant",), ("step",)]
    assert not point.choice().edge


def test_a_value_that_is_not_allowed_ends_the_extension():
    point = Point(tuning({"optimizer.momentum": [0.8, 0.95]}), {}, cell())
    tried = searched(point, lambda momentum: 1 - momentum)
    assert tried == [(0.8,), (0.95,)]  # 1.128 is no momentum
    assert point.choice().edge


@pytest.mark.parametrize(
    ("values", "next_"),
    [
        ([0.05, 0.1], 0.025),
        ([0.2, 0.1], 0.4),
        ([0.1, 0.3], 0.0333333),
        ([0.0, 0.1], None),
        ([-1.0, 1.0], None),
        ([2, 4], 1),
        ([1, 2], None),  # of whole numbers a whole one
        ([40, 10], 160),
    ],
)
def test_the_next_value_continues_the_ratio(values, next_):
    found = beyond(values)
    assert found == next_
    assert type(found) is type(next_)


def test_pilots_are_measured_on_the_validation_part_and_differ_from_their_cell_in_no_more():
    base = cell()
    point = Point(tuning({LR: [0.1, 0.2]}), {}, base)
    ((_, first), (_, second)) = point.missing().items()
    assert first.data.test_part == second.data.test_part == "validation"
    assert second.optimizer.lr == 0.2
    plain = first.model_copy(update={"data": base.data})
    assert plain == base  # whose rate is the first


def test_the_mean_is_over_seeds_and_a_seed_at_chance_counts():
    point = Point(tuning({LR: [0.1, 0.2]}), {}, cell())
    for values, pilot in point.missing().items():
        errors = [0.2, 0.2] if values == (0.1,) else [0.01, 0.9]
        point.tried(values, pilot, errors, 0, ["a", "b"], errors)
    assert point.best == (0.1,)
    assert point.choice().trials[1].val_error == pytest.approx(0.455)


def test_cells_that_differ_in_a_shared_axis_have_one_point_at_its_first_value():
    cells = [
        cell(norm={"name": norm, "num_groups": 2 if norm == "group" else None},
             optimizer={"momentum": momentum})
        for norm in ("batch", "group") for momentum in (0.5, 0.9)
    ]  # fmt: skip
    places = [{"norm": c.norm.name, "optimizer.momentum": c.optimizer.momentum} for c in cells]
    found = points(tuning({LR: [0.1, 0.2]}, ["optimizer.momentum"]), cells, places)
    assert [point.where for point in found] == [{"norm": "batch"}, {"norm": "group"}]
    assert {point.cell.optimizer.momentum for point in found} == {0.5}
    alone = points(tuning({LR: [0.1, 0.2]}), cells, places)
    assert [point.where for point in alone] == places


def test_what_is_measured_and_the_seed_are_no_points_of_their_own():
    cells = [cell(), cell(evaluate={"probes": ["forgetting"]}), cell(seed=3)]
    assert len(points(tuning({LR: [0.1, 0.2]}), cells, [{}, {}, {}])) == 1


def test_a_cell_that_does_not_use_a_setting_is_tuned_in_the_others_only():
    cells = [cell(), cell(norm={"name": "none"})]
    axes = {LR: [0.1, 0.2], "norm.momentum": [0.1, 0.2]}
    batch, none = points(tuning(axes), cells, [{"norm": "batch"}, {"norm": "none"}])
    assert len(batch.missing()) == 4
    assert list(none.missing()) == [(0.1,), (0.2,)]


def test_a_setting_that_no_cell_uses_is_refused():
    with pytest.raises(UserError, match=r"no cell of the grid uses norm\.momentum"):
        points(tuning({"norm.momentum": [0.1, 0.2]}), [cell(norm={"name": "none"})], [{}])


def test_a_value_of_the_wrong_type_is_refused_before_anything_is_trained():
    with pytest.raises(UserError, match=r"optimizer\.lr=fast"):
        points(tuning({LR: ["fast", "slow"]}), [cell()], [{}])
