"""From words on a command line to typed cells: what wins over what."""

import math
from itertools import permutations

import pytest

from bnstudy.config import CONFIGS
from bnstudy.config.compose import hydra_session
from bnstudy.config.grid import value_of
from bnstudy.config.settings import seed_list
from bnstudy.errors import UserError


def cells(composer, words: str, study=None):
    return composer.request(words.split(), study=study).cells


def cell(composer, words: str):
    (found,) = cells(composer, words)
    return found


def test_without_a_word_it_is_the_defaults(composer):
    default = cell(composer, "")
    assert (default.data.name, default.model.name, default.norm.name) == (
        "digits", "resnet", "batch",
    )  # fmt: skip
    assert (default.data.train_size, default.train.epochs) == (600, 6)
    assert composer.request([]).seeds == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_a_plus_means_nothing(composer, prefix):
    assert cell(composer, f"{prefix}norm.eps=0.5").norm.eps == 0.5
    assert cell(composer, f"{prefix}norm=layer").norm.name == "layer"


@pytest.mark.parametrize("lr", ["1", "1.0", "1e0"])
def test_one_number_is_one_run_however_it_is_typed(composer, lr):
    assert cell(composer, f"optimizer.lr={lr}").address == cell(composer, "optimizer.lr=1").address


def test_the_order_of_words_means_nothing(composer):
    words = ["norm=group", "norm.eps=0.5", "norm.num_groups=2", "optimizer=adam", "optimizer.lr=1"]
    found = {composer.request(list(p)).cells[0].address for p in list(permutations(words))[::40]}
    assert len(found) == 1
    assert cell(composer, " ".join(words)).norm.eps == 0.5


@pytest.mark.parametrize(
    ("word", "left"),
    [
        ("train.steps=3", (None, 3, None)),
        ("train.examples=64", (None, None, 64)),
        ("train.epochs=2", (2, None, None)),
        ("train.epochs=null train.steps=3", (None, 3, None)),
    ],
)
def test_one_duration_clears_the_others(composer, word, left):
    train = cell(composer, word).train
    assert (train.epochs, train.steps, train.examples) == left
    study = composer.study("normalization_batch")  # its smoke grid fixes train.epochs
    for found in cells(composer, f"scale=smoke {word}", study):
        assert (found.train.epochs, found.train.steps, found.train.examples) == left


@pytest.mark.parametrize("scale", ["smoke", "quick"])
def test_train_size_null_means_all_where_somebody_says_so(composer, scale):
    budget = {"smoke": 200, "quick": 600}[scale]
    assert cell(composer, f"scale={scale}").data.train_size == budget
    assert cell(composer, f"scale={scale} data.train_size=null").data.train_size is None
    both = cells(composer, f"scale={scale} data.train_size=null,40")
    assert [c.data.train_size for c in both] == [None, 40]
    study = composer.study("batch_size")
    for found in cells(composer, f"scale={scale} data.train_size=null", study):
        assert found.data.train_size is None


def test_num_groups_clears_channels_per_group(composer):
    norm = cell(composer, "norm=group norm.num_groups=2").norm
    assert (norm.num_groups, norm.channels_per_group) == (2, None)
    for found in cells(composer, "norm=group norm.num_groups=1,2"):
        assert found.norm.channels_per_group is None


@pytest.mark.parametrize(
    ("word", "seeds"),
    [("seeds=2", (0, 1)), ("seeds=[3,7]", (3, 7)), ("seeds=[7,3,3]", (3, 7)), ("seeds=[5]", (5,))],
)
def test_forms_of_seeds(composer, word, seeds):
    assert composer.request([word]).seeds == seeds


# --- studies --------------------------------------------------------------------------------------

STUDIES = sorted(p.stem for p in (CONFIGS / "study").glob("*.yaml"))


def scales() -> list[tuple[str, str]]:
    with hydra_session() as composer:
        return [(s, scale) for s in STUDIES for scale in composer.study(s).scales]


@pytest.mark.parametrize(("name", "scale"), scales())
def test_every_study_composes_at_every_scale(composer, name, scale):
    study = composer.study(name)
    request = composer.request([f"scale={scale}"], study=study)
    assert request.settings.scale.name == scale
    axes = study.scales[scale].axes
    product = math.prod(len(values) for values in axes.values())
    found = len(request.cells) + request.excluded
    # networks that do not have the choice are one cell for both of its values
    choices = {"model.normalized", "norm.backend"} & axes.keys()
    assert found <= product if choices else found == product
    for axis, values in axes.items():
        met = [point[axis] for point in request.points]
        assert not [value for value in values if value not in met], axis
    assert len({c.cell for c in request.cells}) == len(request.cells) > 1
    for found in request.cells:
        lengths = (found.train.epochs, found.train.steps, found.train.examples)
        assert any(length is not None for length in lengths)
    if request.tuning:
        _tuned_apart(request)


