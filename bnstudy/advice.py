"""What to use instead of batch norm, from verdicts that results hold.

`configs/advice.yaml` says which sentence follows from which verdict on which claim; nothing is
advised that no result supports. A question is a setting, such as {"model": "mlp", "batch_size": 2};
the rules that answer it are those that were measured in that setting.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from bnstudy import numbers
from bnstudy.config import CONFIGS, HERE
from bnstudy.config.capabilities import DATA, MODELS
from bnstudy.errors import UserError, unknown

TASKS = ("classification", "recurrent", "language", "pixels")
PROBLEMS = {  # what a rule may be about beside small batches, and how the help calls it
    "shift": "test images differ from training images",
    "class_skew": "batches of few classes",
    "stream": "one example at a time",
    "tasks": "one task after another",
    "processes": "a batch is split over processes",
    "estimate": "how population statistics are estimated",
    "longer_sequences": "test sequences longer than those of training",
    "clients": "weights are averaged over clients",
    "mixture": "two kinds of images in one batch",
    "gain": "what batch norm gives in return",
}
NAMES = {"task": TASKS, "model": MODELS, "data": DATA, "problem": PROBLEMS}
COUNTS = ("batch_size", "test_batch", "length")  # keys of whole numbers
KEYS = ("task", "model", "batch_size", "test_batch", "length", "data", "problem")
SENTENCES = ("supported", "refuted", "shown", "true")  # verdicts from which something can follow
FAR = {"task": 16.0, "model": 8.0, "problem": 6.0, "data": 4.0}  # see `distance`; a count: 5
STATUS = ("confirmatory", "exploratory")

Question = Mapping[str, Any]
Claims = Mapping[tuple[str, str], Mapping[str, Any]]  # (study, claim) -> its verdict


@dataclass(frozen=True)
class Rule:
    """What follows from the verdicts on one claim, and in which setting."""

    where: Mapping[str, Any]  # key -> a name, a number or a range "low..high"
    study: str
    claim: str
    limits: str
    sentences: Mapping[str, str]  # verdict -> sentence
    instead: bool  # whether the sentence of a supported claim names what to use


@dataclass(frozen=True)
class Line:
    """A sentence of advice with its evidence and limits; `str` is how it is printed."""

    text: str
    evidence: str
    limits: str
    study: str
    claim: str
    where: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.limits}: {self.text}; {self.evidence}"


def question(words: Sequence[str]) -> dict[str, Any]:
    """Words of a command line, `model=mlp`, as a question.

    Raises:
        UserError: a word without `=`, a key given twice, and whatever `checked` refuses.
    """
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"'{word}' is no part of a question: write key=value, as in model=mlp")
        if key in found:
            raise UserError(f"'{key}' is given twice: say it once")
        found[key] = int(value) if key in COUNTS and value.isdecimal() else value
    return checked(found)


def checked(question: Question) -> dict[str, Any]:
    """A question whose keys and names exist and whose counts are whole numbers from 1 on.

    Raises:
        UserError: it is another; says what is allowed and the nearest match.
    """
    for key, value in question.items():
        if key not in KEYS:
            raise unknown("key", key, KEYS)
        if key in NAMES and value not in NAMES[key]:
            raise unknown(key, value, NAMES[key])
        if key in COUNTS and not (isinstance(value, int) and value > 0):
            raise UserError(f"{key}={value} is not allowed: {key} is a whole number, 1 or more")
    return dict(question)


def advise(question: Question, folder: str | Path | Sequence[Path]) -> list[Line]:
    """The lines that answer a question, confirmatory evidence first; empty where there is none.

    question: key -> value, such as {"model": "mlp", "batch_size": 2}; what it leaves out may be
              anything.
    folder:   a results folder, or several; see `evidence`.
    Raises UserError for a question that `checked` refuses, and for results that cannot be read.
    """
    asked, held = checked(question), evidence(folder)
    return _ordered([rule for rule in rules() if fits(rule.where, asked)], held)


def undecided(question: Question, folder: str | Path | Sequence[Path]) -> list[Line]:
    """What was asked in the setting of a question without a verdict that anything follows from.

    The text of such a line is the claim's own.
    """
    held, found = evidence(folder), []
    for rule in rules():
        claim = held.get((rule.study, rule.claim))
        if claim and fits(rule.where, question) and claim["verdict"] not in rule.sentences:
            found.append(_line(rule, claim, str(claim["text"])))
    return found


def nearest(question: Question, folder: str | Path | Sequence[Path]) -> list[Line]:
    """The lines of the setting nearest to a question, of those that do not answer it.

    They agree in what the question asks for, and differ from it as little as possible.
    """
    lines = [line for line in _ordered(rules(), evidence(folder)) if not fits(line.where, question)]
    if not lines:
        return []
    first = min(lines, key=lambda line: distance(line.where, question))
    return [
        line
        for line in lines
        if all(line.where.get(key) == first.where.get(key) for key in question)
    ]


def strongest(folder: str | Path | Sequence[Path], n: int = 3) -> list[Line]:
    """The n strongest lines that name what to use instead, one a study at most.

    Of claims of kind `greater` that are supported and confirmatory, those whose mean is largest
    relative to the half-width of its interval. Rules name something where they say `instead`.
    """
    held = evidence(folder)

    def strength(rule: Rule) -> float:
        claim = held.get((rule.study, rule.claim), {})
        strong = (claim.get("kind"), claim.get("verdict"), claim.get("status"))
        if not rule.instead or strong != ("greater", "supported", "confirmatory"):
            return 0.0
        half = (claim["high"] - claim["low"]) / 2
        return claim["mean"] / half if half > 0 else 0.0

    ranked = sorted((rule for rule in rules() if strength(rule) > 0), key=strength)
    best = {rule.study: rule for rule in ranked}  # the strongest of a study comes last
    return _ordered(sorted(best.values(), key=strength, reverse=True)[:n], held)


def default_folders() -> list[Path]:
    """Where evidence is looked for unless a folder is named.

    `results` in the working directory, and the results that came with the package: of the checkout
    it lies in, or installed with it.
    """
    found = [Path("results"), HERE.parent / "results", HERE / "results"]
    there = [path for path in found if path.is_dir()]
    return list({path.resolve(): path for path in reversed(there)}.values())[::-1]


def evidence(folder: str | Path | Sequence[Path]) -> dict[tuple[str, str], dict[str, Any]]:
    """(study, claim) -> the verdict that counts, of one or several results folders.

    Results are those of FOLDER/STUDY and FOLDER/runs/studies/STUDY/SCALE-GRID. Where several judge
    the same claim, confirmatory ones come before exploratory ones, and then those with more seeds.
    Results of earlier versions, whose verdicts have no status, never count.
    Raises UserError for a claims.json that cannot be read.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for study, path in _files([Path(folder)] if isinstance(folder, str | Path) else folder):
        for claim in _claims(path):
            if claim.get("status") not in STATUS:
                continue
            key = (study, str(claim["name"]))
            if key not in found or _weight(claim) > _weight(found[key]):
                found[key] = claim
    return found


