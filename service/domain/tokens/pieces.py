"""Pieces: long texts cut so that the parts have the tokens of the whole."""

import re
from collections.abc import Iterator

LONGEST = 16_384  # characters of a piece; tiktoken panics on a million spaces
_LOOK_BACK = 2_048  # characters in which a safe place to cut is looked for

# No token of either encoding spans such a place, and neither pattern looks behind itself.
_SAFE_CUT = re.compile(r".*(?:(?<=\S)(?= )|(?<=[A-Za-z0-9])(?=\n))", re.DOTALL)


def pieces(text: str) -> Iterator[str]:
    """The text in pieces of at most LONGEST characters.

    Where a run without spaces leaves no safe place to cut, a cut may cost a token.
    """
    at = 0
    while len(text) - at > LONGEST:
        cut = last_cut(text, at, at + LONGEST) or at + LONGEST
        yield text[at:cut]
        at = cut
    yield text[at:]


def last_cut(text: str, start: int, end: int) -> int | None:
    """The last safe place to cut between `start` and `end`, as far as one looks back; None: there is none."""
    safe = _SAFE_CUT.match(text, max(start, end - _LOOK_BACK), end)
    return safe.end() if safe and safe.end() > start else None
