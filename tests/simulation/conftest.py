"""What the simulations share: the scripts on an empty server of the embedded kind."""

from collections.abc import Iterator

import pytest
import redis

from benchmarks.simulation.ledger import Ledger


@pytest.fixture
def client(store_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(store_url)
    yield client
    client.close()


@pytest.fixture
def ledger(client: redis.Redis) -> Ledger:
    return Ledger(client)
