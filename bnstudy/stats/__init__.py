"""From numbers by seed to intervals and verdicts."""

from bnstudy.stats.intervals import (
    Interval,
    paired_differences,
    per_seed,
    summarize,
    t_interval,
)
from bnstudy.stats.verdicts import (
    ALPHA,
    LEVELS,
    MIN_SEEDS,
    POWER,
    Claim,
    Verdict,
    judge,
)

__all__ = [
    "ALPHA",
    "LEVELS",
    "MIN_SEEDS",
    "POWER",
    "Claim",
    "Interval",
    "Verdict",
    "judge",
    "paired_differences",
    "per_seed",
    "summarize",
    "t_interval",
]
