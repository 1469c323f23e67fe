"""Small records are those of the store's tests; sweeps are compared with one left in peace."""

import sys
from pathlib import Path

import pytest
from sweeps import STACKS, done, finish, start, table

sys.path.insert(0, str(Path(__file__).parents[1] / "store"))


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> str:
    """The table of a sweep that nothing happened to."""
    results = tmp_path_factory.mktemp("whole")
    finish(start(results), results)
    assert len(done(results)) == STACKS
    return table(results)
