"""Parts of a user's own: `package.module:name`, checked at once, hashed into the address.

The environment variable BNSTUDY_TRACEBACK=1 adds the traceback to a message about their code.
"""

import hashlib
import importlib
import inspect
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bnstudy import imports
from bnstudy.errors import UserError, did_you_mean
from bnstudy.imports import line

LONG = 400  # characters of an error's own text that a message repeats
ADVICE = (  # words of an error, and what helps
    ("is on meta", "put new tensors on x.device"),
    ("mat1 and mat2 shapes", "compute in_features from the argument `shape` of one example"),
    ("expected input", "the argument `shape` of build says (C, H, W) of one example"),
    ("Kernel size can't be greater", "the images are smaller than the network needs"),
)
CALLED = {
    "norm.entry": "factory(channels)",
    "model.entry": "build(config, shape, num_classes, norm)",
    "data.entry": "load(config)",
}


def locate(entry: str, key: str) -> Callable[..., Any]:
    """The function that an entry names; `key` is the setting that messages speak of.

    Modules are looked for in the working directory, too, after all other places: a file there
    hides no installed package. Raises UserError when the entry is not of the form
    `package.module:function`, cannot be imported, or is not callable.
    """
    module_name, _, name = entry.partition(":")
    if not module_name or not name:
        raise UserError(f"{key} must look like package.module:function, not '{entry}'")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # a console script does not have it, a person expects it
    importlib.invalidate_caches()  # the module may have been written after the first look
    try:
        module = pkgutil.resolve_name(f"{module_name}:")
    except Exception as e:  # anything can go wrong in a module that is not ours
        raise _import_failed(entry, key, module_name, e) from e
    try:
        function = pkgutil.resolve_name(entry)
    except (AttributeError, ValueError):  # absent, or no name at all
        hint = did_you_mean(name, dir(module)) or _hidden(module_name, module)
        said = f"{key}={entry}: the module '{module_name}' has no '{name}'.{hint}"
        raise UserError(said) from None
    if not callable(function):
        raise UserError(f"{key}={entry} is a {type(function).__name__}, not a function")
    return function


def _import_failed(entry: str, key: str, module: str, error: Exception) -> UserError:
    what = f"{key}={entry}: importing '{module}' failed"
    absent = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
    if not absent:
        return failed(what, error)
    there = [p.stem for p in Path.cwd().glob("*.py")]
    return UserError(
        f"{what}: {type(error).__name__}: {error}. It is looked for among the installed packages "
        f"and in the working directory, {Path.cwd()}.{did_you_mean(module, there)}"
    )


def _hidden(name: str, module: Any) -> str:
    """What to say where the module found is another than the file in the working directory."""
    file, own = getattr(module, "__file__", None), Path.cwd() / f"{name.replace('.', '/')}.py"
    if not own.is_file() or (file and Path(file).resolve() == own.resolve()):
        return ""
    return f" It is {file or 'built in'} and hides your {own.name}: give your file another name."


def call(entry: str, key: str, *arguments: Any) -> Any:
    """What the function of an entry returns; UserError, with the user's line, when it raises."""
    function = locate(entry, key)
    try:
        return function(*arguments)
    except UserError:
        raise
    except Exception as e:  # anything can go wrong in a function that is not ours
        what = f"{key}={entry} failed"
        if isinstance(e, TypeError) and not line(e):  # it did not even begin
            what = f"{key}={entry} is called as {CALLED.get(key, 'it is')}, which failed"
        raise failed(what, e, where=defined(function)) from e


def returned(entry: str, key: str, value: Any, wanted: str) -> UserError:
    """The error for an entry that returns something else than it must."""
    hint = " Did you forget `return`?" if value is None else ""
    at = defined(locate(entry, key))
    return UserError(
        f"{key}={entry}{f' at {at}' if at else ''} returned {kind(value)}; {wanted}.{hint}"
    )


def kind(value: Any) -> str:
    """What a value is, in a message."""
    return "None" if value is None else f"a value of type {type(value).__name__}"


def failed(what: str, error: Exception, where: str = "") -> UserError:
    """One message for an error in a person's own code: what failed, at which line of theirs, why.

    Args:
        where: `file:line` to name where the error met no line of theirs.
    """
    said = f"{what}{reason(error, where)}."
    said += "".join(f" What helps: {advice}." for words, advice in ADVICE if words in said)
    if os.environ.get("BNSTUDY_TRACEBACK", "0") not in ("", "0"):
        return UserError(f"{said}\n{''.join(traceback.format_exception(error))}")
    return UserError(f"{said} BNSTUDY_TRACEBACK=1 shows the traceback.")


def reason(error: Exception, where: str = "") -> str:
    """` at file:line: Type: text` of an error, on one line; `file:line` is the person's own."""
    at, text = line(error) or where, " ".join(str(error).split()).rstrip(".")
    text = text if len(text) <= LONG else f"{text[:LONG]}..."
    return f"{f' at {at}' if at else ''}: {type(error).__name__}{f': {text}' if text else ''}"


def source_hash(entry: str, key: str) -> str:
    """Hash of an entry's source: another source is another experiment.

    Covered: the whole file that defines it, the module that the entry names, and every module that
    those import, directly or not (`imports.sources`). Not covered: the standard library, installed
    packages (their versions are in the record), this package, and files that the code reads; the
    tensors of data=custom have a fingerprint of their own.
    """
    function, named = locate(entry, key), entry.partition(":")[0]
    module = getattr(inspect.unwrap(function), "__module__", None) or named
    origins = {name: getattr(sys.modules.get(name), "__file__", None) for name in (module, named)}
    parts = {n: Path(f) for n, f in origins.items() if f and imports.is_own(f)}
    file = _file(function) or next(map(str, parts.values()), None)
    if file is None:
        raise UserError(f"{key}={entry}: its source cannot be read; define it in a .py file")
    for name in list(parts):
        parts = imports.sources(name) | parts
    found = hashlib.sha256(Path(file).read_bytes())
    for name, path in sorted(parts.items()):
        if not path.samefile(file):
            found.update(f"\0{name}\0".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def defined(function: Callable[..., Any]) -> str:
    """`file:line` of the definition of a function, or of a class; empty for a builtin."""
    try:
        file = _file(function)
        return f"{file}:{inspect.getsourcelines(inspect.unwrap(function))[1]}" if file else ""
    except (OSError, TypeError):
        return ""


def _file(function: Callable[..., Any]) -> str | None:
    """Where a function is defined; None for a builtin."""
    try:
        return inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:
        return None
