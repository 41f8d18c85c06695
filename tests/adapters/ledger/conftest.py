"""What the tests of the ledger share: a server each may freeze, kill and start again."""

from collections.abc import Iterator

import pytest
import redis

from service.adapters.ledger.embedded import EmbeddedStore
from tests.conftest import engines


@pytest.fixture(params=engines())
def store(request: pytest.FixtureRequest) -> Iterator[EmbeddedStore]:
    """A server of the test's own, of each engine in turn."""
    with EmbeddedStore(engines()[request.param]) as store:
        yield store


@pytest.fixture
def direct(store: EmbeddedStore) -> Iterator[redis.Redis]:
    """That server, spoken to directly."""
    with redis.Redis.from_url(store.url) as client:
        yield client
