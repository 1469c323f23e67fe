"""Makes bnstudy/data/mnist_small.npy.xz from MNIST's own files.

    BNSTUDY_DATA=FOLDER python scripts/mnist_small.py [TARGET]

A stratified random sample: 8,000 of MNIST's 60,000 training images, then 2,500 of its 10,000 test
images, in MNIST's order, drawn from (0, "mnist_small train") and (0, "mnist_small test"). A row of
the array is a label and 28 x 28 grey levels.
"""

import io
import lzma
import sys
from pathlib import Path

import numpy as np
import torch

import bnstudy.data
from bnstudy.config import DataConfig
from bnstudy.data import files
from bnstudy.data.draws import stratified
from bnstudy.data.samplers import generator

SIZES = {"train": 8000, "test": 2500}


def rows(part: str) -> np.ndarray:
    """(n, 785) bytes of a part of MNIST."""
    source = files.open_packed(DataConfig(name="mnist"), train=part == "train")
    labels = torch.as_tensor(source.targets)
    chosen = stratified(labels, SIZES[part], generator(0, f"mnist_small {part}"))
    pixels = source.data[chosen].flatten(1)
    return torch.cat([labels[chosen, None].to(torch.uint8), pixels], 1).numpy()


def content() -> bytes:
    """The bytes of the file; another version of liblzma may pack the same array otherwise."""
    array = io.BytesIO()
    np.save(array, np.concatenate([rows(part) for part in SIZES]))
    return lzma.compress(array.getvalue(), preset=9 | lzma.PRESET_EXTREME)


def main() -> None:
    """Write the file; say how large it is."""
    own = Path(bnstudy.data.__file__).with_name("mnist_small.npy.xz")
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else own
    target.write_bytes(content())
    print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
