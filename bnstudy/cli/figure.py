"""The command `figure`: a study's figure redrawn from its results for a paper or a talk."""

from pathlib import Path

import click

from bnstudy.cli.completion import complete_override
from bnstudy.cli.places import config_dir_option, results_dir
from bnstudy.errors import UserError, unknown

KINDS = (".pdf", ".svg", ".png")


@click.command()
@click.argument("study")
@click.option(
    "--look",
    default="page",
    show_default=True,
    metavar="LOOK",
    help="column (of a paper, 3.25 in), page (8.5 in) or slide (12.5 in, large type).",
)
@click.option("--details", is_flag=True, help="The second figure instead of the headline.")
@click.option("--out", metavar="FILE", help="A .pdf, .svg or .png; default: STUDY-LOOK.pdf.")
@config_dir_option
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED, shell_complete=complete_override)
def figure(
    study: str, look: str, details: bool, out: str | None, config_dir: tuple[str, ...],
    overrides: tuple[str, ...],
) -> None:  # fmt: skip
    """Redraw a study's figure from its results: bnstudy figure batch_size --look slide.

    STUDY is a study that has results below results_dir, or a folder of results. Nothing is trained.
    """
    import json

    from bnstudy.config.compose import hydra_session
    from bnstudy.figures import content
    from bnstudy.figures.style import look_of
    from bnstudy.studies import module, sheets

    look_of(look)  # a misspelt look is said first
    folder = folder_of(study, results_dir(overrides))
    described = folder / "study.json"
    if not described.is_file():
        raise UserError(f"{folder} is no result of a study: it has no study.json")
    name = json.loads(described.read_text())["name"]
    stem = "details" if details else "figure"
    path = Path(out or f"{name}{'-details' if details else ''}-{look}.pdf")
    if path.suffix not in KINDS:
        raise UserError(f"--out {out}: the name must end in {', '.join(KINDS)}")
    with hydra_session(config_dir) as composer:
        found = module(composer.study(name))
    drawn = sheets.redrawn(found, folder, stem, look)
    try:
        path.write_bytes(content(drawn, path.suffix[1:]))
    except OSError as error:
        raise UserError(f"--out {path}: it cannot be written ({error.strerror})") from None
    click.echo(path)


def folder_of(study: str, results: Path) -> Path:
    """The folder of a study's results: the one that was made there, else the committed one.

    Raises:
        UserError: there is none, or there are several grids and none was named.
    """
    if Path(study).is_dir() and (Path(study) / "table.csv").is_file():
        return Path(study)
    made = sorted(path.parent for path in results.glob(f"runs/studies/{study}/*/table.csv"))
    found = made or [path.parent for path in results.glob(f"{study}/table.csv")]
    if len(found) > 1:
        raise UserError(
            f"{study} has results of several grids, name one: {', '.join(map(str, found))}"
        )
    if not found:
        every = [*results.glob("runs/studies/*/*/table.csv"), *results.glob("*/table.csv")]
        runs = results / "runs"
        raise unknown("study with results", study, {
            path.parts[-3] if path.is_relative_to(runs) else path.parts[-2] for path in every
        })  # fmt: skip
    return found[0]
