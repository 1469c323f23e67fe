"""Everything that was ever trained: address -> record, on disk, as plain files."""

from bnstudy.store.records import (
    JOURNAL,
    PROVENANCE,
    Damage,
    Record,
    Store,
    stack_id,
    without_provenance,
)

__all__ = ["JOURNAL", "PROVENANCE", "Damage", "Record", "Store", "stack_id", "without_provenance"]
