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
_WARM_UP = 3  # rounds
_COLUMNS = "{:<46}{:>12}{:>12}{:>9}{:>7}"

Pair = tuple[float, float]  # microseconds of what is compared with, and of Weir


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
    """Measures; `amount` is how much: 1.0 takes some ten seconds."""

    def __init__(self, encode: Encode, prose: Prose, *, amount: float = 1.0) -> None:
        self._encode = encode
        self._prose = prose
        self._amount = amount
        self._tokenizer = self._empty()
        self._turn = count()

    def all(self) -> Iterator[Cost]:
        """Each when it has been measured."""
        for size in SIZES:
            pairs = self._rounds(4000 // size, partial(self._first, 1000 * size))
            yield Cost(f"{size} KB of prose at first sight, tiktoken", pairs, FIRST)
        pairs = self._rounds(20, self._conversation)
        yield Cost(f"{TURNS} turns resent one by one, counted anew", pairs, RESENT)
        yield Cost(f"{TOOLS} tools resent, counted anew", self._rounds(200, self._tools))
        yield Cost("a question at first sight, tiktoken", self._rounds(4000, partial(self._first, _QUESTION)))
        yield Cost(f"{request.LENGTH} bytes resent, tiktoken", self._rounds(4000, self._again))

    def _rounds(self, rounds: int, measure: Callable[[], Pair]) -> list[Pair]:
        for _ in range(_WARM_UP):
            measure()
        return [measure() for _ in range(max(1, round(rounds * self._amount)))]

    def _first(self, characters: int) -> Pair:
        """A message that nobody has seen."""
        asked = {"messages": [{"role": "user", "content": self._prose.text(characters)}]}
        return self._beside_tiktoken(asked)

    def _again(self) -> Pair:
        """The request that the load sends, seen before."""
        return self._beside_tiktoken(json.loads(request.body(0)))

    def _beside_tiktoken(self, asked: dict[str, Any]) -> Pair:
        texts, mine = [message["content"] for message in _fresh(asked)["messages"]], _fresh(asked)
        return self._both(
            lambda: [len(self._encode(text)) for text in texts], lambda: self._tokenizer.prompt(mine, MODEL)
        )

    def _conversation(self) -> Pair:
        """All turns of one, each a request with all that was said before."""
        messages = self._prose.conversation()
        pairs = [self._beside_empty({"messages": messages[:end]}) for end in range(1, len(messages) + 1, 2)]
        return sum(anew for anew, _ in pairs), sum(resent for _, resent in pairs)

    def _tools(self) -> Pair:
        """A new question with tools that are known from the one before."""
        tools = self._prose.tools()
        self._tokenizer.prompt(self._asking(tools), MODEL)
        return self._beside_empty(self._asking(tools))

    def _asking(self, tools: list[dict[str, Any]]) -> dict[str, Any]:
        message = {"role": "user", "content": self._prose.text(_QUESTION)}
        return _fresh({"messages": [message], "tools": tools})

    def _beside_empty(self, asked: dict[str, Any]) -> Pair:
        """Beside the same tokenizer with nothing in its memory."""
        empty, anew, mine = self._empty(), _fresh(asked), _fresh(asked)
        return self._both(lambda: empty.prompt(anew, MODEL), lambda: self._tokenizer.prompt(mine, MODEL))

    def _both(self, other: Callable[[], object], weir: Callable[[], object]) -> Pair:
        """One after the other, and the other way round the next time: the second has it easier."""
        if next(self._turn) % 2:
            return _microseconds(other), _microseconds(weir)
        taken = _microseconds(weir)
        return _microseconds(other), taken

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


def _fresh(document: dict[str, Any]) -> dict[str, Any]:
    """The same as a server reads it, in strings whose hash nobody has asked for."""
    copy: dict[str, Any] = json.loads(json.dumps(document))
    return copy


def _microseconds(call: Callable[[], object]) -> float:
    """CPU time of this thread: waiting for the core is not in it."""
    began = time.thread_time_ns()
    call()
    return (time.thread_time_ns() - began) / 1000
