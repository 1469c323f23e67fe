"""Runs of Weights & Biases: a run per cell while it trains, and one per study when it is judged.

Offline by default, never in the way. The store holds what was measured and the results folder what
was judged; W&B shows both. Whatever goes wrong here is caught, reported once, and becomes a status.
A server that takes no runs is not asked again in the process, because it would cost its timeout
every time: runs are kept offline, and `push` brings them there later. What is logged is listed in
docs/wandb.md.
"""

from bnstudy.tracking.cells import Mirror, Tracker
from bnstudy.tracking.environment import SETTINGS, SWITCH, UNUSED, folder, heeded, named, unset
from bnstudy.tracking.pushed import push, waiting
from bnstudy.tracking.server import NO_KEY, credentials, trouble
from bnstudy.tracking.session import FAILED, KEPT, failed, lose
from bnstudy.tracking.study import mirror_study

__all__ = ["FAILED", "KEPT", "NO_KEY", "SETTINGS", "SWITCH", "UNUSED", "Mirror", "Tracker",
           "credentials", "failed", "folder", "heeded", "lose", "mirror_study", "named", "push",
           "trouble", "unset", "waiting"]  # fmt: skip
