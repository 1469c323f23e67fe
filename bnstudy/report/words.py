"""What the page says, as plain text: numbers, intervals, seeds, tuning, sources."""

import math
import re
from collections.abc import Iterable
from typing import Any

from bnstudy import numbers

DASH = "\N{EN DASH}"
SPACE = "\N{NO-BREAK SPACE}"


def finite(value: Any) -> float | None:
    """A number from a file; None for anything else, NaN and infinity."""
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if real and math.isfinite(value) else None


def span(claim: dict[str, Any]) -> tuple[float | None, float | None, float | None]:
    """Mean and interval of a claim."""
    mean, low, high = (finite(claim.get(key)) for key in ("mean", "low", "high"))
    return mean, low, high


def unit_of(claim: dict[str, Any]) -> str:
    """The unit of a claim's numbers; empty where it has none."""
    return plain(claim.get("unit"))


def measured(claim: dict[str, Any]) -> str:
    """`+5.1 pp [2.4, 7.8]`; a dash where nothing was measured."""
    mean, low, high = span(claim)
    return DASH if mean is None else numbers.estimate(mean, low, high, unit_of(claim))


def beside(value: Any, claim: dict[str, Any], signed: bool = False) -> str:
    """A number with the decimals of the claim's interval and its unit; a dash for none."""
    found = finite(value)
    if found is None:
        return DASH
    _, low, high = span(claim)
    return _with_unit(numbers.fixed(found, numbers.decimals(low, high), signed), claim)


def threshold(claim: dict[str, Any]) -> str:
    """What is claimed, in words: `greater than 2.4 pp`.

    The threshold has the interval's decimals, and more where it was chosen with more.
    """
    form = {"greater": "greater than {}", "equivalent": "within ±{}",
            "not_worse": "worse by less than {}", "demonstration": "demonstration",
            "identical": "equal to the bit"}.get(plain(claim.get("kind")), "")  # fmt: skip
    value = finite(claim.get("threshold"))
    if value is None:
        return form if "{}" not in form else ""
    _, low, high = span(claim)
    if value == 0:
        return form.format("0")
    own = len(f"{value:.6f}".rstrip("0").partition(".")[2])
    shown = numbers.fixed(value, max(own, numbers.decimals(low, high)))
    return form.format(_with_unit(shown, claim))


def level(claim: dict[str, Any]) -> str:
    """`95 % interval`; empty where the claim has none."""
    value = finite(claim.get("level"))
    return "" if value is None else f"{100 * value:.3g}{SPACE}% interval"


def p_value(value: Any) -> str:
    """A p value as papers print it."""
    found = finite(value)
    if found is None:
        return DASH
    return "< 0.001" if found < 0.001 else f"{found:.3f}"


def plain(value: Any) -> str:
    """Anything from a JSON file as a line of text."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    if isinstance(value, dict):
        return "; ".join(f"{key}: {plain(item)}" for key, item in value.items())
    return "" if value is None else str(value)


def captioned(study: dict[str, Any]) -> str:
    """A figure's caption, with the command between backticks and a period after it."""
    text, command = plain(study.get("caption")), plain(study.get("command"))
    made = f"Made by: {command}"
    if command and "`" not in command:
        text = re.sub(rf"{re.escape(made)}\.?(?=\s|$)", lambda _: f"Made by `{command}`.", text)
    return text


def listed(value: Any) -> list[str]:
    """The lines of a list, of one text, or of nothing."""
    items = value if isinstance(value, list) else [value]
    return [text for item in items if (text := plain(item))]


def seeds(study: dict[str, Any]) -> str:
    """How many seeds and which: `48 (30 to 77)`."""
    found = study.get("seeds")
    if not isinstance(found, list) or not found:
        return plain(found)
    whole = all(isinstance(seed, int) for seed in found)
    if whole and len(found) > 2 and sorted(found) == list(range(min(found), max(found) + 1)):
        return f"{len(found)} ({min(found)} to {max(found)})"
    return f"{len(found)} ({plain(found)})"


def looked(looks: Any) -> str:
    """The looks of study.json in words; empty where there were none."""
    if not isinstance(looks, dict) or not isinstance(looks.get("taken"), list):
        return ""
    taken = [
        f"{plain(look.get('seeds'))} seeds at level {finite(look.get('level')) or 0:.4f}: "
        f"{plain(look.get('primary'))}"
        for look in looks["taken"]
        if isinstance(look, dict)
    ]
    stopped = plain(looks.get("stopped"))
    return f"{'; '.join(taken)} ({len(taken)} of {plain(looks.get('of'))}; {stopped})"


def tuned(tuning: dict[str, Any]) -> str:
    """tuning.json in words: what was chosen, for what, from which values; empty without it."""
    choices, how = tuning.get("choices"), tuning.get("tune")
    if not isinstance(choices, list) or not isinstance(how, dict):
        return ""
    axes = how.get("axes")
    axes = axes if isinstance(axes, dict) else {}
    values = "; ".join(f"{name} from {plain(tried)}" for name, tried in axes.items())
    edge = sum(bool(c.get("edge")) for c in choices if isinstance(c, dict))
    return (
        f"{values}, chosen by validation error on pilot seeds {plain(how.get('seeds'))} for each "
        f"{plain(how.get('per'))}: {len(choices)} choices, {edge or 'none'} at the edge of its "
        f"range ({plain(tuning.get('command'))})"
    )


def data(found: dict[str, tuple[list[str], list[str]]]) -> str:
    """The data sets of a table of runs in words: `digits, 800 training examples (lenet)`."""
    texts = []
    for name, (models, sizes) in found.items():
        whole = re.fullmatch(r"(\d+)(\.0)?", sizes[0]) if len(sizes) == 1 else None
        size = f", {int(whole[1]):,} training examples" if whole else ""
        texts.append(f"{name}{size} ({', '.join(models)})" if models else f"{name}{size}")
    return "; ".join(texts)


def linked(text: Any, papers: Any) -> list[tuple[str, str]]:
    """Text in pieces with the address of the paper that each one names; empty: it names none.

    Only addresses of the web are taken.
    """
    known = papers if isinstance(papers, dict) else {}
    known = {str(k): str(v) for k, v in known.items() if re.match(r"https?://", str(v))}
    if not known:
        return [(plain(text), "")]
    names = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
    pieces = re.split(f"({names})", plain(text))
    return [(piece, known.get(piece, "")) for piece in pieces if piece]


def size(count: int) -> str:
    """A file's size: `988 kB`."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{max(1, round(count / 1e3))} kB"


def joined(parts: Iterable[str]) -> str:
    """Those parts of a sentence that are there, with commas."""
    return ", ".join(part for part in parts if part)


def _with_unit(number: str, claim: dict[str, Any]) -> str:
    return f"{number}{SPACE}{unit_of(claim)}".rstrip()
