"""Upstream: the model's server, spoken to in httpx's vocabulary; httpx's one door.

httpx's own transport costs milliseconds a request and stops for good when requests are cancelled while
they wait for a connection; its client adds cookies, redirects and 0.3 ms. So an aiohttp session does the
carrying, behind httpx-aiohttp's transport, which is called with plain requests.

What was sent is never sent again. A connection that the server closed while it was idle is passed over
when one is chosen, every address of the host is tried, and connections are idle for so short a time
(KEEP_IDLE) that a request seldom meets one that is just being closed. When it does, nobody can know
whether it was read: that is a 502, and trying again is the caller's decision.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import suppress
from functools import lru_cache

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from service.domain.errors import Rejection, UpstreamFailed, UpstreamTimeout
from service.domain.exchange import Answer
from service.domain.headers import Field, end_to_end, first, replaced, without

MAX_CONTENT = 33_554_432  # bytes of an answer that is not a stream
PIECE = 1_048_576  # bytes of a request handed over at a time
KEEP_IDLE = 4.0  # s; uvicorn and node close after 5

_FAULTS = (httpx.HTTPError, aiohttp.ClientError, OSError)
_NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_OF_THE_KEY = (b"openai-organization", b"openai-project")
_OF_THE_SERVER = (b"server", b"date", b"alt-svc")


class Unsent(UpstreamFailed):
    """There was no connection: nothing was sent, so nothing was produced."""


class Upstream:
    """The server behind `base_url`, over at most `connections` connections at a time.

    `connect_timeout` (s) bounds the wait for a free connection, and then the making of a new one.
    Connections are made in the event loop of the first request, and belong to it.
    """

    def __init__(self, base_url: str, *, connections: int, connect_timeout: float = 5.0) -> None:
        base = base_url.rstrip("/")
        self._url: Callable[[str], httpx.URL] = lru_cache(maxsize=64)(lambda path: httpx.URL(base + path))
        self._connect_timeout = connect_timeout
        # Not aiohttp's limit: its queue forgets a free place when the task it woke has been cancelled.
        self._places = asyncio.Semaphore(connections)
        self._certificates = httpx.create_ssl_context()  # certifi's, or the file SSL_CERT_FILE names
        self._transport = AiohttpTransport(verify=self._certificates, client=self._session)

    async def send(
        self, method: str, path: str, headers: list[Field], body: bytes, *, timeout: float
    ) -> Answer:
        """Send a request; return when the answer's head is here, and all of it unless it is a stream.

        `path` follows the base URL and includes the query; `headers` go as they are. `timeout` (s) bounds
        the time until the head, then until the end of the answer, or between two pieces of a stream.
        Raises Unsent, UpstreamFailed or UpstreamTimeout; so does the iterator of a stream.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        await self._take_place(timeout)
        try:
            request = self._request(method, path, headers, body, timeout)
            response = await self._respond(request, deadline)
        except BaseException:
            self._places.release()
            raise
        content = _Content(response.stream, self._places.release)
        try:
            return await _answer(response, content, timeout)
        except BaseException:
            await content.close()
            raise

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    async def _take_place(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(min(timeout, self._connect_timeout)):
                await self._places.acquire()
        except TimeoutError:
            raise Unsent("All connections to the upstream are in use.") from None

    def _request(
        self, method: str, path: str, headers: list[Field], body: bytes, timeout: float
    ) -> httpx.Request:
        length = [(b"content-length", b"%d" % len(body))] if body else []
        return httpx.Request(
            method,
            self._url(path),
            headers=[*headers, *length],
            content=body if len(body) <= PIECE else _pieces(body),
            extensions={"timeout": {"pool": self._connect_timeout, "read": timeout}},
        )

    async def _respond(self, request: httpx.Request, deadline: float) -> httpx.Response:
        try:
            async with asyncio.timeout_at(deadline):
                return await self._transport.handle_async_request(request)
        except _FAULTS as fault:
            raise _rejection(fault) from fault

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_IDLE, ssl=self._certificates),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("accept", "accept-encoding", "content-type", "user-agent"),
            trust_env=False,  # no proxies from the environment
        )


class _Content:
    """The content of an answer, piece by piece, and the connection that it comes over."""

    def __init__(self, stream: object, release: Callable[[], None]) -> None:
        assert isinstance(stream, httpx.AsyncByteStream)
        self._stream = stream
        self._pieces = aiter(stream)
        self._release = release
        self._closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._pieces)
        except _FAULTS as fault:
            raise _rejection(fault) from fault

    async def read(self, timeout: float) -> bytes:
        """All of it, or an error; never the beginning of it."""
        pieces, size = [], 0
        try:
            async with asyncio.timeout(timeout):
                async for piece in self:
                    pieces.append(piece)
                    size += len(piece)
                    if size > MAX_CONTENT:
                        raise UpstreamFailed("The upstream's answer is too long.")
        except TimeoutError as fault:
            raise _rejection(fault) from fault
        return b"".join(pieces)

    async def close(self) -> None:
        """Give the connection back if all was read, close it if not; before anything is waited for."""
        if self._closed:
            return
        self._closed = True
        try:
            with suppress(*_FAULTS):
                await self._stream.aclose()
            if isinstance(self._pieces, AsyncGenerator):
                await self._pieces.aclose()
        finally:
            self._release()


async def _answer(response: httpx.Response, content: _Content, timeout: float) -> Answer:
    fields = [(name.lower(), value) for name, value in response.headers.raw]
    headers = without(end_to_end(fields), _OF_THE_SERVER)
    kind = first(headers, b"content-type") or b""
    if kind.lower().startswith(b"text/event-stream"):
        return Answer(response.status_code, headers, content, close=content.close)
    body = await content.read(timeout)
    await content.close()
    return Answer(response.status_code, headers, body, close=content.close)


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    """A long body in parts, so that the event loop can turn between them."""
    for at in range(0, len(body), PIECE):
        yield body[at : at + PIECE]


def _rejection(fault: BaseException) -> Rejection:
    """What a fault of the libraries below means; the message tells neither addresses nor keys.

    The transport calls every lost connection a timeout: what it was is in the cause.
    """
    cause = fault.__cause__ if isinstance(fault, httpx.HTTPError) else fault
    if isinstance(cause, _NOT_SENT):
        return Unsent("The upstream could not be reached.")
    if isinstance(cause, TimeoutError):
        return UpstreamTimeout("The upstream took too long.")
    return UpstreamFailed("The upstream broke the connection or did not speak HTTP.")


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
