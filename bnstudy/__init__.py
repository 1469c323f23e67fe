"""Where Batch Normalization breaks, why, and what to use instead.

`table`, `load`, `run_study` and `compare` are what a notebook needs: docs/python.md.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnstudy.api import compare, load, run_study, table

__version__ = "0.1.0"
__all__ = ["__version__", "compare", "load", "run_study", "table"]


def __getattr__(name: str) -> Any:
    """The functions of `api`, imported when one of them is used: `import bnstudy` is light."""
    if name in __all__:
        from bnstudy import api

        return getattr(api, name)
    raise AttributeError(f"module 'bnstudy' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
