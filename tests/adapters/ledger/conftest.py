"""What the tests of the ledger share: a server each may freeze, kill and start again."""

from collections.abc import Iterator

import pytest
import redis

from service.adapters.ledger.embedded import EmbeddedStore, server_program


@pytest.fixture
def store() -> Iterator[EmbeddedStore]:
    """A server of the test's own."""
    with EmbeddedStore(server_program()) as store:
        yield store


@pytest.fixture
def direct(store: EmbeddedStore) -> Iterator[redis.Redis]:
    """That server, spoken to directly."""
    with redis.Redis.from_url(store.url) as client:
        yield client
