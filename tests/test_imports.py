"""Who may import whom: rooms know only what lies before them, and reports open without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bnstudy

PACKAGE = Path(bnstudy.__file__).parent
LEAVES = {"atomic", "errors", "machine", "mean_field", "numbers"}  # known by all, they know nothing
# room -> the rooms of ours that it may import, wherever the import stands. A name with a dot is one
# module of a room. Everybody may import itself and the package (its version).
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "machine": set(),
    "atomic": set(),
    "numbers": set(),
    "mean_field": set(),
    # of the tools it names those that it offers, for type checkers; it loads them when asked
    "norms": {"errors", "normtools"},
    "stats": {"errors"},
    "config": LEAVES,
    "imports": set(),
    "entry": {"imports", *LEAVES},
    "normtools": {"norms", *LEAVES},
    "models": {"config", "entry", "norms", *LEAVES},
    "data": {"config", "entry", *LEAVES},
    "probes": {"config", "data", "entry", "norms", "normtools", *LEAVES},
    "store": {"config", *LEAVES},
    # nets, data and probes reach the engine as arguments; it draws its orders of examples itself
    "engine": {"config", "norms", "data.samplers", *LEAVES},
    "tracking": {"config", *LEAVES},
    # handed the worker by name and what the store holds as a function
    "sweep": {"config", "probes", *LEAVES},
    "work": {"config", "data", "engine", "entry", "imports", "models", "norms", "probes", "store",
             "sweep.cost", "sweep.protocol", "tracking", *LEAVES},
    # benchmarks time what runs are made of and draw what they found
    "bench": {"config", "data", "engine", "figures", "models", "norms", "stats", "store", "sweep",
              "work", *LEAVES},
    "doctor": {"config", "data", *LEAVES},
    "figures": {"config", "stats", *LEAVES},
    "advice": {"config", *LEAVES},
    "comparison": {"figures", "stats", *LEAVES},
    "report": {"config", "figures", "stats", *LEAVES},
    "studies": {"config", "entry", "figures", "stats", *LEAVES},
}  # fmt: skip
WITHOUT_TORCH = {"studies", "figures", "report", "comparison", "advice"}
FRONT = {"cli", "api", "__main__"}  # the doors of the house, from a shell and from Python
HEAVY = {"torch", "torchvision", "wandb", "sklearn"}


def rooms() -> dict[str, list[Path]]:
    """Room -> its files: a folder or a module of the package."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if room != "__init__":
            found.setdefault(room, []).append(path)
    return found


def imported(path: Path) -> set[str]:
    """Full names of all that a file imports, at its top or inside a function.

    What stands under TYPE_CHECKING counts, too: to know a type is to know the room.
    """
    package = ["bnstudy", *path.relative_to(PACKAGE).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def ours(path: Path) -> set[str]:
    """Modules of the package that a file imports, without the package's own name in front."""
    names = {n.removeprefix("bnstudy.") for n in imported(path) if n.startswith("bnstudy.")}
    return {n for n in names if n != "__version__"}


def breaches(room: str, path: Path) -> set[str]:
    """What a file imports of ours and may not."""
    allowed = ALLOWED[room] | {room}
    return {n for n in ours(path) if not any(f"{n}.".startswith(f"{a}.") for a in allowed)}


def test_every_room_has_a_rule():
    assert rooms().keys() - FRONT <= ALLOWED.keys()


@pytest.mark.parametrize("room", [r for r in rooms() if r in ALLOWED])
def test_a_room_knows_only_what_it_may(room):
    assert {str(p): found for p in rooms()[room] if (found := breaches(room, p))} == {}


def test_nobody_knows_the_command_line():
    for room, files in rooms().items():
        if room not in FRONT:
            assert not {n for p in files for n in ours(p) if n.partition(".")[0] == "cli"}, room


@pytest.mark.parametrize("room", sorted(WITHOUT_TORCH))
def test_what_only_reads_tables_names_no_deep_learning_library(room):
    for path in rooms()[room]:
        assert not {n.partition(".")[0] for n in imported(path)} & (HEAVY - {"sklearn"}), path


def test_the_walk_sees_every_kind_of_import(tmp_path, monkeypatch):
    """Otherwise the tests above would pass on code that they cannot read."""
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "stats").mkdir()
    path = tmp_path / "stats" / "x.py"
    path.write_text(
        "import bnstudy.cli\nfrom bnstudy import store\nfrom ..engine import train\n"
        "from .own import y\ndef f():\n    from bnstudy.run import run_pack\n"
    )
    assert breaches("stats", path) == {"cli", "store", "engine.train", "run.run_pack"}


