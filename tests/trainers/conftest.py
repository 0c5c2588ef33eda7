"""Fixtures of the trainers' tests."""

import pytest

from guerdon.backends.pool import PoolBackend
from guerdon.trainers import verl


@pytest.fixture(scope="session")
def pool():
    with_workers = PoolBackend(workers=2)
    yield with_workers
    with_workers.close()


@pytest.fixture(autouse=True)
def _no_services_of_other_tests():
    yield
    verl.close()
