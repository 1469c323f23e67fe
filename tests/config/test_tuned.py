"""Choices of pilots: what may be tuned, which file counts, and the cells that it changes."""

from dataclasses import replace

import pytest
import yaml

from bnstudy.config import RESULTS_VERSION, tuned
from bnstudy.config.compose import Composer, hydra_session
from bnstudy.config.tuned import Choice, Choices, Trial
from bnstudy.config.tuning import adhoc
from bnstudy.errors import UserError

LR = "optimizer.lr"
STATED = """
title: Mine
claim: Group norm is better.
source: me
rule: equal steps
cost: seconds
expected: nothing
entry: mine
fixed: {model: mlp, data.train_size: 40, train.steps: 4, optimizer.lr: 0.1}
tune: {axes: {optimizer.lr: [0.1, 0.2]}, per: [norm], seeds: 0..1, pilots: 0..3}
scales:
  quick:
    seeds: [10, 11]
    axes: {norm: [batch, group], train.batch_size: [4, 8]}
  smoke:
    seeds: [10]
    axes: {norm: [batch]}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "study").mkdir(parents=True)
    (tmp_path / "conf" / "tuned").mkdir()
    (tmp_path / "conf" / "study" / "mine.yaml").write_text(STATED)
    return tmp_path / "conf"


@pytest.fixture
def composer(folder):
    with hydra_session([str(folder)]) as found:
        yield found


def asked(composer: Composer, *overrides: str):
    return composer.request(list(overrides), study=composer.study("mine"))


def made(request, rates: dict[str, float], **changes) -> Choices:
    """Choices as the command would write them: a rate for each norm."""
    points = {request.tuning.point(c): c.norm.name for c in request.cells}
    choices = [
        Choice(
            where={"norm": norm}, point=point, set={LR: rates[norm]}, edge=False,
            trials=[Trial(set={LR: lr}, val_error=0.1, per_seed=[0.1], failed=0, runs=["a"])
                    for lr in sorted({0.1, 0.2, rates[norm]})],
        )
        for point, norm in points.items()
        if norm in rates
    ]  # fmt: skip
    plain = Choices(
        command="bnstudy tune mine", results_version=RESULTS_VERSION, study="mine", scale="quick",
        grid=request.tuning.grid(request.cells), tune=request.tuning.tune, choices=choices,
    )  # fmt: skip
    return plain.model_copy(update=changes)


def committed(folder, choices: Choices):
    path = folder / "tuned" / f"mine-{choices.scale}.yaml"
    path.write_text(choices.text())
    return path


def rates(request) -> dict[tuple[str, int], float]:
    return {(c.norm.name, c.train.batch_size): c.optimizer.lr for c in request.cells}


def test_without_a_file_the_cells_are_those_of_the_yaml(composer):
    request = asked(composer)
    assert set(rates(request).values()) == {0.1}
    assert request.tuned.hash == ""
    assert request.tuned.chosen == 0


def test_the_file_changes_the_cells_of_its_points_and_nothing_else(composer, folder):
    plain = asked(composer)
    path = committed(folder, made(plain, {"batch": 0.4, "group": 0.05}))
    request = asked(composer)
    assert rates(request) == {("batch", 4): 0.4, ("batch", 8): 0.4,
                              ("group", 4): 0.05, ("group", 8): 0.05}  # fmt: skip
    assert request.tuned.source == str(path)
    assert (request.tuned.chosen, request.tuned.hash) == (4, tuned.read(path, "").hash)
    assert request.points == plain.points
    for tuned_cell, cell in zip(request.cells, plain.cells, strict=True):
        same = tuned_cell.optimizer.model_copy(update={"lr": 0.1})
        assert tuned_cell.model_copy(update={"optimizer": same}) == cell
        assert tuned_cell.cell != cell.cell


def test_published_leaves_the_file_aside(composer, folder):
    committed(folder, made(asked(composer), {"batch": 0.4, "group": 0.4}))
    request = asked(composer, "tune=published")
    assert set(rates(request).values()) == {0.1}
    assert request.tuned.hash == ""


def test_a_cell_without_a_choice_keeps_its_value(composer, folder):
    committed(folder, made(asked(composer), {"batch": 0.4}))
    request = asked(composer)
    assert rates(request)["group", 4] == 0.1
    assert request.tuned.chosen == 2


def test_a_rate_by_hand_wins_as_a_value_and_as_an_axis(composer, folder):
    committed(folder, made(asked(composer), {"batch": 0.4, "group": 0.4}))
    request = asked(composer, "optimizer.lr=0.3")
    assert set(rates(request).values()) == {0.3}
    assert request.tuned.hash == ""
    request = asked(composer, "optimizer.lr=0.3,0.7")
    assert {c.optimizer.lr for c in request.cells} == {0.3, 0.7}
    with pytest.raises(UserError, match="by hand"):
        asked(composer, "optimizer.lr=0.3", "tune=auto")


def test_of_two_settings_the_one_by_hand_wins_and_the_other_is_chosen(folder):
    path = folder / "study" / "mine.yaml"
    path.write_text(STATED.replace("[0.1, 0.2]", "[0.1, 0.2], optimizer.momentum: [0.5, 0.8]"))
    with hydra_session([str(folder)]) as composer:
        both = {LR: 0.2, "optimizer.momentum": 0.5}
        trial = Trial(set=both, val_error=0.1, per_seed=[0.1], failed=0, runs=["a"])
        found = made(asked(composer), {"batch": 0.2, "group": 0.2})
        own = [c.model_copy(update={"set": both, "trials": [trial]}) for c in found.choices]
        committed(folder, found.model_copy(update={"choices": own}))
        request = asked(composer, "optimizer.lr=0.3")
        assert {(c.optimizer.lr, c.optimizer.momentum) for c in request.cells} == {(0.3, 0.5)}


def test_part_of_the_grid_has_its_choices_and_another_experiment_has_none(composer, folder):
    """A shorter axis is the same experiment; other data, or longer training, is another."""
    committed(folder, made(asked(composer), {"batch": 0.4, "group": 0.2}))
    assert rates(asked(composer, "norm=group")) == {("group", 4): 0.2, ("group", 8): 0.2}
    assert rates(asked(composer, "train.batch_size=16")) == {
        ("batch", 16): 0.4, ("group", 16): 0.2,
    }  # fmt: skip
    for other in ("data=contrast_digits", "train.steps=8", "norm.eps=1e-3", "model=lenet"):
        request = asked(composer, other)
        assert request.tuned.chosen == 0, other
        assert set(rates(request).values()) == {0.1}
    assert asked(composer, "evaluate.probes=[forgetting]").tuned.chosen == 4


def test_choices_for_a_grid_of_ones_own_lie_among_the_results(composer, folder):
    """And count where they know more cells than the committed ones."""
    committed(folder, made(asked(composer), {"batch": 0.4, "group": 0.4}))
    words = ("data=contrast_digits", "results_dir=r")
    request = asked(composer, *words)
    path = tuned.file_to_write(request, composer.config_dirs)
    assert path == tuned.own_file(request)
    assert path.parts[:3] == ("r", "runs", "tuned")
    path.parent.mkdir(parents=True)
    path.write_text(made(request, {"batch": 0.8, "group": 0.8}).text())
    assert set(rates(asked(composer, *words)).values()) == {0.8}
    assert set(rates(asked(composer, "results_dir=r")).values()) == {0.4}


def test_the_stated_grid_goes_beside_the_users_studies(composer, folder):
    request = asked(composer, "workers=1", "seeds=[20]", "results_dir=r")
    assert tuned.file_to_write(request, composer.config_dirs) == folder / "tuned/mine-quick.yaml"


def test_a_file_reads_as_it_was_written(composer, tmp_path):
    choices = made(asked(composer), {"batch": 1e-05, "group": 0.1})
    path = tmp_path / "x.yaml"
    path.write_text(choices.text())
    assert tuned.read(path, "") == choices
    assert tuned.read(path, "").text() == choices.text()


def test_the_hash_names_choices_and_evidence_and_not_the_command(composer):
    request = asked(composer)
    choices = made(request, {"batch": 0.4, "group": 0.4})
    assert choices.hash == choices.model_copy(update={"command": "x"}).hash
    assert choices.hash != made(request, {"batch": 0.4, "group": 0.2}).hash


STALE = {  # what is wrong with a file -> what the message holds
    "version": (lambda c: c.model_copy(update={"results_version": 1}), "results version 1"),
    "study": (lambda c: c.model_copy(update={"study": "other"}), "another grid"),
    "scale": (lambda c: c.model_copy(update={"scale": "full"}), "another grid"),
    "grid": (lambda c: c.model_copy(update={"grid": "0" * 16}), "another grid"),
    "set": (
        lambda c: c.model_copy(update={"choices": [c.choices[0].model_copy(
            update={"set": {"optimizer.rate": 0.1}})]}),
        "Did you mean 'optimizer.",
    ),
    "edited": (
        lambda c: c.model_copy(update={"choices": [c.choices[0].model_copy(
            update={"set": {LR: 0.123}})]}),
        "none of the values tried",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", STALE)
def test_a_file_of_another_grid_is_refused_with_the_command_that_remakes_it(composer, folder, what):
    change, says = STALE[what]
    choices = change(made(asked(composer), {"batch": 0.4, "group": 0.4}))
    path = folder / "tuned" / "mine-quick.yaml"
    path.write_text(choices.text())
    with pytest.raises(UserError) as error:
        asked(composer)
    assert says in str(error.value)
    assert str(path) in str(error.value)
    assert "bnstudy tune mine scale=quick" in str(error.value)
    assert "tune=published" in str(error.value)


@pytest.mark.parametrize("text", ["", "a: [", "- 1", "results_version: 3\nchoices: 7\n", "\x00"])
def test_a_damaged_file_is_refused(composer, folder, text):
    (folder / "tuned" / "mine-quick.yaml").write_text(text)
    with pytest.raises(UserError, match="bnstudy tune mine scale=quick"):
        asked(composer)


@pytest.mark.parametrize(
    "change",
    [
        ("optimizer.lr: [0.1, 0.2]", "optimizer.lr: [0.1, 0.2, 0.4]"),
        ("seeds: 0..1", "seeds: 0..2"),
        ("train.steps: 4", "train.steps: 5"),
        ("norm: [batch, group]", "norm: [batch, layer]"),
    ],
)
def test_an_edited_study_refuses_its_old_choices_with_overrides_or_without(folder, change):
    with hydra_session([str(folder)]) as composer:
        committed(folder, made(asked(composer), {"batch": 0.4, "group": 0.4}))
        assert asked(composer).tuned.chosen == 4
    path = folder / "study" / "mine.yaml"
    path.write_text(path.read_text().replace(*change))
    with hydra_session([str(folder)]) as composer:
        for overrides in ([], ["norm=batch"]):
            with pytest.raises(UserError, match="another grid"):
                asked(composer, *overrides)


def test_titles_and_the_pilots_of_the_power_computation_leave_the_choices_valid(folder):
    with hydra_session([str(folder)]) as composer:
        committed(folder, made(asked(composer), {"batch": 0.4, "group": 0.4}))
    path = folder / "study" / "mine.yaml"
    path.write_text(path.read_text().replace("0..3", "0..5").replace("title: Mine", "title: Ours"))
    with hydra_session([str(folder)]) as composer:
        assert asked(composer).tuned.chosen == 4


def test_pilots_among_the_seeds_of_a_command_are_refused(composer, folder):
    assert asked(composer, "seeds=2").seeds == (0, 1), "without choices there are no pilots"
    committed(folder, made(asked(composer), {"batch": 0.4, "group": 0.4}))
    for words in (["seeds=2"], ["seeds=[3,20]"], ["seeds=2", "tune=auto"]):
        with pytest.raises(UserError, match=r"(is a pilot|are pilots).*seeds=4\.\.15"):
            asked(composer, *words)
    assert asked(composer, "seeds=2", "tune=published").seeds == (0, 1)


BAD = {  # under tune: -> what the message holds
    "{axes: {}}": "no setting is named",
    "{}": "tune.axes",
    "{axes: {optimizer.lr: []}}": "nothing to choose",
    "{axes: {optimizer.lr: [0.1]}}": "nothing to choose",
    "{axes: {optimizer.lr: [0.2, 0.1]}}": "must ascend",
    "{axes: {optimizer.lr: [0.1, 0.1]}}": "must ascend",
    "{axes: {optimizer.rl: [0.1, 0.2]}}": "Did you mean 'optimizer.lr'",
    "{axes: {lr: [0.1, 0.2]}}": "Did you mean 'optimizer.lr'",
    "{axes: {norm: [batch, group]}}": "norm cannot be tuned",
    "{axes: {data.train_size: [10, 20]}}": "data.train_size cannot be tuned",
    "{axes: {workers: [1, 2]}}": "workers cannot be tuned",
    "{axes: {train.batch_size: [2, 4]}}": "is an axis of the study",
    "{axes: {optimizer.lr: [0.1, 0.2]}, per: [nrom]}": "Did you mean 'norm'",
    "{axes: {optimizer.lr: [0.1, 0.2]}, seeds: 9..10}": "seed 10 is a pilot, which",
    "{axes: {optimizer.lr: [0.1, 0.2]}, pilots: 0..11}": "seeds 10, 11 are pilots",
    "{axes: {optimizer.lr: [0.1, 0.2]}, seeds: few}": "seeds must be",
    "{axis: {optimizer.lr: [0.1, 0.2]}}": "unknown key 'tune.axis'. Did you mean 'tune.axes'?",
    "{axes: {optimizer.lr: [0.1, 0.2]}, pilotz: 3}": (
        "Allowed: tune.axes, tune.per, tune.seeds, tune.pilots"
    ),
}


@pytest.mark.parametrize("block", BAD)
def test_tuning_that_cannot_be_done_is_refused_when_the_study_is_read(folder, block):
    path = folder / "study" / "mine.yaml"
    line = next(row for row in STATED.splitlines() if row.startswith("tune:"))
    path.write_text(STATED.replace(line, f"tune: {block}"))
    with hydra_session([str(folder)]) as composer, pytest.raises(UserError) as error:
        composer.study("mine")
    assert BAD[block] in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("values", ["[slow, fast]", "[-0.1, 0.1]"])
def test_a_value_that_is_not_allowed_is_refused_when_the_study_is_planned(folder, values):
    path = folder / "study" / "mine.yaml"
    path.write_text(STATED.replace("[0.1, 0.2]", values))
    first = values[1:].partition(",")[0]
    with hydra_session([str(folder)]) as composer, pytest.raises(UserError) as error:
        asked(composer)
    assert str(error.value).startswith(f"{path}: tune: optimizer.lr={first} is not allowed")


def test_an_unknown_key_of_a_scales_tuning_lists_those_of_tune(folder):
    path = folder / "study" / "mine.yaml"
    own = "seeds: [10]\n    tune: {axes: {optimizer.lr: [0.3, 0.6]}, pilotz: 1}"
    path.write_text(STATED.replace("seeds: [10]", own))
    with hydra_session([str(folder)]) as composer, pytest.raises(UserError) as error:
        composer.study("mine")
    assert "Did you mean 'scales.smoke.tune.pilots'?" in str(error.value)
    assert str(error.value).endswith("scales.smoke.tune.seeds, scales.smoke.tune.pilots")


def test_a_scale_may_tune_otherwise_than_its_study(folder):
    path = folder / "study" / "mine.yaml"
    own = "seeds: [10]\n    tune: {axes: {optimizer.lr: [0.3, 0.6]}, seeds: 1}"
    path.write_text(STATED.replace("seeds: [10]", own))
    with hydra_session([str(folder)]) as composer:
        assert asked(composer, "scale=smoke").tuning.tune.axes == {LR: [0.3, 0.6]}
        assert asked(composer).tuning.tune.axes == {LR: [0.1, 0.2]}


def test_auto_needs_something_to_tune(composer):
    with pytest.raises(UserError, match="nothing to tune"):
        composer.request(["tune=auto"])


def test_another_word_than_the_three_is_refused_with_the_nearest(composer):
    with pytest.raises(UserError, match=r"tune=comitted.*Did you mean 'committed'"):
        asked(composer, "tune=comitted")


def test_the_text_of_a_comparison_names_settings_and_pilots_beyond_its_seeds(composer):
    found = adhoc("optimizer.lr=0.1,0.2; optimizer.momentum=0.5,0.9", [0, 7], composer.choices)
    assert found.tune.axes == {LR: [0.1, 0.2], "optimizer.momentum": [0.5, 0.9]}
    assert found.tune.seeds == [8, 9, 10]
    request = composer.request(["norm=batch,group", "tune=optimizer.lr=0.1,0.2", "seeds=3"])
    assert request.tuning.tune.seeds == [3, 4, 5]
    assert request.settings.tune == "auto"
    assert len({request.tuning.point(c) for c in request.cells}) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tune=optimizer.rl=0.1,0.2"], "Did you mean 'optimizer.lr'"),
        (["tune=optimizer.lr=0.1"], "nothing to choose"),
        (["tune=optimizer.lr=0.1,0.2;optimizer.lr=0.3,0.4"], "twice"),
        (["tune=optimizer.lr=0.1,0.2", "tune=optimizer.lr=0.3,0.4"], "2 times"),
        (["tune=optimizer.lr=0.1,0.2", "optimizer.lr=0.3"], "tuned and given"),
        (["tune=optimizer.lr=0.1,0.2", "optimizer.lr=0.3,0.4"], "tuned and given"),
        (["tune=optimizer.lr=0.1,slow"], "optimizer.lr=slow"),
        (["tune=data.contrast=0.1,0.2"], "cannot be tuned"),
    ],
)
def test_mistakes_in_the_text_of_a_comparison(composer, words, says):
    with pytest.raises(UserError) as error:
        composer.request(["norm=batch,group", *words])
    assert says in str(error.value)


def test_a_study_takes_no_text(composer):
    with pytest.raises(UserError, match="in its YAML"):
        asked(composer, "tune=optimizer.lr=0.1,0.2")


def test_choices_made_on_other_data_on_disk_are_refused(composer, folder):
    request = asked(composer)
    choices = made(request, {"batch": 0.4, "group": 0.4})
    outside = [c.model_copy(update={"outside": {"data.fingerprint": "old"}})
               for c in choices.choices]  # fmt: skip
    request = tuned.applied(request, choices.model_copy(update={"choices": outside}), "file")
    tuned.check_outside(replace(request, tuned=tuned.Tuned()), request.cells)
    with pytest.raises(UserError, match=r"another data\.fingerprint \(old, now \)"):
        tuned.check_outside(request, request.cells)


def test_the_file_is_plain_yaml(composer):
    text = made(asked(composer), {"batch": 1e-05, "group": 0.1}).text()
    assert yaml.safe_load(text)["choices"][0]["set"] == {LR: 1e-05}
