"""Fill README.md and docs/ with the figures, tables and numbers of results/.

    python scripts/pages.py           # write what has changed
    python scripts/pages.py --check   # say what has changed, exit code 1 if anything has

A page marks what is generated:

    <!-- results: NAME -->
    ...
    <!-- end -->

NAME is a key of `BLOCKS`, or "claims of FOLDER" for a folder of results/. tests/test_pages.py
compares the pages with the results that are there.
"""

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from bnstudy import advice as advised
from bnstudy import figures, numbers
from bnstudy.figures import Panel
from bnstudy.report.page import VERDICTS
from bnstudy.studies import batch_size, drawing

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
IMAGES = ROOT / "docs" / "images"
GROUPS = ("batches", "statistics", "recurrent", "pixels", "benefits", "today", "cost")
EARLIER = "of an earlier version"
NONE = "\N{EN DASH}"
PHOTOGRAPHS = "batch_size-cifar10_jpeg"  # shown instead of the digits where it has been run
SOURCE = "Wu & He 2018"  # of the headline's published panel
CLAIMS = "claims of "  # a block's name goes on with a folder of results/
ARTICLES = (  # what articles say of BN, and the claim that was made of it: folder and name
    ("speeds up convergence", "convergence", "mnist_small mlp: own best rates"),
    ("allows larger learning rates", "learning_rate", "digits ResNet-20: ten times"),
    ("lets saturating activations train", "saturation", "mnist_small deep: sigmoid"),
    ("makes initialization matter less", "initialization", "mnist_small deep: relu"),
    ("cures vanishing gradients", "saturation", "mnist_small deep: sigmoid, BN keeps gradients"),
    ("causes vanishing or exploding gradients", "gradient_depth", "gaussian: BN causes growth"),
    ("regularizes", "regularization", "mnist_small mlp: narrows the gap"),
    ("replaces dropout", "regularization", "mnist_small mlp: replaces dropout"),
)
PAPER = re.compile(r"^\D+ \d{4}(?!\d)")  # "Wu & He 2018" of "Wu & He 2018, table 2"
BLOCK = re.compile(r"(<!-- results: (?P<name>[^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Result:
    """One folder of results/: what a study stated, and the verdicts on its claims."""

    folder: str
    study: dict[str, Any]
    claims: list[dict[str, Any]]

    @property
    def name(self) -> str:
        return str(self.study["name"])

    @property
    def main(self) -> dict[str, Any] | None:
        """The primary claim; of a study without one (only demonstrations) the first claim."""
        primary = [claim for claim in self.claims if claim["primary"]]
        return next(iter([*primary, *self.claims]), None)

    @property
    def present(self) -> bool:
        """Whether the claims are those of today; earlier versions registered none."""
        return bool(self.claims) and all("status" in claim for claim in self.claims)

    @property
    def command(self) -> str:
        """The command of this study alone."""
        command = str(self.study.get("command", ""))
        if command.startswith(f"bnstudy study {self.name}"):
            return command
        return f"bnstudy study {self.name} scale={self.study['scale']}"


@cache
def results() -> tuple[Result, ...]:
    """All results, grouped as the studies are, by folder within a group."""
    found = []
    for path in sorted(RESULTS.glob("*/study.json")):
        claims = json.loads((path.parent / "claims.json").read_text())
        found.append(Result(path.parent.name, json.loads(path.read_text()), claims))
    return tuple(sorted(found, key=lambda r: (GROUPS.index(_stated(r.name)["group"]), r.folder)))


@cache
def _stated(study: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "configs" / "study" / f"{study}.yaml").read_text())


@cache
def papers() -> dict[str, str]:
    """Paper -> address, as the studies' files name them."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "configs" / "study").glob("*.yaml")):
        found |= _stated(path.stem).get("papers") or {}
    return found


def linked(source: str) -> str:
    """A source with links where its papers are named."""
    for name in sorted(papers(), key=len, reverse=True):
        source = re.sub(rf"(?<!\[){re.escape(name)}", f"[{name}]({papers()[name]})", source)
    return source


def paper(source: str) -> str:
    """The paper of a source, "Wu & He 2018"; empty where a source is no paper."""
    found = PAPER.match(source)
    return found.group() if found else ""


def measured(claim: dict[str, Any]) -> str:
    """Mean and interval; the level where it is not 95 %; nothing for an identity."""
    if claim["kind"] == "identical":
        return "equal to the bit" if claim["verdict"] == "true" else "not equal"
    text = numbers.estimate(claim["mean"], claim["low"], claim["high"], claim["unit"])
    level = claim["level"] if claim["mean"] is not None else None
    return text if level is None or level == 0.95 else f"{text} ({100 * level:.3g} %)"


def standing(result: Result, claim: dict[str, Any]) -> str:
    """Whether a verdict is confirmatory or exploratory, or of an earlier version of the study."""
    return str(claim["status"]) if result.present else EARLIER


def direction(claim: dict[str, Any]) -> str:
    """Whether the measured effect has the sign of the published one, by the claim's interval."""
    published, ends = claim["published_effect"], (claim["low"], claim["high"])
    if not published:
        return NONE
    if claim["verdict"] == "invalid" or None in ends:
        return "not judged"
    sides = {math.copysign(1, end) * math.copysign(1, published) if end else 0.0 for end in ends}
    return {(1.0,): "yes", (-1.0,): "no"}.get(tuple(sides), "open: the interval includes zero")


