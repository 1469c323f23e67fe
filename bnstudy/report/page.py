"""The page: sections by question, one entry for each result, addresses that do not change."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader

from bnstudy.errors import UserError
from bnstudy.report import forest, ids, words
from bnstudy.report.folders import StudyResult, ordered, scale_rank
from bnstudy.report.pictures import text_uri

VERDICTS = ("supported", "refuted", "inconclusive", "invalid")
WORDS = (*VERDICTS, "true", "false", "shown", "not shown")  # the last four are counted nowhere
SECTIONS = {  # a study's `group` -> heading, in the order of the page
    "batches": "Batch size",
    "statistics": "Training and evaluation statistics",
    "recurrent": "Recurrent networks",
    "pixels": "Pixels",
    "benefits": "Benefits and cost",
    "today": "Today",
}
OTHER = "Other"  # of results that state no group
COLUMNS = ("id", "name", "text", "primary", "verdict", "expected", "status", "kind", "threshold",
           "mean", "low", "high", "level", "unit", "n", "sd", "p", "p_holm", "detectable",
           "underpowered", "estimand", "published", "published_effect", "source")  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One result on the page.

    address: its id; the study's name for the one that stands for the study.
    stands:  whether it stands for its study in the forest plot and the counts.
    claims:  (id, claim); an id is empty where two claims would share it.
    links:   (name, relative address, size) of files beside the page.
    """

    result: StudyResult
    address: str
    stands: bool
    claims: list[tuple[str, dict[str, Any]]]
    links: list[tuple[str, str, str]]
    problems: tuple[str, ...]


def render(
    results: Sequence[StudyResult],
    advice: Sequence[Any] = (),
    folder: str | Path | None = None,
    unadvised: str = "",
) -> str:
    """The page as HTML; the same results give the same bytes.

    advice:    lines of `bnstudy.advice`: text, evidence, limits, study and claim.
    folder:    where the page will lie: files below it are linked, others are named.
    unadvised: why there is no advice.
    """
    entries = _entries(results, folder)
    standing = [entry for entry in entries if entry.stands]
    primaries = [(e, e.result.primary) for e in standing if e.result.primary]
    judged = [claim for e in standing for _, claim in e.claims if word(claim) in VERDICTS]
    # what stands for a study comes first among its results, so that it is written last
    places = {
        (entry.result.name, words.plain(claim.get("name"))): address
        for entry in reversed(entries)
        for address, claim in entry.claims
    }
    return _environment().get_template("page.html.jinja").render(
        sections=_sections(entries),
        strips=forest.strips(primaries),
        silent=[e for e in standing if not e.result.primary],
        advice=[(line, places.get((line.study, line.claim), "")) for line in advice],
        unadvised=unadvised,
        primary_counts=_counts(claim for _, claim in primaries),
        counts=_counts(judged),
    )  # fmt: skip


def word(claim: Mapping[str, Any]) -> str:
    """A claim's verdict; a word that is none counts as invalid."""
    found = str(claim.get("verdict"))
    return found if found in WORDS else "invalid"


def claims_csv(entry: Entry) -> str:
    """The claims of one result as CSV, with their ids and unrounded numbers."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**claim, "id": address} for address, claim in entry.claims)
    return out.getvalue()


def _environment() -> Environment:
    # Figures are <img> with data addresses instead of inline SVG: two figures cannot clash in
    # their ids, and nothing in a file can run. Everything else is escaped by jinja. A field that a
    # file lacks is left out of the page (jinja's lenient Undefined): a damaged result must not
    # hide the others.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        {f.__name__: f for f in (words.measured, words.beside, words.threshold, words.level,
                                 words.p_value, words.plain, words.listed, words.seeds,
                                 words.looked, words.tuned, words.data, words.linked,
                                 words.joined, words.captioned, word, claims_csv)}
    )  # fmt: skip
    environment.globals.update(text_uri=text_uri, verdicts=VERDICTS)
    return environment


def _entries(results: Sequence[StudyResult], folder: str | Path | None) -> list[Entry]:
    """The results of the page; one of each study stands for it."""
    found = []
    for name, group in groupby(ordered(list(results)), key=lambda r: r.name):
        several = list(group)
        chosen = max(several, key=_rank)
        for result in sorted(several, key=lambda r: r is not chosen):  # stable: others by scale
            address = "-".join(name.split())
            if result is not chosen:
                address += "/" + "-".join(result.folder.split())
            found.append(_entry(result, address, result is chosen, folder))
    return found


def _rank(result: StudyResult) -> tuple[bool, tuple[int, str], int, str]:
    """What stands for a study: its own folder, then the largest scale, then the most runs."""
    runs = words.finite(result.study.get("n_runs")) or 0
    return (result.folder == result.name, scale_rank(result.scale), int(runs), result.folder)


def _entry(result: StudyResult, address: str, stands: bool, folder: Any) -> Entry:
    names = [words.plain(claim.get("name")) for claim in result.claims]
    problems = result.problems
    try:
        taken = ids.claim_ids(address, names)
    except UserError as error:
        taken, problems = {}, (*problems, str(error))
    claims = [(taken.get(name, ""), c) for name, c in zip(names, result.claims, strict=True)]
    return Entry(result, address, stands, claims, _links(result, folder), problems)


def _links(result: StudyResult, folder: str | Path | None) -> list[tuple[str, str, str]]:
    """Files beside the page; an empty address where a result does not lie below its folder."""
    beside, place = Path(folder).resolve() if folder is not None else None, result.path.resolve()
    near = beside is not None and place.is_relative_to(beside)
    start = place.relative_to(beside).as_posix() if beside is not None and near else ""
    return [
        (name, quote(f"{start}/{name}".removeprefix("./")) if near else "", words.size(count))
        for name, count in result.files.items()
    ]


def _sections(entries: Sequence[Entry]) -> list[tuple[str, str, list[Entry]]]:
    """(id, heading, entries) of the groups that have results, those without a group last."""
    order = list(SECTIONS)

    def group(entry: Entry) -> str:
        return words.plain(entry.result.study.get("group"))

    def rank(name: str) -> tuple[bool, int, str]:
        return (not name, order.index(name) if name in order else len(order), name)

    names = sorted({group(entry) for entry in entries}, key=rank)
    return [
        (
            "-".join(["section", *(name.split() or ["other"])]),
            SECTIONS.get(name, name.capitalize() or OTHER),
            [entry for entry in entries if group(entry) == name],
        )
        for name in names
    ]


def _counts(claims: Any) -> list[tuple[str, int]]:
    """How many claims came out how, without those of none."""
    found = Counter(map(word, claims))
    return [(name, found[name]) for name in VERDICTS if found[name]]
