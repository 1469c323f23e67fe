"""A composer for all tests of a file: starting Hydra takes longer than most of them."""

import pytest

from bnstudy.config.compose import hydra_session


@pytest.fixture(scope="module")
def composer():
    with hydra_session() as composer:
        yield composer
