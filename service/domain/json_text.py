"""JSON as text: read strictly, and edited without touching a byte that need not change."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

MAX_DEPTH = 64

_CONTAINERS = (dict, list)

_SPACE = re.compile(r"[ \t\r\n]*")
_VALUE = json.JSONDecoder()


class Malformed(ValueError):
    """Text that is not JSON as we accept it; the message says why and where."""


def decode(body: bytes) -> Any:
    """The value that UTF-8 JSON text stands for.

    Stricter than RFC 8259 obliges: raises Malformed on duplicate members, NaN and Infinity, nesting
    deeper than MAX_DEPTH, lone surrogates and integers of thousands of digits, all of which two
    parsers may understand differently.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"not UTF-8 at byte {error.start}") from None
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise Malformed(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise Malformed(f"nested deeper than {MAX_DEPTH} levels") from None
    except Malformed:
        raise
    except ValueError as error:  # an integer longer than the interpreter reads
        raise Malformed(str(error).split(";")[0]) from None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise Malformed(f"nested deeper than {MAX_DEPTH} levels")
    if b"\\ud" in body or b"\\uD" in body:
        _refuse_lone_surrogates(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise Malformed(f"duplicate member {twice!r}")
    return members


def _no_constant(name: str) -> Any:
    raise Malformed(f"{name} is not JSON")


def _depth(value: Any) -> int:
    """How deep containers nest; stops one past MAX_DEPTH."""
    level, depth = [value] if isinstance(value, _CONTAINERS) else [], 0
    while level and depth <= MAX_DEPTH:
        items = (item.values() if isinstance(item, dict) else item for item in level)
        level = [item for within in items for item in within if isinstance(item, _CONTAINERS)]
        depth += 1
    return depth


def _refuse_lone_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Malformed("a lone surrogate in a string") from None


class Member(NamedTuple):
    """A member of an object: its name, and where in the text it lies.

    `start` is where the name begins, `value` where the value begins, `end` behind the value.
    """

    name: str
    start: int
    value: int
    end: int


def members(text: str, at: int = 0) -> Iterator[Member]:
    """The members of the object that begins at `at` in valid JSON text, in order."""
    at = _skip(text, _skip(text, at) + 1)
    while text[at] != "}":
        name, after = _VALUE.raw_decode(text, at)
        value = _skip(text, _skip(text, after) + 1)
        _, end = _VALUE.raw_decode(text, value)
        yield Member(name, at, value, end)
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def find(text: str, name: str, at: int = 0) -> Member | None:
    """The member of that name of the object that begins at `at`, None where there is none."""
    return next((member for member in members(text, at) if member.name == name), None)


def with_member(text: str, name: str, value: str, at: int = 0) -> str:
    """The text, with a member of the object at `at` set to `value`, itself JSON text."""
    there = find(text, name, at)
    if there:
        return text[: there.value] + value + text[there.end :]
    return with_first_member(text, name, value, at)


def with_first_member(text: str, name: str, value: str, at: int = 0) -> str:
    """The text, with a member that the object at `at` does not have put before all others."""
    inside = _skip(text, at) + 1
    comma = "" if text[_skip(text, inside)] == "}" else ","
    return f'{text[:inside]}"{name}":{value}{comma}{text[inside:]}'


def without_member(text: str, name: str) -> str:
    """The text of an object, less the member of that name and the comma that parted it from the rest."""
    there = find(text, name)
    if there is None:
        return text
    before, after = text[: there.start], text[there.end :]
    rest = after.lstrip(" \t\r\n")
    if rest.startswith(","):
        return before + rest[1:].lstrip(" \t\r\n")
    return before.rstrip(" \t\r\n").removesuffix(",") + after


def _skip(text: str, at: int) -> int:
    """Behind the white space at `at`."""
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()
