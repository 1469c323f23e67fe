"""Single-edit mutants of our own BatchNorm: one operator, constant, condition or statement.

Only what an audit of the default layer executes is edited, in the formulas, the base class and the
layer; never a message, a docstring, a check of arguments or the printed form.
"""

import ast
import importlib
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bnstudy.norms
from bnstudy.norms import arguments

ROOT = Path(bnstudy.norms.__file__).parent
MODULES = ("functional", "base", "batch_norm")
SKIPPED = (
    "extra_repr",
    "check",
    "_check",
    "_check_renormalization",
    "_check_count",
    "one_of",
    "_is_plain",
    "_one_value",
)
# edits that cannot be seen from outside, by the statement edited, each with its reason
EQUIVALENT = {
    "channels != 1 only in other norms": ("c // channels", "examples * channels"),
    "one group is its own pool": ("if mean.shape[",),
    "in one process": ("if processes(",),
    "momentum None only when asked for": ("weight = 1 / updates",),
    "ignored by the kernel in evaluation": ("self.momentum if update else 0.0",),
    "an audit's inputs are never empty": ("x.numel() == 0",),
    "an audit's layers keep a population": ("evaluation == 'population' and self.running_mean",),
    "memory only": ("update and self.keep_moments",),
    "two kernels of torch with equal results": ("if x.is_cuda and",),
    "fused and reference are equal": ("self.backend ==", "if self._is_plain()"),
}
SWAPS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.Eq: ast.NotEq,
    ast.In: ast.NotIn,
    ast.Gt: ast.LtE,
    ast.Lt: ast.GtE,
}


def executed(run) -> set[tuple[str, int]]:
    """(module, line) of everything in MODULES that `run()` executes."""
    files, lines = {str(ROOT / f"{name}.py"): name for name in MODULES}, set()

    def trace(frame, event, argument):
        name = files.get(frame.f_code.co_filename)
        if name is None or frame.f_code.co_name in SKIPPED:
            return None
        lines.add((name, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return lines


def mutants(lines: set[tuple[str, int]]) -> Iterator[tuple[str, str, ast.Module]]:
    """(module, description, mutated tree), one for each possible edit on these lines."""
    for name in MODULES:
        tree = ast.parse((ROOT / f"{name}.py").read_text())
        for node in list(ast.walk(tree)):  # each edit is undone before the next
            if (name, getattr(node, "lineno", -1)) not in lines or _is_guard(tree, node):
                continue
            statement = ast.unparse(_statement(tree, node)).splitlines()[0]
            if any(key in statement for keys in EQUIVALENT.values() for key in keys):
                continue
            for text in _edits(tree, node):
                yield name, f"{name}.py:{node.lineno}: {text}", ast.fix_missing_locations(tree)


def _edits(tree: ast.Module, node: ast.AST) -> Iterator[str]:
    """Apply each edit this node allows, in turn."""
    before = ast.unparse(node)
    if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in SWAPS:
        old = node.op
        node.op = SWAPS[type(old)]()
        yield f"{before} -> {ast.unparse(node)}"
        node.op = old
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        old = node.ops[0]
        node.ops[0] = SWAPS[type(old)]()
        yield f"{before} -> {ast.unparse(node)}"
        node.ops[0] = old
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        parent, field, place = _parent(tree, node)
        _put(parent, field, place, node.operand)
        yield f"{before} -> {ast.unparse(node.operand)}"
        _put(parent, field, place, node)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        old = node.value
        node.value = (not old) if isinstance(old, bool) else old + 1
        yield f"{before} -> {node.value} in {ast.unparse(_statement(tree, node))[:80]}"
        node.value = old
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        parent, field, place = _parent(tree, node)
        _put(parent, field, place, ast.copy_location(ast.Pass(), node))
        yield f"without: {before[:80]}"
        _put(parent, field, place, node)


def _parent(tree, child):
    for node in ast.walk(tree):
        for field, value in ast.iter_fields(node):
            if value is child:
                return node, field, None
            if isinstance(value, list):
                for place, item in enumerate(value):
                    if item is child:
                        return node, field, place
    raise LookupError


def _put(parent, field, place, value):
    if place is None:
        setattr(parent, field, value)
    else:
        getattr(parent, field)[place] = value


def _statement(tree, node):
    while not isinstance(node, ast.stmt):
        node = _parent(tree, node)[0]
    return node


def _is_guard(tree, node) -> bool:
    """Whether the node belongs to an argument check, its message, or a skipped function."""
    while True:
        if isinstance(node, ast.Raise | ast.JoinedStr):
            return True
        if isinstance(node, ast.If) and isinstance(node.body[0], ast.Raise):
            return True
        if isinstance(node, ast.FunctionDef) and node.name in SKIPPED:
            return True
        call = node.value if isinstance(node, ast.Expr) else node
        if isinstance(call, ast.Call):
            called = ast.unparse(call.func).split(".")[-1]
            if called in SKIPPED or hasattr(arguments, called):
                return True
        try:
            node = _parent(tree, node)[0]
        except LookupError:
            return False


@contextmanager
def planted(name: str, tree: ast.Module) -> Iterator[type]:
    """BatchNorm, with one of MODULES replaced by its mutant."""
    full = [f"bnstudy.norms.{module}" for module in MODULES]
    before = {key: sys.modules[key] for key in full}
    try:
        for key, module in zip(full, MODULES, strict=True):
            if module == name:
                fresh = types.ModuleType(key)
                fresh.__package__ = "bnstudy.norms"
                fresh.__file__ = before[key].__file__
                sys.modules[key] = fresh
                exec(compile(tree, fresh.__file__, "exec"), vars(fresh))
            else:
                del sys.modules[key]
                importlib.import_module(key)
        yield sys.modules["bnstudy.norms.batch_norm"].BatchNorm
    finally:
        sys.modules.update(before)
        for key, module in zip(full, MODULES, strict=True):
            setattr(bnstudy.norms, module, before[key])
