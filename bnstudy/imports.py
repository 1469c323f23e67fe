"""A person's own source: which files a module is made of, and which line of theirs an error met.

A file is a person's own unless it belongs to Python, to an installed package or to this one.
"""

import ast
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from functools import cache
from importlib import util
from importlib.machinery import all_suffixes
from pathlib import Path

INSTALLED = {"site-packages", "dist-packages"}


@cache
def is_own(file: str) -> bool:
    """Whether a file is a person's own."""
    if not os.path.isfile(file):
        return False  # built in, frozen, typed at a prompt
    path = Path(file).absolute()
    places = [str(Path(__file__).parent), *map(sysconfig.get_path, ("stdlib", "platstdlib"))]
    within = [{path, *path.parents}, {(real := path.resolve()), *real.parents}]
    return not (
        INSTALLED & {*path.parts, *real.parts}
        or any(Path(place) in parents for place in places for parents in within)
    )


def sources(module: str) -> dict[str, Path]:
    """The files of a person's own that a module imports, directly or not, by module name.

    Found by reading `import` statements wherever they stand, in functions too, and
    `import_module("name")`; nothing is imported for it. The module itself is not among them unless
    one of them imports it. Not found: a name that is computed while the program runs.
    """
    found: dict[str, Path] = {}
    waiting = list(_with_packages(module))
    seen = set(waiting)
    while waiting:
        name = waiting.pop()
        file = _file(name)
        if file is None or not (name == module or is_own(str(file))):
            continue
        if name != module:
            found[name] = file
        package = name if file.stem == "__init__" else name.rpartition(".")[0]
        new = set(_imported(file, package)) - seen
        seen |= new
        waiting += new
    return dict(sorted(found.items()))


def _imported(file: Path, package: str) -> Iterator[str]:
    """Names of what a file may import, the packages above each included.

    What `from x import y` names may be a function: then there is no such file.
    """
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # a binary module, or a helper that is never reached
        return
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call) and node.args:
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            first = getattr(node.args[0], "value", None)
            if called in ("import_module", "__import__") and isinstance(first, str):
                with_dots = first.startswith(".")
                names = [util.resolve_name(first, package) if with_dots and package else first]
        for name in names:
            yield from _with_packages(name)


def _with_packages(name: str) -> Iterator[str]:
    """A module's name and those of the packages above it, which are imported before it."""
    parts = name.split(".")
    return (".".join(parts[: i + 1]) for i in range(len(parts)))


def _file(name: str) -> Path | None:
    """The file of a module; None for a folder without `__init__`, and for what is no module."""
    module = sys.modules.get(name)
    if module is not None:  # also where an installer's own hook found it
        file = getattr(module, "__file__", None)
        return Path(file) if file and os.path.isfile(file) else None
    above, _, last = name.rpartition(".")
    for folder in _folders(above) if above else sys.path:
        for suffix in all_suffixes():
            for path in (Path(folder, last, f"__init__{suffix}"), Path(folder, f"{last}{suffix}")):
                if path.is_file():
                    return path
    return None


def _folders(package: str) -> list[str]:
    """Where the modules of a package lie."""
    module = sys.modules.get(package)
    if module is not None:
        return list(getattr(module, "__path__", []))
    file = _file(package)
    if file is not None:
        return [str(file.parent)] if file.stem == "__init__" else []
    above, _, last = package.rpartition(".")
    return [str(Path(folder, last)) for folder in (_folders(above) if above else sys.path)]


def line(error: BaseException) -> str:
    """`file:line`, the last of a person's own that an error met; empty where there is none."""
    if isinstance(error, SyntaxError) and error.filename and is_own(error.filename):
        return f"{error.filename}:{error.lineno}"
    met = [f for f in traceback.extract_tb(error.__traceback__) if is_own(f.filename)]
    return f"{met[-1].filename}:{met[-1].lineno}" if met else ""