@lru_cache(maxsize=1)
def rules() -> tuple[Rule, ...]:
    """All rules of configs/advice.yaml, those with `over` written out."""
    plain = yaml.safe_load((CONFIGS / "advice.yaml").read_text())
    return tuple(rule for entry in plain["rules"] for rule in _written_out(entry, plain["names"]))


def fits(where: Mapping[str, Any], question: Question) -> bool:
    """Whether a setting states all that a question asks for."""
    return all(key in where and _off(where[key], value) == 0 for key, value in question.items())


def distance(where: Mapping[str, Any], question: Question) -> float:
    """How far a setting is from a question: a task is farthest, a batch size nearest.

    A count that is d times too large or small costs log2 of d, 4 at most; one that the setting does
    not state costs 5.
    """
    total = 0.0
    for key, value in question.items():
        if key in FAR:
            total += FAR[key] * (where.get(key) != value)
        else:
            total += min(_off(where[key], value), 4.0) if key in where else 5.0
    return total


def setting(where: Mapping[str, Any], keys: Sequence[str]) -> str:
    """A setting in the words of a question: `model=mlp batch_size=4`."""
    return " ".join(f"{key}={where[key]}" for key in KEYS if key in keys and key in where)


def _ordered(chosen: Sequence[Rule], held: Claims) -> list[Line]:
    """The lines of rules whose claims have a verdict with a sentence, confirmatory ones first."""
    found = []
    for rule in chosen:
        claim = held.get((rule.study, rule.claim))
        if claim and claim["verdict"] in rule.sentences:
            text = rule.sentences[claim["verdict"]].format(**_numbers(claim))
            found.append((STATUS.index(claim["status"]), _line(rule, claim, text)))
    return [line for _, line in sorted(found, key=lambda pair: pair[0])]


