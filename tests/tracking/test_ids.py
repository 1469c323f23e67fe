"""Ids of W&B runs: one for each attempt, also of planners that do not know of each other."""

import sys
from typing import ClassVar

from bnstudy.config import TrackerConfig
from bnstudy.tracking import Tracker, session


def test_two_that_count_the_same_attempt_have_two_ids(tmp_path, monkeypatch):
    """Both planners look at the folder before either has written to it."""
    ids = []

    class Wandb:
        @staticmethod
        def init(id, **settings):
            ids.append(id)
            raise RuntimeError("enough")

        class Settings:
            model_fields: ClassVar[dict] = {}

    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    for _ in range(2):
        monkeypatch.setattr(session, "failure", None)
        Tracker(TrackerConfig(), tmp_path, "g").start("c" * 16, "abcdef", {}, "n")
    assert len(set(ids)) == 2
    assert all(name.startswith(f"{'c' * 16}-abcdef-1-") for name in ids)
