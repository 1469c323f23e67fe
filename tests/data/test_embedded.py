"""Data that come with the package, or with a package that it needs: what they are, and the same."""

import hashlib
import importlib.util
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bnstudy import data
from bnstudy.config import DataConfig
from bnstudy.data import draws, images, patches
from bnstudy.errors import UserError

ROOT = Path(__file__).parents[2]
MNIST = Path(os.environ.get("BNSTUDY_DATA", "/nowhere")) / "MNIST" / "raw"


def test_mnist_small_has_the_documented_parts():
    d = data.load(DataConfig(name="mnist_small"))
    assert (d.shape, d.num_classes) == ((1, 28, 28), 10)
    assert d.info["sizes"] == {"train": 7200, "val": 800, "test": 2500}
    # MNIST's own mean and s.d. are 0.1307 and 0.3081; a mean over 8,000 images, whose means have a
    # s.d. of about 0.04, has a standard error of 0.0005
    assert abs(d.info["mean"][0] - 0.1307) < 0.0025
    counts = torch.bincount(d.test_y)
    assert counts.min() > 200  # MNIST's rarest class, the 5, has 8.9 %


def test_mnist_small_is_the_same_everywhere():
    """Its bytes are no part of an address: they must not change."""
    found = hashlib.sha256(images.MNIST_SMALL.read_bytes()).hexdigest()
    assert found[:16] == "a2b25a9f0317de92"
    assert images.MNIST_SMALL.stat().st_size < 2e6


@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST is not under $BNSTUDY_DATA")
def test_mnist_small_can_be_made_again_to_the_byte():
    made = runpy.run_path(str(ROOT / "scripts" / "mnist_small.py"))["content"]()
    assert made == images.MNIST_SMALL.read_bytes()


def test_mnist_small_is_read_without_scikit_learn():
    code = (
        "import sys; from bnstudy import data; from bnstudy.config import DataConfig;"
        "data.load(DataConfig(name='mnist_small')); assert 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- patches of photographs

needs_photographs = pytest.mark.skipif(
    importlib.util.find_spec("skimage") is None, reason="scikit-image is not installed"
)


@needs_photographs
def test_patches_have_the_documented_parts():
    d = data.load(DataConfig(name="patches"))
    assert (d.shape, d.num_classes) == ((1, 16, 16), 10)
    assert d.info["classes"] == list(patches.PHOTOGRAPHS)
    assert d.info["sizes"] == {"train": 4500, "val": 750, "test": 1750}
    for part in data.PARTS:
        counts = torch.bincount(getattr(d, f"{part}_y"))
        assert counts.min() == counts.max(), part


@pytest.fixture
def numbered(monkeypatch):
    """Every pixel of ten photographs has a value of its own, which float32 holds exactly."""
    sides = (300, 451)  # the smallest photograph
    pixels = torch.arange(10 * sides[0] * sides[1]).view(10, *sides)
    images = iter(pixels.float())
    monkeypatch.setattr(patches, "paths", lambda: range(10))
    monkeypatch.setattr(patches, "_grey", lambda path: next(images))
    return pixels


def parts_of(seed, split_seed=0):
    """The pixels that each part reads, of one seed."""
    pool = patches.load(DataConfig(name="patches", split_seed=split_seed))
    drawn = draws.parts(pool, DataConfig(name="patches"), seed)
    images = {"test": pool.test_x, **{part: pool.x[index] for part, index in drawn.items()}}
    labels = {"test": pool.test_y, **{part: pool.y[index] for part, index in drawn.items()}}
    return images, labels


def test_no_pixel_is_shared_by_examples_of_two_parts_and_regions_keep_their_distance(numbered):
    images, labels = parts_of(seed=3)
    rows, columns = numbered.shape[1:]
    seen = torch.full(numbered.shape, -1)
    for i, part in enumerate(data.PARTS):
        pixels = images[part].long().flatten()
        assert torch.equal(
            pixels // (rows * columns), labels[part].repeat_interleave(patches.SIDE**2)
        ), "the class is the photograph"
        assert (seen.view(-1)[pixels] == -1).logical_or(seen.view(-1)[pixels] == i).all()
        seen.view(-1)[pixels] = i
    for axis in (1, 2):  # along an axis: from a pixel of one part to the next of another
        for line in seen.movedim(axis, -1).reshape(-1, seen.shape[axis]):
            used = (line >= 0).nonzero().flatten()
            apart = line[used].diff() != 0
            assert (used.diff()[apart] > 16).all()


def test_test_regions_follow_split_seed_and_the_others_the_seed(numbered, monkeypatch):
    def drawn(seed, split_seed=0):
        images = iter(numbered.float())
        monkeypatch.setattr(patches, "_grey", lambda path: next(images))
        return {p: set(x.flatten().tolist()) for p, x in parts_of(seed, split_seed)[0].items()}

    first, second, other = drawn(0), drawn(1), drawn(0, split_seed=1)
    assert first["test"] == second["test"] != other["test"]
    assert first["val"] != second["val"]
    assert first["train"] | first["val"] == second["train"] | second["val"]


def test_without_the_photographs_the_packages_to_install_are_named(monkeypatch):
    monkeypatch.setitem(patches.PHOTOGRAPHS, "china", ("sklearn", "no_such.jpg"))
    with pytest.raises(UserError, match=r"no_such\.jpg .* sklearn.*install .*scikit-image"):
        data.load(DataConfig(name="patches"))
