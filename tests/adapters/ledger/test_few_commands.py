"""What the server does when memory is full: asked, where it tells; managed ones often do not."""

import threading
from collections.abc import Iterator

import fakeredis
import pytest

from service.adapters.ledger import scripts as lua
from service.adapters.ledger.embedded import EmbeddedStore
from service.adapters.ledger.link import Link
from service.adapters.ledger.wire import maxmemory_policy


@pytest.fixture
def few_commands() -> Iterator[str]:
    """The address of a server that has no CONFIG."""
    server = fakeredis.TcpFakeServer(("127.0.0.1", 0))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield "redis://{}:{}".format(*server.server_address[:2])
    server.shutdown()
    server.server_close()


async def test_where_config_is_not_allowed_the_policy_is_unknown_and_that_is_no_fault(
    few_commands: str,
) -> None:
    link = Link(few_commands, lua.load())
    assert await maxmemory_policy(link) == "unknown"
    await link.close()


async def test_what_the_server_does_when_full_can_be_asked(store: EmbeddedStore) -> None:
    link = Link(store.url, lua.load())
    assert await maxmemory_policy(link) == "noeviction"
    await link.close()
