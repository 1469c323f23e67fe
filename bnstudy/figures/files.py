"""Figures as files, and the words below them."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from bnstudy.figures.style import rc

# what would change with every run of the same code
UNDATED: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


def content(figure: Figure, kind: str) -> bytes:
    """A figure as the bytes of an SVG, PDF or PNG; the same figure gives the same bytes.

    The same bytes hold for one matplotlib version.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context(rc()):
        figure.savefig(buffer, format=kind, metadata=UNDATED[kind])
    return numbered(buffer.getvalue()) if kind == "svg" else buffer.getvalue()


def numbered(svg: bytes) -> bytes:
    """An SVG whose markers and clipping areas are numbered as they come.

    matplotlib names them by hashes of coordinates, whose last bits vary from drawing to drawing.
    """
    names: dict[bytes, bytes] = {}

    def name(found: re.Match[bytes]) -> bytes:
        return names.setdefault(found[0], found[1] + str(len(names)).encode())

    return re.sub(rb'(?<=[#"])([mp])[0-9a-f]{10}(?=[")])', name, svg)


def save(figure: Figure, folder: str | Path, stem: str = "figure") -> list[Path]:
    """Write a figure as SVG, PDF and PNG, without dates. Returns the three paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}.{kind}" for kind in UNDATED]
    for path in paths:
        path.write_bytes(content(figure, path.suffix[1:]))
    return paths


def caption(
    n_seeds: int | Sequence[int], interval: str, rule: str, command: str, diverged: bool = False
) -> str:
    """What a reader needs to judge a figure: seeds, the interval's kind, the rule, the command.

    n_seeds: seeds per point, or (fewest, most) where points differ; interval such as
    "95 % Student-t"; rule: the comparison rule, such as "equal epochs, lr proportional to batch";
    diverged: whether the figure has crossed markers, which are then explained.
    """
    if isinstance(n_seeds, int):
        n = f"{n_seeds} paired seed{'' if n_seeds == 1 else 's'}"
    else:
        n = f"{min(n_seeds)} to {max(n_seeds)} paired seeds"
    crossed = " Crossed out: some runs diverged; they count at chance error." if diverged else ""
    return (
        f"Mean over {n}; bars: {interval} interval.{crossed} Compared at {rule}. Made by: {command}"
    )
