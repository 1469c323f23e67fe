"""Data that come with the package, or with a package that it needs: what they are, and the same."""

import hashlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bnstudy import data
from bnstudy.config import DataConfig
from bnstudy.data import images

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
