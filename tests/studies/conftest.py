"""Tables of planned numbers, on which a study's panels and claims are tried."""

from functools import cache

import pytest

from bnstudy.config.compose import hydra_session
from bnstudy.studies import planned


@pytest.fixture(scope="module")
def table_of():
    """Study and scale -> a table as its grid would give it, of planned numbers."""
    with hydra_session() as session:

        @cache
        def table(name, scale="quick"):
            request = session.request([f"scale={scale}"], study=session.study(name))
            return planned.stand_in(request.cells, request.seeds)

        yield table
