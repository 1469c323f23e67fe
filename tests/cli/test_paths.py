"""Paths as people have them: with blanks, quotes, brackets, signs; and typed again as recorded."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shell import TINY, bnstudy_, own_folder, said

from bnstudy.cli.execute import command_line
from bnstudy.store import Store

__all__ = ["own_folder"]

ODD = ["~/plain", "a b", "a=b", "a (b) [c] {d}", "it's", 'the "best"', "a,b", "~/x = (y)"]
WORDS = [w for w in TINY if not w.startswith("data")]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def images(folder: Path) -> None:
    for label in "ab":
        (folder / label).mkdir(parents=True)
        for i in range(20):
            pixels = np.full((8, 8), 5 * i, np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{i}.png")


@pytest.mark.parametrize("path", ODD)
def test_results_data_and_configs_are_found_where_they_are(path, tmp_path):
    images(Path(path).expanduser() / "images")
    own = Path(path).expanduser() / "conf" / "norm"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("name: group\nnum_groups: 4\n")
    said(
        bnstudy_(
            "train",
            "--config-dir",
            f"{path}/conf",
            "norm=mine",
            *WORDS,
            "data=image_folder",
            f"data.root={path}/images",
            f"results_dir={path}/out",
        )
    )
    (record, _) = Store(Path(path).expanduser() / "out" / "runs")
    assert record["config"]["norm"]["num_groups"] == 4
    assert "2 runs" in said(bnstudy_("ls", f"results_dir={path}/out"))


@pytest.mark.parametrize("path", ODD)
def test_a_recorded_command_is_typed_again_as_it_was(path, monkeypatch):
    words = ["train", f"results_dir={path}", f"data.path={path}", "--config-dir", path]
    assert shlex.split(command_line(words)) == ["bnstudy", *words]


@pytest.mark.parametrize("sign", ["", "+"])
def test_the_folder_of_data_is_recorded_as_the_variable_whatever_is_in_it(sign):
    assert command_line(["train", f"{sign}data.root=~/my data"]) == (
        'bnstudy train data.root="$BNSTUDY_DATA"'
    )
