"""A grid that a study cannot judge is refused before anything is trained."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from bnstudy import cli
from bnstudy.config import CONFIGS
from bnstudy.config.compose import hydra_session
from bnstudy.errors import UserError
from bnstudy.probes import PROBES
from bnstudy.studies import planned
from bnstudy.sweep.registration import claims_hash
from tests.support.committed import EARLIER, stated

RESULTS = Path(__file__).parents[2] / "results"
STUDIES = sorted(p.stem for p in (CONFIGS / "study").glob("*.yaml"))


@pytest.fixture(scope="module")
def composer():
    with hydra_session() as session:
        yield session


def checked(composer, command: str) -> None:
    name, *overrides = command.split()
    request = composer.request(overrides, study=composer.study(name))
    planned.check(request.study, request.cells, request.seeds)


@pytest.mark.parametrize("scale", ["smoke", "quick", "full"])
@pytest.mark.parametrize("name", STUDIES)
def test_every_study_can_judge_its_own_grids(composer, name, scale):
    checked(composer, f"{name} scale={scale}")


@pytest.mark.parametrize(
    "command", ["batch_size data=mnist model=lenet", "distribution_shift norm=batch"]
)
def test_a_grid_without_an_optional_arm_can_be_judged(composer, command):
    checked(composer, command)


REFUSED = {
    "batch_size optimizer.lr=0.1,0.2": [
        "several runs of one seed",
        "optimizer.lr is not an axis of the study: give one value instead of 0.1, 0.2",
    ],
    "class_skew norm=group": ["composition_error", "norm is group here; the study has batch"],
    "class_skew evaluate.probes=[]": ["composition_error", "the study has [composition]"],
    "batch_size norm=batch": [
        "claim 'contrast_digits resnet: BN loses more' lacks an arm",
        "norm is batch here; the study has batch, group",
    ],
    "batch_size train.batch_size=2": ["compares an arm with itself", "train.batch_size is 2 here"],
    "eval_batch norm=group": ["batch_32_error", "norm is group here; the study has batch"],
    "ema_vs_precise norm=batch,ghost": ["norm.name is not an axis of the study"],
    "step_statistics data.min_length=15": [
        "claim 'settled at 1/2' lacks an arm",
        "null, 8, 15, 50",
    ],
    "eval_batch optimizer.lr=0.05,0.1": ["optimizer.lr is not an axis of the study"],
    "ema_vs_precise model=mlp,lenet": [
        "claim 'digits: late gap' is made 2 times",
        "model.name is not an axis of the study: give one value instead of mlp, lenet",
    ],
    "population_estimate norm.momentum=0.1,null": ["claim 'digits: stale' lacks an arm"],
}


@pytest.mark.parametrize("command", REFUSED)
def test_a_grid_that_a_study_cannot_judge_is_refused_with_the_reason(composer, command):
    with pytest.raises(UserError) as refused:
        checked(composer, command)
    message = str(refused.value)
    assert message.startswith(f"study {command.split()[0]} cannot judge this grid: ")
    for part in REFUSED[command]:
        assert part in message, message
    assert len(message) < 500


def test_settings_that_follow_from_an_axis_are_no_axes_of_their_own(composer):
    # at the full scale the number of epochs follows from the data set
    with pytest.raises(UserError, match="lr is not an axis") as refused:
        checked(composer, "batch_size scale=full optimizer.lr=0.1,0.2")
    assert "train.epochs" not in str(refused.value)


@pytest.mark.parametrize("lost", ["headline", "claims"])
def test_a_module_that_lacks_a_function_is_refused(composer, tmp_path, monkeypatch, lost):
    given = [f for f in ("headline", "claims") if f != lost]
    code = "".join(f"def {name}(*args):\n    return 1, 1\n\n" for name in given)
    (tmp_path / f"without_{lost}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    request = composer.request([], study=composer.study("sync"))
    own = request.study.model_copy(update={"entry": f"without_{lost}"})
    with pytest.raises(UserError, match=f"has no '{lost}'"):
        planned.check(own, request.cells, request.seeds)


@pytest.mark.parametrize("claims", ["return 1 / 0", "return []", "return table.no_such"])
def test_whatever_a_study_of_ones_own_stumbles_over_is_one_message(
    composer, tmp_path, monkeypatch, claims
):
    name = f"stumbles_{abs(hash(claims))}"
    code = (
        "from bnstudy.figures import Panel\ndef headline(table):\n    return [Panel('empty', [])]\n"
    )
    (tmp_path / f"{name}.py").write_text(f"{code}def claims(table):\n    {claims}\n")
    monkeypatch.syspath_prepend(tmp_path)
    request = composer.request([], study=composer.study("sync"))
    own = request.study.model_copy(update={"entry": name})
    with pytest.raises(UserError, match="study sync cannot judge this grid: "):
        planned.check(own, request.cells, request.seeds)


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ("def headline(table):\n    return 4 * [Panel('a', [])]\n", "one to 3 panels, not 4"),
        ("def details(table):\n    return table['no_such']\n", "no column no_such"),
        (
            "def details(table):\n    return [Panel('a', [], claim='wors')]\n",
            "Did you mean 'worse'",
        ),
    ],
)
def test_what_figures_lack_is_said_before_training(asks, own, told):
    with pytest.raises(UserError, match=told):
        asks("def claims(", f"{own}\ndef claims(")


def test_every_probe_says_which_columns_it_adds():
    assert planned.PROBED.keys() == PROBES.keys()


@pytest.mark.parametrize("name", STUDIES)
def test_a_stand_in_measures_only_what_records_hold(composer, name):
    if not stated(name):
        pytest.skip(EARLIER)
    committed = pd.read_csv(RESULTS / name / "table.csv")
    scale = json.loads((RESULTS / name / "study.json").read_text())["scale"]
    request = composer.request([f"scale={scale}"], study=composer.study(name))
    # a look may have decided before all seeds were trained
    judged = sorted(set(map(int, committed["seed"])) & set(request.seeds))
    table = planned.stand_in(request.cells, judged)
    assert len(table) == len(committed)
    assert set(table) - set(committed) <= {"data.fingerprint"}  # planning fills in hashes
    for norm, rows in table.groupby("norm.name"):
        real = committed[committed["norm.name"] == norm]
        metrics = [c for c in planned.measured(request.cells[0]) if rows[c].notna().any()]
        assert [c for c in metrics if real[c].isna().all()] == []


def test_the_command_refuses_such_a_grid_before_it_trains(tmp_path, monkeypatch):
    monkeypatch.setattr("bnstudy.cli.execute.launch", lambda *a, **k: pytest.fail("it trains"))
    words = ["study", "class_skew", "scale=smoke", "norm=layer", f"results_dir={tmp_path}"]
    result = CliRunner().invoke(cli.main, words, prog_name="bnstudy")
    assert result.exit_code == 2
    assert "study class_skew cannot judge this grid" in result.stderr


CLAIMS = """
from bnstudy.figures import Panel
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.kit import failed, trained, values, select

