"""Sentinel: how a connection comes to the master that the sentinels name at that moment."""

import asyncio
from collections import deque

from redis.asyncio.connection import AbstractConnection, Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import NoPermissionError, ReadOnlyError, RedisError

from service.adapters.ledger.address import Address, Node

EVERY = 1.0  # s between two looks where the master is now: when it is replaced, it may go on for many more


class Sentinels:
    """Those that watch a master, and lead a link to it. `timeout` in seconds."""

    def __init__(self, address: Address, *, timeout: float) -> None:
        self._name = address.master
        self._pools = deque(
            ConnectionPool.from_url(
                address.sentinel(node),
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                retry=Retry(NoBackoff(), 0),
                driver_info=None,
            )
            for node in address.nodes
        )
        self._master: Node | None = None  # by the last word of a sentinel
        self._looked = 0.0  # when it was last asked for, s of the loop's clock
        self._looking: asyncio.Task[None] | None = None

    async def lead(self, connection: AbstractConnection) -> None:
        """Connect it to the master, by the word of each sentinel in turn. Raises RedisError or OSError."""
        if connection.is_connected and _place(connection) == self._master:
            self._look()
            return
        await connection.disconnect(nowait=True)
        failed: Exception = NotConnected("no sentinel")
        for _ in range(len(self._pools)):
            try:
                self._master = await self._ask(self._pools[0])
                await _reach(connection, self._master)
            except (RedisError, OSError) as error:
                failed = error
                await connection.disconnect(nowait=True)
                self._pools.rotate(-1)  # that which knows more stays the first
            else:
                return
        raise failed

    async def close(self) -> None:
        """Look no more."""
        if self._looking:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def _look(self) -> None:
        """Ask now and then, beside the calls, whether the master is still the master."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._looked > EVERY and (self._looking is None or self._looking.done()):
            self._looked = loop.time()
            self._looking = loop.create_task(self._learn())

    async def _learn(self) -> None:
        try:
            self._master = await self._ask(self._pools[0])
        except (RedisError, OSError):
            self._pools.rotate(-1)

    async def _ask(self, pool: ConnectionPool) -> Node:
        """Where the master is, as one sentinel sees it."""
        sentinel: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await sentinel.connect()  # type: ignore[no-untyped-call]
            await sentinel.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)
            found = await sentinel.read_response()
        finally:
            await sentinel.disconnect(nowait=True)
        if not found:
            raise NotConnected("no master of that name")
        host, port = found
        return host.decode(), int(port)


def _place(connection: AbstractConnection) -> Node:
    """Where a connection leads; one over TLS is a `Connection` too."""
    assert isinstance(connection, Connection)
    return connection.host, int(connection.port)


async def _reach(connection: AbstractConnection, node: Node) -> None:
    """Connect to this node, and see that it is a master: sentinels may be late to know."""
    assert isinstance(connection, Connection)
    connection.host, connection.port = node
    await connection.connect()  # type: ignore[no-untyped-call]
    try:
        await connection.send_command("ROLE")
        role, *_ = await connection.read_response()
    except NoPermissionError:
        return  # then their word must do
    if role != b"master":
        raise ReadOnlyError("not a master", status_code="READONLY")
