"""What an unfinished job leaves on the disk, so that another process goes on from there."""

import contextlib
import hashlib
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bnstudy.atomic import make_folder, write_atomically
from bnstudy.config import RESULTS_VERSION, Config, digest
from bnstudy.engine.snapshot import State

WORTH = 5.0  # seconds: a stop sooner writes nothing, what was trained is soon trained again
# what the bits of a training depend on beside its configs; the rest of an environment may change
BINDING = (
    "bnstudy",
    "git_commit",
    "torch",
    "python",
    "device",
    "device_name",
    "threads",
    "compile",
)


class Checkpoint:
    """The file of one job: read when it begins, replaced every few minutes and when it is stopped.

    A process goes on from it only where the bits stay those of an uninterrupted training: for the
    same configs, code, versions and kind of device. Anything else is said and trained from the
    beginning. Reading executes no code (torch's `weights_only`), and a sha256 in front of the
    content tells a damaged file.

    Attributes:
        resumed: how often the job has gone on from one.
        seconds: that earlier processes have trained it.
    """

    def __init__(
        self,
        runs: Path | None = None,
        configs: Sequence[Config] = (),
        minutes: float | None = None,
        made_by: Mapping[str, Any] | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`minutes` between two of them; None neither reads nor writes any.

        Args:
            runs: folder of the store.
            configs: the networks of the job.
            made_by: what this process is, see BINDING.
            say: told why a file that is there is not used, or cannot be written.
        """
        self.minutes, self.say = minutes, say
        names = [config.address for config in configs]
        self.identity = {"results_version": RESULTS_VERSION, "addresses": names,
                         **{key: str((made_by or {}).get(key)) for key in BINDING}}  # fmt: skip
        self.path = (runs or Path()) / "checkpoints" / f"{digest(names)}.checkpoint"
        self.resumed, self.seconds = 0, 0.0
        self.begun = self.written = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds that the job has trained, earlier processes included."""
        return self.seconds + time.monotonic() - self.begun

    def read(self, device: torch.device) -> State | None:
        """The job's state, its tensors on `device`; None where there is none to go on from."""
        if self.minutes is None or not self.path.is_file():
            return None
        try:
            found = _unpacked(self.path.read_bytes(), device)
            other = [k for k, v in self.identity.items() if found["identity"].get(k) != v]
        except Exception as error:  # whatever a damaged file is taken for
            what = type(error).__name__
            self.say(f"the checkpoint {self.path} is damaged ({what}): training begins again")
            return None
        if other:
            self.say(
                f"the checkpoint {self.path} was made by another {other[0]} "
                f"({found['identity'].get(other[0])}): training begins again"
            )
            return None
        self.resumed, self.seconds = found["resumed"] + 1, found["seconds"]
        return found["job"]

    @contextlib.contextmanager
    def between_steps(self, state: Callable[[], State]) -> Iterator[None]:
        """Around what may stop the job: write `state()` when it does, or when it is time."""
        try:
            yield
        except BaseException:
            if self.minutes is not None and time.monotonic() - self.written >= WORTH:
                self._write(state())
            raise
        if self.minutes is not None and time.monotonic() - self.written >= 60 * self.minutes:
            self._write(state())

    def remove(self) -> None:
        """The job is done."""
        self.path.unlink(missing_ok=True)

    def _write(self, job: State) -> None:
        content = {"identity": self.identity, "resumed": self.resumed, "seconds": self.elapsed,
                   "job": job}  # fmt: skip
        try:
            make_folder(self.path.parent)
            write_atomically(self.path, _packed(content))
        except OSError as error:  # the last one stays; training does not depend on it
            self.say(f"no checkpoint could be written to {self.path}: {error.strerror or error}")
        self.written = time.monotonic()


def _packed(content: State) -> bytes:
    """sha256, then what torch writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return hashlib.sha256(buffer.getbuffer()).digest() + buffer.getbuffer()


def _unpacked(packed: bytes, device: torch.device) -> State:
    head, content = packed[:32], packed[32:]
    if hashlib.sha256(content).digest() != head:
        raise ValueError("its content is not what was written")
    return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