def _tuned_apart(request):
    """Cells that differ in what a study tunes for never share a choice."""
    keys = [key if "." in key else f"{key}.name" for key in request.tuning.tune.per]
    values = {}
    for cell in request.cells:
        there = tuple(str(value_of(cell, key)) for key in keys)
        values.setdefault(request.tuning.point(cell), set()).add(there)
    assert [found for found in values.values() if len(found) > 1] == []


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_says_everything_before_it_runs(composer, name):
    study = composer.study(name)
    assert study.name == name
    assert {"smoke", "quick", "full"} <= study.scales.keys()
    for field in ("title", "claim", "source", "rule", "cost", "expected"):
        assert len(getattr(study, field)) > 10


def test_seeds_of_studies_are_not_the_pilots(composer):
    """Pilots choose settings on seeds 0 to 9: the same seeds again would confirm themselves."""
    for name in STUDIES:
        for grid in composer.study(name).scales.values():
            assert not set(seed_list(grid.seeds)) & set(range(10))


def test_an_unknown_study_lists_the_studies(composer):
    with pytest.raises(UserError, match=r"batch_sise.*Did you mean 'batch_size'"):
        composer.study("batch_sise")


def test_the_command_line_wins_over_axes_fixed_values_and_seeds(composer):
    study = composer.study("batch_size")
    request = composer.request(
        ["scale=smoke", "norm=layer", "train.batch_size=4,8", "optimizer.lr=0.3", "seeds=[1]"],
        study=study,
    )
    assert {(c.norm.name, c.train.batch_size, c.optimizer.lr) for c in request.cells} == {
        ("layer", 4, 0.3),
        ("layer", 8, 0.3),
    }
    assert request.seeds == (1,)
    assert {c.data.name for c in request.cells} == set(study.scales["smoke"].axes["data"])


def test_one_value_for_an_axis_replaces_the_axis(composer):
    request = composer.request(
        ["scale=smoke", "train.batch_size=4", "norm=layer"], study=composer.study("batch_size")
    )
    assert {k for k, _ in request.axes} == {"data", "model"}
    assert {(c.train.batch_size, c.norm.name) for c in request.cells} == {(4, "layer")}


def test_a_further_axis_multiplies_a_study(composer):
    study = composer.study("batch_size")
    plain = composer.request(["scale=smoke"], study=study)
    more = composer.request(["scale=smoke", "norm.eps=0.1,0.2"], study=study)
    assert len(more.cells) == 2 * len(plain.cells)


def test_impossible_combinations_are_left_out_and_counted(composer):
    study = composer.study("batch_size")
    request = composer.request(["scale=full"], study=study)
    assert request.excluded > 0
    assert not [c for c in request.cells if c.norm.name == "instance" and c.model.name == "mlp"]
    assert [c for c in request.cells if c.norm.name == "instance" and c.model.name == "resnet"]


def test_a_study_of_which_nothing_is_left_is_refused(composer):
    with pytest.raises(UserError, match="excludes every combination"):
        composer.request(
            ["scale=smoke", "norm=instance", "model=mlp"], study=composer.study("batch_size")
        )


@pytest.mark.parametrize("word", ["scale=nope", "scale=smoke,quick"])
def test_a_study_runs_at_one_scale_of_its_own(composer, word):
    with pytest.raises(UserError, match="scale"):
        composer.request([word], study=composer.study("batch_size"))


# --- folders of one's own -------------------------------------------------------------------------

OWN_STUDY = """
title: A study of my own
claim: Mine is better.
source: me
rule: equal steps
cost: seconds
expected: nothing
fixed: {train.steps: 3, norm.momentum: null}
exclude:
  - {norm: mine, train.batch_size: 4}
scales:
  quick:
    seeds: 2
    axes: {norm: [batch, mine], train.batch_size: [2, 4]}
"""


@pytest.fixture(params=["own", "own, with (odd) [signs] and 'quotes'"])
def own(request, tmp_path):
    folder = tmp_path / request.param
    for group in ("study", "norm"):
        (folder / group).mkdir(parents=True)
    (folder / "study" / "own.yaml").write_text(OWN_STUDY)
    (folder / "norm" / "mine.yaml").write_text("name: group\nnum_groups: 4\n")
    (folder / "norm" / "typo.yaml").write_text("name: group\nnum_grups: 4\n")
    (folder / "norm" / "broken.yaml").write_text("name: [group\n")
    (folder / "study" / "bare.yaml").write_text("titel: x\n")
    return folder


