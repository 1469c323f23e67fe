"""What the shell offers after Tab: keys, and after `=` whatever can stand there."""

from collections.abc import Iterable
from typing import Any, get_args

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
)

from bnstudy.errors import UserError

OF_STUDIES = ("study", "tune", "power", "figure")  # commands whose first word is a study
LAUNCHERS = ("basic", "joblib", "local", "submitit_local", "submitit_slurm")


def complete_override(
    ctx: click.Context, param: click.Parameter, text: str
) -> list[str] | list[CompletionItem]:
    """Keys, and after `key=` its choices; in a comma list, the next of them."""
    from bnstudy.config import CONFIGS, GROUPS, schema_keys
    from bnstudy.config.settings import PATHS

    key, equals, given = text.partition("=")
    if not equals:
        studies = [p.stem for p in sorted((CONFIGS / "study").glob("*.yaml"))]
        first = [*studies, "all"] if ctx.info_name in OF_STUDIES else []
        keys = [f"{name}=" for name in [*GROUPS, *schema_keys(), "hydra/launcher"]]
        return [word for word in [*first, *keys] if word.startswith(text)]
    key = key.lstrip("+")
    if key in PATHS:
        return [CompletionItem(given, type=PATHS[key])]
    _, _, last = given.rpartition(",")
    head = text[: len(text) - len(last)]
    return [f"{head}{value}" for value in choices(key) if value.startswith(last)]


def choices(key: str) -> list[str]:
    """What an override of this key can be, where that is a list of names."""
    from bnstudy.config import CONFIGS, GROUPS, Settings

    if key == "hydra/launcher":
        return list(LAUNCHERS)
    if key in GROUPS:
        return [p.stem for p in sorted((CONFIGS / key).glob("*.yaml"))]
    part: Any = Settings
    *path, last = key.split(".")
    for name in path:
        field = getattr(part, "model_fields", {}).get(name)
        part = field.annotation if field else None
    field = getattr(part, "model_fields", {}).get(last)
    return sorted(_names(field.annotation)) if field else []


def _names(kind: Any) -> Iterable[str]:
    """The texts, truth values and null that a type allows."""
    if kind is bool:
        return ["false", "true"]
    if kind is type(None):
        return ["null"]
    found = [name for inner in get_args(kind) for name in _names(inner)]
    return [*found, kind] if isinstance(kind, str) else found


def complete_address(
    ctx: click.Context, param: click.Parameter, text: str
) -> list[str] | list[CompletionItem]:
    """Addresses of the cells and runs in the store of the command's results_dir."""
    from bnstudy.cli.places import open_store

    words = ctx.params.get("overrides") or ctx.params.get("words") or ()
    try:
        store = open_store([word for word in words if word.startswith("results_dir=")])
    except UserError:
        return []
    cells = [path.name for path in (store.root / "cells").glob("*")]
    return sorted(name for name in {*cells, *store.held()} if name.startswith(text))


def complete_selection(
    ctx: click.Context, param: click.Parameter, text: str
) -> list[str] | list[CompletionItem]:
    """Addresses, studies, and what a filter can be."""
    from bnstudy.config import CONFIGS

    studies = [p.stem for p in sorted((CONFIGS / "study").glob("*.yaml"))]
    named = [name for name in studies if name.startswith(text)] if "=" not in text else []
    return [*named, *complete_address(ctx, param, text), *complete_override(ctx, param, text)]


def complete_question(
    ctx: click.Context, param: click.Parameter, text: str
) -> list[str] | list[CompletionItem]:
    """Keys of a question to `bnstudy advise`, and after `key=` the names it can have."""
    from bnstudy.advice import KEYS, NAMES

    key, equals, given = text.partition("=")
    if key == "results_dir" and equals:
        return [CompletionItem(given, type="dir")]
    words = [f"{key}={name}" for name in NAMES.get(key, ())] if equals else [
        f"{name}=" for name in (*KEYS, "results_dir")
    ]  # fmt: skip
    return [word for word in words if word.startswith(text)]


BASH = """
%(complete_func)s() {
    # bash splits words at = and : too; here they are split at blanks only
    local line="${COMP_LINE:0:$COMP_POINT}" words type value
    local IFS=$' \\t\\n'
    read -ra words <<< "$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    local current="${words[${#words[@]}-1]}"
    # bash replaces what stands behind the last = or :
    local kept="${current##*[=:]}"
    local cut="${current%%"$kept"}"
    IFS=$'\\n'
    local response=$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) \\
        %(complete_var)s=bash_complete "$1")
    COMPREPLY=()
    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        if [[ $type == dir ]]; then
            compopt -o filenames
            COMPREPLY+=($(compgen -d -- "$kept"))
        elif [[ $type == file ]]; then
            compopt -o filenames
            COMPREPLY+=($(compgen -f -- "$kept"))
        else
            COMPREPLY+=("${value#"$cut"}")
            [[ $value == *= ]] && compopt -o nospace
        fi
    done
    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class Bash(BashComplete):
    """Bash, with words that hold `=` kept whole."""

    source_template = BASH


add_completion_class(Bash)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh"]))
def completion(shell: str) -> None:
    """Print the completion script: eval "$(bnstudy completion bash)"."""
    from bnstudy.cli.commands import main

    found = get_completion_class(shell)
    assert found is not None  # click.Choice allows only shells that click knows
    click.echo(found(main, {}, "bnstudy", "_BNSTUDY_COMPLETE").source())
