"""The command line."""

from bnstudy.cli.commands import main

__all__ = ["main"]
