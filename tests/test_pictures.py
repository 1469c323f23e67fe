"""The scripts that draw pictures of images, on networks of a few steps."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from shell import bnstudy_, said

from bnstudy import api

SCRIPTS = Path(__file__).parents[1] / "scripts"


def script(name: str):
    return SimpleNamespace(**runpy.run_path(str(SCRIPTS / f"{name}.py")))


def made(folder: Path, study: str, *overrides: str) -> Path:
    """The folder of a study's results at its smallest."""
    words = "scale=smoke", "save_weights=true", "tracker.mode=disabled", "workers=1", *overrides
    return api.run_study(study, *words, results_dir=folder).folder


def test_crops_of_the_median_photograph(tmp_path):
    reference = "train.batch_size=8", "data.patch_size=24", "model.residual=true"
    folder = made(tmp_path / "results", "restoration", *reference)
    picture = script("crops").draw(folder, tmp_path / "out")
    assert np.asarray(Image.open(picture)).std() > 0


def test_the_square_is_the_one_of_median_variance():
    crops = script("crops")
    clean = np.zeros((64, 64 * 4), dtype=np.float32)
    for place, spread in enumerate((4.0, 1.0, 3.0, 2.0)):
        clean[:, 64 * place : 64 * (place + 1)] = spread * np.arange(64)
    assert crops.square(clean) == (slice(0, 64), slice(192, 256))


def test_stylized_photographs(tmp_path):
    folder = made(tmp_path / "results", "stylization")
    picture = script("stylized").draw(folder, tmp_path / "out")
    assert np.asarray(Image.open(picture)).std() > 0


@pytest.fixture
def classic(tmp_path) -> Path:
    """Two folders as of the DnCNN paper, one of them with BSD68."""
    draw = np.random.default_rng(0)
    for root, sets in (("few", ["Train400", "Set12"]), ("all", ["Train400", "Set12", "BSD68"])):
        for name in sets:
            folder = tmp_path / root / name
            folder.mkdir(parents=True)
            for i in range(2 if name != "Train400" else 10):
                pixels = draw.integers(0, 256, (44, 44), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    for image in (tmp_path / "few").rglob("*.png"):  # the same photographs in both
        there = tmp_path / "all" / image.relative_to(tmp_path / "few")
        there.write_bytes(image.read_bytes())
    return tmp_path


def test_dncnn_s_on_both_sets(classic, capsys):
    results, out = classic / "results", classic / "out"
    said(bnstudy_(
        "train", "-m", "task=restoration", "data=photos", f"data.root={classic / 'few'}",
        "model=dncnn", "norm=batch,none", "optimizer=adam", "optimizer.lr=0.001",
        "optimizer.lr_rule=none", "train.batch_size=2", "train.examples=4", "evaluate.steps=1",
        "seeds=1", "workers=1", "tracker.mode=disabled", f"results_dir={results}",
    ))  # fmt: skip
    denoiser = script("denoiser")
    denoiser.main(str(classic / "few"), str(classic / "all"), str(results), str(out))
    table = pd.read_csv(out / "denoiser.csv")
    assert len(table) == 2 * (2 + 1)  # two points on Set12, one on BSD68
    printed = capsys.readouterr().out.splitlines()
    last = table[table["patches"] == 4].set_index(["set", "norm"])["psnr"]
    for (name, norm), psnr in last.items():
        # what the script finds of Set12 is what the run found
        assert any(f"{name:<6} {norm:<6} {psnr:.2f} dB after 4 patches" in line for line in printed)
