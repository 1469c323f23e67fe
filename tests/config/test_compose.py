"""From words on a command line to typed cells: what is refused, and what wins over what."""

from itertools import permutations

import pytest

from bnstudy.config import CONFIGS
from bnstudy.config.compose import hydra_session, matches
from bnstudy.errors import UserError


@pytest.fixture(scope="module")
def composer():
    with hydra_session() as composer:
        yield composer


def cells(composer, words: str, study=None):
    return composer.request(words.split(), study=study).cells


def cell(composer, words: str):
    (found,) = cells(composer, words)
    return found


# --- what is refused ----------------------------------------------------------------------------

REFUSED = [
    # a name: what was given, what is allowed, the nearest
    ("norm=bath", "unknown norm 'bath'", "'batch'", "group, instance, layer"),
    ("model=resnt", "unknown model 'resnt'", "'resnet'", "lenet, mlp, recurrent"),
    ("data=dgits", "unknown data 'dgits'", "'digits'", "contrast_digits"),
    ("optimizer=adm", "unknown optimizer 'adm'", "'adam'", "adam, sgd"),
    ("scale=smok", "unknown scale 'smok'", "'smoke'", "full, quick, smoke"),
    ("norm=null", "unknown norm 'None'", "'none'"),
    ("norm=[batch,group]", "unknown norm '['batch', 'group']'", "layer"),
    ("norm=batch,grop", "unknown norm 'grop'", "'group'"),
    # a key, which Hydra alone would let through with +
    ("optimizer.lrr=3", "unknown key 'optimizer.lrr'", "'optimizer.lr'", "optimizer.decay"),
    ("+optimizer.lrr=3", "unknown key 'optimizer.lrr'", "'optimizer.lr'"),
    ("++optimizer.lrr=3", "unknown key 'optimizer.lrr'", "'optimizer.lr'"),
    ("lr=3", "unknown key 'lr'", "'optimizer.lr'", "train.batch_size"),
    ("normm.eps=3", "unknown key 'normm.eps'", "'norm.eps'"),
    ("norm.foo.bar=1", "unknown key 'norm.foo.bar'", "norm.group_size"),
    ("+nrom=batch", "unknown key 'nrom'", "'norm'"),
    ("workerz=3", "unknown key 'workerz'", "'workers'"),
    ("study=batch_size", "bnstudy study NAME"),
    ("train=3", "'train' is a folder of keys", "train.batch_size"),
    ("seed=3", "unknown key 'seed'", "'seeds'"),
    # a value
    ("train.batch_size=0", "train.batch_size=0", "greater than or equal to 1"),
    ("train.batch_size=2.5", "train.batch_size=2.5", "integer"),
    ("optimizer.lr=0", "optimizer.lr=0", "greater than 0"),
    ("optimizer.lr=-1", "optimizer.lr=-1", "greater than 0"),
    ("optimizer.lr=abc", "optimizer.lr=abc", "valid number"),
    ("optimizer.lr=inf", "optimizer.lr=inf", "finite"),
    ("optimizer.lr=0.1,-1", "optimizer.lr=-1", "greater than 0"),
    ("optimizer.name=adm", "optimizer.name=adm", "'sgd' or 'adam'", "Did you mean 'adam'"),
    ("norm.affine=gama", "norm.affine=gama", "'gamma'", "Did you mean 'gamma'"),
    ("tracker.mode=of", "tracker.mode=of", "'offline'"),
    ("model.hidden=[0]", "model.hidden.0=0", "greater than or equal to 1"),
    ("model.hidden=[]", "model.hidden=[]", "at least 1"),
    # combinations
    ("train.epochs=1 train.steps=3", "train.epochs and train.steps", "exactly one"),
    ("train.steps=1,2 train.examples=3", "train.steps and train.examples", "exactly one"),
    ("norm=group norm.num_groups=2 norm.channels_per_group=2", "exactly one"),
    ("norm=group norm.channels_per_group=null", "exactly one", "norm.num_groups"),
    ("norm=ghost norm.group_size=null", "norm.group_size"),
    ("norm=batch norm=group", "'norm' is given 2 times"),
    ("norm=batch +norm=group", "'norm' is given 2 times"),
    # seeds
    ("seeds=0", "positive number", "not 0"),
    ("seeds=[]", "positive number", "not []"),
    ("seeds=[1,-2]", "not [1, -2]"),
    ("seeds=abc", "seeds=abc", "integer"),
    ("seeds=3,7", "seeds=[3,7]"),
    # what cannot be an axis
    ("workers=1,2", "workers=1,2", "cannot be an axis"),
    ("results_dir=a,b", "results_dir=a,b", "cannot be an axis"),
    ("data.root=a,b", "data.root=a,b", "cannot be an axis"),
    ("hydra.sweep.dir=a,b", "cannot be an axis"),
    ("norm=glob(zz*)", "norm=glob(zz*)", "comma list"),
    # grammar
    ("norm", "'norm' is not an override", "key=value"),
    ("=5", "'=5' is not an override", "key=value"),
    ("norm.eps=[1", "norm.eps=[1"),
    ("~norm", "~norm", "null"),
    ("norm@x=batch", "norm@x"),
    ("hydra/launcher=nope", "hydra/launcher/nope", "joblib"),
    ("hydra.nope=1", "hydra.nope"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case[0])
def test_what_is_wrong_is_said_with_what_is_right(composer, case):
    words, *said = case
    with pytest.raises(UserError) as error:
        composer.request(words.split())
    for part in said:
        assert part in str(error.value)


def test_a_comma_list_is_a_grid_only_where_one_is_wanted(composer):
    with pytest.raises(UserError, match=r"train -m.*compare"):
        composer.request(["norm=batch,group"], sweep=False)
    assert len(cells(composer, "norm=batch,group")) == 2


@pytest.mark.parametrize("word", ["norm=bath", "+norm=bath", "norm=group,bath"])
def test_a_composer_is_as_good_as_before_after_a_mistake(composer, word):
    with pytest.raises(UserError):
        composer.request([word])
    assert cell(composer, "norm=group").norm.name == "group"


# --- one run ------------------------------------------------------------------------------------


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
    ],
)
def test_one_duration_clears_the_others(composer, word, left):
    train = cell(composer, word).train
    assert (train.epochs, train.steps, train.examples) == left
    study = composer.study("normalization_batch")  # its smoke grid fixes train.epochs
    for found in cells(composer, f"scale=smoke {word}", study):
        assert (found.train.epochs, found.train.steps, found.train.examples) == left


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


