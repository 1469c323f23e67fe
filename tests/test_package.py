"""The wheel: installed into an empty folder it has its configs with it and trains."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
UV = shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")
TINY = ["model=mlp", "data.train_size=40", "train.steps=3", "train.batch_size=8", "seeds=2",
        "tracker.mode=disabled", "workers=1"]  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(UV).exists(), reason="there is no uv to build with"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # what is tracked or would be, elsewhere: a build must not find or leave anything in the tree
    source = folder / "source"
    ignore = shutil.ignore_patterns(".*", "results", "__pycache__", "tests")
    shutil.copytree(ROOT, source, ignore=ignore)
    built = subprocess.run(
        [UV, "build", "--wheel", "--out-dir", str(folder), str(source)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the wheel in it and nothing else; dependencies come from this environment."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run(
        [UV, "pip", "install", "--quiet", "--no-deps", "--target", str(folder), str(wheel)],
        check=True, timeout=300,
    )  # fmt: skip
    return folder


@pytest.fixture
def command(installed, tmp_path):
    """`bnstudy` of the installed wheel, started in an empty folder."""
    environment = {k: v for k, v in os.environ.items() if k not in ("BNSTUDY_DATA", "PYTHONPATH")}
    environment |= {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", "from bnstudy.cli import main; main()", *words],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_wheel_holds_package_configs_and_templates(wheel):
    names = set(ZipFile(wheel).namelist())
    kinds = ("*.py", "*.jinja", "*.txt", "py.typed")
    ours = {p for pattern in kinds for p in (ROOT / "bnstudy").rglob(pattern)}
    assert {str(p.relative_to(ROOT)) for p in ours} <= names
    configs = {f"bnstudy/{p.relative_to(ROOT)}" for p in (ROOT / "configs").rglob("*.yaml")}
    assert configs <= names
    assert all(n.startswith(("bnstudy/", "bnstudy-")) for n in names)


def test_the_entry_point_is_there(installed):
    (entry,) = installed.glob("bnstudy-*.dist-info/entry_points.txt")
    assert "bnstudy = bnstudy.cli:main" in entry.read_text()


def test_it_is_the_wheel_that_runs(command, installed):
    assert f"configs in {installed}" in command("doctor")


def test_a_study_plans_from_an_empty_folder(command, tmp_path):
    text = command("study", "batch_size", "scale=smoke", "--dry-run")
    assert "8 cells x 2 seeds = 16 models" in text
    assert list(tmp_path.iterdir()) == []


def test_it_trains_in_process_and_in_workers(command, tmp_path):
    assert "trained  2 models" in command("train", *TINY)
    assert "trained  4 models" in command(
        "train", "-m", "norm=group,none", *TINY[:-1], "workers=2", "save_weights=false"
    )
    assert "nothing is missing" in command("train", *TINY)
    assert [p.name for p in tmp_path.iterdir()] == ["results"]


def test_a_study_runs_to_its_verdict(command, tmp_path):
    text = command("study", "batch_size", "scale=smoke", "tracker.mode=disabled")
    assert "trained  16 models" in text
    assert Path(tmp_path, text.splitlines()[-3]).stat().st_size > 0  # the figure
    assert "1 study:" in command("report")
