"""Counters: how many tokens a text has, exactly within a budget, or at most."""

from dataclasses import dataclass
from typing import Protocol

from service.domain.tokens.encodings import Encode
from service.domain.tokens.memory import SHORTEST, Key, Memory, key_of
from service.domain.tokens.pieces import LONGEST, pieces
from service.domain.tokens.work import Work, bound


class Counter(Protocol):
    """Counts texts. Safe in several threads."""

    def known(self, key: Key) -> int | None:
        """The tokens that were counted under that key; None where they are not remembered."""

    def count(self, text: str, work: Work, key: Key | None = None) -> int:
        """The tokens of a text, never more than its bound; remembered under its own key, or another."""


class Exact:
    """Counts as an encoding does, each text once while it is remembered."""

    def __init__(self, encode: Encode, memory: Memory | None = None) -> None:
        self._encode = encode
        self._memory = Memory() if memory is None else memory
        self.known = self._memory.get

    def count(self, text: str, work: Work, key: Key | None = None) -> int:
        """As remembered, or counted piece by piece; what the budget does not reach is taken at its bound."""
        length = len(text)
        if not length:
            return 0
        if key is None and length >= SHORTEST:
            key = key_of(text)
        remembered = self.known(key) if key else None
        if remembered is not None:
            work.cached += length
            return remembered
        tokens, bounded = 0, work.bounded
        for piece in (text,) if length <= LONGEST else pieces(text):
            if work.may_count():
                work.counted += len(piece)
                tokens += len(self._encode(piece))
            else:
                work.bounded += len(piece)
                tokens += bound(piece)
        if key and work.bounded == bounded:
            self._memory.put(key, tokens)
        return tokens


@dataclass(frozen=True, slots=True)
class Rough:
    """Counts a token for every so many bytes of UTF-8, for models whose encoding nobody here has."""

    bytes_per_token: float

    def known(self, key: Key) -> None:
        """Nothing is remembered: to count is as fast."""

    def count(self, text: str, work: Work, key: Key | None = None) -> int:
        """The bytes over the bytes per token, rounded up."""
        work.counted += len(text)
        return -int(-bound(text) // self.bytes_per_token)
