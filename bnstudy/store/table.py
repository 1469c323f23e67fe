"""Records as one tidy table: a row per run."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bnstudy.config import flatten
from bnstudy.errors import UserError, unknown
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


def select(table: "pd.DataFrame", filters: Mapping[str, Sequence[Any]]) -> "pd.DataFrame":
    """The rows whose columns have one of the values that each filter allows.

    filters: column -> values; None is an unset one. A column may be named as a group (norm for
             norm.name) or by its last name (batch_size), where only one is called so.
    Raises UserError for an unknown or ambiguous name, and for filters that leave nothing of a
    table with rows: its message says which values there are.
    """
    for name, values in filters.items():
        if table.empty:
            return table
        column = _column(name, list(map(str, table.columns)))
        wanted = [_cell_value(value) for value in values]
        fits = table[column].isin([value for value in wanted if value is not None])
        if None in wanted:
            fits |= table[column].isna()
        if not fits.any():
            there = ", ".join(sorted({str(v) for v in table[column].unique()})[:10])
            given = ",".join(map(str, values))
            raise UserError(f"no run has {name}={given}; values of {column}: {there}")
        table = table[fits]
    return table.reset_index(drop=True)


def _column(name: str, columns: list[str]) -> str:
    """The column that a filter's name means."""
    if name in columns:
        return name
    if f"{name}.name" in columns:
        return f"{name}.name"
    found = [c for c in columns if "." in c and c.rpartition(".")[2] == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"'{name}' is ambiguous: write {' or '.join(found)}")
    groups = [c.removesuffix(".name") for c in columns if c.endswith(".name")]
    raise unknown("column", name, [*groups, *(c for c in columns if "." in c or c == "seed")])


def without_provenance(table: "pd.DataFrame") -> "pd.DataFrame":
    """The columns that must be equal when the same experiment is run again."""
    return table[[c for c in table.columns if c not in PROVENANCE]]


def _cell_value(value: Any) -> Any:
    """What a table holds for a value: lists would not survive CSV and Parquet."""
    return json.dumps(value) if isinstance(value, list | tuple) else value
