"""`bnstudy figure` redraws results; it trains nothing."""

import json
import shutil
from pathlib import Path

import pytest
from shell import bnstudy_, own_folder, said

__all__ = ["own_folder"]

COMMITTED = Path(__file__).parents[2] / "results" / "batch_size"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Results of one grid below the working directory."""
    made = Path("results/runs/studies/batch_size/quick-1234")
    made.mkdir(parents=True)
    for name in ("table.csv", "claims.json", "study.json"):
        shutil.copy(COMMITTED / name, made)
    return made


def test_a_figure_in_every_look_from_a_name_or_a_folder(folder):
    assert said(bnstudy_("figure", "batch_size")).strip() == "batch_size-page.pdf"
    assert Path("batch_size-page.pdf").read_bytes().startswith(b"%PDF")
    said(bnstudy_("figure", str(folder), "--look", "slide", "--out", "talk.svg"))
    assert 'width="900pt"' in Path("talk.svg").read_text()  # 12.5 in
    said(bnstudy_("figure", "batch_size", "--look", "column", "--out", "a.png"))
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")
    assert not list(Path("results/runs").glob("*.parquet"))


def mistake(*words: str) -> str:
    result = bnstudy_("figure", *words)
    assert result.exit_code == 2, (result.stdout, result.exception)
    return result.stderr


def test_mistakes_are_said_in_one_message(folder):
    assert "Did you mean 'slide'" in mistake("batch_size", "--look", "slides")
    assert "Did you mean 'batch_size'" in mistake("batch_sizes")
    assert "must end in .pdf, .svg, .png" in mistake("batch_size", "--out", "a.jpg")
    assert "cannot be written" in mistake("batch_size", "--out", "no/such/folder/a.pdf")
    assert "no overrides but results_dir" in mistake("batch_size", "scale=quick")
    (folder / "claims.json").unlink()
    assert "it has no claims.json" in mistake("batch_size")
    (folder / "study.json").unlink()
    assert "it has no study.json" in mistake("batch_size")


def test_of_several_grids_one_must_be_named(folder):
    other = folder.with_name("smoke-5678")
    shutil.copytree(folder, other)
    assert f"name one: {folder}, {other}" in mistake("batch_size")


def test_a_study_of_ones_own_needs_its_config_folder(folder):
    described = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps({**described, "name": "mine"}))
    assert "unknown study 'mine'" in mistake("batch_size")