MODULES = {
    "": HEAVY | {"pandas", "numpy", "hydra", "pydantic", "matplotlib", "rich"},
    ".api": HEAVY | {"pandas", "numpy", "hydra", "pydantic", "matplotlib", "rich"},
    ".cli": HEAVY | {"pandas", "numpy", "hydra", "pydantic", "matplotlib", "rich"},
    ".config": HEAVY | {"pandas", "hydra", "matplotlib"},
    ".advice": HEAVY | {"pandas", "hydra", "matplotlib"},
    ".config.compose": HEAVY,
    ".store": HEAVY | {"pandas"},
    ".data": HEAVY,
    ".sweep.launch": HEAVY | {"pandas"},
    ".studies": HEAVY,
    ".studies.averaged_weights": HEAVY,
    ".studies.batch_size": HEAVY,
    ".studies.normalization_batch": HEAVY,
    ".studies.class_skew": HEAVY,
    ".studies.distribution_shift": HEAVY,
    ".studies.drawing": HEAVY,
    ".studies.ema_vs_precise": HEAVY,
    ".studies.eval_batch": HEAVY,
    ".studies.no_norm": HEAVY,
    ".studies.group_count": HEAVY,
    ".studies.federated": HEAVY,
    ".studies.frozen_finish": HEAVY,
    ".studies.gradient_depth": HEAVY,
    ".studies.initialization": HEAVY,
    ".studies.residual_bias": HEAVY,
    ".studies.saturation": HEAVY,
    ".studies.joint_statistics": HEAVY,
    ".studies.kit": HEAVY,
    ".studies.landscape": HEAVY,
    ".studies.micro_batch": HEAVY,
    ".studies.online_stream": HEAVY,
    ".studies.looks": HEAVY,
    ".studies.planned": HEAVY,
    ".studies.probed": HEAVY,
    ".studies.population_estimate": HEAVY,
    ".studies.results": HEAVY,
    ".studies.sheets": HEAVY,
    ".studies.sync": HEAVY,
    ".studies.transformer_norms": HEAVY,
    ".studies.length_generalization": HEAVY,
    ".studies.recurrent_gradient": HEAVY,
    ".studies.sequence_length": HEAVY,
    ".studies.sequential_mnist": HEAVY,
    ".studies.step_statistics": HEAVY,
    ".studies.convergence": HEAVY,
    ".studies.cost": HEAVY,
    ".studies.learning_rate": HEAVY,
    ".studies.regularization": HEAVY,
    ".studies.activation_memory": HEAVY,
    ".studies.notebook": HEAVY,
    ".studies.pixels": HEAVY,
    ".studies.range": HEAVY,
    ".studies.restoration": HEAVY,
    ".studies.restoration_statistics": HEAVY,
    ".studies.stylization": HEAVY,
    ".studies.test_time_adaptation": HEAVY,
    ".studies.weight_decay_is_a_rate": HEAVY,
    ".studies.words": HEAVY,
    ".report": HEAVY,
    ".comparison": HEAVY,
    ".figures": HEAVY,
}


def test_light_modules_load_nothing_heavy():
    """At import time and through whatever they import: one process per row would take 20 s.

    In one process, the lightest first, each row is held to what is loaded so far.
    """
    code = "import sys, importlib\n"
    for module in MODULES:
        code += f"importlib.import_module('bnstudy{module}')\n"
        code += "print(*{m.partition('.')[0] for m in sys.modules})\n"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    for (module, forbidden), line in zip(MODULES.items(), done.stdout.splitlines(), strict=True):
        assert not set(line.split()) & forbidden, f"bnstudy{module}"


def test_every_study_is_among_the_light_modules():
    files = {f".studies.{p.stem}" for p in rooms()["studies"] if p.stem != "__init__"}
    assert files <= MODULES.keys()
