"""JSON that every reader accepts: no NaN and no infinity, which Python's own writer lets through.

They are written as the texts "NaN", "Infinity", "-Infinity" and become numbers again when read.
"""

import json
import math
from typing import Any

_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode(value: Any) -> str:
    """Dicts, lists, texts, numbers (also of numpy and torch) as strict JSON with sorted keys."""
    return json.dumps(_plain(value), allow_nan=False, sort_keys=True, indent=1)


def decode(text: bytes) -> Any:
    """What `encode` wrote."""
    value = json.loads(text)
    return _numbers(value) if b'"NaN"' in text or b'Infinity"' in text else value


def _plain(value: Any) -> Any:
    """Dicts, lists, texts, numbers, None; what is not finite as a text."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):  # numpy, torch
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    return _NUMBERS.get(value, value) if isinstance(value, str) else value
