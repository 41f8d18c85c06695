"""Reader: an answer of HTTP/1.1 as it comes together from bytes; it touches no socket."""

import httptools

from service.domain.errors import UpstreamFailed
from service.domain.headers import Field, first

MAX_CONTENT = 33_554_432  # bytes of an answer that is not a stream
MAX_HEAD = 65_536  # bytes of an answer before its content, those of 1xx included; and of its trailers


class Reader:
    """Reads one answer after another; `begin` before each request. What comes unasked is refused.

    `status` is 0 until the head is here, interim ones (1xx) aside; `size` is that of the content not yet
    taken, in bytes.
    """

    __slots__ = (
        "_fields",
        "_parser",
        "_pieces",
        "done",
        "headers",
        "kept",
        "size",
        "status",
        "streams",
    )

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.begin()
        self.done = True  # nothing was asked yet

    def begin(self) -> None:
        """Expect an answer, to anything but HEAD, which is never asked."""
        self._fields = 0  # bytes that came before the head was complete, and of trailers after it
        self._pieces: list[bytes] = []
        self.size = 0
        self.status = 0
        self.headers: list[Field] = []
        self.streams = False  # a stream of server-sent events, which is taken piece by piece
        self.done = False
        self.kept = False  # the connection may carry another request

    def feed(self, data: bytes) -> None:
        """Take in what arrived. Raises UpstreamFailed; what follows an answer costs the connection only."""
        if not self.status:
            self._fields += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.kept = False
            if not self.done:
                raise broken() from None
        if self.size > MAX_CONTENT and not self.streams:
            raise UpstreamFailed("The upstream's answer is too long.")
        if self._fields > MAX_HEAD and not self.status:
            raise broken()

    def end(self) -> None:
        """The connection ended. Raises UpstreamFailed unless that is how the answer ends."""
        if self.done:
            return
        codings = first(self.headers, b"transfer-encoding") or b""
        framed = first(self.headers, b"content-length") or codings.lower().endswith(b"chunked")
        if not self.status or framed:
            raise broken()
        self.done = True

    def take(self) -> bytes:
        """The content that came since it was last taken."""
        pieces, self._pieces, self.size = self._pieces, [], 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def on_message_begin(self) -> None:
        """The first byte of a head, be it one that nobody asked for."""
        if self.done:
            raise broken()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or of the trailers, which go no further."""
        if not self.status:
            self.headers.append((name.lower(), value))
            return
        self._fields += len(name) + len(value)
        if self._fields > MAX_HEAD:
            raise broken()

    def on_headers_complete(self) -> None:
        """The head is here, or an interim one, after which the head is still to come."""
        status = self._parser.get_status_code()
        if status == 101:
            raise broken()  # nobody asked for another protocol
        if status < 200:
            self.headers = []
            return
        self._fields = 0
        self.status = status
        kind = first(self.headers, b"content-type") or b""
        self.streams = kind.lower().startswith(b"text/event-stream")

    def on_body(self, data: bytes) -> None:
        """A piece of the content."""
        self._pieces.append(data)
        self.size += len(data)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self.status:
            self.done = True
            self.kept = self._parser.should_keep_alive()


def broken() -> UpstreamFailed:
    """What there is to say, without addresses or keys."""
    return UpstreamFailed("The upstream broke the connection or did not speak HTTP.")
