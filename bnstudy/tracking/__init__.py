"""Runs of Weights & Biases: a run per cell while it trains, and one per study when it is judged.

Offline by default, never in the way. The store holds what was measured and the results folder what
was judged; W&B shows both. Whatever goes wrong here is caught, reported once, and becomes a status;
W&B is then left alone for the rest of the process, because a dead server would cost its timeout
again for every run. What is logged is listed in docs/wandb.md.
"""

from bnstudy.tracking.cells import Mirror, Tracker
from bnstudy.tracking.session import FAILED, failed
from bnstudy.tracking.study import mirror_study

__all__ = ["FAILED", "Mirror", "Tracker", "failed", "mirror_study"]
