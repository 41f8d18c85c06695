"""Model: what is said to a request: the same to the same, in as many tokens as asked for."""

import json
import re
import secrets
from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from zlib import crc32

from service.domain.chat import Chat
from service.domain.tokens import Tokenizer
from service.simulator.behaviour import Behaviour
from service.simulator.completion import Choice, Completion

# Each word is one token behind a space, in o200k_base as in cl100k_base.
_TEXT = """
the river comes down from the hills with the rain of many days and behind the dam it grows quiet and deep
so that every field below receives the water it needs and no more while what is too much flows over the wall
and back into the bed of the stream where the fish wait for evening and the light falls slowly on the stones
"""
_REMEMBERED_TEXTS = 64
_ECHOED = 200  # characters of the last message that a call repeats
_FAST_PROMPT = 10  # tokens


class Model:
    """Answers requests. `clock` is in seconds of the epoch."""

    def __init__(self, tokenizer: Tokenizer, clock: Callable[[], float]) -> None:
        self._count = tokenizer.count
        self._prompt = tokenizer.prompt
        self._clock = clock
        self._words = _TEXT.split()
        self._pieces = lru_cache(_REMEMBERED_TEXTS)(self._pieces_from)

    def answer(self, chat: Chat, body: bytes, behaviour: Behaviour) -> Completion:
        """The answer to a request; `body` is the request's bytes, which choose the words."""
        prompt = _FAST_PROMPT if behaviour.fast else self._prompt(chat.document, chat.model).tokens
        choices = self._choices(chat, crc32(body), behaviour)
        return Completion(
            id=f"chatcmpl-{secrets.token_hex(14)}",
            created=int(self._clock()),
            model=chat.model,
            choices=choices,
            prompt=prompt,
            usage=_usage(prompt, sum(choice.tokens for choice in choices), behaviour),
        )

    def _choices(self, chat: Chat, seed: int, behaviour: Behaviour) -> tuple[Choice, ...]:
        function = _function_to_call(chat)
        call = self._call(chat, function) if function else None
        return tuple(call or self._text(chat, seed + index, behaviour) for index in range(chat.n))

    def _text(self, chat: Chat, seed: int, behaviour: Behaviour) -> Choice:
        length = behaviour.tokens if chat.cap is None else min(behaviour.tokens, chat.cap)
        pieces = self._pieces(seed % len(self._words), length)
        tokens = length if behaviour.fast else self._count("".join(pieces), chat.model)
        return Choice(pieces, tokens, "length" if length < behaviour.tokens else "stop")

    def _call(self, chat: Chat, function: str) -> Choice | None:
        """A call of the function, cut where the cap says; None where not even its name fits."""

        def cost(end: int) -> int:
            return name + self._count(arguments[:end], chat.model)

        name = self._count(function, chat.model)
        arguments = json.dumps({"echo": _last_text(chat)[:_ECHOED]}, ensure_ascii=False)
        end, finish = len(arguments), "tool_calls"
        if chat.cap is not None and cost(end) > chat.cap:
            end, finish = bisect_right(range(end), chat.cap, key=cost) - 1, "length"
        if end < 0:
            return None
        pieces = tuple(re.findall(r".{1,4}", arguments[:end]))
        return Choice(pieces, cost(end), finish, function, f"call_{secrets.token_hex(12)}")

    def _pieces_from(self, start: int, length: int) -> tuple[str, ...]:
        """So many words, which are so many tokens, beginning anywhere in the text."""
        words = self._words
        following = (" " + words[(start + at) % len(words)] for at in range(1, length))
        return ("The", *following) if length else ()


def _function_to_call(chat: Chat) -> str | None:
    """The function that the request insists on; the first where it leaves the choice."""
    choice, tools = chat.document.get("tool_choice"), chat.document.get("tools")
    if isinstance(choice, dict):
        return _name(choice)
    if choice != "required" or not isinstance(tools, list):
        return None
    return next((name for name in map(_name, tools) if name), None)


def _name(tool: object) -> str | None:
    function = tool.get("function") if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def _last_text(chat: Chat) -> str:
    messages = chat.document.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    content = last.get("content") if isinstance(last, dict) else None
    return content if isinstance(content, str) else ""


def _usage(prompt: int, completion: int, behaviour: Behaviour) -> dict[str, Any] | None:
    if behaviour.no_usage:
        return None
    if behaviour.usage_bad:
        return {"prompt_tokens": "many", "completion_tokens": -1, "total_tokens": True}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
