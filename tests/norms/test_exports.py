"""What `bnstudy.norms` offers, and that the tools are loaded only when they are asked for."""

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import bnstudy.norms
import bnstudy.normtools.fold
from bnstudy.norms import base

TOOLS = {
    "audit": ("Finding", "audit"),
    "fold": ("Folded", "fold", "fold_pair", "inference_speedup"),
    "replacement": ("PerPosition", "Swap"),
    "swap": ("Swaps", "swap_norms"),
}


@pytest.mark.parametrize("name", bnstudy.norms.__all__)
def test_every_name_offered_is_there_and_listed(name):
    assert not isinstance(getattr(bnstudy.norms, name), ModuleType)
    assert name in dir(bnstudy.norms)


def test_the_tools_are_among_the_names_and_a_wrong_one_is_an_attribute_error():
    for names in TOOLS.values():
        assert set(names) <= set(bnstudy.norms.__all__)
    with pytest.raises(AttributeError, match="swap_norm"):
        bnstudy.norms.swap_norm  # noqa: B018


def test_a_module_of_the_tools_is_a_module_and_a_function_of_the_norms_a_function():
    assert isinstance(bnstudy.normtools.fold, ModuleType)
    assert bnstudy.norms.fold is bnstudy.normtools.fold.fold
    from bnstudy.normtools.audit import CHECKS, DEFINITION, Finding, audit

    assert (bnstudy.norms.audit, bnstudy.norms.Finding) == (audit, Finding)
    assert {check.line for check in CHECKS.values()} <= DEFINITION.keys()


def test_the_norms_load_none_of_the_tools_until_they_are_asked_for():
    code = """
import sys
import bnstudy.norms
assert not any(name.startswith("bnstudy.normtools") for name in sys.modules)
from bnstudy.norms import swap_norms
assert "bnstudy.normtools.swap" in sys.modules
assert "bnstudy.normtools.fold" not in sys.modules
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "done\n", done.stderr


def test_only_the_front_of_the_norms_names_the_tools():
    """For type checkers and lazily; a norm that needed a tool would close a circle."""
    for path in Path(base.__file__).parent.glob("*.py"):
        imported = {
            node.module or ""
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom)
        }
        names = any("normtools" in name for name in imported)
        assert names == (path.name == "__init__.py"), path.name
