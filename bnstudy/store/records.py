"""Everything that was ever trained: address -> record, on disk, as plain files.

    ROOT/cells/<cell>/<stack>/    what `stack` describes
    ROOT/tmp/                     what `journal` describes
    ROOT/damaged/                 stacks that were set aside

A *stack* (the seeds of one cell that were trained together) appears whole or not at all: it is
written in tmp/, flushed to the disk, and renamed. Nothing is locked: of two processes that bring
the same stack the later one finds it there and drops its own. Where two stacks hold one address,
the stack whose name comes first alphabetically counts.

What damage is noticed when: `held`, on which the planning of a sweep rests, reads the manifests
and looks whether every file is there with the right length (a torn, lost or empty file);
whatever is read later is compared with its sha256 first (a flipped bit). A damaged stack is named
on stderr and set aside as a whole; its runs then count as missing.

An address has one cell. Who knows the cells of what is asked names them: only their folders are
then opened.
"""

import contextlib
import errno
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bnstudy.atomic import make_folder, rename, write_atomically
from bnstudy.config import RESULTS_VERSION
from bnstudy.errors import UserError, count, did_you_mean
from bnstudy.store.journal import Move, Tmp
from bnstudy.store.schema import Record
from bnstudy.store.stack import (
    MANIFEST,
    WEIGHTS,
    Damage,
    Stack,
    read_stack,
    sha256,
    stack_id,
    write_stack,
)
from bnstudy.store.table import tidy

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


class Unwritable(UserError):
    """The disk takes no more, or not from this user: no fault of what was to be stored."""


