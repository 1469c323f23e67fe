"""A store in a fresh folder, and what it says."""

import sys
from pathlib import Path

import pytest

from bnstudy.store import Store

sys.path.insert(0, str(Path(__file__).parent))  # for store_samples


@pytest.fixture
def said():
    return []


@pytest.fixture
def store(tmp_path, said):
    return Store(tmp_path / "runs", say=said.append)