def figure_of(result: Result) -> str:
    """A result's figure, as seen from docs/; empty where there is none."""
    for suffix in ("svg", "png"):
        if (RESULTS / result.folder / f"figure.{suffix}").is_file():
            return f"../results/{result.folder}/figure.{suffix}"
    return ""


def row(*cells: object) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(str(cell).replace("|", r"\|") for cell in cells) + " |"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    return "\n".join([row(*head), row(*["---"] * len(head)), *(row(*cells) for cells in rows)])


# --- blocks --------------------------------------------------------------------------------------


def answers() -> str:
    """docs/studies.md: every study's question, source, primary claim and verdict."""
    head = ("study", "question", "source", "primary claim", "verdict", "measured", "n", "standing")
    rows = []
    for result in results():
        claim = result.main
        if claim is None:
            continue
        figure = figure_of(result)
        name = f"[`{result.folder}`]({figure})" if figure else f"`{result.folder}`"
        rows.append((
            name, result.study["title"], linked(result.study["source"]), claim["text"],
            claim["verdict"], measured(claim), claim["n"], standing(result, claim),
        ))  # fmt: skip
    return table(head, rows)


def articles() -> str:
    """README: what articles say of BN, the claim made of it, the measured effect, the verdict."""
    held = {(r.folder, c["name"]): c for r in results() for c in r.claims}
    rows = []
    for said, folder, name in ARTICLES:
        claim = held.get((folder, name))
        asked = (claim["text"], measured(claim), claim["verdict"]) if claim else (NONE,) * 3
        rows.append((said, f"`{folder}`", *asked))
    return table(("BN, it is said,", "study", "our claim", "measured", "verdict"), rows)


def counts() -> str:
    """How many primary claims of the present versions had which verdict."""
    present = [r.main for r in results() if r.present and r.main and r.main["primary"]]
    words = Counter(str(claim["verdict"]) for claim in present)
    found = ", ".join(f"{words[word]} {word}" for word in VERDICTS if words[word])
    earlier = sum(not r.present for r in results())
    be = "result is" if earlier == 1 else "results are"
    rest = f"; {earlier} {be} {EARLIER}" if earlier else ""
    return f"Primary claims judged by the present studies: {len(present)} ({found}){rest}."


def waiting() -> str:
    """docs/studies.md: the studies that can be run and have no committed results yet."""
    ran = {result.name for result in results()}
    every = sorted(path.stem for path in (ROOT / "configs" / "study").glob("*.yaml"))
    left = [f"`{name}` ({_stated(name)['title']})" for name in every if name not in ran]
    if not left:
        return "Every study has committed results."
    return f"Written, and not yet run for these results: {', '.join(left)}."


def claims_of(folder: str) -> str:
    """All claims of one result, in the order in which they are judged."""
    result = {r.folder: r for r in results()}[folder]
    rows = []
    for claim in result.claims:
        name = f"**primary:** {claim['text']}" if claim["primary"] else claim["text"]
        rows.append((name, claim["verdict"], measured(claim), "; ".join(claim["reasons"]) or NONE))
    head = ("claim, in its order", "verdict", "measured", "remarks")
    told = {standing(result, claim) for claim in result.claims}
    return f"`{result.command}`, {', '.join(sorted(told))}:\n\n{table(head, rows)}"


def index() -> str:
    """docs/papers.md: one row for each source that a study names."""
    rows = []
    for result in results():
        for source, claim in _sources(result):
            figure = figure_of(result)
            rows.append((
                linked(source), f"`{result.command}`",
                (claim["published"] if claim else "") or NONE,
                f"{claim['text']}: {measured(claim)}" if claim else NONE,
                direction(claim) if claim else NONE,
                standing(result, claim) if claim else NONE,
                f"[figure]({figure})" if figure else NONE,
            ))  # fmt: skip
    head = ("paper and figure", "command", "published", "ours", "same direction", "standing", "")
    return table(head, rows)


