"""Hostile: bodies that are hard to count, each unlike all before it."""

import base64
import json
import string
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from random import Random
from typing import Any

from benchmarks.tokens.prose import Prose

SIZES = (1_000_000, 3_000_000)  # bytes of UTF-8
MESSAGES = 100_000
TOOLS = 25_000
PAIRS = 2_000  # of calls that one message makes
MEMBERS = 100  # of a schema, each of which is that schema again

_RUNS = {'"a"': "a", "spaces": " ", "newlines": "\n", "one emoji": "\N{GRINNING FACE}"}
_MIXED = "mixed"
_PIECE = 5_000  # bytes of one kind in what is mixed
_CJK = [chr(code) for code in range(0x4E00, 0x9FA6)]


class Hostile:
    """Makes them. What it draws comes from `seed`."""

    def __init__(self, seed: int, prose: Prose) -> None:
        self._random = Random(seed)
        self._made = count(1)
        draw = self._random
        self._kinds: dict[str, Callable[[int], str]] = {
            **{name: partial(self._run, character) for name, character in _RUNS.items()},
            "CJK without breaks": lambda size: "".join(draw.choices(_CJK, k=size // 3)),
            "base64": lambda size: base64.b64encode(draw.randbytes(size * 3 // 4)).decode(),
            "random letters": lambda size: "".join(draw.choices(string.ascii_letters, k=size)),
            _MIXED: self._mixed,
            "prose": prose.text,
        }

    def kinds(self) -> list[str]:
        """The names of texts."""
        return list(self._kinds)

    def text(self, kind: str, size: int) -> str:
        """A new one, of so many bytes or a few less."""
        return self._kinds[kind](size)

    def bodies(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """The name of each, and what makes a new one."""
        yield "a question", lambda: body([self.text("prose", 40)])
        for size in SIZES:
            for kind in self._kinds:
                megabytes = f"{size // 1_000_000} MB"
                yield f"{megabytes} of {kind}", partial(self._alone, kind, size)
        yield f"{MESSAGES:,} messages", lambda: body([self._word() for _ in range(MESSAGES)])
        yield f"{PAIRS:,} pairs of calls", self._calls
        yield f"{TOOLS:,} tools", lambda: body(["?"], tools=[self._tool({}) for _ in range(TOOLS)])
        yield "a schema that refers to itself", self._circle

    def _alone(self, kind: str, size: int) -> bytes:
        return body([self.text(kind, size)])

    def _calls(self) -> bytes:
        """Calls two by two, and what they were answered."""
        messages: list[dict[str, Any]] = []
        for _ in range(PAIRS):
            ids = [self._word(), self._word()]
            messages.append({"role": "assistant", "tool_calls": [_call(id) for id in ids]})
            messages += ({"role": "tool", "tool_call_id": id, "content": id} for id in ids)
        return body([], messages=messages)

    def _circle(self) -> bytes:
        """Few bytes that would be endless, were they written out."""
        again = {"$ref": "#/$defs/again"}
        members = {self._word(): again for _ in range(MEMBERS)}
        defined = {"$defs": {"again": {"type": "object", "properties": members}}}
        tool = self._tool({"type": "object", "properties": {"first": again}, **defined})
        return body(["?"], tools=[tool])

    def _tool(self, parameters: dict[str, Any]) -> dict[str, Any]:
        return {"type": "function", "function": {"name": self._word(), "parameters": parameters}}

    def _word(self) -> str:
        return f"{next(self._made)}{self._random.choice(string.ascii_letters)}"

    def _run(self, character: str, size: int) -> str:
        return character * (size // len(character.encode()) - next(self._made))

    def _mixed(self, size: int) -> str:
        kinds = [kind for kind in self._kinds if kind != _MIXED]
        return "".join(self.text(self._random.choice(kinds), _PIECE) for _ in range(size // _PIECE))


def body(texts: list[str], **members: Any) -> bytes:
    """A request with these messages of a user, and more members."""
    messages = [{"role": "user", "content": text} for text in texts]
    asked = {"model": "gpt-4o", "max_tokens": 16, "messages": messages} | members
    return json.dumps(asked, ensure_ascii=False).encode()


def _call(id: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "look", "arguments": "{}"}}
