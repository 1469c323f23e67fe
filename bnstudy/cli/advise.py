"""The command that says what to use instead."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnstudy.cli.completion import complete_question
from bnstudy.cli.places import results_dir
from bnstudy.errors import UserError, count

if TYPE_CHECKING:
    from bnstudy.advice import Line

MOST = 10  # lines that are printed without --all
BESIDE = 6  # and of a setting that is near
NEAR = 1.0  # how far a setting may be to be shown beside an answer: twice or half the batch size


@click.command()
@click.option("--all", "everything", is_flag=True, help="Print all lines, not the first ones.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, shell_complete=complete_question)
def advise(everything: bool, words: tuple[str, ...]) -> None:
    """Say what to use instead: bnstudy advise batch_size=2 model=mlp task=classification.

    \b
    WORDS describe a setting; what they leave out may be anything:
      task         classification, recurrent, language, pixels
      model        mlp, lenet, resnet, recurrent, ...
      batch_size   examples that share a statistic in training
      test_batch   the same in evaluation
      length       steps of a sequence
      data         digits, contrast_digits, mnist_small, text, ...
      problem      shift: test images differ from training images
                   class_skew: batches of few classes
                   stream: one example at a time
                   tasks: one task after another
                   processes: a batch is split over processes
                   estimate: how population statistics are estimated
                   longer_sequences: test sequences longer than those of training
                   clients: weights are averaged over clients
                   mixture: two kinds of images in one batch
                   gain: what batch norm gives in return

    Every line names its limits and its evidence, a verdict of a study; where there is no evidence
    the answer says so and names the nearest. Without WORDS: the three strongest lines.

    Evidence lies in DIR/STUDY and DIR/runs/studies/STUDY with results_dir=DIR, else in ./results
    and in the results that came with the package. Of several verdicts on a claim a confirmatory one
    counts before an exploratory one, and then the one of more seeds; results of earlier versions
    never count.
    """
    from bnstudy import advice

    place = [word for word in words if word.startswith("results_dir=")]
    question = advice.question([word for word in words if word not in place])
    folders = _folders(place)
    if not advice.evidence(folders):
        shown = ", ".join(map(str, folders)) or "results"
        click.echo(f"No evidence: no study has results in {shown}; bnstudy study makes them.")
        return
    most = None if everything else MOST
    if question:
        _answer(question, folders, most)
        return
    for line in advice.strongest(folders):
        click.echo(f"* {line}")
    click.echo("These are the strongest; ask with key=value (bnstudy advise --help).")


def _answer(question: dict[str, Any], folders: Sequence[Path], most: int | None) -> None:
    """Print what answers a question, what is near it, and what was asked without a decision."""
    from bnstudy import advice

    lines, near = advice.advise(question, folders), advice.nearest(question, folders)
    _print(lines, most)
    asked = advice.setting(question, list(question))
    if near:
        place = advice.setting(near[0].where, list(question)) or "other settings"
        if not lines:
            click.echo(f"No evidence for {asked}. The nearest is for {place}:")
        elif advice.distance(near[0].where, question) <= NEAR:
            click.echo(f"Near it, for {place}:")
        else:
            near = []
        _print(near, most and BESIDE)
    elif not lines:
        click.echo(f"No evidence for {asked}.")
    open_ = advice.undecided(question, folders)
    if open_:
        click.echo("Tested, but no advice follows:")
        _print([f"{line.text}; {line.evidence}" for line in open_], most)


def _print(lines: "Sequence[Line | str]", most: int | None) -> None:
    for line in lines[:most]:
        click.echo(f"* {line}")
    left = len(lines[most:]) if most is not None else 0
    if left:
        click.echo(f"  ... and {count(left, 'more line')}: say more of the setting, or --all")


def _folders(place: Sequence[str]) -> list[Path]:
    """Where evidence is looked for.

    Raises:
        UserError: a folder that was named and is not there.
    """
    from bnstudy import advice

    if not place:
        return advice.default_folders()
    folder = results_dir(place)
    if not folder.is_dir():
        raise UserError(f"results_dir={folder}: there is no such folder")
    return [folder]