def _line(rule: Rule, claim: Mapping[str, Any], text: str) -> Line:
    return Line(text, _told(rule.study, claim), rule.limits, rule.study, rule.claim, rule.where)


def _numbers(claim: Mapping[str, Any]) -> dict[str, str]:
    """What sentences may hold: the mean with unit and interval, in three forms."""
    mean, low, high = (claim[name] for name in ("mean", "low", "high"))
    unit, bounded = str(claim["unit"]), None not in (low, high)
    least, most = (-high, -low) if bounded else (None, None)
    return {
        "effect": numbers.estimate(mean, low, high, unit, signed=False),
        "reverse": numbers.estimate(-mean, least, most, unit, signed=False),
        "signed": numbers.estimate(mean, low, high, unit),
    }


def _told(study: str, claim: Mapping[str, Any]) -> str:
    """The evidence behind a line: level, n, verdict, status and study."""
    parts = [f"n = {claim['n']}"]
    if claim["kind"] == "identical":
        parts.append("equal to the bit")
    elif claim["kind"] == "demonstration":
        parts.append("a demonstration of what mathematics guarantees")
    else:
        parts = [f"{100 * claim['level']:.3g} % interval", *parts]
        parts.append(f"claim {claim['verdict']}, {claim['status']}")
        if claim.get("t_verdict") not in ("", None, claim["verdict"]):
            parts.append(f"Student's t: {claim['t_verdict']}")
    return f"{', '.join(parts)} ({study})"


def _weight(claim: Mapping[str, Any]) -> tuple[int, int]:
    """What counts more: confirmatory, then more seeds."""
    return -STATUS.index(claim["status"]), int(claim["n"])


def _files(folders: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """The study and the claims.json of all results, <study>[-<data>], in results folders."""
    for folder in folders:
        for path in sorted(folder.glob("*/claims.json")):
            yield path.parent.name.partition("-")[0], path
        for path in sorted(folder.glob("runs/studies/*/*/claims.json")):
            yield path.parts[-3], path


def _claims(path: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [dict(claim) for claim in found]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read as the claims of a study: {error}") from None


def _off(stated: Any, asked: Any) -> float:
    """How far a value lies from one that is stated: in doublings for counts; inf for names."""
    if not isinstance(asked, int):
        return 0.0 if stated == asked else math.inf
    low, _, high = str(stated).partition("..")
    near = min(max(asked, int(low)), int(high or low))
    return abs(math.log2(asked / near))


def _written_out(entry: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[Rule]:
    """The rules of an entry, one for each combination of the values in `over`."""
    over = entry.get("over", {})
    for point in itertools.product(*over.values()):
        raw = dict(zip(over, point, strict=True))
        called = {key: names.get(str(value), value) for key, value in raw.items()}
        where = {key: _filled(value, raw) for key, value in entry["where"].items()}
        where |= {key: int(where[key]) for key in COUNTS if str(where.get(key, "")).isdecimal()}
        subject = [names[where["model"]], names[where["data"]], entry.get("limits", "")]
        yield Rule(
            where=where,
            study=str(entry["study"]),
            claim=_filled(entry["claim"], raw),
            limits=", ".join(_filled(part, called) for part in subject if part),
            sentences={v: _filled(entry[v], called) for v in SENTENCES if v in entry},
            instead=bool(entry.get("instead")),
        )


def _filled(text: Any, values: Mapping[str, Any]) -> Any:
    """A text with the values of `over` in it; its other braces are for numbers."""
    for key, value in values.items():
        text = text.replace(f"{{{key}}}", str(value)) if isinstance(text, str) else text
    return text
