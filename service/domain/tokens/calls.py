"""Calls: what the assistant called and what it was answered, as the model reads both.

One call is a message to its function. Several of one message are a single call of `multi_tool_use.parallel`,
and what they are answered is one list. The numbers were found from recorded exchanges.
"""

import json
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import takewhile
from typing import Any

from service.domain.tokens.compact import compact
from service.domain.tokens.families import Family
from service.domain.tokens.parts import text_of
from service.domain.tokens.prompt import Reading
from service.domain.tokens.tools import LONGEST, named

_CALL = 3
_ANSWER = 2
_CALLS = 16  # of one message, with all that they are answered
_EARLY_CALLS = 13
_EARLY_ANSWER = 3  # to one of several calls


class Calls:
    """The calls of a conversation, put into `reading` message by message."""

    def __init__(self, family: Family, reading: Reading) -> None:
        self._family = family
        self._reading = reading
        self._names: dict[str, str] = {}  # of functions that were called alone, by the ids of the calls
        self._listed: set[int] = set()  # the identities of messages that answer one of several calls

    def made(self, message: Mapping[str, Any], behind: Iterable[object]) -> None:
        """What the assistant calls in a message, if it does, and the messages that stand behind it."""
        early = self._family.early
        calls, call = message.get("tool_calls"), message.get("function_call")
        if not calls and call is None:
            self._reading.fixed["framing"] += self._family.per_answer
        elif isinstance(calls, list) and len(calls) > 1:
            self._several(calls, behind, early="parallel" in early)
        elif calls:
            self._one(calls[0] if isinstance(calls, list) else calls, early="tool_calls" in early)
        if call is not None:
            self._one(call, early="function_call" in early)

    def answered(self, message: Mapping[str, Any]) -> bool:
        """A message of a tool; whether its content is still to be read, as that of others is."""
        early = self._family.early
        if id(message) not in self._listed:
            name = self._names.get(_text(message.get("tool_call_id")), "")
            self._answer(name, early="tool_calls" in early)
            return True
        if "parallel" in early:
            self._reading.fixed["calls"] += self._family.per_message + _EARLY_ANSWER
        return "parallel" in early

    def replied(self, name: object) -> None:
        """A message of a function, the older form, of which only the content is left to read."""
        self._answer(_text(name), early="function_call" in self._family.early)

    def _answer(self, name: str, *, early: bool) -> None:
        self._reading.fixed["calls"] += self._family.per_message + (0 if early else _ANSWER)
        self._reading.text("calls", name)

    def _one(self, call: object, *, early: bool) -> None:
        reading, (name, said) = self._reading, _call(call)
        if isinstance(call, dict):
            self._names[_text(call.get("id"))] = name
        reading.fixed["calls"] += _CALL + self._family.per_call
        if early:
            reading.text("calls", name)
            reading.text("calls", said)
        else:
            reading.text("calls", f"functions.{name}")
            reading.render("calls", f"arguments {said}", partial(_compacted, said))

    def _several(self, calls: list[Any], behind: Iterable[object], *, early: bool) -> None:
        reading = self._reading
        answers: list[Any] = list(takewhile(_is_answer, behind))
        self._listed.update(map(id, answers))
        reading.fixed["calls"] += (_EARLY_CALLS if early else _CALLS) + self._family.per_call
        made = [_call(call) for call in calls]
        reading.render("calls", f"calls {compact(made)}", partial(_parallel, made))
        if not early:
            said = [_content(answer) for answer in answers]
            reading.render("calls", f"answers {compact(said)}", partial(_listed, said))


def _call(call: object) -> tuple[str, str]:
    """The name of what is called, and what it is told: a function's arguments or a custom tool's input."""
    function = named(call) if isinstance(call, dict) else {}
    name, said = _text(function.get("name")), function.get("arguments") or function.get("input")
    if said is None and not name:
        return "", compact(call)
    return name, said if isinstance(said, str) else "" if said is None else compact(said)


def _is_answer(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") == "tool"


def _content(message: Mapping[str, Any]) -> str:
    """What a message says in text; its other parts are counted as those of others are."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(filter(None, map(text_of, content)))
    return content if isinstance(content, str) else ""


def _parallel(calls: list[tuple[str, str]]) -> str:
    uses = [{"recipient_name": f"functions.{name}", "parameters": _value(said)} for name, said in calls]
    return compact({"tool_uses": uses})


def _listed(answers: list[str]) -> str:
    """The answers as one list, with spaces and without characters beyond ASCII."""
    return json.dumps([_value(answer) for answer in answers])


def _compacted(said: str) -> str:
    value = _value(said)
    return value if isinstance(value, str) else compact(value)


def _value(text: str) -> object:
    """What the text says as JSON; or else the text, also where much of it would be lost."""
    if len(text) > LONGEST:
        return text
    try:
        value = json.loads(text)
        return value if 2 * len(json.dumps(value)) > len(text) else text
    except (RecursionError, ValueError):
        return text


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
