"""Chat: the prompt that a Chat Completions request becomes, in tokens.

The numbers of the chat format are the OpenAI cookbook's; those of functions and their calls were found by
openai-chat-tokens (hmarr), openai-messages-token-helper (Azure) and others against counts the API reported.
"""

from collections.abc import Mapping
from typing import Any

from service.domain.tokens import tools
from service.domain.tokens.encodings import Counter
from service.domain.tokens.families import Family

_FUNCTIONS = 9  # what surrounds the definitions, as a system message of their own
_SHARED_SYSTEM = -4  # given back where the request has a system message, which they then join
_FUNCTION_ROLE = -2
_TOOL_ROLE = 2
_CALL = 3
_PARALLEL_CALLS = 10  # two calls or more in one message: 13 to 20 were seen and never explained
_CHOICE_NONE = 1
_CHOICE_TOOL = 7
_CHOICE_FUNCTION = 4

# Worst cases for what cannot be read here; the usage that upstream reports corrects them.
_AUDIO = 1200  # two minutes at ten tokens a second
_FILE = 4096  # some pages of text with their pictures

_SYSTEM = ("system", "developer")
_KNOWN = frozenset(
    {"role", "content", "name", "tool_calls", "function_call", "tool_call_id", "audio"}  # ids cost nothing
)


def prompt(document: Mapping[str, Any], family: Family, count: Counter) -> int:
    """The tokens of everything that enters the prompt. Total: any JSON in, a number out."""
    messages = _list(document.get("messages"))
    definitions = [tool for key in ("functions", "tools") for tool in _list(document.get(key))]
    tokens = family.reply
    if definitions:
        tokens += _definitions(definitions, count)
        system = next((at for at, message in enumerate(messages) if _is_system(message)), None)
        if system is not None:
            tokens += _SHARED_SYSTEM
            messages = [*messages[:system], _padded(messages[system]), *messages[system + 1 :]]
    tokens += sum(_message(message, family, count) for message in messages)
    tokens += _choice(document.get("tool_choice"), _CHOICE_TOOL, count)
    tokens += _choice(document.get("function_call"), _CHOICE_FUNCTION, count)
    return tokens + _shape(document.get("response_format"), count)


def _is_system(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") in _SYSTEM


def _padded(system: dict[str, Any]) -> dict[str, Any]:
    """A system message as it stands before definitions: parted from them by a line break."""
    content = system.get("content")
    return {**system, "content": content + "\n"} if isinstance(content, str) else system


def _message(message: object, family: Family, count: Counter) -> int:
    if not isinstance(message, dict):
        return family.per_message + count(tools.compact(message))
    role, name = message.get("role"), message.get("name")
    tokens = family.per_message + _content(message.get("content"), family, count)
    tokens += _text(role, count)
    if role == "tool":
        tokens += _TOOL_ROLE
    elif isinstance(name, str):
        tokens += family.per_name + count(name)
    if role == "function":
        tokens += _FUNCTION_ROLE
    calls = _list(message.get("tool_calls"))
    tokens += sum(_call(call, count) for call in calls) + (_PARALLEL_CALLS if len(calls) > 1 else 0)
    if message.get("function_call") is not None:
        tokens += _call(message["function_call"], count)
    unknown = (value for key, value in message.items() if key not in _KNOWN)  # `refusal`, or a dialect's own
    return tokens + sum(_text(value, count) for value in unknown)


def _content(content: object, family: Family, count: Counter) -> int:
    if isinstance(content, str):
        return count(content)
    if isinstance(content, list):
        return sum(_part(part, family, count) for part in content)
    return 0 if content is None else count(tools.compact(content))


def _part(part: object, family: Family, count: Counter) -> int:
    if not isinstance(part, dict):
        return count(tools.compact(part))
    match part.get("type"):
        case "text" | "refusal" as kind:
            return _text(part.get(kind), count)
        case "image_url":
            image = part.get("image_url")
            low = isinstance(image, dict) and image.get("detail") == "low"
            return family.image_low if low else family.image_high
        case "input_audio":
            return _AUDIO
        case "file":
            return _FILE
    return sum(map(count, tools.strings(part)))


def _call(call: object, count: Counter) -> int:
    """A call that the assistant made: a function's name and arguments, or a custom tool's name and input."""
    if not isinstance(call, dict):
        return _CALL + count(tools.compact(call))
    return _CALL + sum(_text(_named(call).get(key), count) for key in ("name", "arguments", "input"))


def _definitions(definitions: list[Any], count: Counter) -> int:
    functions = [_named(tool) for tool in definitions if _is_function(tool)]
    others = [tools.compact(tool) for tool in definitions if not _is_function(tool)]
    return _FUNCTIONS + sum(map(count, others)) + (count(tools.namespace(functions)) if functions else 0)


def _is_function(tool: object) -> bool:
    """Whether a definition is a function's: by its type, or by having none, as in the older `functions`."""
    return isinstance(tool, dict) and tool.get("type", "function") == "function"


def _choice(choice: object, named: int, count: Counter) -> int:
    """What it costs to say which tool is to be called; `auto` and `required` cost nothing."""
    if choice == "none":
        return _CHOICE_NONE
    if not isinstance(choice, dict):
        return 0
    return named + _text(_named(choice).get("name"), count)


def _named(tool: dict[str, Any]) -> dict[str, Any]:
    """The object with the name: the member that the type names, or in the older form the tool itself."""
    inner = tool.get("custom" if tool.get("type") == "custom" else "function")
    return inner if isinstance(inner, dict) else tool


def _shape(shape: object, count: Counter) -> int:
    """A schema for the answer: its compact JSON; exact on recorded answers of gpt-4o-2024-08-06."""
    wanted = shape.get("json_schema") if isinstance(shape, dict) else None
    if not isinstance(wanted, dict):
        return 0
    return _text(wanted.get("description"), count) + count(tools.compact(wanted.get("schema")))


def _text(value: object, count: Counter) -> int:
    return count(value) if isinstance(value, str) else 0


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
