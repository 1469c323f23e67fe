"""Arms with settings of their own: `batch; group num_groups=2; group num_groups=8`."""

from collections.abc import Callable
from dataclasses import dataclass

from bnstudy.config.overrides import check_key, checked, parse, rivals_of
from bnstudy.config.schema import NormConfig
from bnstudy.errors import UserError, unknown

KEY = "arms"


@dataclass(frozen=True)
class Arm:
    """A norm and its settings, as one choice on the axis `norm`."""

    label: str  # as it was typed
    overrides: tuple[str, ...]  # that compose it
    given: tuple[str, ...]  # dotted names that it sets


def read(text: str, choices: Callable[[str], list[str]]) -> dict[str, Arm]:
    """The arms of a text by label: each a norm's name and `setting=value` words, `;` in between.

    Settings are those below `norm.`, named without it.

    Raises:
        UserError: no arm, one twice, an unknown norm or setting, a setting with several values.
    """
    found: dict[str, Arm] = {}
    for words in (part.split() for part in text.split(";")):
        if not words:
            continue
        label, (name, *settings) = " ".join(words), words
        if label in found:
            raise UserError(f"{KEY}: '{label}' is given twice")
        try:
            found[label] = _arm(label, name, settings, choices)
        except UserError as error:
            raise UserError(f"{KEY}, in '{label}': {error}") from None
    if len(found) < 2:
        raise UserError(
            f"{KEY}={text}: give at least two, separated by ;: "
            f"{KEY}='batch; group num_groups=2; group num_groups=8'"
        )
    return found


def _arm(label: str, name: str, settings: list[str], choices: Callable[[str], list[str]]) -> Arm:
    if name not in choices("norm"):
        raise unknown("norm", name, choices("norm"))
    for word in settings:
        key, equals, _ = word.partition("=")
        if not equals:
            raise UserError(f"'{word}' is not a setting: write setting=value")
        if key not in NormConfig.model_fields:
            check_key(f"norm.{key}")
    words = [checked(o, choices) for o in parse([f"norm.{word}" for word in settings])]
    for own in words:
        if own.is_sweep_override():
            raise UserError(f"{own.input_line} has several values: write an arm for each")
    keys = {own.key_or_group for own in words}
    cleared = [f"{key}=null" for key in rivals_of(words)]
    lines = [str(own.input_line) for own in words]
    return Arm(label, (f"norm={name}", *cleared, *lines), tuple(keys))
