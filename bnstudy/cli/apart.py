"""A function in a process of its own that leaves nothing behind: no imports, no threads."""

import multiprocessing
import os
import pickle
import traceback
from collections.abc import Callable
from typing import Any

from bnstudy.errors import UserError


class Apart:
    """A call that runs beside what comes next: `start` it, and ask for its `result` later.

    In a forked process, so that what the call imports stays out of this one, which may still have
    to fork workers. Where this process has threads, or cannot fork, the call runs here, late.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments
        self.process: Any = None
        self.answer: tuple[bool, Any] | None = None

    def start(self) -> None:
        """Begin, once."""
        from bnstudy.sweep.launchers import threads

        if self.process is None and hasattr(os, "fork") and threads() == 1:
            context: Any = multiprocessing.get_context("fork")
            self.receiver, sender = context.Pipe(duplex=False)
            self.process = context.Process(target=self._answer, args=(sender,), daemon=True)
            self.process.start()
            sender.close()

    def result(self) -> Any:
        """What the function returned, waited for.

        Raises:
            UserError: as the function did; anything else it raised as a RuntimeError with its
                traceback.
        """
        if self.answer is None:
            self.start()
            self.answer = self._received() if self.process else self._called()
        good, value = self.answer
        if good:
            return value
        raise value

    def _called(self) -> tuple[bool, Any]:
        try:
            return True, self.function(*self.arguments)
        except UserError as error:
            return False, error
        except Exception as error:
            return False, RuntimeError("".join(traceback.format_exception(error)))

    def _answer(self, sender: Any) -> None:
        sender.send_bytes(pickle.dumps(self._called()))

    def _received(self) -> tuple[bool, Any]:
        try:
            found: tuple[bool, Any] = pickle.loads(self.receiver.recv_bytes())
        except EOFError:
            found = False, RuntimeError(f"{self.function.__name__} ended without an answer")
        self.process.join()
        return found
