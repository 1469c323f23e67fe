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


def nearest(given: str, allowed: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The allowed name most like the given one; None when none is alike."""
    found = get_close_matches(str(given), list(allowed), n=1, cutoff=cutoff)
    return found[0] if found else None


def did_you_mean(given: str, allowed: Iterable[str], cutoff: float = 0.5) -> str:
    """` Did you mean 'name'?` with the nearest allowed name; empty when none is alike."""
    near = nearest(given, allowed, cutoff)
    return f" Did you mean '{near}'?" if near else ""


def unknown(kind: str, given: str, allowed: Iterable[str]) -> UserError:
    """The error for a name that does not exist: lists the names and the nearest match."""
    names = sorted(allowed)
    hint = did_you_mean(given, names)
    return UserError(f"unknown {kind} '{given}'.{hint} Allowed: {', '.join(names) or '(none)'}.")
