"""EventStream: server-sent events, relayed as they come and read on the way past."""

import re

from service.domain.json_text import without_member
from service.domain.produced import document_of
from service.domain.usage import Usage, provided

MAX_LINE = 1_048_576  # bytes; a longer line is passed on unread
MAX_FIELDS = 4_096  # bytes of other lines that wait for the data of their event
KEEP = 1_048_576  # bytes of data lines that may wait to be read

# A carriage return at the very end may be half of a CRLF: it waits for what follows.
_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")

# A null usage behind which only flat members follow, to the end of the line. No quote stands bare within
# a JSON string, and the last brace closes the outermost object: what matches is a member of that object.
_NULL_USAGE = re.compile(
    rb',\s*"usage"\s*:\s*null(?=(?:\s*,\s*"[^"\\]*"\s*:\s*(?:"[^"\\]*"|[\w.+-]+))*\s*\}\s*\Z)'
)


class EventStream:
    """Bytes of an event stream in, bytes to relay out; usage and what was produced noticed on the way.

    With `hide_usage` upstream was asked for a usage that the client did not ask for: the event that
    carries nothing but usage and the `usage` members of all others are taken out, and a line that has
    begun waits for its end. Without, what comes in goes out, byte for byte and at once.

    `usage` is the largest valid one seen: some servers send a running total with every chunk, others
    repeat the last. `done`: the stream said [DONE]. `failed`: it said `{"error": …}`. `started`: it said
    anything else. `waiting` are the data lines that nobody has read yet, `waiting_size` bytes in
    all. `kept` and `dropped` are bytes of data lines that could be read, and that could not, because more
    than `keep` bytes of them were waiting.
    """

    def __init__(self, *, hide_usage: bool, keep: int = KEEP) -> None:
        self.usage: Usage | None = None
        self.done = False
        self.failed = False
        self.started = False
        self.kept = 0
        self.dropped = 0
        self.waiting: list[bytes] = []
        self.waiting_size = 0
        self._hide_usage = hide_usage
        self._keep = keep
        self._partial: list[bytes] = []  # a line that has begun, as it came
        self._partial_size = 0
        self._overlong = False  # within a line that is passed on unread
        self._fields = b""  # lines of this event that share the fate of its data
        self._shown = False  # data of this event was relayed
        self._hidden = False  # data of this event was taken out

    def feed(self, chunk: bytes) -> bytes:
        """What may be relayed now that `chunk` is here."""
        relayed = self._read(chunk)
        return relayed if self._hide_usage else chunk

    def finish(self) -> bytes:
        """What was still held back, upstream having ended."""
        rest = b"".join(self._partial)
        self._partial, self._partial_size = [], 0
        content = rest.removesuffix(b"\r")
        relayed = self._line(content, rest[len(content) :]) if rest else b""
        fields = b"" if self._hidden and not self._shown else self._fields
        self._fields = b""
        return relayed + fields if self._hide_usage else b""

    def drained(self, lines: int) -> None:
        """The first so many of the data lines that were waiting are read."""
        self.waiting_size -= sum(map(len, self.waiting[:lines]))
        del self.waiting[:lines]

    def _read(self, chunk: bytes) -> bytes:
        """Read the lines that `chunk` completes; each byte is looked at once, however small the chunks."""
        ended = b"\n" in chunk or b"\r" in chunk or (self._partial and self._partial[-1].endswith(b"\r"))
        if chunk:
            self._partial.append(chunk)
            self._partial_size += len(chunk)
        if not ended and self._partial_size <= MAX_LINE and not self._overlong:
            return b""
        text, start, relayed = b"".join(self._partial), 0, []
        for end in _LINE_END.finditer(text):
            relayed.append(self._line(text[start : end.start()], end[0]))
            start = end.end()
        rest = text[start:]
        if self._overlong or len(rest) - rest.endswith(b"\r") > MAX_LINE:
            relayed.append(self._unread(rest))
            self._overlong = not rest.endswith(b"\r")
            rest = b""
        self._partial, self._partial_size = [rest] if rest else [], len(rest)
        return b"".join(relayed)

    def _line(self, content: bytes, end: bytes) -> bytes:
        """A whole line, as it may be relayed now."""
        if self._overlong or len(content) > MAX_LINE:
            self._overlong = False
            return self._unread(content) + end
        if not content:
            return self._event_end(end)
        if content.startswith(b"data:"):
            return self._data(content, end)
        if content.startswith(b":") and not self._fields:
            return content + end
        self._fields += content + end
        return self._unread(b"") if len(self._fields) > MAX_FIELDS else b""

    def _unread(self, piece: bytes) -> bytes:
        self.dropped += len(piece)
        self._shown = True
        fields, self._fields = self._fields, b""
        return fields + piece

    def _event_end(self, end: bytes) -> bytes:
        relayed = b"" if self._hidden and not self._shown else self._fields + end
        self._fields, self._shown, self._hidden = b"", False, False
        return relayed

    def _data(self, line: bytes, end: bytes) -> bytes:
        shown = self._without_usage(line)
        if shown is None:
            self._hidden = True
            return b""
        self._shown = True
        fields, self._fields = self._fields, b""
        return fields + shown + end

    def _without_usage(self, line: bytes) -> bytes | None:
        """The data line less its usage, None where there is nothing else in it."""
        if b'"usage"' in line or b'"error"' in line:
            alone = b'"error"' not in line and line.count(b'"usage"') == 1
            null = _NULL_USAGE.search(line) if alone else None
            if null is None:
                return self._parsed(line)
            self._produced(line)
            return line[: null.start()] + line[null.end() :]
        if line[5:].strip() == b"[DONE]":
            self.done = True
        else:
            self._produced(line)
        return line

    def _parsed(self, line: bytes) -> bytes | None:
        document = document_of(line[5:])
        usage = provided(document)
        if usage and (self.usage is None or usage.total > self.usage.total):
            self.usage = usage
        if document.get("error"):
            self.failed = True
            return line
        if isinstance(document.get("usage"), dict) and not document.get("choices"):
            return None
        self._produced(line)
        if "usage" not in document:
            return line
        return line[:5] + without_member(line[5:].decode(), "usage").encode()

    def _produced(self, line: bytes) -> None:
        """Keep the line for whoever counts: nothing is decoded while the stream runs."""
        self.started = True
        if self.waiting_size + len(line) > self._keep:
            self.dropped += len(line)
            return
        self.waiting.append(line)
        self.waiting_size += len(line)
        self.kept += len(line)
