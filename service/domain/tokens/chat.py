"""Chat: the prompt that a Chat Completions request becomes.

The numbers of the chat format are the OpenAI cookbook's; those of functions and their calls were found by
openai-chat-tokens (hmarr), openai-messages-token-helper (Azure) and others against counts the API reported.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from service.domain.tokens import media, tools
from service.domain.tokens.families import Family
from service.domain.tokens.prompt import Reading, Rendered

_FUNCTIONS = 9  # what surrounds the definitions, as a system message of their own
_SHARED_SYSTEM = -4  # given back where the request has a system message, which they then join
# The tokens of a role: its name is one in either encoding.
_ROLES = {"system": 1, "developer": 1, "user": 1, "assistant": 1, "tool": 0, "function": -1}
_CALL = 3  # one call in a message, its name and arguments besides
_CALLS = 18  # several in one message
_EACH_CALL = 10  # of several; its arguments besides
_CHOICE_NONE = 1
_CHOICE_TOOL = 7
_CHOICE_FUNCTION = 4

_SYSTEM = ("system", "developer")
_KNOWN = frozenset(
    {"role", "content", "name", "tool_calls", "function_call", "tool_call_id", "audio"}  # ids cost nothing
)


def read(document: Mapping[str, Any], family: Family) -> Reading:
    """Everything that enters the prompt. Total: any JSON in, a reading out."""
    reader = _Reader(family)
    messages = _list(document.get("messages"))
    definitions = [tool for key in ("functions", "tools") for tool in _list(document.get(key))]
    system = None
    if definitions:
        system = next((message for message in messages if _is_system(message)), None)
        reader.definitions(definitions, joined=system is not None)
    for message in messages:
        reader.message(message, end="\n" if message is system else "")
    reader.choice(document.get("tool_choice"), _CHOICE_TOOL)
    reader.choice(document.get("function_call"), _CHOICE_FUNCTION)
    reader.shape(document.get("response_format"))
    return reader.reading


class _Reader:
    """One reading, as it grows."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._called: dict[object, object] = {}  # names of functions, by the ids of their calls
        self.reading = Reading()
        self.reading.fixed["framing"] = family.reply

    def message(self, message: object, *, end: str) -> None:
        """A message; `end` is what parts a system message from the definitions that stand behind it."""
        fixed, family = self.reading.fixed, self._family
        fixed["framing"] += family.per_message
        if not isinstance(message, dict):
            self._json("other", message)
            return
        role, name, content = message.get("role"), message.get("name"), message.get("content")
        if isinstance(content, str):
            self._text("text", content + end if end else content)
        elif content is not None:
            self._content(content)
        if isinstance(role, str):
            if role in _ROLES:
                fixed["framing"] += _ROLES[role]
            else:
                self._text("other", role)
        if role == "tool":
            self._text("calls", self._called.get(_hashable(message.get("tool_call_id"))))
        elif isinstance(name, str):
            fixed["names"] += family.per_name
            self._text("names", name)
        if len(message) > 2 or content is None:
            self._more(message)

    def _more(self, message: dict[str, Any]) -> None:
        calls = _list(message.get("tool_calls"))
        if message.get("function_call") is not None:
            calls = [*calls, message["function_call"]]
        self.reading.fixed["calls"] += _CALL if len(calls) == 1 else _CALLS if calls else 0
        for call in calls:
            self._call(call, alone=len(calls) == 1)
        for key, value in message.items():
            if key not in _KNOWN:  # `refusal`, or a dialect's own
                self._text("other", value)

    def _content(self, content: object) -> None:
        if not isinstance(content, list):
            self._json("other", content)
            return
        for part in content:
            self._part(part)

    def _part(self, part: object) -> None:
        if not isinstance(part, dict):
            self._json("other", part)
            return
        kind = part.get("type")
        if kind in ("text", "refusal"):
            self._text("text", part.get(kind))
        elif kind in media.KINDS:
            name, tokens, exact = media.tokens(part, self._family)
            self.reading.fixed[name] += tokens
            self.reading.guessed |= not exact
        else:
            self.reading.guessed = True
            for text in tools.strings(part):
                self._text("other", text)

    def _call(self, call: object, *, alone: bool) -> None:
        """A call that the assistant made: of a function with its arguments, or a custom tool with its input."""
        if not isinstance(call, dict):
            self._json("calls", call)
            return
        named = _named(call)
        self._called[_hashable(call.get("id"))] = named.get("name")
        if alone:
            self._text("calls", named.get("name"))
        else:
            self.reading.fixed["calls"] += _EACH_CALL
        for key in ("arguments", "input"):
            self._text("calls", named.get(key))

    def definitions(self, definitions: list[Any], *, joined: bool) -> None:
        """What may be called; `joined` to a system message, or standing alone."""
        self.reading.fixed["tools"] += _FUNCTIONS + (_SHARED_SYSTEM if joined else 0)
        rendered = Rendered(tools.compact(definitions), partial(tools.rendered, definitions))
        self.reading.rendered.append(("tools", rendered))

    def choice(self, choice: object, named: int) -> None:
        """What it costs to say which tool is to be called; `auto` and `required` cost nothing."""
        if choice == "none":
            self.reading.fixed["tools"] += _CHOICE_NONE
        elif isinstance(choice, dict):
            self.reading.fixed["tools"] += named
            self._text("tools", _named(choice).get("name"))

    def shape(self, shape: object) -> None:
        """A schema for the answer: its compact JSON; exact on recorded answers of gpt-4o-2024-08-06."""
        wanted = shape.get("json_schema") if isinstance(shape, dict) else None
        if isinstance(wanted, dict):
            self._text("format", wanted.get("description"))
            self._json("format", wanted.get("schema"))

    def _text(self, part: str, text: object) -> None:
        if text and isinstance(text, str):
            self.reading.texts.append((part, text))

    def _json(self, part: str, value: object) -> None:
        self.reading.texts.append((part, tools.compact(value)))


def _is_system(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") in _SYSTEM


def _named(tool: dict[str, Any]) -> dict[str, Any]:
    """The object with the name: the member that the type names, or in the older form the tool itself."""
    inner = tool.get("custom" if tool.get("type") == "custom" else "function")
    return inner if isinstance(inner, dict) else tool


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _hashable(value: object) -> object:
    return value if isinstance(value, str) else None
