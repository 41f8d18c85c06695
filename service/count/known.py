"""Known: bodies whose prompt tokens the API itself reported, one a line."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.domain import chat, json_text
from service.domain.chat import Chat
from service.domain.errors import InvalidRequest
from service.domain.usage import MOST_TOKENS

_BESIDE = ("prompt_tokens", "expected_prompt_tokens")
_NUMBER = f"a whole number from 1 to {MOST_TOKENS}, or null"


class Unfit(Exception):
    """A line that is not what it should be; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class Known:
    """A body, the prompt tokens that the API reported for it, and how its line names it."""

    asked: Chat
    reported: int
    category: str
    id: str


def read(text: bytes, model: str | None) -> Known | None:
    """What a line says, the body with another model if one is named; None where nobody knows the number.

    Raises Unfit.
    """
    line = _object(text)
    reported = _reported(line)
    if reported is None:
        return None
    body = line.get("request", line)
    if not isinstance(body, dict):
        raise Unfit("request: expected an object, the body of a request")
    name = model or body.get("model") or line.get("model")
    try:
        asked = chat.parse(json.dumps({**body, "model": name}).encode())
    except InvalidRequest as wrong:
        raise Unfit(f"expected a body that the gateway takes: {wrong}") from None
    return Known(asked, reported, _word(line, "category"), _word(line, "id"))


def _object(text: bytes) -> dict[str, Any]:
    try:
        line = json_text.decode(text)
    except json_text.Malformed as malformed:
        raise Unfit(f"expected a JSON object: {malformed}") from None
    if not isinstance(line, dict):
        raise Unfit("expected a JSON object")
    return line


def _reported(line: Mapping[str, Any]) -> int | None:
    """The prompt's tokens; None where they are null."""
    place, number = _place(line)
    if number is None or (type(number) is int and 1 <= number <= MOST_TOKENS):
        return number
    raise Unfit(f"{place}: expected {_NUMBER}")


def _place(line: Mapping[str, Any]) -> tuple[str, Any]:
    """Where the number is, and what is there."""
    if "usage" in line:
        usage = line["usage"]
        if usage is None:
            return "usage", None
        if isinstance(usage, dict) and "prompt_tokens" in usage:
            return "usage.prompt_tokens", usage["prompt_tokens"]
        raise Unfit(f"usage: expected an object with prompt_tokens, {_NUMBER}")
    for name in _BESIDE:
        if name in line:
            return name, line[name]
    raise Unfit(f"expected usage.prompt_tokens: {_NUMBER}")


def _word(line: Mapping[str, Any], name: str) -> str:
    word = line.get(name)
    if word is None:
        return ""
    if isinstance(word, str) or type(word) is int:
        return str(word)
    raise Unfit(f"{name}: expected a string")
