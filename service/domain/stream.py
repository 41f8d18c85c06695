"""EventStream: server-sent events, relayed as they come and read on the way past."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from service.domain.json_text import without_member
from service.domain.usage import Usage, provided

MAX_LINE = 1_048_576  # bytes; a longer line is passed on unread
MAX_FIELDS = 4_096  # bytes of other lines that wait for the data of their event
KEEP = 1_048_576  # bytes of data lines that may wait to be drained

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
    anything else. `kept` and `dropped` are bytes of data lines that `drain` has or will have read, and
    that it will not, because more than `keep` bytes of them were waiting.
    """

    def __init__(self, *, hide_usage: bool, keep: int = KEEP) -> None:
        self.usage: Usage | None = None
        self.done = False
        self.failed = False
        self.started = False
        self.kept = 0
        self.dropped = 0
        self._hide_usage = hide_usage
        self._keep = keep
        self._undrained: list[bytes] = []
        self._undrained_size = 0
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

    def drain(self) -> str:
        """The text produced since the last drain, choice after choice.

        Everything that counts as completion tokens and is text: content, refusals, reasoning, and the
        names and arguments of tool calls.
        """
        lines, self._undrained, self._undrained_size = self._undrained, [], 0
        return _said_by(map(_document, lines), "delta")

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
        document = _document(line)
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
        """Keep the line for `drain`: nothing is decoded while the stream runs."""
        self.started = True
        if self._undrained_size + len(line) > self._keep:
            self.dropped += len(line)
            return
        self._undrained.append(line)
        self._undrained_size += len(line)
        self.kept += len(line)


def produced(document: object) -> str:
    """The text of a JSON answer's messages, choice after choice: see `EventStream.drain`."""
    return _said_by([document], "message")


def _document(line: bytes) -> dict[str, Any]:
    """The object a data line carries, an empty one where there is none."""
    try:
        document = json.loads(line[5:].decode())
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _said_by(documents: Iterable[object], member: str) -> str:
    texts: dict[int, list[str]] = {}
    for document in documents:
        for choice in _objects(document, "choices"):
            index = choice.get("index")
            said = texts.setdefault(index if isinstance(index, int) else 0, [])
            said.extend(_said(choice.get(member)))
    text = "".join(piece for said in texts.values() for piece in said)
    # A character outside the basic plane may have come as two escapes, one to a chunk.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _said(message: object) -> Iterator[str]:
    """The texts of a message, or of a delta of one."""
    if not isinstance(message, Mapping):
        return
    yield from _text(message.get("content"))
    yield from (part["text"] for part in _objects(message, "content") if isinstance(part.get("text"), str))
    yield from _text(message.get("refusal"))
    yield from _text(message.get("reasoning_content") or message.get("reasoning"))
    yield from _called(message.get("function_call"))
    for call in _objects(message, "tool_calls"):
        yield from _called(call.get("function"))
        yield from _called(call.get("custom"))


def _called(function: object) -> Iterator[str]:
    if isinstance(function, Mapping):
        for name in ("name", "arguments", "input"):
            yield from _text(function.get(name))


def _text(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value


def _objects(document: object, member: str) -> Iterator[Mapping[str, Any]]:
    """The objects in an array that is a member of an object, if it is one and there are any."""
    items = document.get(member) if isinstance(document, Mapping) else None
    return (item for item in items if isinstance(item, Mapping)) if isinstance(items, list) else iter(())
