"""A study of one's own: as good the second time, in a new process, as the first."""

import pytest
from shell import bnstudy_, finished, own_folder, process, said

__all__ = ["own_folder"]

MODULE = """
from helper import PRIMARY
from bnstudy.figures import Panel
from bnstudy.stats import Claim
from bnstudy.studies.drawing import curve

def headline(table):
    return [Panel("own", [curve(rows, "train.batch_size", "test_error", norm=name)
                          for name, rows in table.groupby("norm.name")])]

def claims(table):
    arms = {name: rows.set_index("seed")["test_error"] for name, rows in table.groupby("norm.name")}
    difference = (arms["batch"] - arms["group"]).to_dict()
    return [Claim("worse", "batch norm is worse", "greater", difference, primary=PRIMARY)]
"""
STATED = """
title: Mine
claim: Group norm is better.
source: me
rule: equal steps
cost: seconds
expected: nothing
entry: mine
fixed: {model: mlp, data.train_size: 40, train.steps: 4, train.batch_size: 8}
scales:
  quick: {seeds: [10, 11], axes: {norm: [batch, group]}}
"""
COMMAND = ("study", "mine", "--config-dir", "conf", "tracker.mode=disabled", "workers=1")


@pytest.fixture(autouse=True)
def mine(tmp_path):
    (tmp_path / "conf" / "study").mkdir(parents=True)
    (tmp_path / "conf" / "study" / "mine.yaml").write_text(STATED)
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "helper.py").write_text("PRIMARY = True\n")
    return tmp_path


def test_a_second_command_in_a_new_process_finds_the_module_too(mine):
    first = finished(process(*COMMAND))
    assert "trained  4 models" in first
    (table,) = (mine / "results" / "runs" / "studies").rglob("table.csv")
    written = table.stat().st_mtime_ns
    again = finished(process(*COMMAND))
    assert "nothing is missing" in again
    assert "primary" in again
    assert again.splitlines()[-3:] == first.splitlines()[-3:]
    assert table.stat().st_mtime_ns == written, "it is drawn again although nothing has changed"
    (mine / "mine.py").write_text(MODULE.replace("is worse", "is no better"))
    assert "batch norm is no better" in finished(process(*COMMAND))


def test_show_of_ones_own_study():
    assert "Group norm is better." in said(bnstudy_("show", "mine", "--config-dir", "conf"))


BROKEN = {  # file, its text -> what the one message holds
    ("mine.py", None): ["study mine", "importing 'mine' failed", "working directory"],
    ("mine.py", "def headline(table):\n    return []\n"): ["study mine", "has no 'claims'"],
    ("mine.py", MODULE.replace('"test_error", norm', '"test_eror", norm')): [
        "cannot judge", "no column test_eror", "Did you mean 'test_error'",
    ],
    ("mine.py", MODULE.replace('("norm.name")])]', '("norm.name")], claim="wors")]', 1)): [
        "cannot judge", "'wors', which is no claim of the study", "Did you mean 'worse'",
    ],
    ("mine.py", MODULE.replace("[\"batch\"]", "[\"bath\"]")): ["cannot judge", "bath"],
    ("helper.py", None): ["study mine", "importing 'mine' failed", "helper"],
    ("conf/study/mine.yaml", STATED.replace("claim:", "clam:")): [
        "conf/study/mine.yaml: ", "'clam'", "Did you mean 'claim'", "it lacks claim",
    ],
    ("conf/study/mine.yaml", STATED.replace("entry: mine\n", "")): ["entry: my_study"],
}  # fmt: skip


@pytest.mark.parametrize("file", BROKEN, ids=lambda file: f"{file[0]} {(file[1] or '')[:9]}")
def test_whatever_is_wrong_with_it_is_said_before_training(mine, file):
    name, text = file
    if text is None:
        (mine / name).unlink()
    else:
        (mine / name).write_text(text)
    running = process(*COMMAND)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 2, (out, err)
    assert err.startswith("bnstudy: ")
    assert "Traceback (" not in err
    for part in BROKEN[file]:
        assert part in err
    assert "trained" not in out
    assert not (mine / "results").exists()


def test_a_file_that_is_stated_badly_does_not_break_the_list(mine):
    (mine / "conf" / "study" / "bad.yaml").write_text("title: [\n")
    text = said(bnstudy_("study", "--config-dir", "conf"))
    assert "Group norm is better." in text
    assert "Wu & He 2018" in text
    bad = f"\n{text}".partition("\nbad\n")[2].splitlines()[0]
    assert "cannot be used" in bad
    assert str(mine / "conf" / "study" / "bad.yaml") in bad
