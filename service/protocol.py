"""Protocol: HTTP as uvicorn speaks it, with a bound on the head of a request."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LONGEST_HEAD = 65_536  # bytes

_REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
)
_BODY = (
    b'{"error":{"message":"The request\'s headers are too large.","type":"invalid_request_error",'
    b'"param":null,"code":null}}'
)


class Protocol(HttpToolsProtocol):
    """Bytes that come while a head is not complete are counted; too many end the connection with a 431."""

    _head = 0
    _within_head = True

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._within_head:
            self._head += len(data)
        super().data_received(data)
        if self._within_head and self._head > LONGEST_HEAD and not self.transport.is_closing():
            self.transport.write(_REFUSAL % (len(_BODY), _BODY))
            self.transport.close()

    def on_headers_complete(self) -> None:
        """The head is here."""
        self._within_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is here; what comes next is another head."""
        self._within_head, self._head = True, 0
        super().on_message_complete()