def test_a_study_and_a_norm_of_ones_own(own):
    with hydra_session([str(own)]) as composer:
        assert {"own", "batch_size"} <= set(composer.choices("study"))
        request = composer.request([], study=composer.study("own"))
        assert [(c.norm.name, c.norm.num_groups, c.train.batch_size) for c in request.cells] == [
            ("batch", None, 2), ("batch", None, 4), ("group", 4, 2),
        ]  # fmt: skip
        assert request.excluded == 1
        assert request.seeds == (0, 1)
        assert all(c.train.steps == 3 for c in request.cells)
        # group norm has no momentum: what is fixed for batch norm is no part of its cells
        assert [c.norm.momentum for c in request.cells] == [None, None, 0.1]
        assert [p["norm"] for p in request.points] == ["batch", "batch", "mine"]


def test_a_folder_of_ones_own_is_gone_with_its_session(own):
    with hydra_session([str(own)]):
        pass
    with hydra_session() as composer, pytest.raises(UserError, match="unknown norm 'mine'"):
        composer.request(["norm=mine"])


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("norm=mien", "Did you mean 'mine'"),
        ("norm=typo", r"unknown key 'norm.num_grups'. Did you mean 'norm.num_groups'"),
        ("norm=broken", "not valid YAML"),
    ],
)
def test_mistakes_in_a_folder_of_ones_own(own, word, said):
    with hydra_session([str(own)]) as composer, pytest.raises(UserError, match=said):
        composer.request([word])


def test_the_values_of_a_file_must_be_used(tmp_path):
    """A choice's own file cannot mean its settings for somebody else: dropping them is no help."""
    (tmp_path / "norm").mkdir()
    (tmp_path / "norm" / "mine.yaml").write_text("name: layer\ngroup_size: 4\n")
    with hydra_session([str(tmp_path)]) as composer:
        for words in (["norm=mine"], ["norm=ghost,mine"]):
            with pytest.raises(UserError, match=r"norm\.group_size=4: layer norm"):
                composer.request(words)


BAD = {  # a study's file -> what the one message holds beside its path
    "titel: x\n": ["'titel'", "Did you mean 'title'", "it lacks title, claim", "scales"],
    "": ["it lacks title, claim"],
    "[a, b]\n": ["a mapping"],
    "claim: [x\n": ["not valid YAML"],
    "claim: ${nope}\n": ["nope"],
    OWN_STUDY.replace("axes:", "axis:"): ["'scales.quick.axis'", "'scales.quick.axes'"],
    OWN_STUDY.replace("train.steps", "train.stps"): ["'train.stps'", "'train.steps'"],
}


@pytest.mark.parametrize("text", BAD)
def test_a_study_that_is_stated_badly_is_one_message_with_its_path(own, text):
    file = own / "study" / "bare.yaml"
    file.write_text(text)
    with hydra_session([str(own)]) as composer, pytest.raises(UserError) as error:
        composer.study("bare")
    assert str(error.value).startswith(f"{file}: ")
    for said in BAD[text]:
        assert said in str(error.value)


def test_a_bad_study_is_in_the_way_of_all_of_them_only(own):
    with hydra_session([str(own)]) as composer:
        assert {s.group for s in composer.studies(["statistics"])} == {"statistics"}
        with pytest.raises(UserError, match="unknown study 'batch_sise'"):
            composer.studies(["batch_sise"])
        with pytest.raises(UserError, match=r"bare\.yaml"):
            composer.studies(["all"])


def test_arms_are_cells_with_settings_of_their_own(composer):
    text = "arms=batch; group num_groups=2;  group   num_groups=8 ;"
    request = composer.request([text, "norm.eps=0.5", "train.batch_size=2,4"])
    assert [(c.norm.name, c.norm.num_groups, c.train.batch_size) for c in request.cells] == [
        ("batch", None, 2), ("batch", None, 4), ("group", 2, 2), ("group", 2, 4),
        ("group", 8, 2), ("group", 8, 4),
    ]  # fmt: skip
    assert all(c.norm.eps == 0.5 and c.norm.channels_per_group is None for c in request.cells[2:])
    labels = ("batch", "group num_groups=2", "group num_groups=8")
    assert request.axes[0] == ("norm", labels)
    (alone,) = cells(composer, "norm=group norm.num_groups=2 norm.eps=0.5 train.batch_size=2")
    assert request.cells[2].address == alone.address


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no such folder"), hydra_session([str(tmp_path / "no")]):
        pass
