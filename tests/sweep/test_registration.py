"""Registered before the first record, or exploratory: done wrong in every order."""

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bnstudy.errors import UserError
from bnstudy.sweep import registration
from bnstudy.sweep.registration import Registration, claims_hash, read, register, standing

RUNS = 8
CLAIM = {"name": "worse", "text": "batch norm is worse", "kind": "greater", "threshold": 0.0,
         "unit": "pp", "estimand": "test error", "primary": True, "after": None,
         "computes": "aa"}  # fmt: skip


def form(**changes):
    return {"claims": [{**CLAIM, **changes}], "where_runs_fail": ["bb"]}


class Lab:
    """A grid whose records are times, a clock that ticks once a step, and its registrations."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.path = folder / "registrations" / "study-quick-abc.json"
        self.records: list[str] = []
        self.now = 0
        state = {"commit": "c0ffee", "dirty": False}
        monkeypatch.setattr(registration, "git_state", lambda: state)
        monkeypatch.setattr(registration.time, "strftime", lambda *_: self.tick())

    def tick(self) -> str:
        self.now += 1
        return f"2026-11-21T00:00:{self.now:02d}Z"

    def ask(self, claims=None, **changes) -> Registration:
        own = claims or form()
        return Registration(
            **{
                "study": "study",
                "scale": "quick",
                "claims": claims_hash(own),
                "grid": "abc",
                "tuning": "",
                "until": "all",
                "looks": (),
                "rules": "judged so",
                "form": own,
                "command": "bnstudy study",
                "planned": RUNS,
                **changes,
            }
        )

    def study(self, claims=None, trains=RUNS, **changes) -> registration.Standing:
        """What a study command does: register, train up to `trains` records, judge."""
        now = self.ask(claims, **changes)
        missing = len(self.records) < RUNS
        register(self.path, now, lambda: len(self.records), training=missing)
        self.train(trains)
        register(self.path, now, lambda: len(self.records), training=False)
        return standing(self.path, now, self.records)

    def train(self, until=RUNS) -> None:
        self.records += [self.tick() for _ in range(until - len(self.records))]


@pytest.fixture
def lab(tmp_path, monkeypatch):
    return Lab(tmp_path, monkeypatch)


EDITED = form(threshold=1.0)


def test_registered_and_trained_is_confirmatory_the_second_time_too(lab):
    first = lab.study()
    assert first.status == "confirmatory"
    assert first.line == (
        "registered 2026-11-21T00:00:01Z at commit c0ffee, clean, 0 of 8 runs there"
    )
    assert lab.study() == first
    assert len(read(lab.path)) == 1


def test_a_killed_first_command_and_the_same_again_is_confirmatory(lab):
    assert lab.study(trains=3).status == "confirmatory"
    assert lab.study().status == "confirmatory"
    assert [entry.held for entry in read(lab.path)] == [0]


def test_claims_edited_after_some_records_are_exploratory(lab):
    lab.study(trains=3)
    found = lab.study(EDITED)
    assert found[:2] == ("exploratory", "the claims were changed after 3 of 8 runs were there")


def test_claims_edited_after_all_records_are_exploratory(lab):
    lab.study()
    found = lab.study(EDITED)
    assert found[:2] == ("exploratory", "the claims were changed after 8 of 8 runs were there")
    assert lab.study(EDITED)[:2] == found[:2], "the second look at it says the same"


def test_an_edit_before_any_record_is_an_edit_all_the_same(lab):
    lab.study(trains=0)
    found = lab.study(EDITED)
    assert found[:2] == ("exploratory", "the claims were changed after the registration")


def test_edited_and_edited_back_the_first_registration_holds(lab):
    lab.study(trains=3)
    assert lab.study(EDITED, trains=5).status == "exploratory"
    assert lab.study().status == "confirmatory"
    assert len(read(lab.path)) == 3  # nothing is forgotten
    assert lab.study(EDITED).reason == "the claims were changed after 3 of 8 runs were there"


def test_records_removed_and_trained_again_after_an_edit_are_exploratory(lab):
    lab.study()
    lab.records.clear()
    assert lab.study(EDITED).status == "exploratory"


def test_records_removed_and_trained_again_unchanged_are_confirmatory(lab):
    lab.study()
    lab.records.clear()
    assert lab.study().status == "confirmatory"


def test_records_before_the_registration_are_exploratory(lab):
    lab.train(2)
    found = lab.study()
    assert found[:2] == ("exploratory", "2 of 8 runs were there before the registration")
    lab.records.clear()
    assert lab.study().status == "exploratory", "removing them afterwards undoes nothing"


def test_all_records_before_there_was_a_registration(lab):
    lab.train()
    assert lab.study()[:2] == ("exploratory", "there is no registration")
    assert not lab.path.exists(), "nothing is registered after the fact"


def test_a_deleted_registration_is_none(lab):
    lab.study()
    lab.path.unlink()
    assert lab.study()[:2] == ("exploratory", "there is no registration")
    lab.records.pop()  # and with a run missing a new one comes too late
    assert lab.study().reason == "7 of 8 runs were there before the registration"


def test_records_that_are_older_than_the_registration_are_exploratory(lab):
    old = [lab.tick() for _ in range(3)]  # made elsewhere, copied here later
    lab.study(trains=5)
    lab.records[:3] = old
    found = lab.study()
    assert found[:2] == ("exploratory", "3 of 8 records are older than the registration")


@pytest.mark.parametrize("lost", ["None", "nan", ""])
def test_a_record_without_a_time_does_not_count_as_later(lab, lost):
    lab.study()
    lab.records[0] = lost
    # texts: "None" and "nan" come after digits, and are no times all the same
    assert lab.study().status == "exploratory"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tuning": "other"}, "the tuning was changed after 3 of 8 runs were there"),
        ({"until": "conclusive", "looks": (6, 8)},
         "until and the looks were changed after 3 of 8 runs were there"),
        ({"until": "conclusive", "tuning": "x"},
         "the tuning and until were changed after 3 of 8 runs were there"),
    ],
)  # fmt: skip
def test_another_tuning_or_stopping_rule_is_exploratory(lab, change, reason):
    lab.study(trains=3)
    assert lab.study(**change)[:2] == ("exploratory", reason)


def test_a_grid_that_shares_records_with_another_is_exploratory(lab, tmp_path):
    lab.study(trains=4)
    lab.path = tmp_path / "registrations" / "study-quick-def.json"
    found = lab.study(grid="def")
    assert found[:2] == ("exploratory", "4 of 8 runs were there before the registration")


def test_two_planners_at_once_register_once(lab):
    with ThreadPoolExecutor(8) as pool:
        asked = [lab.ask() for _ in range(24)]
        list(pool.map(lambda now: register(lab.path, now, lambda: 0, True), asked))
    assert len(read(lab.path)) == 1


def test_two_planners_with_different_claims_are_both_written_down(lab):
    def slow() -> int:  # long enough for the other to read the file before this one writes it
        time.sleep(0.2)
        return 0

    with ThreadPoolExecutor(2) as pool:
        asked = [lab.ask(), lab.ask(EDITED)]
        list(pool.map(lambda now: register(lab.path, now, slow, True), asked))
    assert len(read(lab.path)) == 2
    lab.train()
    first, second = (lab.study(claims).status for claims in (form(), EDITED))
    assert {first, second} == {"confirmatory", "exploratory"}  # only the first entry counts


def test_words_are_no_part_of_what_is_asked(lab):
    lab.study(trains=3)
    assert lab.study(form(text="other words", name="other name")).status == "confirmatory"


@pytest.mark.parametrize("name", [key for key in CLAIM if key not in ("name", "text")])
def test_all_else_of_a_claim_is(name):
    other = {"threshold": 2.0, "primary": False, "after": 0}.get(name, "other")
    assert claims_hash(form(**{name: other})) != claims_hash(form())


def test_so_are_number_and_order_of_claims_and_what_they_do_where_runs_fail():
    two = {**form(), "claims": [CLAIM, {**CLAIM, "kind": "not_worse"}]}
    swapped = {**two, "claims": two["claims"][::-1]}
    failing = {**form(), "where_runs_fail": ["cc"]}
    assert len({claims_hash(f) for f in (form(), two, swapped, failing)}) == 4


def test_readers_find_the_claims_in_words(lab):
    lab.study()
    (entry,) = json.loads(lab.path.read_text())
    assert entry["form"]["claims"][0]["text"] == "batch norm is worse"
    assert (entry["commit"], entry["dirty"], entry["held"]) == ("c0ffee", False, 0)


@pytest.mark.parametrize("text", ["", "{", "[{}]", "{}"])
def test_a_damaged_file_is_a_message_and_is_never_written_over(lab, text):
    lab.study()
    lab.path.write_text(text)
    with pytest.raises(UserError, match="is damaged"):
        lab.study(EDITED)
    assert lab.path.read_text() == text


@pytest.mark.parametrize(
    "put", [os.mkfifo, Path.mkdir, lambda p: p.symlink_to(p), lambda p: p.symlink_to("nowhere")],
    ids=["pipe", "folder", "link to itself", "link to nowhere"],
)  # fmt: skip
def test_what_is_no_file_is_a_message_and_nobody_waits_for_it(lab, put):
    lab.study()
    lab.path.unlink()
    put(lab.path)
    with pytest.raises(UserError, match=r"is damaged.*no regular file"):
        lab.study(EDITED)


@pytest.mark.parametrize(
    ("registered", "told"),
    [
        ("judged so", ""),
        ("judged otherwise",
         "; judged by other code of bnstudy.stats or studies/kit.py than was registered"),
        ("", "; the code that judges (bnstudy.stats, studies/kit.py) was not registered"),
    ],
)  # fmt: skip
def test_other_code_that_judges_is_told_and_changes_no_standing(lab, registered, told):
    lab.study(rules=registered)
    found = lab.study()
    assert found.status == "confirmatory"
    assert found.line == read(lab.path)[0].line + told
    assert lab.study(EDITED).line == found.line, "exploratory verdicts tell it, too"


def test_a_registration_of_before_there_were_rules_is_still_one(lab):
    lab.study()
    (entry,) = json.loads(lab.path.read_text())
    del entry["rules"]
    lab.path.write_text(json.dumps([entry]))
    found = lab.study()
    assert found.status == "confirmatory"
    assert found.line.endswith("was not registered")


@pytest.mark.parametrize("name", ["stats/failures.py", "stats/verdicts.py", "studies/kit.py"])
def test_the_rules_are_the_code_that_judges(tmp_path, monkeypatch, name):
    for room in ("stats", "studies"):
        shutil.copytree(registration.HERE / room, tmp_path / room)
    before = registration.rules()
    monkeypatch.setattr(registration, "HERE", tmp_path)
    assert registration.rules() == before
    path = tmp_path / name
    path.write_text(path.read_text().replace("0.5", "0.6") + "# edited\n")
    assert registration.rules() != before
