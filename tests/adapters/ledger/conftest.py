"""What the tests of the ledger share: a server each may freeze, kill and start again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from service.adapters.ledger.embedded import EmbeddedStore
from tests.conftest import engines


@pytest.fixture(params=engines(), ids=lambda program: program.name)
def store(request: pytest.FixtureRequest) -> Iterator[EmbeddedStore]:
    """A server of the test's own, of each engine in turn."""
    program: Path = request.param
    with EmbeddedStore(program) as store:
        yield store


@pytest.fixture
def direct(store: EmbeddedStore) -> Iterator[redis.Redis]:
    """That server, spoken to directly."""
    with redis.Redis.from_url(store.url) as client:
        yield client
