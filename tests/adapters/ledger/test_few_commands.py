"""A server that knows few commands, as managed ones do."""

import threading
from collections.abc import Iterator

import fakeredis
import pytest

from service.adapters.ledger import Ledger
from service.adapters.ledger import scripts as lua
from service.adapters.ledger.link import Link


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
    assert await Ledger(link).maxmemory_policy() == "unknown"
    await link.close()