def headline(table):
    return [Panel("empty", [])]

def claims(table):
    "Batch norm against group norm."
    table = select(table, {"train.batch_size": 2})
    arms = [values(table, "test_error", {"norm.name": n}) for n in ("batch", "group")]
    ready = [trained(table, "every arm")]
    return [Claim("worse", "batch norm is worse", "greater", paired_differences(*arms),
                  threshold=1.0, primary=True, estimand="test error", preconditions=ready),
            Claim("alike", "norms are alike", "equivalent", paired_differences(*arms),
                  threshold=5.0, after="worse")]
"""
OVERRIDES = ["norm=batch,group", "train.batch_size=2,8", "model=mlp"]


@pytest.fixture
def asks(composer, tmp_path, monkeypatch):
    """Hash of what a study asks, given changes of its text."""
    monkeypatch.syspath_prepend(tmp_path)
    request = composer.request([*OVERRIDES, "seeds=6"])
    plain = composer.study("sync")

    def asked(old="", new="", cells=request.cells, seeds=request.seeds):
        assert old in CLAIMS
        name = f"asks_{tmp_path.name.replace('-', '_')}_{len(list(tmp_path.glob('*.py')))}"
        (tmp_path / f"{name}.py").write_text(CLAIMS.replace(old, new) if old else CLAIMS)
        own = plain.model_copy(update={"entry": name})
        return claims_hash(planned.check(own, cells, seeds))

    asked.request = request
    return asked


WORDING = [("batch norm is worse", "other words"), ("Batch norm against", "A docstring about"),
           ('"worse"', '"w"'), ("every arm", "all arms"), ('"empty"', '"other title"'),
           ("[])]", "[], 'x label'), Panel('second', [])]"), ("arms", "pair")]  # fmt: skip
ASKED = [
    ('"test_error", {', '"test_loss", {'),  # the number
    ('_size": 2', '_size": 8'),  # the cell
    ('("batch", "group")', '("group", "batch")'),  # the sign
    ('"norm.name": n})', '"norm.name": n}, 1)'),  # the unit of the values
    ("threshold=5.0", "threshold=4.9"),
    ('"worse", "batch norm is worse", "greater"', '"worse", "", "not_worse"'),
    ('estimand="test error"', 'estimand="test error, PreciseBN"'),
    (', after="worse"', ""),
    ("equivalent", "not_worse"),
    (", preconditions=ready", ""),
    ("= [trained(table,", "= [trained(table[table['norm.name'] == 'group'],"),
]


@pytest.mark.parametrize(("old", "new"), WORDING, ids=[old for old, _ in WORDING])
def test_wording_and_drawing_are_no_part_of_what_is_asked(asks, old, new):
    assert asks(old, new) == asks()


@pytest.mark.parametrize(("old", "new"), ASKED, ids=[new for _, new in ASKED])
def test_cells_numbers_kinds_and_order_are(asks, old, new):
    assert asks(old, new) != asks()


def test_so_is_a_rule_that_matters_only_where_runs_fail(asks):
    rule = "    table = table.assign(test_error=table['test_error'].mask(failed(table), 0.9))\n"
    assert asks("    arms =", f"{rule}    arms =") != asks()


def test_the_order_of_rows_and_columns_is_not(asks):
    shuffled = "    table = table.iloc[::-1, ::-1]\n"
    assert asks("    table = select", f"{shuffled}    table = select") == asks()
    cells = asks.request.cells
    assert asks(cells=cells[::-1]) == asks()
    assert asks(seeds=asks.request.seeds[::-1]) == asks()


def test_another_number_of_seeds_is(asks):
    assert asks(seeds=asks.request.seeds[:-1]) != asks()


def test_numbers_of_a_stand_in_are_functions_of_cell_seed_and_column(asks):
    cells, seeds = asks.request.cells, asks.request.seeds
    whole = planned.stand_in(cells, seeds)
    part = planned.stand_in(cells[1:2], seeds[2:4])
    same = whole[(whole["cell"] == cells[1].cell) & whole["seed"].isin(seeds[2:4])]
    for metric in ("test_error", "train_error", "test_loss"):
        assert list(part[metric]) == list(same[metric])
    assert whole["test_error"].nunique() == len(whole)
    assert whole["test_error"].between(0.1, 0.11).all()


def test_stand_ins_do_not_depend_on_versions_of_numpy():
    """Of splitmix64's finalizer; recomputed with Python's own numbers."""
    word, mask = 0x0123456789ABCDEF, 2**64 - 1
    expected = word
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        expected = (expected ^ (expected >> shift)) * factor & mask
    expected ^= expected >> 31
    assert int(planned._mixed(np.array([word], dtype=np.uint64))[0]) == expected


def test_where_runs_fail_about_a_quarter_does(asks):
    failing = next(planned._where_runs_fail(asks.request.cells, range(50)))
    # 200 runs with probability 1/4: 50, sd 6.1; four sd either way
    assert 25 < (failing["train_error"] > 0.5).sum() < 75
