"""Which files an entry's address covers, where its module is found, and which lines are named."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from shell import own_folder

from bnstudy import entry, imports
from bnstudy.errors import UserError

__all__ = ["own_folder"]  # a fixture that acts by being here

NAMES = (f"own_entry_{i}" for i in itertools.count())

# how the entry's module reaches `helper.py` in a package of its own, and the file that is changed
WAYS = {
    "import": ("import @.helper", "helper.py"),
    "import as": ("import @.helper as h", "helper.py"),
    "from a package": ("from @ import helper", "helper.py"),
    "from a module": ("from @.helper import value", "helper.py"),
    "all of a module": ("from @.helper import *", "helper.py"),
    "relative": ("from . import helper", "helper.py"),
    "relative from a module": ("from .helper import value", "helper.py"),
    "from a package above": ("from ..@ import helper", "helper.py"),
    "inside a function": ("def later():\n    from @ import helper", "helper.py"),
    "by name": ("import importlib\nimportlib.import_module('@.helper')", "helper.py"),
    "by a relative name": (
        "import importlib\nimportlib.import_module('.helper', __package__)", "helper.py"),
    "through another module": ("from .middle import value", "helper.py"),
    "in a circle": ("from . import circle", "circle.py"),
    "the package itself": ("", "__init__.py"),
    "in a package below": ("from .below import deep", "below/deep.py"),
    "the package below": ("from .below import deep", "below/__init__.py"),
    "in a folder without init": ("import @.bare.leaf", "bare/leaf.py"),
    "under try": (
        "try:\n    import absent\nexcept ImportError:\n    from . import helper", "helper.py"),
}  # fmt: skip


def package(text: str) -> tuple[str, Path]:
    """A package in the working directory, whose module `main` begins with some text."""
    name = next(NAMES)  # a new one each time: Python remembers modules
    root = Path(name)
    for path, content in {
        "__init__.py": "",
        "main.py": f"{text.replace('@', name)}\ndef factory(channels):\n    return 1\n",
        "helper.py": "value = 1\n",
        "middle.py": "from .helper import value\n",
        "circle.py": f"import {name}.main\n",
        "below/__init__.py": "",
        "below/deep.py": "",
        "bare/leaf.py": "",
        "stranger.py": "",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    return name, root


@pytest.mark.parametrize("way", WAYS)
def test_the_hash_covers_what_the_module_imports(way):
    text, changed = WAYS[way]
    if text.startswith("from ..@"):  # nothing lies above a package in the working directory
        text = "from .below.up import helper"
    name, root = package(text)
    (root / "below" / "up.py").write_text("from .. import helper\n")
    before = entry.source_hash(f"{name}.main:factory", "norm.entry")
    assert entry.source_hash(f"{name}.main:factory", "norm.entry") == before
    (root / "stranger.py").write_text("other = 1\n")
    assert entry.source_hash(f"{name}.main:factory", "norm.entry") == before
    (root / changed).write_text("other = 2\n")
    assert entry.source_hash(f"{name}.main:factory", "norm.entry") != before


def test_the_hash_of_one_file_is_that_of_its_bytes():
    """So that records of parts that import nothing of one's own keep their addresses."""
    import hashlib

    name = next(NAMES)
    text = (
        "import torch, json\nfrom bnstudy.norms import make\ndef factory(c): return make('rms')\n"
    )
    Path(f"{name}.py").write_text(text)
    expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert entry.source_hash(f"{name}:factory", "norm.entry") == expected


def test_the_hash_does_not_depend_on_where_the_files_lie(tmp_path, monkeypatch):
    found = set()
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own_main.py").write_text("import own_help\ndef f(c): return c\n")
        (tmp_path / folder / "own_help.py").write_text("")
        code = "from bnstudy import entry; print(entry.source_hash('own_main:f', 'norm.entry'))"
        found.add(in_a_process(code, cwd=tmp_path / folder))
    assert len(found) == 1


def test_a_reexported_function_is_covered_with_the_module_that_names_it():
    name, root = package("")
    (root / "main.py").write_text("from .impl import factory\n")
    (root / "impl.py").write_text("from . import helper\ndef factory(channels): pass\n")
    before = entry.source_hash(f"{name}.main:factory", "norm.entry")
    hashes = {before}
    for file in ("main.py", "impl.py", "helper.py"):
        with (root / file).open("a") as out:
            out.write("# changed\n")
        hashes.add(entry.source_hash(f"{name}.main:factory", "norm.entry"))
    assert len(hashes) == 4


def test_python_installed_packages_and_this_one_are_nobodys_own():
    import json

    import torch

    import bnstudy

    for module in (json, torch, bnstudy, entry):
        assert not imports.is_own(module.__file__)
    assert imports.is_own(__file__)
    assert not imports.is_own("<string>")
    assert imports.sources("torch.nn") == {}


def in_a_process(code: str, cwd: Path, **env: str) -> str:
    """What a process in a folder prints; `bnstudy` is this one."""
    root = str(Path(entry.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=cwd, capture_output=True, text=True, check=False,
        timeout=120, env={**os.environ, "PYTHONPATH": root, **env},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_file_in_the_working_directory_hides_no_installed_module(tmp_path):
    """A person's `cmd.py` must not replace Python's; they are told that theirs is hidden."""
    (tmp_path / "cmd.py").write_text("def factory(channels): pass\n")
    (tmp_path / "own_main.py").write_text("def factory(channels): pass\n")
    code = """
from bnstudy import entry
entry.locate("own_main:factory", "norm.entry")
try:
    entry.locate("cmd:factory", "norm.entry")
except entry.UserError as error:
    print(error)
import cmd; print(hasattr(cmd, "Cmd"))
"""
    message, real = in_a_process(code, tmp_path).splitlines()
    assert "hides your cmd.py: give your file another name" in message
    assert real == "True"


def test_a_misspelled_module_names_the_nearest_file():
    Path("my_norms.py").write_text("")
    with pytest.raises(UserError, match=r"working directory, .*Did you mean 'my_norms'\?"):
        entry.locate("my_nroms:factory", "norm.entry")


def test_the_line_of_an_error_is_the_last_of_ones_own():
    name, root = package("")
    (root / "helper.py").write_text(
        "import torch\ndef bad():\n    return torch.zeros(2) @ torch.zeros(3)\n"
    )
    (root / "main.py").write_text("from .helper import bad\ndef factory(c):\n    return bad()\n")
    with pytest.raises(UserError, match=rf"failed at .*{name}/helper.py:3: RuntimeError"):
        entry.call(f"{name}.main:factory", "norm.entry", 1)
