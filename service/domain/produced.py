"""Produced: what a model said, text by text, and how many tokens that is as it comes."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from service.domain.tokens.pieces import last_cut

MOST_TEXTS = 1_024  # told apart in one answer; the upstream numbers them as it likes
LONGEST_TAIL = 4_096  # characters whose tokens may still become others

Count = Callable[[str], int]  # text to tokens
Place = tuple[int | str, ...]  # where in an answer a text stands: the choice, and which of its texts
Piece = tuple[Place, str]

_OTHERS: Place = ()  # where all those stand that are too many


@dataclass(frozen=True, slots=True)
class Text:
    """A text as far as it has come: `tokens` that stand, and the `tail` behind them, which counts `open` now.

    More text can make other tokens of the tail, but not of what lies before it.
    """

    tokens: int = 0
    tail: str = ""
    open: int = 0

    def grown(self, more: str, count: Count) -> "Text":
        """The text with more at its end, of which each character is counted once, and the tail twice."""
        whole = _mended(self.tail + more)
        cut = _standing(whole)
        tail = whole[cut:]
        return Text(self.tokens + count(whole[:cut]), tail, count(tail))


Said = Mapping[Place, Text]


def heard(said: Said, pieces: Iterable[Piece], count: Count) -> Said:
    """What was said before, with the pieces that have come since."""
    grown, fresh = dict(said), dict[Place, list[str]]()
    for place, piece in pieces:
        if place not in grown and len(grown) >= MOST_TEXTS:
            place = _OTHERS
        grown.setdefault(place, Text())
        fresh.setdefault(place, []).append(piece)
    for place, more in fresh.items():
        grown[place] = grown[place].grown("".join(more), count)
    return grown


def tokens(said: Said) -> int:
    """The tokens of everything that was said, each text being counted by itself."""
    return sum(text.tokens + text.open for text in said.values())


def tails(said: Said) -> int:
    """How many characters are counted anew when every text grows."""
    return sum(len(text.tail) for text in said.values())


def document_of(text: bytes) -> dict[str, Any]:
    """The object that JSON text says, an empty one where it says none."""
    try:
        document = json.loads(text.decode())
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def streamed(lines: Iterable[bytes]) -> Iterator[Piece]:
    """The texts, piece by piece, that the data lines of a stream bring."""
    for line in lines:
        yield from _texts(document_of(line.removeprefix(b"data:")), "delta")


def answered(document: Mapping[str, Any]) -> Iterator[Piece]:
    """The texts that the messages of a JSON answer are made of."""
    return _texts(document, "message")


def _mended(text: str) -> str:
    """The text, each character beyond the basic plane made whole that came as two escapes, one to a chunk.

    What is alone at the end waits for its other half; what is alone elsewhere becomes U+FFFD.
    """
    if text.isascii():
        return text
    end = len(text) - _is_halved(text)
    return text[:end].encode("utf-16", "surrogatepass").decode("utf-16", "replace") + text[end:]


def _standing(text: str) -> int:
    """How much of a text has tokens that stand, whatever comes behind it.

    Where no safe place to cut is near, all is taken as it is; that may cost a token or two.
    """
    size = len(text)
    for end in (size, size - LONGEST_TAIL // 2 + 1):
        if end > 0 and (cut := last_cut(text, 0, end)):
            return cut
    return size - _is_halved(text) if size > LONGEST_TAIL else 0


def _is_halved(text: str) -> bool:
    """Whether the other half of its last character is still to come."""
    return "\ud800" <= text[-1:] <= "\udbff"


def _texts(document: Mapping[str, Any], member: str) -> Iterator[Piece]:
    """All that counts as completion tokens and is text, whichever choice it is of."""
    for place, choice in enumerate(_objects(document, "choices")):
        at = _index(choice, place)
        for name, text in _said(choice.get(member)):
            if isinstance(text, str) and text:
                yield (at, *name), text


def _said(message: object) -> Iterator[tuple[Place, object]]:
    """What may be texts of a message, or of a delta of one."""
    if not isinstance(message, Mapping):
        return
    yield ("content",), message.get("content")
    for place, part in enumerate(_objects(message, "content")):
        yield ("content", place), part.get("text")
    yield ("refusal",), message.get("refusal")
    yield ("reasoning",), message.get("reasoning_content") or message.get("reasoning")
    yield from _called(message.get("function_call"))
    for place, call in enumerate(_objects(message, "tool_calls")):
        for kind in ("function", "custom"):
            yield from _called(call.get(kind), _index(call, place))


def _called(function: object, *call: int) -> Iterator[tuple[Place, object]]:
    if isinstance(function, Mapping):
        for name in ("name", "arguments", "input"):
            yield (name, *call), function.get(name)


def _index(item: Mapping[str, Any], place: int) -> int:
    """The number that an item says it has, else its place."""
    index = item.get("index")
    return index if isinstance(index, int) else place


def _objects(document: Mapping[str, Any], member: str) -> Iterator[Mapping[str, Any]]:
    """The objects in an array that is a member of an object, if it is one and there are any."""
    items = document.get(member)
    return (item for item in items if isinstance(item, Mapping)) if isinstance(items, list) else iter(())
