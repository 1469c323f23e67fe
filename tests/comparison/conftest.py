"""A table of runs whose comparison can be worked out by hand."""

import math

import pandas as pd
import pytest

VALUES = {  # seeds 0, 1, 2
    ("batch", 2): (0.30, 0.34, 0.32),
    ("group", 2): (0.11, 0.15, 0.12),
    ("batch", 32): (0.10, 0.12, 0.11),
    ("group", 32): (0.12, 0.12, 0.15),
}


@pytest.fixture
def axes():
    return {"norm.name": ["batch", "group"], "train.batch_size": [2, 32]}


@pytest.fixture
def table():
    return pd.DataFrame(
        [
            {
                "norm.name": norm,
                "train.batch_size": size,
                "seed": seed,
                "test_error": error,
                "test_loss": 3 * error,
                "least_m": size,
                "wall_seconds": 2.0 + seed,
                "diverged_at": 7.0 if (norm, size, seed) == ("batch", 2, 1) else math.nan,
                "bnstudy": "0.1.0",
                "torch": "2.15.0",
            }
            for (norm, size), errors in VALUES.items()
            for seed, error in enumerate(errors)
        ]
    ).sample(frac=1, random_state=0)  # pairing must not rest on the order of rows


@pytest.fixture
def many():
    """Three arms with 12 seeds: batch is 20 pp above group, layer between, 0.5 pp above group."""
    shift = {"batch": 0.2, "layer": 0.005, "group": 0.0}
    return pd.DataFrame(
        [
            {"norm.name": norm, "seed": seed, "test_error": 0.1 + more + 0.001 * (seed % 3 + i)}
            for i, (norm, more) in enumerate(shift.items())
            for seed in range(12)
        ]
    )
