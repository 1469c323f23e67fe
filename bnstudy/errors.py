"""What a person is told: mistakes in one message, numbers of things."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A mistake in what was asked for: says what was given, what is allowed, what is nearest.

    The command line prints it without a traceback and ends with exit code 2.
    """


def count(number: int, noun: str) -> str:
    """A number of things: 1 cell, 2 cells."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def unknown(kind: str, given: str, allowed: Iterable[str]) -> UserError:
    """The error for a name that does not exist: lists the names and the nearest match."""
    names = sorted(allowed)
    near = get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UserError(f"unknown {kind} '{given}'.{hint} Allowed: {', '.join(names) or '(none)'}.")
