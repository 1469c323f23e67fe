"""Words of a command line that are refused, and what is said instead."""

import pytest

from bnstudy.config import overrides
from bnstudy.errors import UserError


def cells(composer, words: str):
    return composer.request(words.split()).cells


REFUSED = [
    # a name: what was given, what is allowed, the nearest
    ("norm=bath", "unknown norm 'bath'", "'batch'", "group, instance, layer"),
    ("model=resnt", "unknown model 'resnt'", "'resnet'", "lenet, mlp, recurrent"),
    ("data=dgits", "unknown data 'dgits'", "'digits'", "contrast_digits"),
    ("optimizer=adm", "unknown optimizer 'adm'", "'adam'", "adam, sgd"),
    ("scale=smok", "unknown scale 'smok'", "'smoke'", "full, photographs, quick, smoke"),
    ("norm=null", "unknown norm 'None'", "'none'"),
    ("norm=[batch,group]", "unknown norm '['batch', 'group']'", "layer"),
    ("norm=batch,grop", "unknown norm 'grop'", "'group'"),
    # a key, which Hydra alone would let through with +
    ("optimizer.lrr=3", "unknown key 'optimizer.lrr'", "'optimizer.lr'", "optimizer.decay"),
    ("+optimizer.lrr=3", "unknown key 'optimizer.lrr'", "'optimizer.lr'"),
    ("++optimizer.lrr=3", "unknown key 'optimizer.lrr'", "'optimizer.lr'"),
    ("lr=3", "unknown key 'lr'", "'optimizer.lr'", "train.*"),
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
    ("seeds=abc", "30..41", "not abc"),
    ("seeds=3,7", "seeds=[3,7]"),
    ("seeds=3,4", "seeds=[3,4]", "every cell has all of them"),
    ("seeds=range(2,5)", "seeds=[2,3,4]"),
    # what cannot be an axis
    ("workers=1,2", "workers=1,2", "cannot be an axis"),
    ("hydra.sweep.dir=a,b", "cannot be an axis"),
    ("norm=glob(zz*)", "norm=glob(zz*)", "comma list"),
    # grammar
    ("norm", "'norm' is not an override", "key=value"),
    ("=5", "'=5' is not an override", "key=value"),
    ("norm.eps=[1", "norm.eps=[1"),
    ("~norm", "~norm", "null"),
    ("norm@x=batch", "norm@x"),
    ("norm.eps=sort(1", "norm.eps=sort(1", "\"norm.eps='...'\""),
    ("results_dir=", "results_dir=DIR"),
    # Hydra's own
    ("hydra/launcher=nope", "unknown hydra/launcher 'nope'", "joblib"),
    ("hydra/launcher=joblb", "Did you mean 'joblib'"),
    ("hydra/launcher=submitit_slrum", "Did you mean 'submitit_slurm'"),
    ("hydra.nope=1", "hydra.nope"),
    ("hydra/sweeper=optuna", "hydra/sweeper=optuna", "comma lists", "bnstudy compare"),
    ("hydra/sweeper=basic", "hydra/sweeper=basic", "comma lists"),
    ("hydra.sweeper.n_trials=3", "hydra.sweeper.n_trials=3", "comma lists"),
    # sweeps that are no grid
    ("norm.eps=interval(0,1)", "norm.eps=interval(0,1)", "norm.eps=A,B,C", "range("),
    ("norm=shuffle(batch,group)", "shuffle(batch,group)", "one order"),
    ("train.batch_size=glob(*)", "matches nothing", "comma list"),
    # by a word of the last name, or both names run together
    ("learn_eps=true", "unknown key 'learn_eps'", "Did you mean 'norm.eps'"),
    ("model_name=mlp", "Did you mean 'model.name'"),
    ("lr_init=1", "Did you mean 'optimizer.lr'"),
    # arms
    ("arms=batch", "at least two", "batch; group num_groups=2"),
    ("arms=;", "at least two"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case[0])
def test_what_is_wrong_is_said_with_what_is_right(composer, case):
    words, *said = case
    with pytest.raises(UserError) as error:
        composer.request(words.split())
    for part in said:
        assert part in str(error.value)


ARMS = {  # arms -> what the one message holds
    "batch; grop": ["in 'grop'", "unknown norm 'grop'", "'group'"],
    "batch; group num_grups=2": ["in 'group num_grups=2'", "'norm.num_groups'"],
    "batch; group 2": ["in 'group 2'", "'2'", "setting=value"],
    "batch; group num_groups=2,4": ["norm.num_groups=2,4", "an arm for each"],
    "batch; group num_groups=2 channels_per_group=2": ["exactly one"],
    "batch; batch": ["'batch' is given twice"],
    "batch; none momentum=0.3": ["norm.momentum=0.3", "none norm has no momentum"],
}


@pytest.mark.parametrize("text", ARMS)
def test_a_mistake_in_an_arm_names_the_arm(composer, text):
    with pytest.raises(UserError) as error:
        composer.request([f"arms={text}"])
    for part in ARMS[text]:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("more", "said"), [({"sweep": False}, "compare"), ({"study": "batch_size"}, "has its own")]
)
def test_arms_are_for_grids_that_are_not_a_studys(composer, more, said):
    more = {k: composer.study(v) if k == "study" else v for k, v in more.items()}
    with pytest.raises(UserError, match=said):
        composer.request(["arms=batch; group"], **more)
    with pytest.raises(UserError, match="both choose the norms"):
        composer.request(["arms=batch; group", "norm=layer"])


@pytest.mark.parametrize("path", ["a b", "a=b", "(c) [d] {e}", "it's", '"q"', "a,b", "${x}", "\\"])
@pytest.mark.parametrize("key", ["data.root", "+data.path", "results_dir"])
def test_a_path_is_taken_as_it_is_typed(composer, key, path):
    settings = composer.request([f"{key}={path}", "data=text", "model=recurrent"]).settings
    group, _, name = key.lstrip("+").rpartition(".")
    assert getattr(getattr(settings, group) if group else settings, name) == path


def test_the_home_folder_is_expanded_in_paths_only(composer, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    settings = composer.request(["data.root=~/data", "results_dir=~"]).settings
    assert (settings.data.root, settings.results_dir) == ("/home/me/data", "/home/me")
    assert composer.request(["data.root=null"]).settings.data.root is None


def test_a_glob_finds_what_works_by_its_name_alone(composer):
    request = composer.request(["norm=glob(*)"])
    ((key, names),) = request.axes
    assert key == "norm"
    assert set(composer.choices("norm")) - set(names) == {"custom"}
    assert [c.norm.name for c in cells(composer, "norm=choice(batch,group)")] == ["batch", "group"]


def test_a_comma_list_is_a_grid_only_where_one_is_wanted(composer):
    with pytest.raises(UserError, match=r"train -m.*compare"):
        composer.request(["norm=batch,group"], sweep=False)
    assert len(cells(composer, "norm=batch,group")) == 2


@pytest.mark.parametrize("word", ["norm=bath", "+norm=bath", "norm=group,bath"])
def test_a_composer_is_as_good_as_before_after_a_mistake(composer, word):
    with pytest.raises(UserError):
        composer.request([word])
    assert [c.norm.name for c in cells(composer, "norm=group")] == ["group"]


def test_the_extra_of_a_launcher_that_is_not_installed_is_named():
    with pytest.raises(UserError, match=r"uv sync --extra slurm.*Installed: basic, joblib$"):
        overrides._check_launcher("submitit_slurm", ["basic", "joblib"])
