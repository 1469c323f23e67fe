"""What lies outside a config and still decides the result: data on disk, a person's own source."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from bnstudy import data, entry
from bnstudy.config import Config, DataConfig
from bnstudy.errors import UserError

OWN = (("model", "model.entry"), ("norm", "norm.entry"))


def resolve(configs: Iterable[Config], cache: Path) -> list[Config]:
    """The configs with the hashes of what lies outside them filled in.

    Data that several of them share are looked at once: a folder has tens of thousands of files.

    Raises:
        UserError: data that are not there, an entry that does not load.
    """
    configs = list(configs)
    shared = dict.fromkeys(config.data for config in configs)
    there = {cfg: data.resolve(cfg, cache) for cfg in shared}
    return [_filled(config, there[config.data]) for config in configs]


def _filled(config: Config, read: DataConfig) -> Config:
    update: dict[str, Any] = {"data": read}
    for part, key in OWN:
        value = getattr(config, part)
        if value.name == "custom":
            source = entry.source_hash(value.entry, key)
            update[part] = value.model_copy(update={"source": source})
    if found := task_fingerprint(config):
        update["task"] = config.task.model_copy(update={"fingerprint": found})
    return config.model_copy(update=update)


def task_fingerprint(config: Config) -> str:
    """The hash of what the task reads from the disk; empty where it reads nothing.

    Raises:
        UserError: it is not there.
    """
    if config.task.name != "stylization":
        return ""
    from bnstudy.data import styles

    found = styles.fingerprint(config.task)
    if config.task.features == "vgg16":
        from bnstudy.models.features import vgg_fingerprint

        found += vgg_fingerprint()
    return found


def check(config: Config) -> None:
    """Refuse to train with another source than the address of a config says.

    Its files may have changed between planning and this process's import of them. Later changes do
    not matter: what is imported stays. `data.load` does the same for data.

    Raises:
        UserError: the source is not what it was.
    """
    for part, key in OWN:
        value = getattr(config, part)
        if (
            value.name == "custom"
            and value.source
            and value.source != _first_seen(value.entry, key)
        ):
            raise UserError(
                f"{key}={value.entry}: its source, or that of a module it imports, has changed "
                "since this run was planned; give the command again"
            )
    given = config.task.fingerprint
    if given and given != task_fingerprint(config):
        raise UserError(
            f"task.style={config.task.style}, task.features={config.task.features}: their files "
            "have changed since this run was planned; give the command again"
        )


@cache
def _first_seen(name: str, key: str) -> str:
    """Hash of an entry's source when this process first trained with it."""
    return entry.source_hash(name, key)
