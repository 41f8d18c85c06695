"""Connection: one HTTP/1.1 connection to upstream; one request and its answer at a time."""

import asyncio
from collections.abc import Callable

from service.adapters.upstream.patience import Patience
from service.adapters.upstream.reader import Reader, broken
from service.domain.errors import Rejection, UpstreamTimeout

JOINED = 65_536  # bytes of a body that leave in one write with the head
PIECE = 1_048_576  # bytes of a longer one handed over at a time
HIGH = 262_144  # bytes of a stream that wait to be taken before the server has to wait, too


class Connection(asyncio.Protocol):
    """Sends a request and lets `reader` read the answer; calls `lost` when it is no more.

    Whoever waits is woken once: by the whole answer, the head of a stream, a piece of it, or a fault.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, lost: Callable[["Connection"], None]) -> None:
        self.reader = Reader()
        self._loop = loop
        self._lost = lost
        self._patience = Patience(loop, self._tire)
        self._transport: asyncio.Transport
        self._waiter: asyncio.Future[None] | None = None
        self._fault: Rejection | None = None
        self._unsent = memoryview(b"")
        self._may_write = True
        self._reads = True

    @property
    def is_open(self) -> bool:
        """Whether a request may be written."""
        return self._fault is None and not self._transport.is_closing()

    @property
    def is_idle(self) -> bool:
        """Whether all was said on both sides, and the next request may go this way."""
        return (
            self.reader.done
            and self.reader.kept
            and self._reads
            and not self._unsent
            and self.is_open
            and not self._transport.get_write_buffer_size()
        )

    async def ask(self, head: bytes, body: bytes, *, deadline: float) -> None:
        """Send a request; return when the answer is here, or its head if it is a stream.

        `deadline` is a moment of the loop's clock. Raises UpstreamFailed or UpstreamTimeout; after these, and
        when it was cancelled, the connection is to be closed.
        """
        self.reader.begin()
        self._send(head, body)
        await self._wait(deadline)
        if self._fault is not None and not self.reader.streams:
            raise self._fault

    async def more(self, timeout: float) -> bytes:
        """What came of a stream, or comes within `timeout` seconds; nothing at its end.

        Raises UpstreamFailed or UpstreamTimeout once all that came has been taken.
        """
        reader = self.reader
        if not reader.size:
            deadline = self._loop.time() + timeout
            while not (reader.size or reader.done or self._fault):
                await self._wait(deadline)
        if reader.size:
            piece = reader.take()
            self._read_on()
            return piece
        if self._fault is not None:
            raise self._fault
        return b""

    def close(self) -> None:
        """Leave at once, whatever is still to be said."""
        self._patience.end()
        self._transport.abort()

    async def _wait(self, deadline: float) -> None:
        self._waiter = self._loop.create_future()
        self._patience.until(deadline)
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._patience.rest()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _tire(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._fail(UpstreamTimeout("The upstream took too long."))

    def _fail(self, fault: Rejection) -> None:
        if self._fault is None:
            self._fault = fault
        self._transport.abort()
        self._wake()

    def _send(self, head: bytes, body: bytes) -> None:
        if len(body) <= JOINED:
            self._transport.write(head + body)
            return
        self._transport.write(head)
        self._unsent = memoryview(body)
        self._send_on()

    def _send_on(self) -> None:
        """Hand over as much as the transport wants, so that the loop can turn between the pieces."""
        while self._unsent and self._may_write and not self._transport.is_closing():
            piece, self._unsent = self._unsent[:PIECE], self._unsent[PIECE:]
            self._transport.write(piece)

    def _read_on(self) -> None:
        if not self._reads:
            self._reads = True
            self._transport.resume_reading()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The server is there."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Bytes from the server; those that nobody asked for end the connection."""
        reader = self.reader
        if reader.done:
            self._transport.abort()
            return
        try:
            reader.feed(data)
        except Rejection as fault:
            self._fail(fault)
            return
        if reader.streams or reader.done:
            self._wake()
        if reader.size > HIGH and reader.streams and self._reads and not reader.done:
            self._reads = False
            self._transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is no more, for whatever reason."""
        self._patience.end()
        self._unsent = memoryview(b"")
        try:
            if error is not None and not self.reader.done:
                raise broken()
            self.reader.end()
        except Rejection as fault:
            self._fault = self._fault or fault
        self._wake()
        self._lost(self)

    def pause_writing(self) -> None:
        """The server is slow to read."""
        self._may_write = False

    def resume_writing(self) -> None:
        """The server has read."""
        self._may_write = True
        self._send_on()
