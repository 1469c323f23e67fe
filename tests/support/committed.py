"""The results in the repository, and whether they are of the claims that the code makes now."""

import json
from pathlib import Path

RESULTS = Path(__file__).parents[2] / "results"
EARLIER = "the committed results are of claims without estimands: to be made again"


def stated(name: str) -> bool:
    """Whether a study's committed claims say what number they are about.

    Results of earlier versions do not: other seeds, other claims, another test.
    """
    path = RESULTS / name / "claims.json"
    return path.exists() and all(claim.get("estimand") for claim in json.loads(path.read_text()))
