"""A study's results as one run: its headline figure, its claims as a table, its verdicts."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bnstudy.atomic import write_json
from bnstudy.config import TrackerConfig
from bnstudy.machine import git_state
from bnstudy.tracking import session

# columns of the claims table; p is Holm's where claims are adjusted for each other
COLUMNS = ("claim", "kind", "verdict", "mean", "low", "high", "unit", "n", "p", "published",
           "status")  # fmt: skip
PRIMARY = ("verdict", "mean", "low", "high", "unit", "status")  # in the run's summary
CONFIG = ("scale", "seeds", "command", "registered")  # of study.json, beside the study's name
NOT_INSTALLED = "has no run of this study: it is not installed; its results are complete"

Call = Callable[..., str]
"""Calls a function with arguments, perhaps in another process."""


def mirror_study(
    settings: TrackerConfig, folder: Path, results: Path, stamp: str, call: Call
) -> str:
    """Make the W&B run of a study's results, once; returns the status and never raises.

    Results have one run: `folder`/studies notes the stamp of those that were mirrored, and results
    with the same stamp are not mirrored again, in whatever mode. A failure is not noted, so the
    next command tries again. Results of an unfinished grid have no stamp and no run.

    Args:
        settings: mode, project and entity.
        folder: the run goes to `folder`/wandb.
        results: folder of the results, `.../<study>/<scale>-<hash>`.
        stamp: hash of what the results were made from; empty while the grid is unfinished.
        call: calls what imports W&B.
    """
    if settings.mode == "disabled":
        return "disabled"
    if not stamp:
        return "has no run of this study yet: its grid is unfinished"
    note = folder / "studies" / results.parent.name / f"{results.name}.json"
    made = _noted(note)
    if made.get("stamp") == stamp:
        return _told(made, folder)
    if session.failure is not None:
        return "has no run of this study: it failed before; the next command tries again"
    try:
        status = call(_mirrored, settings, folder, results, stamp, note)
    except Exception as error:  # of a process that must not matter
        return session.failed(session.reason(error))
    if status.startswith(session.FAILED):  # there, if that is another process
        session.failed(status.removeprefix(session.FAILED))
    return status


def _noted(note: Path) -> dict[str, Any]:
    """What was mirrored last of these results; empty when nothing was, or the note is damaged."""
    try:
        made = json.loads(note.read_text())
    except (OSError, ValueError):
        return {}
    return made if isinstance(made, dict) and {"mode", "run"} <= made.keys() else {}


def _mirrored(settings: TrackerConfig, folder: Path, results: Path, stamp: str, note: Path) -> str:
    """Make the run and note it; the status."""
    try:
        study = json.loads((results / "study.json").read_text())
        claims = json.loads((results / "claims.json").read_text())
        run = session.opened(
            settings,
            folder.absolute(),
            id=f"{study['name']}-{results.name}-{stamp[:8]}",
            name=f"{study['name']} {study['scale']}",
            group=study["name"],
            job_type="study",
            tags=[study["name"], study["scale"], study["status"], git_state()["commit"][:7]],
            notes=f"{study['claim']} ({study['source']})",
            config={"study": study["name"], **{key: study[key] for key in CONFIG}, "stamp": stamp},
        )
        online = settings.mode == "online" and session.lost is None
        place = Path(run.dir).parent.name
        _log(run, claims, results / "figure.png", study["caption"])
        try:
            session.closed(run, 0, online)
        except TimeoutError as error:  # all of it is in the run's folder
            session.lose(session.reason(error))
        online &= session.lost is None
        made = {"stamp": stamp, "mode": "online" if online else "offline",
                "run": run.url if online else place}  # fmt: skip
        note.parent.mkdir(parents=True, exist_ok=True)
        write_json(note, made)
    except ModuleNotFoundError as error:
        if error.name != "wandb":
            return session.failed(session.reason(error))
        return NOT_INSTALLED
    except Exception as error:  # of a library and a network that must not matter
        return session.failed(session.reason(error))
    return _told(made, folder)


def _told(made: Mapping[str, Any], folder: Path) -> str:
    """Where the run is, and how it gets to a server."""
    if made["mode"] == "online":
        return f"mirrored: {made['run']}"
    return f"mirrored offline, in {folder / 'wandb' / made['run']}; `bnstudy sync` pushes it"


def _log(run: Any, claims: Sequence[Mapping[str, Any]], figure: Path, caption: str) -> None:
    """Put figure, table and verdicts into an open run."""
    import wandb

    table = wandb.Table(columns=list(COLUMNS), data=rows(claims))
    run.log({"figure": wandb.Image(str(figure), caption=caption), "claims": table})
    run.summary.update(summary(claims))


def rows(claims: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """A row of `COLUMNS` for each claim of claims.json, in its order."""
    found = []
    for claim in claims:
        p = claim["p"] if claim["p_holm"] is None else claim["p_holm"]
        own = {**claim, "claim": claim["text"], "p": p}
        found.append([own[column] for column in COLUMNS])
    return found


def summary(claims: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many claims have each verdict, and the primary claim's; without what it does not have."""
    counts = Counter(claim["verdict"] for claim in claims)
    found: dict[str, Any] = {f"verdicts/{verdict}": n for verdict, n in counts.items()}
    for claim in claims:
        if claim["primary"]:
            found["primary/claim"] = claim["text"]
            found |= {f"primary/{key}": claim[key] for key in PRIMARY if claim[key] is not None}
    return found
