import os

import pytest

from bnstudy.tracking import session


@pytest.fixture(autouse=True)
def _clean(tmp_path, monkeypatch):
    """No failure of an earlier test, and nothing of the person's own W&B."""
    monkeypatch.setattr(session, "failure", None)
    monkeypatch.setattr(session, "lost", None)
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    for name in ("CACHE", "DATA", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name.lower()))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
