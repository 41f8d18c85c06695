"""Pool: so many places for connections, fairly given, and the connections that wait to be used again."""

import asyncio
import ssl
from collections import OrderedDict
from dataclasses import dataclass

import certifi

from service.adapters.upstream.connection import Connection
from service.domain.errors import UpstreamFailed

KEEP_IDLE = 4.0  # s; uvicorn and node close after 5


class Unsent(UpstreamFailed):
    """There was no connection: nothing was sent, so nothing was produced."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where connections lead, and whom to trust there (None: TLS is not spoken)."""

    host: str
    port: int
    trust: ssl.SSLContext | None


class Pool:
    """At most `connections` connections to a server at a time.

    Who comes first is served first, over the connection that was used last; the others grow old and are
    closed. All of it belongs to the event loop of the first request.
    """

    def __init__(self, server: Server, *, connections: int) -> None:
        self._server = server
        self._free = connections
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self._all: set[Connection] = set()
        self._idle: dict[Connection, float] = {}  # since when; the oldest first
        self._reaper: asyncio.TimerHandle | None = None

    async def take(self, *, patience: float) -> Connection:
        """A connection, to be given back however it goes.

        `patience` (s) bounds the wait for a place, and then the making of a connection. Raises Unsent.
        """
        if self._free:
            self._free -= 1
        else:
            await self._place(patience)
        try:
            return self._kept() or await self._new(patience)
        except BaseException:
            self._vacate()
            raise

    def give(self, connection: Connection) -> None:
        """Take a connection back: it is kept if it has said all, and closed if not."""
        if connection.is_idle:
            loop = asyncio.get_running_loop()
            self._idle[connection] = loop.time()
            if self._reaper is None:
                self._reaper = loop.call_later(KEEP_IDLE, self._reap, loop)
        else:
            connection.close()
        self._vacate()

    async def close(self) -> None:
        """Close all connections, those in use too."""
        if self._reaper is not None:
            self._reaper.cancel()
        self._idle.clear()
        for connection in list(self._all):
            connection.close()
        await asyncio.sleep(0)  # the loop closes what was aborted

    async def _place(self, patience: float) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = None
        try:
            async with asyncio.timeout(patience):
                await waiter
        except TimeoutError:
            self._withdraw(waiter)
            raise Unsent("All connections to the upstream are in use.") from None
        except BaseException:
            self._withdraw(waiter)
            raise

    def _withdraw(self, waiter: asyncio.Future[None]) -> None:
        """Wait no longer; a place that was given meanwhile goes to the next."""
        self._waiting.pop(waiter, None)
        if waiter.done() and not waiter.cancelled():
            self._vacate()

    def _vacate(self) -> None:
        """Hand the place to who waits longest, or leave it free."""
        while self._waiting:
            waiter, _ = self._waiting.popitem(last=False)
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1

    def _kept(self) -> Connection | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection, since = self._idle.popitem()
            if connection.is_idle and now < since + KEEP_IDLE:
                return connection
            connection.close()
        return None

    async def _new(self, patience: float) -> Connection:
        loop, server = asyncio.get_running_loop(), self._server
        try:
            async with asyncio.timeout(patience):
                _, connection = await loop.create_connection(
                    lambda: Connection(loop, self._forget), server.host, server.port, ssl=server.trust
                )
        except OSError as fault:
            raise Unsent("The upstream could not be reached.") from fault
        if not connection.is_open:
            raise Unsent("The upstream could not be reached.")
        self._all.add(connection)
        return connection

    def _forget(self, connection: Connection) -> None:
        self._all.discard(connection)
        self._idle.pop(connection, None)

    def _reap(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close what was idle for too long, and look again when the next one will have been."""
        self._reaper = None
        for connection, since in list(self._idle.items()):
            if since + KEEP_IDLE > loop.time():
                self._reaper = loop.call_at(since + KEEP_IDLE, self._reap, loop)
                return
            del self._idle[connection]
            connection.close()


def trusted() -> ssl.SSLContext:
    """Whom to trust: the authorities that SSL_CERT_FILE or SSL_CERT_DIR name, or else certifi's."""
    paths = ssl.get_default_verify_paths()
    file = paths.cafile if paths.cafile != paths.openssl_cafile else None
    folder = paths.capath if paths.capath != paths.openssl_capath else None
    if file is None and folder is None:
        file = certifi.where()
    context = ssl.create_default_context(cafile=file, capath=folder)
    context.set_alpn_protocols(["http/1.1"])
    return context
