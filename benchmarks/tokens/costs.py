"""Costs: what counting takes, beside tiktoken alone and beside counting anew, in CPU time of one thread."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from statistics import median
from typing import Any

from benchmarks import request
from benchmarks.tokens.prose import TOOLS, TURNS, Prose
from service.domain.tokens import Tokenizer
from service.domain.tokens.encodings import Encode

MODEL, ENCODING = "gpt-4o", "o200k_base"
SIZES = (1, 3, 10, 30, 100)  # thousands of characters
FIRST, RESENT = 1.15, 0.12  # the most that first sight may cost of tiktoken alone, and a resent past of anew
_QUESTION = 40  # characters
_WARM_UP = 2  # rounds
_BATCH, _TEXT = 100, 100_000  # requests of a round at most, and characters of them about
_COLUMNS = "{:<46}{:>12}{:>12}{:>9}{:>7}"

Pair = tuple[float, float]  # microseconds a request of what is compared with, and of Weir
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cost:
    """What something took in each round; `bar` is the most that the ratio may be."""

    title: str
    pairs: Sequence[Pair]
    bar: float | None = None

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        return median(weir / other for other, weir in self.pairs)


class Costs:
    """Measures; `amount` is how much: 1.0 takes some ten seconds.

    A round measures a batch one way, then the same batch the other way, in turn each of them first: so much
    lies between the two looks at a text that the second finds nothing at hand.
    """

    def __init__(self, encode: Encode, prose: Prose, *, amount: float = 1.0) -> None:
        self._encode = encode
        self._prose = prose
        self._amount = amount
        self._tokenizer = self._empty()
        self._round = count()

    def all(self) -> Iterator[Cost]:
        """Each when it has been measured."""
        for size in SIZES:
            pairs = self._rounds(40, partial(self._first, 1000 * size))
            yield Cost(f"{size} KB of prose at first sight, tiktoken", pairs, FIRST)
        yield Cost(f"{TURNS} turns resent, counted anew", self._rounds(20, self._conversation), RESENT)
        yield Cost(f"{TOOLS} tools resent, counted anew", self._rounds(20, self._tools))
        yield Cost("a question at first sight, tiktoken", self._rounds(40, partial(self._first, _QUESTION)))
        yield Cost(f"{request.LENGTH} bytes resent, tiktoken", self._rounds(40, self._again))

    def _rounds(self, rounds: int, measure: Callable[[], Pair]) -> list[Pair]:
        for _ in range(_WARM_UP):
            measure()
        return [measure() for _ in range(max(2, round(rounds * self._amount)))]

    def _first(self, characters: int) -> Pair:
        """Messages that nobody has seen."""
        number = max(1, min(_BATCH, _TEXT // characters))
        return self._beside_tiktoken([_said(self._prose.text(characters)) for _ in range(number)])

    def _again(self) -> Pair:
        """The request that the load sends, seen before."""
        return self._beside_tiktoken([json.loads(request.body(0))] * _BATCH)

    def _beside_tiktoken(self, asked: list[Document]) -> Pair:
        texts = [message["content"] for one in asked for message in _fresh(one)["messages"]]
        mine = [_fresh(one) for one in asked]
        return self._both(
            lambda: sum(len(self._encode(text)) for text in texts), lambda: self._counted(mine), len(asked)
        )

    def _conversation(self) -> Pair:
        """All turns of one, each a request with all that was said before."""
        messages = self._prose.conversation()
        ends = range(1, len(messages) + 1, 2)
        return self._beside_empty([{"messages": messages[:end]} for end in ends])

    def _tools(self) -> Pair:
        """New questions, each with tools that are known from the one before."""
        tools = [self._prose.tools() for _ in range(5)]
        asked = [[_said(self._prose.text(_QUESTION)) | {"tools": one} for one in tools] for _ in range(2)]
        self._counted(asked[0])
        return self._beside_empty(asked[1])

    def _beside_empty(self, asked: list[Document]) -> Pair:
        """Beside tokenizers that remember nothing, one for each request."""
        anew = [(self._empty(), _fresh(one)) for one in asked]
        mine = [_fresh(one) for one in asked]
        return self._both(
            lambda: sum(empty.prompt(one, MODEL).tokens for empty, one in anew),
            lambda: self._counted(mine),
            len(asked),
        )

    def _counted(self, asked: list[Document]) -> int:
        return sum(self._tokenizer.prompt(one, MODEL).tokens for one in asked)

    def _both(self, other: Callable[[], int], weir: Callable[[], int], number: int) -> Pair:
        """What each takes, for one of so many."""
        if next(self._round) % 2:
            return _microseconds(other) / number, _microseconds(weir) / number
        taken = _microseconds(weir) / number
        return _microseconds(other) / number, taken

    def _empty(self) -> Tokenizer:
        """A tokenizer that knows the model's name, and no text."""
        tokenizer = Tokenizer({ENCODING: self._encode})
        tokenizer.family(MODEL)
        return tokenizer


def table(costs: Sequence[Cost]) -> str:
    """A line for each, with the medians."""
    lines = [_COLUMNS.format("what, and beside what", "that us", "Weir us", "ratio", "bar")]
    for cost in costs:
        other, weir = (median(times) for times in zip(*cost.pairs, strict=True))
        bar = "-" if cost.bar is None else f"{cost.bar:.2f}"
        lines.append(_COLUMNS.format(cost.title, f"{other:,.1f}", f"{weir:,.1f}", f"{cost.ratio:.3f}", bar))
    return "\n".join(lines)


def faults(costs: Sequence[Cost]) -> list[str]:
    """What is above its bar."""
    return [
        f"{cost.title}: {cost.ratio:.3f} times that, {cost.bar} at most"
        for cost in costs
        if cost.bar is not None and cost.ratio > cost.bar
    ]


def _said(text: str) -> Document:
    return {"messages": [{"role": "user", "content": text}]}


def _fresh(document: Document) -> Document:
    """The same as a server reads it, in strings whose hash nobody has asked for."""
    copy: Document = json.loads(json.dumps(document))
    return copy


def _microseconds(call: Callable[[], object]) -> float:
    """CPU time of this thread: waiting for the core is not in it."""
    began = time.thread_time_ns()
    call()
    return (time.thread_time_ns() - began) / 1000
