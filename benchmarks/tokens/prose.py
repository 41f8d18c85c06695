"""Prose: this repository's own, in an order that it never had."""

import ast
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

USER, ASSISTANT = 200, 800  # characters of a turn
TURNS = 40  # the user's
TOOLS = 20

_ROOT = Path(__file__).parents[2]
_END = re.compile(r"(?<=[.!?:])\s+|\n\s*\n")
_BLOCK = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


class Prose:
    """Texts of real sentences, shuffled and numbered: no two are the same. What it draws is `seed`'s."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._sentences = sorted(set(_sentences()))
        self._bag: list[str] = []
        self._made = count(1)

    def text(self, characters: int) -> str:
        """Exactly so many, of sentences of which each is used once before any is used again."""
        drawn = [f"{next(self._made)}."]
        missing = characters - len(drawn[0])
        while missing > 0:
            if not self._bag:
                self._bag = self._random.sample(self._sentences, len(self._sentences))
            drawn.append(self._bag.pop())
            missing -= len(drawn[-1]) + 1
        return " ".join(drawn)[:characters]

    def conversation(self) -> list[dict[str, str]]:
        """All messages of it, the last one the user's."""
        sizes = {"user": USER, "assistant": ASSISTANT}
        roles = (["user", "assistant"] * TURNS)[:-1]
        return [{"role": role, "content": self.text(sizes[role])} for role in roles]

    def tools(self) -> list[dict[str, Any]]:
        """Definitions of functions, each with four parameters."""
        return [{"type": "function", "function": self._function(number)} for number in range(TOOLS)]

    def _function(self, number: int) -> dict[str, Any]:
        members: dict[str, Any] = {
            "place": {"type": "string"},
            "since": {"type": "string"},
            "most": {"type": "integer"},
            "kind": {"type": "string", "enum": ["level", "flow", "rain"]},
        }
        for member in members.values():
            member["description"] = self.text(60)
        parameters = {"type": "object", "properties": members, "required": ["place"]}
        return {"name": f"look_up_{number}", "description": self.text(200), "parameters": parameters}


def _sentences() -> Iterator[str]:
    for text in _texts():
        yield from (" ".join(words) for one in _END.split(text) if len(words := one.split()) > 1)


def _texts() -> Iterator[str]:
    """Pages and docstrings."""
    for folder in ("", "lua", "deploy", "benchmarks"):
        yield from (_BLOCK.sub("", path.read_text()) for path in sorted((_ROOT / folder).glob("*.md")))
    for folder in ("service", "benchmarks", "tests"):
        for path in sorted((_ROOT / folder).rglob("*.py")):
            yield from _docstrings(ast.parse(path.read_text()))


def _docstrings(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
