"""From numbers by seed to intervals and verdicts."""

from bnstudy.stats import coverage, looks, power
from bnstudy.stats.families import DECIDED, UNCOUNTED
from bnstudy.stats.intervals import (
    Interval,
    paired_differences,
    per_seed,
    proportion_interval,
    summarize,
    t_interval,
)
from bnstudy.stats.tests import fewest, sign_flip, sign_flip_interval
from bnstudy.stats.verdicts import ALPHA, KINDS, MIN_SEEDS, Claim, Verdict, judge

__all__ = [
    "ALPHA",
    "DECIDED",
    "KINDS",
    "MIN_SEEDS",
    "UNCOUNTED",
    "Claim",
    "Interval",
    "Verdict",
    "coverage",
    "fewest",
    "judge",
    "looks",
    "paired_differences",
    "per_seed",
    "power",
    "proportion_interval",
    "sign_flip",
    "sign_flip_interval",
    "summarize",
    "t_interval",
]
