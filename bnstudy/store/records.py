"""Everything that was ever trained: address -> record, on disk, as plain files.

    ROOT/cells/<cell>/<stack>/<address>.json    one record per seed
                              history.parquet   seed, step, epoch, examples, and a column per metric
                              weights.pt        where they were asked for
                              manifest.json     bytes and sha256 of each of these
    ROOT/tmp/         stacks being written or thrown away, and journals of several to be moved in
    ROOT/damaged/     stacks that were set aside

A *stack* (the seeds of one cell that were trained together) appears whole or not at all: it is
written in tmp/ and renamed. Nothing is locked: of two processes that bring the same stack the
later one finds it there and drops its own. Where two stacks hold one address, the stack whose name
comes first alphabetically counts.

What damage is noticed when: `held`, on which the planning of a sweep rests, reads the manifests
and looks whether every file is there with the right length (a torn, lost or empty file);
whatever is read later is compared with its sha256 first (a flipped bit). A damaged stack is named
on stderr and set aside as a whole; its runs then count as missing.

The JSON is strict (see `strict_json`).
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnstudy.config import RESULTS_VERSION, flatten
from bnstudy.errors import UserError, did_you_mean
from bnstudy.strict_json import decode, encode

if TYPE_CHECKING:
    import pandas as pd

Record = dict[str, Any]
"""address, cell, results_version, seed, config, summary, layers, provenance, stack: plain values"""

PROVENANCE = (
    "stack",
    "results_version",
    "study",
    "wall_seconds",
    "stack_seconds",
    "created",
    "host",
    "device",
    "device_name",
    "threads",
    "torch",
    "python",
    "bnstudy",
    "tracker",
    "command",
    "git_commit",
    "git_dirty",
)
"""Table columns that say how a run was made, not what came out: two tables of the same experiment
are equal without them (`without_provenance`). What else a record's provenance holds is not in the
table."""

MANIFEST, HISTORY, WEIGHTS = "manifest.json", "history.parquet", "weights.pt"
JOURNAL = ".journal"
_DAY = 86_400


class Damage(Exception):
    """What is wrong with a stack."""


@dataclass(frozen=True)
class _Stack:
    """A stack as its manifest describes it."""

    path: Path
    results_version: int
    files: dict[str, tuple[int, str]]  # name -> bytes, sha256

    @property
    def addresses(self) -> list[str]:
        return sorted(name.removesuffix(".json") for name in self.files if name.endswith(".json"))


def stack_id(addresses: Iterable[str]) -> str:
    """The name of the stack of these runs, in whatever order."""
    return hashlib.sha256("\n".join(sorted(addresses)).encode()).hexdigest()[:12]


def without_provenance(table: "pd.DataFrame") -> "pd.DataFrame":
    """The columns that must be equal when the same experiment is run again."""
    return table[[c for c in table.columns if c not in PROVENANCE]]


class Store:
    """The records under one folder; any number of processes may use it at once."""

    def __init__(self, root: Path | str, say: Callable[[str], None] | None = None) -> None:
        """`say` receives messages about damage (default: stderr). Writes nothing before `put`."""
        self.root = Path(root)
        self.say = say or (lambda message: print(message, file=sys.stderr))
        self._cell_of: dict[str, str] = {}  # where addresses were last seen: saves a walk
        self._swept = False

    # ---- writing

    def put(
        self,
        records: list[Record],
        history: "list[dict[str, Any]] | pd.DataFrame",
        write_weights: Callable[[Path], None] | None = None,
    ) -> str:
        """Stores the records of one stack, all or nothing, and returns the stack's id.

        `history` has a row per seed and evaluation. `write_weights(path)` writes the stack's
        final weights. If the stack is there already, what is there stays: one address, one result.
        """
        return self.put_all([(records, history, write_weights)])[0]

    def put_all(self, stacks: list[tuple[list[Record], Any, Any]]) -> list[str]:
        """Stores stacks of several cells that were trained together, all of them or none.

        More than one are first written down in a journal; whoever next uses the store after a kill
        brings what the journal lists to its place.
        """
        self._sweep_tmp()
        names, moves = [], []
        try:
            for records, history, write_weights in stacks:
                name, aside, target = self._write_aside(records, history, write_weights)
                names.append(name)
                moves.append((aside, target))
            journal = self._aside().with_suffix(JOURNAL)
            if len(moves) > 1:
                lines = [[p.name, str(t.relative_to(self.root))] for p, t in moves]
                part = self._aside()
                part.write_text(json.dumps(lines))
                os.replace(part, journal)
            for aside, target in moves:
                self._move_in(aside, target)
            journal.unlink(missing_ok=True)
        finally:
            for aside, _ in moves:
                shutil.rmtree(aside, ignore_errors=True)
        return names

    def _write_aside(
        self, records: list[Record], history: Any, write_weights: Callable[[Path], None] | None
    ) -> tuple[str, Path, Path]:
        """A complete stack in tmp/: its name, where it lies, where it belongs."""
        import pandas as pd

        name = stack_id(r["address"] for r in records)
        (cell,) = {r["cell"] for r in records}
        (version,) = {r["results_version"] for r in records}
        aside = self._aside()
        aside.mkdir(parents=True)
        try:
            for record in records:
                record = {**record, "stack": {**record.get("stack", {}), "id": name}}
                (aside / f"{record['address']}.json").write_text(encode(record))
            pd.DataFrame(history).to_parquet(aside / HISTORY, index=False)
            if write_weights is not None:
                write_weights(aside / WEIGHTS)
            files = {p.name: (p.stat().st_size, _sha256(p)) for p in sorted(aside.iterdir())}
            self._write_manifest(aside, version, files)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        return name, aside, self.root / "cells" / cell / name

    def _move_in(self, aside: Path, target: Path) -> None:
        """Renames a finished stack to its place, unless a whole one is there."""
        files = set(_read_manifest(aside).files)
        for _ in range(100):  # each turn, another process must have interfered anew
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.rename(aside, target)
                return
            except FileNotFoundError:
                if not aside.exists():
                    raise
                continue  # the empty cell folder was removed in between
            except OSError as e:
                if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            there = self._checked(target)
            if there and there.files.keys() >= files:
                return
            if there:  # runs were removed from it, or it has no weights: ours has more
                self._throw_away(target)
        raise OSError(
            errno.EEXIST, "a damaged stack is in the way and cannot be moved", str(target)
        )

    def remove(self, address: str) -> None:
        """Takes a run out; its stack goes with the last of its runs."""
        address = self.resolve(address)
        for stack in self._stacks([self._cell(address)]):
            if address not in stack.addresses:
                continue
            rest = {n: f for n, f in stack.files.items() if n != f"{address}.json"}
            if any(n.endswith(".json") for n in rest):
                # the manifest first: what it does not list is not there
                self._write_manifest(stack.path, stack.results_version, rest)
                (stack.path / f"{address}.json").unlink(missing_ok=True)
            else:
                self._throw_away(stack.path)
                with contextlib.suppress(OSError):
                    stack.path.parent.rmdir()  # if it was the cell's last stack
        self._cell_of.pop(address, None)

    # ---- reading

    def held(self, cells: Iterable[str] | None = None) -> set[str]:
        """Addresses of the runs that are there, of these cells or of all."""
        self._sweep_tmp()
        return {address for stack in self._stacks(cells) for address in stack.addresses}

    def stale(self) -> set[str]:
        """Addresses of runs made under an older RESULTS_VERSION."""
        old = (s for s in self._stacks() if s.results_version < RESULTS_VERSION)
        return {address for stack in old for address in stack.addresses}

    def runs(self, prefix: str) -> list[str]:
        """Addresses of the runs that a text names: those of a cell, or one run.

        The text is the address of a cell or a run, or the beginning of only one. Raises UserError
        as `resolve`.
        """
        cells = {s.path.parent.name for s in self._stacks()}
        found = [c for c in cells if prefix and c.startswith(prefix)]
        if len(found) == 1 and not any(a.startswith(prefix) for a in self._cell_of):
            return sorted(self.held(found))
        return [self.resolve(prefix)]

    def resolve(self, prefix: str) -> str:
        """The one address that begins so. Raises UserError when there is none or more than one."""
        if prefix in self._cell_of:
            return prefix
        known = sorted(self.held())
        found = [a for a in known if a.startswith(prefix)] if prefix else []
        if len(found) == 1:
            return found[0]
        if found:
            shown = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
            raise UserError(f"'{prefix}' is the beginning of {len(found)} addresses: {shown}")
        hint = did_you_mean(prefix, known)
        raise UserError(
            f"no run with the address '{prefix}'.{hint} {self.root} holds {len(known)} runs; "
            "an address, or its beginning if only one run has it, is what `bnstudy ls` shows."
        )

    def get(self, address: str) -> Record:
        """One record, by its address or the beginning of it."""
        address = self.resolve(address)
        return decode(self._read(address, f"{address}.json"))

    def history(self, address: str) -> "pd.DataFrame":
        """The measurements of one run while it trained, a row per evaluation."""
        import pandas as pd

        record = self.get(address)
        rows = pd.read_parquet(io.BytesIO(self._read(record["address"], HISTORY)))
        return rows[rows["seed"] == record["seed"]].reset_index(drop=True)

    def weights_path(self, address: str) -> Path:
        """The file with the final weights of the run's whole stack.

        Raises UserError when they were not kept.
        """
        address = self.resolve(address)
        for stack in self._stacks([self._cell(address)]):
            if address in stack.addresses and WEIGHTS in stack.files:
                path = stack.path / WEIGHTS
                if _sha256(path) == stack.files[WEIGHTS][1]:
                    return path
                self._set_aside(stack.path, f"{WEIGHTS} does not have its content any more")
        raise UserError(f"the weights of {address} were not kept; save_weights=true keeps them")

    def __iter__(self) -> Iterator[Record]:
        """All records, in the order of cell, stack and address."""
        return self._records(None)

    def table(self, addresses: Collection[str] | None = None) -> "pd.DataFrame":
        """One row per run, of these addresses or of all, sorted by cell and seed.

        Columns: address, cell, seed; the configuration as dotted names; the metrics of the summary;
        PROVENANCE. Within each of the middle two, by name. Lists are written as JSON texts.
        """
        import pandas as pd

        rows, configs, metrics, provenance = [], set(), set(), set()
        for record in self._records(None if addresses is None else set(addresses)):
            config = {k: _cell_value(v) for k, v in flatten(record["config"]).items()}
            config.pop("seed", None)
            configs |= config.keys()
            metrics |= record["summary"].keys()
            stack, version = record["stack"]["id"], record["results_version"]
            made = {"stack": stack, "results_version": version, **record["provenance"]}
            made = {k: _cell_value(v) for k, v in made.items() if k in PROVENANCE}
            provenance |= made.keys()
            names = {k: record[k] for k in ("address", "cell", "seed")}
            rows.append({**names, **config, **record["summary"], **made})
        last = [c for c in PROVENANCE if c in provenance]
        columns = ["address", "cell", "seed", *sorted(configs), *sorted(metrics), *last]
        table = pd.DataFrame(rows, columns=columns)
        return table.sort_values(["cell", "seed", "address"], ignore_index=True)

    # ---- behind them

    def _stacks(self, cells: Iterable[str] | None = None) -> Iterator[_Stack]:
        """All whole stacks, of these cells or of all, in the order of cell and name."""
        folder = self.root / "cells"
        for cell in sorted(set(cells)) if cells is not None else _names(folder):
            for name in _names(folder / cell):
                stack = self._checked(folder / cell / name)
                if stack:
                    self._cell_of.update(dict.fromkeys(stack.addresses, cell))
                    yield stack

    def _checked(self, path: Path) -> _Stack | None:
        """A stack whose files are all there with the right length; None and set aside otherwise."""
        for last in (False, False, True):
            try:
                stack = _read_manifest(path)
                for name, (size, _) in stack.files.items():
                    if os.stat(f"{path}/{name}").st_size != size:
                        raise Damage(f"{name} does not have the {size} bytes it was written with")
                return stack
            except NotADirectoryError:
                return None  # a stray file, not ours
            except (Damage, FileNotFoundError) as e:
                if not path.exists():
                    return None  # removed, not damaged
                if last:
                    reason = e if isinstance(e, Damage) else f"{Path(e.filename).name} is missing"
                    self._set_aside(path, str(reason))
                # else look again: a run may have been removed between manifest and file
        return None

    def _cell(self, address: str) -> str:
        """The cell of a full address."""
        if address not in self._cell_of:
            self.held()
        if address not in self._cell_of:
            self.resolve(address)  # raises
        return self._cell_of[address]

    def _read(self, address: str, name: str) -> bytes:
        """A file of the run's stack, after comparing its sha256."""
        for stack in self._stacks([self._cell(address)]):
            if address in stack.addresses:
                content = self._contents(stack, [name])
                if content:
                    return content[0]
        self._cell_of.pop(address, None)
        raise UserError(
            f"run {address} is not in {self.root} any more; the command that made it makes it again"
        )

    def _records(self, wanted: set[str] | None) -> Iterator[Record]:
        """Verified records; an address that several stacks hold comes from the first of them."""
        seen: set[str] = set()
        for stack in self._stacks():
            fresh = set(stack.addresses) - seen
            if wanted is not None:
                fresh &= wanted
            texts = self._contents(stack, [f"{address}.json" for address in sorted(fresh)])
            if texts is not None:
                seen |= fresh
                yield from map(decode, texts)

    def _contents(self, stack: _Stack, names: list[str]) -> list[bytes] | None:
        """Whole files of a stack; None, and the stack set aside, when one is not as it was."""
        try:
            contents = [(stack.path / name).read_bytes() for name in names]
            for name, content in zip(names, contents, strict=True):
                if hashlib.sha256(content).hexdigest() != stack.files[name][1]:
                    raise Damage(f"{name} does not have the content it was written with")
            return contents
        except (Damage, FileNotFoundError) as e:
            now = self._checked(stack.path)
            if now is None:
                return None
            if now != stack:  # replaced by another process while we read
                return self._contents(now, [name for name in names if name in now.files])
            self._set_aside(stack.path, str(e))
            return None

    def _set_aside(self, path: Path, reason: str) -> None:
        """Moves a damaged stack out of the way and says so."""
        cell, name = path.parent.name, path.name
        target = self.root / "damaged" / f"{cell}-{name}-{uuid.uuid4().hex[:8]}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(path, target)
        except FileNotFoundError:
            return  # another process was faster
        except OSError as e:
            target = Path(f"nowhere, since {target.parent} cannot be written ({e.strerror})")
        self.say(
            f"damaged: stack {name} of cell {cell}: {reason}. Set aside in {target}; its runs "
            "count as missing and will run again."
        )

    def _aside(self) -> Path:
        """A fresh name in tmp/ that says which process uses it."""
        return self.root / "tmp" / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"

    def _throw_away(self, path: Path) -> None:
        """Removes a stack at once as seen by others: it is renamed first."""
        aside = self._aside()
        aside.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return
        shutil.rmtree(aside, ignore_errors=True)

    def _write_manifest(self, path: Path, version: int, files: dict[str, tuple[int, str]]) -> None:
        content = {"results_version": version, "files": files}
        aside = self._aside()
        aside.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(content, indent=1, sort_keys=True))
        with contextlib.suppress(FileNotFoundError):  # someone removed the stack: nothing to list
            os.replace(aside, path / MANIFEST)

    def _sweep_tmp(self) -> None:
        """Finishes what killed processes wrote down in a journal, removes what else they left.

        Once per store.
        """
        if self._swept:
            return
        self._swept = True
        left = _names(self.root / "tmp")
        for name in sorted(left, key=lambda n: not n.endswith(JOURNAL)):  # journals first
            host, pid, _ = name.rsplit("-", 2) if name.count("-") >= 2 else ("", "", "")
            path = self.root / "tmp" / name
            try:
                old = time.time() - path.stat().st_mtime > _DAY
            except FileNotFoundError:
                continue
            if old or (host == socket.gethostname() and not _alive(pid)):
                if name.endswith(JOURNAL):
                    self._finish_journal(path)
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def _finish_journal(self, path: Path) -> None:
        """Brings the stacks of a journal to their places; done twice it changes nothing."""
        with contextlib.suppress(FileNotFoundError):  # another process is finishing it
            for name, target in json.loads(path.read_text()):
                aside = self.root / "tmp" / name
                if aside.exists():
                    self._move_in(aside, self.root / target)


def _cell_value(value: Any) -> Any:
    """What a table holds for a value: lists would not survive CSV and Parquet."""
    return json.dumps(value) if isinstance(value, list | tuple) else value


def _read_manifest(path: Path) -> _Stack:
    with open(f"{path}/{MANIFEST}", "rb") as file:
        text = file.read()
    try:
        content = json.loads(text)
        files = {name: (size, sha) for name, (size, sha) in content["files"].items()}
        return _Stack(path, content["results_version"], files)
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise Damage(f"{MANIFEST} cannot be understood") from e


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _names(folder: Path) -> list[str]:
    """What is in a folder, sorted; nothing when it is not there."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _alive(pid: str) -> bool:
    """Whether a process of this host is running."""
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True  # someone else's
    except (ProcessLookupError, ValueError):
        return False
    return True