class Store:
    """The records under one folder; any number of processes may use it at once."""

    def __init__(self, root: Path | str, say: Callable[[str], None] | None = None) -> None:
        """`say` receives messages about damage (default: stderr). Writes nothing before `put`."""
        self.root = Path(root)
        self.say = say or (lambda message: print(message, file=sys.stderr))
        self._tmp = Tmp(self.root)
        self._cell_of: dict[str, str] = {}  # where addresses were last seen: saves a walk
        self._swept = False

    # ---- writing

    def put(
        self,
        records: list[Record],
        history: list[dict[str, Any]],
        write_weights: Callable[[Path], None] | None = None,
    ) -> str:
        """Stores the records of one stack, all or nothing, and returns the stack's id.

        `history` has a row per seed and evaluation. `write_weights(path)` writes the stack's
        final weights. If the stack is there already, what is there stays: one address, one result.
        """
        return self.put_all([(records, history, write_weights)])[0]

    def put_all(self, stacks: list[tuple[list[Record], Any, Any]]) -> list[str]:
        """Stores stacks of several cells that were trained together, all of them or none.

        Each is given by the arguments of `put`. When this returns they survive a power cut.
        Raises Unwritable when the disk takes nothing: nothing is stored then, or, with several
        stacks, what is left to move is moved by whoever opens the store next.
        """
        self._sweep()
        try:
            return self._put_all(stacks)
        except OSError as error:
            raise Unwritable(
                f"these results cannot be stored in {self.root}: {error.strerror or error}. "
                "Make room or give another results_dir; the same command goes on from here"
            ) from error

    def _put_all(self, stacks: list[tuple[list[Record], Any, Any]]) -> list[str]:
        moves: list[Move] = []
        journal, moved = None, False
        try:
            for records, history, write_weights in stacks:
                (cell,) = {record["cell"] for record in records}
                name = stack_id(record["address"] for record in records)
                moves.append((self._tmp.fresh(), self.root / "cells" / cell / name))
                write_stack(moves[-1][0], records, history, write_weights)
            journal = self._tmp.note(moves) if len(moves) > 1 else None
            for aside, target in moves:
                self._move_in(aside, target)
            moved = True
            if journal:
                journal.unlink(missing_ok=True)
        finally:
            if moved or journal is None:  # else the journal still promises the rest
                for aside, _ in moves:
                    shutil.rmtree(aside, ignore_errors=True)
        return [target.name for _, target in moves]

    def _move_in(self, aside: Path, target: Path) -> None:
        """Renames a finished stack to its place, unless a whole one is there."""
        files = read_stack(aside).files.keys()
        for _ in range(100):  # each turn, another process must have interfered again
            make_folder(target.parent)
            try:
                rename(aside, target)
                return
            except FileNotFoundError:
                if not aside.exists():
                    raise
                continue  # the empty cell folder was removed in between
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            there = self._checked(target)
            if there and there.files.keys() >= files:
                return
            if there:  # runs were removed from it, or it has no weights: ours has more
                self._tmp.throw_away(target)
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
            left = Stack(stack.path, stack.results_version, rest)
            if left.addresses:
                with contextlib.suppress(FileNotFoundError):  # the whole stack was removed
                    # the manifest first: what it does not list is not there
                    write_atomically(stack.path / MANIFEST, left.manifest())
                    (stack.path / f"{address}.json").unlink(missing_ok=True)
            else:
                self._tmp.throw_away(stack.path)
                with contextlib.suppress(OSError):
                    stack.path.parent.rmdir()  # if it was the cell's last stack
        self._cell_of.pop(address, None)

    # ---- reading

    def held(self, cells: Iterable[str] | None = None) -> set[str]:
        """Addresses of the runs that are there, of these cells or of all."""
        return {address for stack in self._stacks(cells) for address in stack.addresses}

    def holds(self, addresses: Iterable[str], cells: Iterable[str]) -> bool:
        """Whether all these runs of these cells are there, by the cells' manifests."""
        return set(addresses) <= self.held(cells)

    def checksums(self, addresses: Iterable[str], cells: Iterable[str]) -> dict[str, str]:
        """address -> sha256 of its record, for those of these runs of these cells that are there.

        By the cells' manifests: no record is read.
        """
        wanted, found = set(addresses), dict[str, str]()
        for stack in self._stacks(cells):
            for address in wanted & set(stack.addresses):
                found.setdefault(address, stack.files[f"{address}.json"][1])
        return found

    def stale(self) -> set[str]:
        """Addresses of runs made under an older RESULTS_VERSION."""
        old = (s for s in self._stacks() if s.results_version < RESULTS_VERSION)
        # by their records, too: what is stale may be removed
        found = (self._from(stack, lambda s: s.records(s.addresses)) for stack in old)
        return {record["address"] for records in found for record in records or ()}

    def runs(self, prefix: str) -> list[str]:
        """Addresses of the runs that a text names: those of a cell, or one run.

        The text is the address of a cell or a run, or the beginning of only one. Raises UserError
        as `resolve`.
        """
        cells = {s.path.parent.name for s in self._stacks()}
        found = [c for c in cells if prefix and c.startswith(prefix)]
        if len(found) == 1 and not any(a.startswith(prefix) for a in self._cell_of):
            return sorted(self.held(found))
        return [self.resolve(prefix, also=cells)]

    def resolve(self, prefix: str, also: Iterable[str] = ()) -> str:
        """The one address that begins so.

        Raises UserError when there is none or more than one; its message suggests the nearest
        address, or the nearest of the names in `also`.
        """
        if prefix in self._cell_of:
            return prefix
        known = sorted(self.held())
        found = [a for a in known if a.startswith(prefix)] if prefix else []
        if len(found) == 1:
            return found[0]
        if found:
            shown = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
            raise UserError(f"'{prefix}' is the beginning of {len(found)} addresses: {shown}")
        raise UserError(
            f"no run with the address '{prefix}'.{did_you_mean(prefix, [*known, *also])} "
            f"{self.root} holds {count(len(known), 'run')}; `bnstudy ls` lists them by cell."
        )

    def get(self, address: str) -> Record:
        """One record, by its address or the beginning of it."""
        address = self.resolve(address)
        return self._first(address, lambda stack: stack.records([address]))[0]

    def history(self, address: str) -> "pd.DataFrame":
        """The measurements of one run while it trained, a row per evaluation."""
        record = self.get(address)
        rows = self._first(record["address"], lambda stack: stack.history())
        return rows[rows["seed"] == record["seed"]].reset_index(drop=True)

    def weights_path(self, address: str) -> Path:
        """The file with the final weights of the run's whole stack.

        Raises UserError when they were not kept.
        """
        address = self.resolve(address)
        for stack in self._stacks([self._cell(address)]):
            if address in stack.addresses and WEIGHTS in stack.files:
                path = stack.path / WEIGHTS
                if sha256(path) == stack.files[WEIGHTS][1]:
                    return path
                self._set_aside(stack.path, f"{WEIGHTS} does not have its content any more")
        raise UserError(f"the weights of {address} were not kept; save_weights=true keeps them")

    def __iter__(self) -> Iterator[Record]:
        """All records, in the order of cell, stack and address."""
        return self._records(None, None)

    def table(
        self, addresses: Collection[str] | None = None, cells: Iterable[str] | None = None
    ) -> "pd.DataFrame":
        """One row per run (see `table.tidy`): of these addresses, of these cells, of both, or all.

        With `cells` nothing else is opened; without, the manifests of the whole store are read.
        """
        return tidy(self._records(None if addresses is None else set(addresses), cells))

    # ---- behind them

    def _stacks(self, cells: Iterable[str] | None = None) -> Iterator[Stack]:
        """All whole stacks, of these cells or of all, in the order of cell and name."""
        self._sweep()
        folder = self.root / "cells"
        for cell in sorted(set(cells)) if cells is not None else _names(folder):
            for name in _names(folder / cell):
                stack = self._checked(folder / cell / name)
                if stack:
                    self._cell_of.update(dict.fromkeys(stack.addresses, cell))
                    yield stack

    def _checked(self, path: Path) -> Stack | None:
        """A stack whose files are all there with the right length; None and set aside otherwise."""
        for last in (False, False, True):
            try:
                with _readable(path):
                    stack = read_stack(path)
                    stack.check_lengths()
                return stack
            except NotADirectoryError:
                return None  # a stray file, not ours
            except (Damage, FileNotFoundError) as error:
                if not os.path.lexists(path):
                    return None  # removed, not damaged
                if last:
                    self._set_aside(path, _reason(error))
                # else look again: a run may have been removed between manifest and file
        return None

    def _cell(self, address: str) -> str:
        """The cell of a full address."""
        if address not in self._cell_of:
            self.held()
        if address not in self._cell_of:
            self.resolve(address)  # raises
        return self._cell_of[address]

    def _first(self, address: str, read: Callable[[Stack], T]) -> T:
        """What `read` finds in the run's stack; in the next that holds it where one is damaged."""
        for stack in self._stacks([self._cell(address)]):
            if address in stack.addresses:
                found = self._from(stack, read)
                if found is not None:
                    return found
        self._cell_of.pop(address, None)
        raise UserError(
            f"run {address} is not in {self.root} any more; repeat the command that made it"
        )

    def _records(self, addresses: set[str] | None, cells: Iterable[str] | None) -> Iterator[Record]:
        """Verified records; an address that several stacks hold comes from the first of them."""
        seen: set[str] = set()
        for stack in self._stacks(cells):
            fresh = set(stack.addresses) - seen
            if addresses is not None:
                fresh &= addresses
            found = self._from(stack, partial(_records_of, frozenset(fresh)))
            if found is not None:
                seen |= fresh
                yield from found

    def _from(self, stack: Stack, read: Callable[[Stack], T]) -> T | None:
        """What `read` finds in a stack; None, and the stack set aside, when it is damaged."""
        try:
            with _readable(stack.path):
                return read(stack)
        except (Damage, FileNotFoundError) as error:
            now = self._checked(stack.path)
            if now is None:
                return None
            if now != stack:  # replaced by another process while we read
                return self._from(now, read)
            self._set_aside(stack.path, _reason(error))
            return None

    def _set_aside(self, path: Path, reason: str) -> None:
        """Moves a damaged stack out of the way and says so."""
        cell, name = path.parent.name, path.name
        target = self.root / "damaged" / f"{cell}-{name}-{uuid.uuid4().hex[:8]}"
        try:
            make_folder(target.parent)
            rename(path, target)
        except FileNotFoundError:
            return  # another process was faster
        except OSError as error:
            place = f"It stays there: {target.parent} cannot be written ({error.strerror})"
        else:
            place = f"Set aside in {target}"
        self.say(
            f"damaged: stack {name} of cell {cell}: {reason}. {place}; its runs count as missing "
            "and will run again."
        )

    def _sweep(self) -> None:
        """Clean up after killed processes, once per store."""
        if not self._swept:
            self._swept = True
            self._tmp.sweep(self._move_in, self.say)


def _records_of(wanted: frozenset[str], stack: Stack) -> list[Record]:
    """A stack's records that are wanted."""
    return stack.records([address for address in stack.addresses if address in wanted])


def _reason(error: Damage | FileNotFoundError) -> str:
    """What is wrong, for people."""
    return str(error) if isinstance(error, Damage) else f"{Path(error.filename).name} is missing"


def _names(folder: Path) -> list[str]:
    """What is in a folder, sorted; nothing when it does not exist."""
    try:
        with _readable(folder):
            return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """One message when a path is there and cannot be read: that is no damage to set aside."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise UserError(f"{error.filename or path} cannot be read: {error.strerror}") from error
