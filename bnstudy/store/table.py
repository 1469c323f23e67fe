"""Records as one tidy table: a row per run."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from bnstudy.config import flatten
from bnstudy.store.schema import PROVENANCE, Record

if TYPE_CHECKING:
    import pandas as pd


def tidy(records: Iterable[Record]) -> "pd.DataFrame":
    """One row per run, sorted by cell and seed.

    Columns: address, cell, seed; the configuration as dotted names; the metrics of the summary;
    PROVENANCE. Within each of the middle two, by name. Lists are written as JSON texts.
    """
    import pandas as pd

    rows = []
    configs: set[str] = set()
    metrics: set[str] = set()
    provenance: set[str] = set()
    for record in records:
        config = {k: _cell_value(v) for k, v in flatten(record["config"]).items()}
        config.pop("seed", None)
        configs |= config.keys()
        metrics |= record["summary"].keys()
        stack, version = record["stack"]["id"], record["results_version"]
        made = {"stack": stack, "results_version": version, **record["provenance"]}
        made = {k: _cell_value(v) for k, v in made.items() if k in PROVENANCE}
        provenance |= made.keys()
        names = {"address": record["address"], "cell": record["cell"], "seed": record["seed"]}
        rows.append({**names, **config, **record["summary"], **made})
    last = [c for c in PROVENANCE if c in provenance]
    columns = ["address", "cell", "seed", *sorted(configs), *sorted(metrics), *last]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values(["cell", "seed", "address"], ignore_index=True)


def without_provenance(table: "pd.DataFrame") -> "pd.DataFrame":
    """The columns that must be equal when the same experiment is run again."""
    return table[[c for c in table.columns if c not in PROVENANCE]]


def _cell_value(value: Any) -> Any:
    """What a table holds for a value: lists would not survive CSV and Parquet."""
    return json.dumps(value) if isinstance(value, list | tuple) else value
