"""What lies outside a config and still decides the result: data on disk, a person's own source."""

from pathlib import Path
from typing import Any

from bnstudy import data, entry
from bnstudy.config import Config


def resolve(config: Config, cache: Path) -> Config:
    """The config with the hashes of what lies outside it filled in.

    Raises:
        UserError: data that are not there, an entry that does not load.
    """
    update: dict[str, Any] = {"data": data.resolve(config.data, cache)}
    for part, key in (("model", "model.entry"), ("norm", "norm.entry")):
        value = getattr(config, part)
        if value.name == "custom":
            source = entry.source_hash(value.entry, key)
            update[part] = value.model_copy(update={"source": source})
    return config.model_copy(update=update)
