"""Everything that was ever trained: address -> record, on disk, as plain files."""

from bnstudy.store.records import Store, Unwritable
from bnstudy.store.schema import PROVENANCE, Provenance, Record, StackNote, encode
from bnstudy.store.stack import stack_id
from bnstudy.store.table import without_provenance

__all__ = [
    "PROVENANCE",
    "Provenance",
    "Record",
    "StackNote",
    "Store",
    "Unwritable",
    "encode",
    "stack_id",
    "without_provenance",
]