def _sources(result: Result) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Each paper that a study names, with the claim beside its number.

    Of several claims the first with a published number, else the first. A paper that only a claim
    names comes after those of the study.
    """
    stated = [part.strip() for part in str(result.study["source"]).split(";")]
    named = {paper(part) or part: part for part in stated}
    for claim in result.claims:
        if paper(claim["source"]):
            named.setdefault(paper(claim["source"]), claim["source"])
    for key, source in named.items():
        beside = [claim for claim in result.claims if paper(claim["source"]) == key]
        beside.sort(key=lambda claim: claim["published_effect"] is None)
        yield source, (beside[0] if beside else None)


def headline() -> str:
    """README: the figure, and the verdict of each of its panels."""
    shown = headline_panels()
    lines = [f"![{figures.alt([panel for _, panel in shown])}](docs/images/headline.svg)", ""]
    for result, panel in shown:
        for claim in result.claims if result else ():
            if claim["name"] == panel.claim:
                lines.append(_finding(result, claim))
    return "\n".join(lines)


def _finding(result: Result, claim: dict[str, Any]) -> str:
    published = f"; published {claim['published'].replace(' (published)', '')}"
    other = claim.get("t_verdict")
    remark = f" Student's t would say {other}." if other not in ("", None, claim["verdict"]) else ""
    return (
        f"- **{claim['verdict'].capitalize()}** ({standing(result, claim)}, {claim['n']} seeds): "
        f"{claim['text']}: **{measured(claim)}**{published if claim['published'] else ''}.{remark}"
    )


def headline_panels() -> list[tuple[Result | None, Panel]]:
    """Published, photographs (digits until they have been run), vectors: panels of `batch_size`.

    Results of earlier versions are not shown.
    """
    present = {result.folder: result for result in results() if result.present}
    maps = present.get(PHOTOGRAPHS) or present.get("batch_size")
    if maps is None:
        return []
    published = batch_size.PUBLISHED
    curves = [drawing.cited(published, norm, "batch_size", norm=norm)
              for norm in ("batch", "group")]  # fmt: skip
    first = Panel("published: ResNet-50, ImageNet", curves, "images per GPU", claim=SOURCE)
    shown: list[tuple[Result | None, Panel]] = [(None, first)]
    difference, errors, *_ = _drawn(maps.folder)
    shown.append((maps, _plain(errors, difference.claim)))
    if "batch_size" in present:
        _, _, *vectors = _drawn("batch_size")
        shown += [(present["batch_size"], _plain(panel, panel.claim)) for panel in vectors[:1]]
    return shown


def _plain(panel: Panel, claim: str) -> Panel:
    """Without the dots of seeds, which the study has: one far run would set the axis."""
    return replace(panel, curves=[replace(own, runs=None) for own in panel.curves], claim=claim)


def _verdicts(shown: Sequence[tuple[Result | None, Panel]]) -> dict[str, str]:
    """What stands below the panels' titles."""
    found = {}
    for result, panel in shown:
        for claim in result.claims if result else ():
            if claim["name"] == panel.claim:
                least = f" (at least {claim['threshold']:g} {claim['unit']})"
                word = claim["verdict"] + (least if claim["kind"] == "greater" else "")
                found[panel.claim] = f"{word}: {measured(claim)}"
                if claim["published"]:
                    found.setdefault(SOURCE, claim["published"])
    return found


@cache
def _drawn(folder: str) -> list[Panel]:
    """The panels of a result of `batch_size`: difference, errors on maps, errors on vectors."""
    return batch_size.headline(pd.read_csv(RESULTS / folder / "table.csv", low_memory=False))


def advice() -> str:
    """README: the strongest lines of `bnstudy advise`, with their evidence."""
    lines = advised.strongest(RESULTS)
    return "\n".join(f"- {line.limits}: **{line.text}**; {line.evidence}." for line in lines)


BLOCKS = {
    "headline": headline,
    "advice": advice,
    "answers": answers,
    "articles": articles,
    "counts": counts,
    "waiting": waiting,
    "papers": index,
}


# --- pages ---------------------------------------------------------------------------------------


def block(name: str) -> str:
    """What stands in a block; KeyError for one that nobody makes."""
    of = name.removeprefix(CLAIMS)
    return BLOCKS[name]() if of == name else claims_of(of)


def filled(text: str) -> str:
    """A page with its blocks as the results have them; KeyError for a block that nobody makes."""
    return BLOCK.sub(lambda m: f"{m[1]}{block(m['name'])}\n{m[3]}", text)


def pages() -> list[Path]:
    """The files that may have blocks."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def draw() -> None:
    """docs/images/headline.svg, and beside it the points that it draws."""
    shown = headline_panels()
    figure = figures.draw([panel for _, panel in shown], verdicts=_verdicts(shown))
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / "headline.svg").write_bytes(figures.content(figure, "svg"))
    headline_points().to_csv(IMAGES / "headline.csv", index=False)


def headline_points() -> pd.DataFrame:
    """What the headline draws."""
    return figures.points([panel for _, panel in headline_panels()])


def main(check: bool = False) -> int:
    """Write the pages, or with `check` name those that differ. The exit code."""
    changed = [page for page in pages() if filled(page.read_text()) != page.read_text()]
    for page in changed:
        print(f"{'differs from results/' if check else 'written'}: {page.relative_to(ROOT)}")
        if not check:
            page.write_text(filled(page.read_text()))
    if not check:
        draw()
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
