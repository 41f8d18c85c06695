"""Chat: the prompt that a Chat Completions request becomes.

The numbers of the chat format are the OpenAI cookbook's. Those of tools and formats were found by comparing
counts that the API reported, in openai-chat-tokens (hmarr) and in recorded exchanges.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from service.domain.tokens import media, tools
from service.domain.tokens.calls import Calls
from service.domain.tokens.compact import compact, strings
from service.domain.tokens.families import Family
from service.domain.tokens.parts import read_content, read_others
from service.domain.tokens.prompt import Reading

_CHOICE_NONE = 1
_CHOICE_TOOL = 7
_CHOICE_FUNCTION = 4
_FORMAT = 6  # of an answer, which has a message of its own, or is joined to one as tools are
_FORMAT_BESIDE_TOOLS = -1

_BEFORE = frozenset({"functions", "tools", "response_format"})
_SYSTEM = ("system", "developer")
_ROLES = ("user", "assistant", "system", "developer")  # each is a token in either encoding
# Members that are read, or are ids, which cost nothing.
_SAID = frozenset({"role", "content", "name", "tool_call_id", "audio"})
_SAID_BY_ASSISTANT = _SAID | {"tool_calls", "function_call"}


def read(document: Mapping[str, Any], family: Family) -> Reading:
    """Everything that enters the prompt. Total: any JSON in, a reading out."""
    reading = Reading(guessed=not family.known)
    reading.fixed["framing"] = family.reply
    messages = _list(document.get("messages"))
    system = None
    if _definitions(document, family, reading):
        system = next((message for message in messages if _is_system(message)), None)
        reading.fixed["tools"] += family.joined if system else 0
    if unusual := _plain(messages, system, family, reading):
        reader = _Reader(messages, family, reading)
        for place in unusual:
            reader.message(place, messages[place], end="\n" if messages[place] is system else "")
    return reading


def _plain(messages: list[Any], system: object, family: Family, reading: Reading) -> list[int]:
    """Messages of a role and a text, as nearly all are; and the places of those that are others."""
    framing, texts, unusual = 0, reading.texts, []
    for place, message in enumerate(messages):
        if isinstance(message, dict) and len(message) == 2 and message is not system:
            role, content = message.get("role"), message.get("content")
            if isinstance(content, str) and role in _ROLES:
                framing += family.per_message + 1 + (family.per_answer if role == "assistant" else 0)
                if content:
                    texts.append(("text", content))
                continue
        unusual.append(place)
    reading.fixed["framing"] += framing
    return unusual


def _definitions(document: Mapping[str, Any], family: Family, reading: Reading) -> bool:
    """What stands before the conversation: tools and the format of the answer; whether there is any."""
    if _BEFORE.isdisjoint(document):
        return False
    functions, modern = _list(document.get("functions")), _list(document.get("tools"))
    if definitions := functions + modern:
        early = ("tools" if modern else "functions") in family.early
        source = compact(definitions)
        custom = sum(not tools.is_function(tool) for tool in definitions)
        reading.guessed |= custom > 0
        reading.fixed["tools"] += family.tools + custom * family.custom
        if family.typescript and len(source) <= tools.LONGEST:
            render = partial(tools.rendered, definitions, early=early)
            reading.render("tools", f"{'early' if early else 'tools'} {source}", render)
        else:
            reading.text("tools", source)
        if family.choices:
            _choice(document.get("tool_choice"), _CHOICE_TOOL, reading)
            _choice(document.get("function_call"), _CHOICE_FUNCTION, reading)
    shape = document.get("response_format")
    wanted = shape.get("json_schema") if isinstance(shape, dict) else None
    if isinstance(wanted, dict):
        name = wanted.get("name")
        reading.fixed["format"] += _FORMAT_BESIDE_TOOLS if definitions else _FORMAT
        reading.text("format", name)
        reading.render("format", f"format {compact(wanted)}", partial(tools.answer_format, wanted))
    return bool(definitions) or isinstance(wanted, dict)


def _choice(choice: object, named: int, reading: Reading) -> None:
    """What it costs to say which tool is to be called; `auto` and `required` cost nothing."""
    if choice == "none":
        reading.fixed["tools"] += _CHOICE_NONE
    elif isinstance(choice, dict):
        reading.fixed["tools"] += named
        reading.text("tools", tools.named(choice).get("name"))


class _Reader:
    """Puts messages into a reading, of whatever they consist."""

    def __init__(self, messages: list[Any], family: Family, reading: Reading) -> None:
        self._messages = messages
        self._family = family
        self._reading = reading
        self._calls = Calls(family, reading)

    def message(self, place: int, message: object, *, end: str) -> None:
        """A message; `end` is what parts a system message from the definitions that stand behind it."""
        reading = self._reading
        if not isinstance(message, dict):
            reading.fixed["framing"] += self._family.per_message
            reading.text("other", compact(message))
            return
        role, content = message.get("role"), message.get("content")
        listed = role == "tool" and not self._calls.answered(message)
        if role == "function":
            self._calls.replied(message.get("name"))
        elif role != "tool":
            self._framing(role, message.get("name"))
        if listed and isinstance(content, list):
            read_others(content, self._family, reading)
        elif not listed or not isinstance(content, str):
            read_content(content, end, self._family, reading)
        if role == "assistant":
            behind = (self._messages[at] for at in range(place + 1, len(self._messages)))
            self._calls.made(message, behind)
        self._more(message, _SAID_BY_ASSISTANT if role == "assistant" else _SAID)

    def _framing(self, role: object, name: object) -> None:
        reading, family = self._reading, self._family
        reading.fixed["framing"] += family.per_message + 1
        if role not in _ROLES:
            self._unknown(role)
        if name is not None:
            reading.fixed["names"] += family.per_name
            reading.text("names", name if isinstance(name, str) else compact(name))

    def _more(self, message: dict[str, Any], said: frozenset[str]) -> None:
        if message.get("audio") is not None:
            self._reading.fixed["audio"] += media.spoken(self._family)
            self._reading.guessed = True
        for key in message.keys() - said:  # `refusal`, or a dialect's own
            self._unknown(message[key])

    def _unknown(self, value: object) -> None:
        for text in strings(value):
            self._reading.text("other", text)


def _is_system(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") in _SYSTEM


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
