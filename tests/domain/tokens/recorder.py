"""What stands before an encoding and writes down what it is asked."""

import threading
from collections.abc import Sequence

from service.domain.tokens.encodings import Encode


def by_fours(text: str) -> Sequence[int]:
    """Tokens of four characters each, as fast as they come."""
    return range(-(-len(text) // 4))


class Recorder:
    """Encodes, and keeps what it encoded, and in which threads."""

    def __init__(self, encode: Encode = by_fours) -> None:
        self._encode = encode
        self.texts: list[str] = []
        self.threads: set[int] = set()

    def __call__(self, text: str) -> Sequence[int]:
        self.texts.append(text)
        self.threads.add(threading.get_ident())
        return self._encode(text)

    @property
    def longest(self) -> int:
        """The characters of the longest text."""
        return max(map(len, self.texts), default=0)

    def heard(self) -> list[str]:
        """What was encoded since this was last asked."""
        heard, self.texts = self.texts, []
        return heard


def encodings(recorder: Encode) -> dict[str, Encode]:
    """The same encoding under each name."""
    return dict.fromkeys(("o200k_base", "cl100k_base"), recorder)


class Clock:
    """Seconds that pass only at a question, `step` at each."""

    def __init__(self, step: float = 0.0) -> None:
        self._step = step
        self.now = 0.0

    def __call__(self) -> float:
        self.now += self._step
        return self.now
