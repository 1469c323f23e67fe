"""Whole or not at all, on the disk before it has its name, and JSON that every reader accepts."""

import ast
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

import bnstudy
from bnstudy.atomic import json_text, make_folder, replacing, sync, write_atomically, write_json


@pytest.fixture
def calls(monkeypatch):
    """Names of the calls that matter, in order."""
    made = []
    for real in (os.fsync, os.replace):

        def call(*arguments, real=real):
            made.append(real.__name__)
            return real(*arguments)

        monkeypatch.setattr(os, real.__name__, call)
    return made


def test_content_is_flushed_before_the_rename_and_the_folder_after_it(tmp_path, calls):
    write_atomically(tmp_path / "x", "text")
    assert calls == ["fsync", "replace", "fsync"]


def test_what_only_live_processes_read_does_not_wait_for_the_disk(tmp_path, calls):
    write_atomically(tmp_path / "x", "text", durable=False)
    assert calls == ["replace"]


def test_text_is_utf_8_and_bytes_are_themselves(tmp_path):
    write_atomically(tmp_path / "x", "caf\u00e9")
    assert (tmp_path / "x").read_bytes() == b"caf\xc3\xa9"
    write_atomically(tmp_path / "x", b"\xff\x00")
    assert (tmp_path / "x").read_bytes() == b"\xff\x00"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch, failing):
    write_atomically(tmp_path / "x", "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "x", "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("x", "old")]


def test_a_failing_writer_leaves_the_old_content_and_nothing_else(tmp_path):
    def attempt():
        with replacing(tmp_path / "x") as aside:
            aside.write_text("half")
            raise RuntimeError("stopped")

    (tmp_path / "x").write_text("old")
    with pytest.raises(RuntimeError, match="stopped"):
        attempt()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("x", "old")]


def test_a_folder_is_flushed_after_everything_in_it(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x").write_text("x")
    (tmp_path / "a" / "y").write_text("y")
    flushed, real, paths = [], os.open, {}

    def opening(path, *mode):
        handle = real(path, *mode)
        paths[handle] = Path(path).name
        return handle

    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(paths[handle]))
    sync(tmp_path / "a")
    assert flushed == ["x", "b", "y", "a"]


def test_making_a_folder_that_is_there_does_nothing(tmp_path, calls):
    make_folder(tmp_path / "a" / "b")
    assert calls == ["fsync", "fsync"]
    make_folder(tmp_path / "a" / "b")
    assert calls == ["fsync", "fsync"]


def test_json_files_are_strict_and_what_is_not_finite_is_null(tmp_path):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    write_json(tmp_path / "x", {"b": [math.nan, 1.5], "a": np.float32(-math.inf), "c": math.inf})
    text = (tmp_path / "x").read_text()
    back = json.loads(text, parse_constant=refuse)
    assert back == {"a": None, "b": [None, 1.5], "c": None}
    assert list(back) == ["a", "b", "c"]
    assert text.endswith("}\n")


def test_names_that_are_numbers_are_sorted_as_texts():
    assert json.loads(json_text({10: 1, 9: 2, "a": 3}, "null", 1)) == {"10": 1, "9": 2, "a": 3}


RENAMES = {("os", "replace"), ("os", "rename"), ("os", "renames"), ("shutil", "move")}


def renames(source):
    """Whether a source renames files: calls, or imports of the functions that do."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add((node.value.id, node.attr))
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module, alias.name) for alias in node.names}
    return bool(found & RENAMES)


def test_nothing_else_in_the_package_renames_files():
    package = Path(bnstudy.__file__).parent
    found = {p.relative_to(package).as_posix() for p in package.rglob("*.py")
             if renames(p.read_text())}  # fmt: skip
    assert found == {"atomic.py"}
