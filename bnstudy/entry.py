"""Parts of a user's own: `package.module:name`, checked at once, hashed into the address."""

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

from bnstudy.errors import UserError, did_you_mean


def locate(entry: str, key: str) -> Callable[..., Any]:
    """The function that an entry names; `key` is the setting that messages speak of.

    Modules are looked for in the working directory, too. Raises UserError when the entry is not
    of the form `package.module:function`, cannot be imported, or is not callable.
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
        raise UserError(
            f"{key}={entry}: importing '{module_name}' failed ({type(e).__name__}: {e}). It is "
            f"looked for in the working directory and among the installed packages."
        ) from e
    try:
        function = pkgutil.resolve_name(entry)
    except (AttributeError, ValueError):  # absent, or no name at all
        hint = did_you_mean(name, dir(module))
        said = f"{key}={entry}: the module '{module_name}' has no '{name}'.{hint}"
        raise UserError(said) from None
    if not callable(function):
        raise UserError(f"{key}={entry} is a {type(function).__name__}, not a function")
    return function


def call(entry: str, key: str, *arguments: Any) -> Any:
    """What the function of an entry returns; UserError, with the user's line, when it raises."""
    function = locate(entry, key)
    try:
        return function(*arguments)
    except UserError:
        raise
    except Exception as e:  # anything can go wrong in a function that is not ours
        # the last line of theirs: what raised may be torch
        file = _file(function)
        lines = [f.lineno for f in traceback.extract_tb(e.__traceback__) if f.filename == file]
        where = f" at {file}:{lines[-1]}" if lines else ""
        raise UserError(f"{key}={entry} failed{where}: {type(e).__name__}: {e}") from e


def source_hash(entry: str, key: str) -> str:
    """Hash of the file in which an entry is defined: another source is another experiment.

    The whole file counts, so that helpers beside the function count; what it imports does not.
    """
    file = _file(locate(entry, key))
    if file is None:
        raise UserError(f"{key}={entry}: its source cannot be read; define it in a .py file")
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]


def _file(function: Callable[..., Any]) -> str | None:
    """Where a function is defined; None for a builtin."""
    try:
        return inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:
        return None
