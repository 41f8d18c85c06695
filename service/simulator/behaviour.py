"""Behaviour: what a request may ask of the simulated model, faults included.

The words come in the header `x-simulate`, as in `cut=5, rate=50`, or in the name of the model, as in
`simulated-cut-5,rate-50`. The header `x-simulate-tokens: 100` is the word `tokens=100`. A chunk is an event
of a stream, or 64 bytes of a plain answer.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from service.domain.errors import InvalidRequest

PREFIX = "simulated-"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How to answer one request."""

    status: int = 200  # answer with this error
    cut: int | None = None  # close the connection after so many chunks
    end: int | None = None  # end as if all were well after so many chunks
    stall: int | None = None  # after so many chunks, send nothing more until the client leaves
    stall_head: bool = False  # send nothing at all until the client leaves
    malformed: bool = False  # break the JSON: of the answer, or of the third event
    no_usage: bool = False  # keep the usage to yourself
    usage_bad: bool = False  # report a usage that nobody should believe
    close: bool = False  # close the connection after the answer
    fast: bool = False  # report a fixed usage, without counting
    latency: float = 0.0  # seconds before the head
    rate: float = 0.0  # tokens a second of a stream; 0: as fast as possible
    tokens: int = 40  # of each choice

    def is_whole(self) -> bool:
        """Whether the answer comes all at once and to its end."""
        return self.cut is None and self.end is None and self.stall is None


@dataclass(frozen=True, slots=True)
class Number:
    """The value of a word: how it is read, and between which bounds it lies."""

    read: Callable[[str], float]
    least: float
    most: float


_CHUNKS = Number(int, 0, 1_000_000)
_NUMBERS = {
    "status": Number(int, 400, 599),
    "cut": _CHUNKS,
    "end": _CHUNKS,
    "stall": _CHUNKS,
    "latency": Number(float, 0, 3600),
    "rate": Number(float, 0, 1_000_000),
    "tokens": Number(int, 0, 100_000),
}
_FLAGS = ("stall-head", "malformed", "no-usage", "usage-bad", "close", "fast")
_WORD = re.compile(r"([a-z]+(?:-[a-z]+)*)(?:-([0-9]{1,9}(?:\.[0-9]{1,9})?))?")
KNOWN = ", ".join([*(f"{name}=N" for name in _NUMBERS), *_FLAGS])


def asked(usual: Behaviour, *, header: str, tokens: str, model: str) -> Behaviour:
    """The behaviour that a request asks for, or the usual one. Raises InvalidRequest on an unknown word.

    `header` and `tokens` are the values of x-simulate and x-simulate-tokens, empty where they are absent.
    """
    words = header.split(",") if header else []
    if tokens:
        words.append(f"tokens={tokens}")
    if model.startswith(PREFIX):
        words.extend(model.removeprefix(PREFIX).split(","))
    return replace(usual, **_members(words)) if words else usual


def _members(words: Iterable[str]) -> Mapping[str, Any]:
    return dict(_member(word.strip()) for word in words)


def _member(word: str) -> tuple[str, Any]:
    match = _WORD.fullmatch(word.replace("=", "-").lower())
    name, value = match.groups() if match else ("", None)
    if name in _FLAGS and value is None:
        return name.replace("-", "_"), True
    if name in _NUMBERS and value is not None:
        return name, _number(word, value, _NUMBERS[name])
    raise InvalidRequest(f"Nothing is simulated by {word!r}. Known: {KNOWN}.")


def _number(word: str, text: str, number: Number) -> float:
    try:
        value = number.read(text)
    except ValueError:
        value = -1
    if not number.least <= value <= number.most:
        raise InvalidRequest(f"Not simulated: {word!r} is not between {number.least} and {number.most}.")
    return value
