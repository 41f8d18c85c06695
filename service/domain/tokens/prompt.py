"""Prompt: what a request's prompt counts, by its parts; and the way there, most of which may be free."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from service.domain.tokens.counters import Counter
from service.domain.tokens.memory import SHORTEST, Key, key_of
from service.domain.tokens.work import Work, bound

# What a prompt is made of.
PARTS = (
    "framing",  # what surrounds messages, and begins the reply
    "text",  # of messages
    "names",  # of who speaks
    "calls",  # that the assistant made
    "tools",  # functions and tools, and which of them is to be called
    "format",  # the schema of the answer
    "images",
    "audio",
    "files",
    "other",  # members that only some models know
    "margin",  # what the operator adds
)

_SOON = 8_192  # characters of a source that is rendered at once, so that it is known how long that is


@dataclass(frozen=True, slots=True)
class Rendered:
    """A text that is made when it is to be counted, from a `source` that says as much."""

    source: str
    render: Callable[[], str]

    def key(self) -> Key:
        """One that no text of its own has."""
        digest, length = key_of(self.source)
        return digest, -length


@dataclass(slots=True)
class Reading:
    """What a request says, before its texts are counted: tokens that are known by part, and texts by part.

    `guessed`: there is something in it that nobody can count before the model has, or nobody knows the model.
    """

    fixed: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    texts: list[tuple[str, str]] = field(default_factory=list)
    rendered: list[tuple[str, Rendered]] = field(default_factory=list)
    guessed: bool = False

    def text(self, part: str, text: object) -> None:
        """A text, if it is one and not empty."""
        if text and isinstance(text, str):
            self.texts.append((part, text))

    def render(self, part: str, source: str, render: Callable[[], str]) -> None:
        """A text that is still to be made from `source`; by another renderer the source is another too."""
        self.rendered.append((part, Rendered(source, render)))

    def bound(self) -> int:
        """The most tokens it can have, were each byte of its texts one."""
        texts = sum(bound(text) for _, text in self.texts)
        return sum(self.fixed.values()) + texts + sum(bound(one.render()) for _, one in self.rendered)


class Prompt(NamedTuple):
    """Tokens by part, and in all; `exact` where all were counted, and nothing bounded or guessed."""

    parts: Mapping[str, int]
    tokens: int
    exact: bool


class Tally:
    """A count that has begun: what is remembered is counted, `remaining` characters are not.

    `finish` may be called once, in whatever thread. `margin` is in per cent. Of what is rendered then,
    `remaining` has the characters of the source, which are more than _SOON.
    """

    __slots__ = ("_counter", "_guessed", "_margin", "_parts", "_rendered", "_texts", "remaining", "work")

    def __init__(self, reading: Reading, counter: Counter, work: Work, *, margin: int = 0) -> None:
        self._counter = counter
        self._margin = margin
        self._guessed = reading.guessed
        self._parts = reading.fixed
        self._texts: list[tuple[str, str, Key | None]] = []
        self._rendered: list[tuple[str, Rendered]] = []
        self.work = work
        self.remaining = 0
        known, fixed = counter.known, reading.fixed
        for part, text in reading.texts:
            key = key_of(text)
            tokens = known(key)
            if tokens is None:
                self._texts.append((part, text, key if len(text) >= SHORTEST else None))
                self.remaining += len(text)
            else:
                fixed[part] += tokens
                work.cached += len(text)
        for part, one in reading.rendered:
            tokens = known(one.key())
            if tokens is None:
                one, size = _soon(one)
                self._rendered.append((part, one))
                self.remaining += size
            else:
                fixed[part] += tokens
                work.cached += len(one.source)

    def finish(self) -> Prompt:
        """Count what remains."""
        parts, count, work = self._parts, self._counter.count, self.work
        for part, text, key in self._texts:
            parts[part] += count(text, work, key)
        for part, one in self._rendered:
            parts[part] += count(one.render(), work, one.key())
        tokens = sum(parts.values())
        if self._margin:
            parts["margin"] = -(-tokens * self._margin // 100)
            tokens += parts["margin"]
        return Prompt(parts, tokens, not (self._guessed or work.bounded or self._margin))


def _soon(one: Rendered) -> tuple[Rendered, int]:
    """What is to be rendered, rendered already if its source is short; and how many characters it has."""
    if len(one.source) > _SOON:
        return one, len(one.source)
    text = one.render()
    return Rendered(one.source, lambda: text), max(len(text), len(one.source))
