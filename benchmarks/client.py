"""Client: the load where wrk is not to be had, in plain asyncio on kept connections.

It costs about as much for each request as a small server does: it measures differences, but it is itself
the limit above some thousand requests a second.
"""

import asyncio
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from urllib.parse import urlsplit

from benchmarks import request
from benchmarks.load import Heard, LoadError, percentile

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_GRACE = 10.0  # s that answers may still take when the time is over


@dataclass(slots=True)
class Tally:
    """What was counted; times in seconds."""

    times: list[float] = field(default_factory=list)
    refused: int = 0
    lost: int = 0

    def heard(self, seconds: float) -> Heard:
        """In the words of every load."""
        ordered = sorted(self.times)
        p50, p99 = (percentile(ordered, share) * 1000 for share in (0.50, 0.99))
        return Heard(len(ordered), seconds, p50, p99, self.refused, self.lost)


class Client:
    """A load over so many connections, which ends early after `most` requests."""

    def __init__(self, *, connections: int, most: int | None = None) -> None:
        self._connections = connections
        self._most = most

    def __call__(self, url: str, seconds: float) -> Heard:
        """Load the server at `url`. Raises LoadError."""
        return asyncio.run(self.run(url, seconds))

    async def run(self, url: str, seconds: float) -> Heard:
        """The same, within an event loop. Raises LoadError."""
        users = cycle([request.whole(url, user) for user in range(request.USERS)])
        began = time.perf_counter()
        asked, tally = _until(islice(users, self._most), began + seconds), Tally()
        connections = [await _connect(url, asked, tally) for _ in range(self._connections)]
        await asyncio.wait([one.over for one in connections], timeout=seconds + _GRACE)
        for one in connections:
            one.close()
        return tally.heard(time.perf_counter() - began)


class _Connection(asyncio.Protocol):
    """One request at a time, until there is none left to ask or the server hangs up."""

    def __init__(self, asked: Iterator[bytes], tally: Tally) -> None:
        self.over = asyncio.get_running_loop().create_future()
        self._asked = asked
        self._tally = tally
        self._received = b""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        """A piece of an answer; with the last of it, the next request goes out."""
        self._received += data
        try:
            if len(self._received) < answer_size(self._received):
                return
        except LoadError as error:
            self.over.set_exception(error)
            self._transport.abort()
            return
        status = _STATUS.match(self._received)
        self._tally.times.append(time.perf_counter() - self._sent)
        self._tally.refused += status is None or not 200 <= int(status[1]) < 300
        self._received = b""
        self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        """A request that was sent and not answered is lost."""
        if not self.over.done():
            self._tally.lost += 1
            self.over.set_result(None)

    def close(self) -> None:
        """End, whatever is under way. Raises LoadError where an answer could not be read."""
        if self.over.done():
            self.over.result()
        else:
            self._transport.abort()
            self._tally.lost += 1
            self.over.set_result(None)

    def _ask(self) -> None:
        content = next(self._asked, None)
        if content is None:
            self.over.set_result(None)
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(content)


def answer_size(received: bytes) -> float:
    """How many bytes an answer has in all; infinitely many while its head is not complete.

    Raises LoadError for an answer that does not say its length.
    """
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return math.inf
    length = _LENGTH.search(received, 0, end + 2)
    if length is None:
        raise LoadError("an answer has no content-length, and this client reads no other")
    return end + 4 + int(length[1])


async def _connect(url: str, asked: Iterator[bytes], tally: Tally) -> _Connection:
    server, loop = urlsplit(url), asyncio.get_running_loop()
    try:
        _, connection = await loop.create_connection(
            lambda: _Connection(asked, tally), server.hostname or "", server.port or 80
        )
    except OSError as error:
        raise LoadError(f"{url}: {error}") from error
    return connection


def _until(asked: Iterator[bytes], end: float) -> Iterator[bytes]:
    """What is to be asked, until the time is over."""
    for content in asked:
        if time.perf_counter() >= end:
            return
        yield content
