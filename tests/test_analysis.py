"""An installation without torch: what reads a store works, what trains says what it lacks."""

import subprocess
import sys

import pytest
from shell import GRID, STUDY, bnstudy_, own_folder, said

__all__ = ["own_folder"]

WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "wandb", "sklearn"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])
sys.meta_path.insert(0, Absent())
from bnstudy.cli import main
main(sys.argv[1:])
"""


def without_torch(*words):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, *words], capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


def test_what_reads_a_store_needs_no_torch():
    said(bnstudy_(*GRID))
    said(bnstudy_(*STUDY))
    for words in (["ls"], ["export", "--csv", "table.csv"], ["report"], STUDY,
                  ["compare", *GRID[2:]]):  # fmt: skip
        done = without_torch(*words)
        assert done.returncode == 0, (words, done.stderr)


@pytest.mark.parametrize("words", [GRID, STUDY, ["theory"]])
def test_what_trains_says_how_to_install_the_rest(words):
    done = without_torch(*words)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "needs torch" in done.stderr
    assert "--extra train" in done.stderr


def test_the_base_of_the_package_is_without_torch():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    base = " ".join(project["dependencies"])
    train = " ".join(project["optional-dependencies"]["train"])
    for name in ("torch", "torchvision", "wandb", "scikit-learn"):
        assert name not in base
        assert name in train
