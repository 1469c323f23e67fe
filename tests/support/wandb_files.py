"""What offline runs of W&B hold, by W&B's own reader; and a run that only remembers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

COMMAND = str(Path(sys.executable).parent / "wandb")


DOCS = Path(__file__).parents[2] / "docs/wandb.md"


def push(folder: Path, server: Any, flag: str = "") -> None:
    """Run the line of the docs that pushes runs of `folder`/results, the one with this flag."""
    lines = [line for line in DOCS.read_text().splitlines() if line.startswith("wandb sync ")]
    (line,) = [line for line in lines if ("--" in line) == bool(flag) and flag in line]
    subprocess.run(
        line.replace("wandb", COMMAND, 1), shell=True, cwd=folder, env={**os.environ, **server.env},
        capture_output=True, timeout=120, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def runs_in(folder: Path) -> list[Path]:
    """The files of the offline runs in a folder, in the order of their names."""
    return sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda p: p.name)


def records(path: Path, kind: str) -> list[dict[str, Any]]:
    """The records of a kind: run, history, summary, metric, exit."""
    command = [COMMAND, "leet", "inspect", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [record[kind] for record in found if record["type"] == kind]


def only_run(path: Path) -> dict[str, Any]:
    """The one run of a file."""
    (run,) = records(path, "run")
    return run


def history(path: Path) -> list[dict[str, Any]]:
    return [row["item"] for row in records(path, "history")]


def summary(path: Path) -> dict[str, Any]:
    return {key: v for row in records(path, "summary") for key, v in row["update"].items()}


class StandIn:
    """A run of W&B that keeps what it is told."""

    dir = "nowhere/files"

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.exit_code: int | None = None

    def log(self, values: dict[str, Any]) -> None:
        self.told.append(values)

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code
