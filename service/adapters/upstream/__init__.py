"""Upstream: the model's server, spoken to in HTTP/1.1 over connections that are kept.

What was sent is never sent again. A connection that the server closed while it was idle is not used, and
connections are idle for so short a time (pool.KEEP_IDLE) that a request seldom meets one that is just being
closed. When it does, nobody can know whether it was read: that is a 502, and trying again is the caller's
decision. The addresses of a host are tried in turn, within one patience.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from functools import lru_cache
from urllib.parse import quote, urlsplit

from service.adapters.upstream.connection import HIGH, PIECE, Connection
from service.adapters.upstream.pool import Pool, Server, Unsent, trusted
from service.adapters.upstream.reader import MAX_CONTENT
from service.domain.errors import InvalidRequest
from service.domain.exchange import Answer
from service.domain.headers import Field, end_to_end, replaced, without

__all__ = ["HIGH", "MAX_CONTENT", "PIECE", "Unsent", "Upstream", "forwarded", "returned"]

_PORTS = {"http": 80, "https": 443}
_PRINTABLE = bytes(range(0x21, 0x7F))  # what a request line may hold as it is
_OF_THE_KEY = (b"openai-organization", b"openai-project")
_OF_THE_SERVER = (b"server", b"date", b"alt-svc")


class Upstream:
    """The server behind `base_url`, over at most `connections` connections at a time.

    `connect_timeout` (s) bounds the wait for a free connection, and then the making of a new one.
    Connections are made in the event loop of the first request, and belong to it.
    """

    def __init__(self, base_url: str, *, connections: int, connect_timeout: float = 5.0) -> None:
        base = urlsplit(base_url)
        host, standard = base.hostname or "", _PORTS[base.scheme]
        port = base.port or standard
        named = (f"[{host}]" if ":" in host else host.encode("idna").decode()).encode()
        self._opening = _openings(
            base.path.rstrip("/"), named if port == standard else b"%b:%d" % (named, port)
        )
        self._connect_timeout = connect_timeout
        trust = trusted() if base.scheme == "https" else None
        self._pool = Pool(Server(host, port, trust), connections=connections)

    async def send(
        self,
        method: str,
        path: str,
        headers: list[Field],
        body: bytes,
        *,
        timeout: float,
        leaving: Callable[[], None] = lambda: None,
    ) -> Answer:
        """Send a request; return when the answer's head is here, and all of it unless it is a stream.

        `path` follows the base URL and includes the query; `headers` go as they are. `timeout` (s) bounds
        the time until all that is here, and then between two pieces of a stream.
        `leaving` is called when there is a connection, before the first byte goes out.
        Raises Unsent, UpstreamFailed or UpstreamTimeout; so does the iterator of a stream. Raises
        InvalidRequest where a field would break out of its line.
        """
        head = _head(self._opening(method, path), headers, body)
        deadline = asyncio.get_running_loop().time() + timeout
        connection = await self._pool.take(patience=min(timeout, self._connect_timeout))
        try:
            leaving()
            await connection.ask(head, body, deadline=deadline)
        except BaseException:
            self._pool.give(connection)
            raise
        return self._answer(connection, timeout)

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()

    def _answer(self, connection: Connection, timeout: float) -> Answer:
        reader = connection.reader
        headers = without(end_to_end(reader.headers), _OF_THE_SERVER)
        if reader.streams:
            content = _Content(connection, self._pool, timeout)
            return Answer(reader.status, headers, content, close=content.close)
        body = reader.take()
        self._pool.give(connection)
        return Answer(reader.status, headers, body)


class _Content:
    """The content of a stream, piece by piece, and the connection that it comes over."""

    def __init__(self, connection: Connection, pool: Pool, timeout: float) -> None:
        self._connection = connection
        self._pool = pool
        self._timeout = timeout
        self._closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._closed:
            raise StopAsyncIteration
        piece = await self._connection.more(self._timeout)
        if not piece:
            raise StopAsyncIteration
        return piece

    async def close(self) -> None:
        """Give the connection back if all was read, close it if not; nothing is waited for."""
        if not self._closed:
            self._closed = True
            self._pool.give(self._connection)


def _openings(base: str, host: bytes) -> Callable[[str, str], bytes]:
    """How a request begins: its first line, and where it goes."""

    def opening(method: str, path: str) -> bytes:
        target = quote(base + path, safe=_PRINTABLE, encoding="latin-1")
        return f"{method} {target} HTTP/1.1\r\nhost: ".encode() + host

    return lru_cache(maxsize=64)(opening)


def _head(opening: bytes, fields: list[Field], body: bytes) -> bytes:
    """All of a request but its body. Raises InvalidRequest where a field would break out of its line."""
    lines = [opening, *map(b": ".join, fields)]
    if body:
        lines.append(b"content-length: %d" % len(body))
    ends = len(lines) + 2  # one within the opening
    head = b"\r\n".join([*lines, b"", b""])
    if head.count(b"\r") != ends or head.count(b"\n") != ends or b"\0" in head:
        raise InvalidRequest("A header field holds a line break or a null character.")
    return head


def forwarded(fields: Iterable[Field], *, key: str | None) -> list[Field]:
    """A client's fields as they travel upstream, with our `key` instead of the caller's if there is one.

    An answer that is compressed could not be read on its way, so none is asked for.
    """
    fields = replaced(end_to_end(fields), b"accept-encoding", b"identity")
    if key is None:
        return fields
    return replaced(without(fields, _OF_THE_KEY), b"authorization", b"Bearer " + key.encode())


def returned(fields: Iterable[Field]) -> list[Field]:
    """Upstream's fields as the client may see them: those that Weir sends itself begin `x-upstream-`."""
    return [(_renamed(name), value) for name, value in fields]


def _renamed(name: bytes) -> bytes:
    if name == b"x-request-id" or name.startswith(b"x-ratelimit-"):
        return b"x-upstream-" + name.removeprefix(b"x-")
    return name
