"""What the shell offers after Tab."""

import click


def complete_override(ctx: click.Context, param: click.Parameter, text: str) -> list[str]:
    """Keys, and after `group=` the choices."""
    from bnstudy.config import CONFIGS, GROUPS, schema_keys

    key, equals, _ = text.partition("=")
    if equals and key in GROUPS:
        return [f"{key}={p.stem}" for p in sorted((CONFIGS / key).glob("*.yaml"))]
    studies = [p.stem for p in sorted((CONFIGS / "study").glob("*.yaml"))]
    first = studies if ctx.info_name == "study" else []
    offered = [*first, *(f"{name}=" for name in [*GROUPS, *schema_keys()])]
    return [word for word in offered if word.startswith(text)]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh"]))
def completion(shell: str) -> None:
    """Print the completion script: eval "$(bnstudy completion bash)"."""
    from click.shell_completion import get_completion_class

    from bnstudy.cli.commands import main

    found = get_completion_class(shell)
    assert found is not None  # click.Choice allows only shells that click knows
    click.echo(found(main, {}, "bnstudy", "_BNSTUDY_COMPLETE").source())
