"""Work: what counting one request may cost, and what it did cost."""

from collections.abc import Callable

SECONDS = 0.2  # of counting; then bounds are enough
PIECES = 10_000  # calls into tiktoken, of which each costs some microseconds at least


class Work:
    """What is left of a budget. `clock` is in seconds.

    `cached`, `counted` and `bounded` are the characters that were found in memory, counted, and taken at
    their upper bound because nothing was left.
    """

    __slots__ = ("_clock", "_ends", "_pieces", "_seconds", "bounded", "cached", "counted")

    def __init__(self, clock: Callable[[], float], *, seconds: float = SECONDS, pieces: int = PIECES) -> None:
        self._clock = clock
        self._seconds = seconds
        self._pieces = pieces
        self._ends: float | None = None
        self.cached = 0
        self.counted = 0
        self.bounded = 0

    def may_count(self) -> bool:
        """Whether one more piece may be counted; the time runs from the first question on."""
        if self._ends is None:
            self._ends = self._clock() + self._seconds
        elif self._clock() >= self._ends:
            self._pieces = 0
        self._pieces -= 1
        return self._pieces >= 0


def bound(text: str) -> int:
    """The most tokens that a text can have: one for each byte of UTF-8.

    In every encoding each byte is a token by itself, and merging only makes tokens fewer.
    """
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
