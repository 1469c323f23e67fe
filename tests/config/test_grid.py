"""Grids: every combination once, and settings only where they are used."""

import pytest

from bnstudy.config.grid import matches
from bnstudy.errors import UserError


def cells(composer, words: str, study=None):
    return composer.request(words.split(), study=study).cells


def cell(composer, words: str):
    (found,) = cells(composer, words)
    return found


def test_a_grid_is_every_combination_once(composer):
    request = composer.request(["norm=batch,group", "train.batch_size=2,4,8", "optimizer.lr=1,1.0"])
    assert {(c.norm.name, c.train.batch_size) for c in request.cells} == {
        (n, b) for n in ("batch", "group") for b in (2, 4, 8)
    }
    assert len(request.cells) == len({c.cell for c in request.cells}) == 6
    points = [(p["norm"], p["train.batch_size"]) for p in request.points]
    assert points == [(c.norm.name, c.train.batch_size) for c in request.cells]


def test_a_grid_gives_the_cells_that_single_commands_give(composer):
    """Expanding on the typed config is a shortcut: Hydra composing each cell is what is meant."""
    grid = cells(composer, "norm=batch,ghost data=digits,contrast_digits norm.eps=0.5,0.1")
    single = [
        cell(composer, f"norm={n} data={d} norm.eps={e}")
        for n in ("batch", "ghost")
        for d in ("digits", "contrast_digits")
        for e in (0.5, 0.1)
    ]
    assert [c.address for c in grid] == [c.address for c in single]


def test_values_of_a_group_do_not_leak_into_its_siblings(composer):
    by_name = {c.norm.name: c.norm for c in cells(composer, "norm=group,ghost,batch")}
    assert by_name["batch"].group_size is None
    assert by_name["batch"].channels_per_group is None
    assert by_name["ghost"].channels_per_group is None
    assert by_name["group"].group_size is None


@pytest.mark.parametrize(
    ("word", "sizes"),
    [("train.batch_size=range(2,5)", [2, 3, 4]), ("train.batch_size=4,2", [4, 2])],
)
def test_hydras_ways_to_write_a_list(composer, word, sizes):
    assert [c.train.batch_size for c in cells(composer, word)] == sizes


def test_glob_takes_the_choices_of_a_group(composer):
    expected = {n for n in composer.choices("norm") if n.startswith("g")}
    assert {c.norm.name for c in cells(composer, "norm=glob(g*)")} == expected > {"group"}


def named(composer, words: str, study=None):
    """Cells of a request by their norm, each once."""
    found = cells(composer, words, study)
    assert len({c.norm.name for c in found}) == len(found)
    return {c.norm.name: c for c in found}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("model=mlp model.width=8,16", r"model\.width=16: mlp model has no width.*model=resnet"),
        ("model=mlp,lenet model.width=16", r"model\.width=16: mlp model has no width"),
        ("norm=layer norm.momentum=0.2", r"norm\.momentum=0.2: layer norm has no momentum"),
        ("norm=group,layer norm.freeze_at=0.5", r"freeze_at=0.5: group norm .*norm=batch, ghost"),
        ("norm=batch norm.entry=my:f", r"norm\.entry=my:f: batch norm .*norm=custom"),
        ("norm=layer norm.sync=true", r"norm\.sync=true: layer norm has no sync"),
        ("norm=batch norm.scope=sequence", r"scope=sequence: batch norm.* in a recurrent network"),
        ("optimizer.beta2=0.9", r"beta2=0.9: sgd optimizer .*optimizer=adam"),
        ("data.length=20,30", r"data\.length=20: digits data .*data=text, adding"),
    ],
)
def test_a_setting_that_no_cell_uses_is_refused_by_name(composer, words, said):
    with pytest.raises(UserError, match=said):
        cells(composer, words)


@pytest.mark.parametrize("words", ["norm=layer norm.group_size=null", "model=mlp model.width=8"])
def test_a_default_spelled_out_is_no_mistake(composer, words):
    plain = cells(composer, words.partition(" ")[0])
    assert [c.cell for c in cells(composer, words)] == [c.cell for c in plain]


@pytest.mark.parametrize(
    ("words", "alone", "arm"),
    [
        ("norm=batch,custom norm.entry=my:f", "norm=batch", "batch"),
        ("norm=batch,layer norm.momentum=0.2,0.3", "norm=layer", "layer"),
        ("norm=ghost,none norm.eps=0.1 norm.affine=none", "norm=none", "none"),
        ("norm=group,batch norm.num_groups=2", "norm=batch", "batch"),
        ("norm=ghost,layer norm.freeze_at=1.0,0.8", "norm=layer", "layer"),
    ],
)
def test_a_setting_of_other_arms_leaves_the_address_of_an_arm_as_it_is(composer, words, alone, arm):
    found = [c for c in cells(composer, words) if c.norm.name == arm]
    assert [c.address for c in found] == [c.address for c in cells(composer, alone)]


def test_cells_that_become_equal_are_one_at_the_first_point(composer):
    request = composer.request(["model=mlp,resnet", "model.width=16,32"])
    assert [(c.model.name, c.model.width) for c in request.cells] == [
        ("mlp", 8), ("resnet", 16), ("resnet", 32),
    ]  # fmt: skip
    assert [p["model.width"] for p in request.points] == [16, 16, 32]


def test_a_setting_in_a_study_counts_only_where_it_is_used(composer):
    """What a YAML fixes for some arms is no mistake in a command that leaves those arms out."""
    study = composer.study("recurrent_gradient").model_copy(
        update={"fixed": {"norm.momentum": 0.5}, "exclude": []}
    )
    words = "scale=smoke train.epochs=1 data.image_size=null data.sequence=none norm.gamma_init=1"
    both = named(composer, f"{words} model=mlp model.recurrent_init=orthogonal norm=batch,layer "
                           "model.hidden=[64,32]", study)  # fmt: skip
    assert both["batch"].norm.momentum == 0.5
    assert both["layer"].norm.momentum == 0.1


def test_length_null_and_the_default_length_are_one_cell(composer):
    for data in ("adding", "parity", "copy", "text"):
        (found,) = cells(composer, f"data={data} data.length=50,null model=recurrent")
        assert found.data.length == 50


@pytest.mark.parametrize(
    ("rule", "hit"),
    [
        ({"norm": "batch"}, True),
        ({"norm": ["group", "batch"]}, True),
        ({"norm": "group"}, False),
        ({"norm": "batch", "train.batch_size": 2}, True),
        ({"norm": "batch", "train.batch_size": [4, 8]}, False),
        ({"norm.name": "batch"}, True),
        ({"norm": "mine"}, True),
        ({"norm.name": "mine"}, False),
    ],
)
def test_a_rule_matches_when_all_of_it_does(rule, hit):
    flat = {"norm": "mine", "norm.name": "batch", "train.batch_size": 2}
    assert matches(flat, rule) is hit