# --- grids --------------------------------------------------------------------------------------


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


# --- studies ------------------------------------------------------------------------------------

STUDIES = sorted(p.stem for p in (CONFIGS / "study").glob("*.yaml"))


def scales() -> list[tuple[str, str]]:
    with hydra_session() as composer:
        return [(s, scale) for s in STUDIES for scale in composer.study(s).scales]


@pytest.mark.parametrize(("name", "scale"), scales())
def test_every_study_composes_at_every_scale(composer, name, scale):
    study = composer.study(name)
    request = composer.request([f"scale={scale}"], study=study)
    assert request.settings.scale.name == scale
    sizes = [len(v) for v in study.scales[scale].axes.values()]
    product = 1
    for size in sizes:
        product *= size
    assert len(request.cells) + request.excluded == product
    assert len({c.cell for c in request.cells}) == len(request.cells) > 1
    for found in request.cells:
        lengths = (found.train.epochs, found.train.steps, found.train.examples)
        assert any(length is not None for length in lengths)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_says_everything_before_it_runs(composer, name):
    study = composer.study(name)
    assert study.name == name
    assert {"smoke", "quick", "full"} <= study.scales.keys()
    for field in ("title", "claim", "source", "rule", "cost", "expected"):
        assert len(getattr(study, field)) > 10


def test_seeds_of_studies_are_not_the_pilots(composer):
    """Pilots chose the settings on seeds 0 to 4: the same seeds again would confirm themselves."""
    for name in STUDIES:
        for grid in composer.study(name).scales.values():
            assert isinstance(grid.seeds, list)
            assert not set(grid.seeds) & {0, 1, 2, 3, 4}


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
    assert {c.data.name for c in request.cells} == {"digits", "contrast_digits"}


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
        composer.request(["scale=smoke", "norm=instance"], study=composer.study("batch_size"))


@pytest.mark.parametrize("word", ["scale=nope", "scale=smoke,quick"])
def test_a_study_runs_at_one_scale_of_its_own(composer, word):
    with pytest.raises(UserError, match="scale"):
        composer.request([word], study=composer.study("batch_size"))


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


# --- folders of one's own -----------------------------------------------------------------------

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
        assert all(c.train.steps == 3 and c.norm.momentum is None for c in request.cells)
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


def test_a_study_that_lacks_its_claim(own):
    with hydra_session([str(own)]) as composer, pytest.raises(UserError) as error:
        composer.study("bare")
    for said in ("'titel'", "Did you mean 'title'", "claim", "expected", "scales"):
        assert said in str(error.value)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no such folder"), hydra_session([str(tmp_path / "no")]):
        pass
