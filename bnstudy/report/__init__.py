"""One self-contained HTML page of all studies that have results.

It reads result folders and nothing else. The page needs no network and no script: figures, the
points that they draw and the claims are in it; tables of raw runs are linked where they lie beside
it. The same folders give the same bytes.
"""

from bnstudy.report.folders import StudyResult, collect, read
from bnstudy.report.ids import claim_id, claim_ids, slug
from bnstudy.report.page import render

__all__ = ["StudyResult", "claim_id", "claim_ids", "collect", "read", "render", "slug"]
