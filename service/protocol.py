"""Protocol: HTTP as uvicorn speaks it, with bounds on the head of a request: its length, and its time."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.domain.errors import envelope

LONGEST_HEAD = 65_536  # bytes, of trailers too
SLOWEST_HEAD = 10.0  # s from its first byte to its last


class HeadTooLong(Exception):
    """Stops the parser; the client was told already."""


class Protocol(HttpToolsProtocol):
    """A connection. Who sends a head that is too long (431), takes too long over it (408) or is no HTTP
    (400) is told so, and the connection ends.

    `head_timeout` is in seconds. A connection that says nothing at all ends like one that is kept alive.
    """

    head_timeout = SLOWEST_HEAD
    _received = 0  # bytes, while the head is not complete
    _size = 0  # bytes of the fields that were read
    _within_head = True
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is here, and may take its time until it says something."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._within_head:
            self._received += len(data)
        super().data_received(data)
        if not self._within_head:
            return
        if self._received > LONGEST_HEAD:
            self._refuse_length()
        elif self._received and self._patience is None and not self.transport.is_closing():
            self._patience = self.loop.call_later(self.head_timeout, self._refuse_slowness)

    def on_message_begin(self) -> None:
        """The first byte of a head is here."""
        self._size = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the address is here."""
        self._measure(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field is here."""
        self._measure(len(name) + len(value) + len(b": \r\n"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is here."""
        self._within_head = False
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is here; what comes next is another head."""
        self._within_head, self._received = True, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        self._refuse(b"400 Bad Request", msg)

    def _measure(self, size: int) -> None:
        self._size += size
        if self._size > LONGEST_HEAD:
            self._refuse_length()
            raise HeadTooLong

    def _refuse_length(self) -> None:
        self._refuse(b"431 Request Header Fields Too Large", "The request's headers are too large.")

    def _refuse_slowness(self) -> None:
        self._patience = None
        if self._is_answering():  # reading may have been paused meanwhile, which is not the client's fault
            self._patience = self.loop.call_later(self.head_timeout, self._refuse_slowness)
            return
        self._refuse(b"408 Request Timeout", "The request's headers did not arrive in time.")

    def _refuse(self, status: bytes, message: str) -> None:
        """Say why, unless that would land in the middle of another answer, and end the connection."""
        if self.transport.is_closing():
            return
        if not self._is_answering():
            body = envelope(message, type="invalid_request_error")
            head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % (
                status,
                len(body),
            )
            self.transport.write(head + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
