"""The 10-minute tour, followed command by command."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOUR = (ROOT / "docs" / "tour.md").read_text()
BLOCK = re.compile(
    r"(?P<slow><!-- slow -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```", re.M | re.S
)


def follow(folder: Path, slow: bool) -> str:
    """Run the page's blocks in a folder, each as a reader would; what they printed.

    Blocks marked slow are left out unless asked for. A block of Python that begins with the name of
    a file is that file.
    """
    environment = os.environ | {
        "PYTHONPATH": f"{folder}:{ROOT}",
        "PATH": f"{_commands(folder)}:{os.environ['PATH']}",
    }  # fmt: skip
    said = []
    for block in BLOCK.finditer(TOUR):
        code = block["code"]
        if block["slow"] and not slow:
            continue
        if named := re.match(r"# (\w+\.py)\n", code):
            (folder / named[1]).write_text(code)
            continue
        program = ["bash", "-e", "-c"] if block["language"] == "bash" else [sys.executable, "-c"]
        done = subprocess.run(
            [*program, code], cwd=folder, env=environment, timeout=300,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (code, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, code
        said.append(done.stdout)
    return "\n".join(said)


def _commands(folder: Path) -> Path:
    """A folder with `bnstudy`: this checkout's, whatever is installed."""
    place = folder / "bin"
    place.mkdir()
    script = place / "bnstudy"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bnstudy "$@"\n')
    script.chmod(0o755)
    return place


def test_the_tour_shows_what_it_says(tmp_path):
    said = follow(tmp_path, slow=False)
    assert "missing  16 models" in said
    assert said.count("trained  16 models") == 1
    assert "nothing is missing" in said
    assert (tmp_path / "runs.csv").is_file()
    assert (tmp_path / "results" / "runs" / "report.html").is_file()
    for name in re.findall(r"^\| `(\w+\.\w+)`", TOUR, re.M):
        assert list(tmp_path.rglob(name)), f"the page promises {name}"


@pytest.mark.slow
def test_the_whole_tour(tmp_path):
    assert "custom" in follow(tmp_path, slow=True)


def test_no_block_is_passed_over():
    assert 2 * len(BLOCK.findall(TOUR)) == TOUR.count("```")
