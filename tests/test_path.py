"""How far it is from a command to a row of a table: counted, so that it stays short."""

import sys
from pathlib import Path

import pytest
from shell import STUDY, bnstudy_, own_folder, said

import bnstudy
from bnstudy.engine import evaluate
from bnstudy.store import Store
from bnstudy.studies import results
from bnstudy.work import record

__all__ = ["own_folder"]
PACKAGE = str(Path(bnstudy.__file__).parent)


def ours() -> list[str]:
    """Functions of the package on the stack, the outermost first; what a run passes through."""
    frame, found = sys._getframe(2), []
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(PACKAGE) and "<" not in code.co_name:
            found.append(f"{Path(code.co_filename).stem}.{code.co_name}")
        frame = frame.f_back
    return found[::-1]


@pytest.fixture
def seen(monkeypatch) -> dict[str, list[str]]:
    """Where a run is when its row is measured, stored, and written to table.csv."""
    places: dict[str, list[str]] = {}

    def watched(owner, name, key):
        whole = getattr(owner, name)

        def function(*args, **kwargs):
            places.setdefault(key, ours())
            return whole(*args, **kwargs)

        monkeypatch.setattr(owner, name, function)

    watched(evaluate.View, "score", "measured")
    watched(Store, "put_all", "stored")
    watched(record, "deliveries", "recorded")
    watched(Store, "table", "read")
    watched(results, "_write", "written")
    return places


def test_from_a_command_to_a_row_of_the_table_are_twelve_calls(seen):
    said(bnstudy_(*STUDY))
    # down to the row, from there to the store, from there into the file
    down = seen["measured"][seen["measured"].index("commands.study"):
                            seen["measured"].index("train.rows") + 1]  # fmt: skip
    assert down == [
        "commands.study",
        "execute.train_missing",
        "launch.launch",
        "launchers.work",
        "worker.run_pack",
        "trainer.train",
        "train.train",
        "train.rows",
    ]
    assert seen["recorded"][-1] == seen["stored"][-1] == "worker.run_pack"
    back = ["record.deliveries", "records.put_all", "records.table", "results.results_of"]
    assert len([*down, *back]) <= 12
