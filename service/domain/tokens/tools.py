"""Tools: function definitions as the model reads them, a TypeScript namespace.

OpenAI does not document the rendering; openai-chat-tokens (hmarr) found it by comparing counts that the API
reported, and openai-messages-token-helper (Azure) that newer models read nested descriptions too.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

_DEEPEST = 16
_MOST_NODES = 10_000
_NAMES = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean", "null": "null"}


def namespace(functions: Iterable[dict[str, Any]]) -> str:
    """The definitions as text; each is an object with `name`, `description` and `parameters`."""
    rendering = _Rendering()
    blocks = ["namespace functions {\n"]
    blocks += ["\n".join(rendering.function(function)) for function in functions]
    return "\n".join([*blocks, "} // namespace functions"])


def rendered(definitions: list[Any]) -> str:
    """All definitions as the model reads them: functions as a namespace, what else there is as JSON."""
    functions = [_function(tool) for tool in definitions if _is_function(tool)]
    others = [compact(tool) for tool in definitions if not _is_function(tool)]
    return "\n".join([*others, namespace(functions)] if functions else others)


def compact(value: object) -> str:
    """The value as JSON without white space; where it nests too deep for that, its strings alone."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (RecursionError, ValueError):
        return " ".join(strings(value))


def strings(value: object) -> Iterator[str]:
    """Every string in a value, names of members included."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, dict):
            waiting.extend(item)
            waiting.extend(item.values())


class _Rendering:
    """One rendering; what is deeper or larger than a sensible schema comes out as compact JSON."""

    def __init__(self) -> None:
        self._nodes = 0

    def function(self, function: dict[str, Any]) -> Iterator[str]:
        """The lines of one definition."""
        yield from _comment(function)
        parameters = function.get("parameters")
        members = list(self._members(parameters, 0))
        if members:
            yield f"type {_name(function)} = (_: {{"
            yield from members
            yield "}) => any;"
        else:
            yield f"type {_name(function)} = () => any;"
        if isinstance(parameters, dict):
            # A $ref is shown as `any`; how the model reads what it refers to is not known.
            yield from (compact(parameters[key]) for key in ("$defs", "definitions") if key in parameters)
        yield ""

    def _members(self, schema: object, depth: int) -> Iterator[str]:
        properties = schema.get("properties") if isinstance(schema, dict) else None
        if not isinstance(schema, dict) or not isinstance(properties, dict):
            return
        indent = "  " * depth
        required = frozenset(_texts(schema.get("required")))
        for name, member in properties.items():
            yield from (indent + line for line in _comment(member))
            yield f"{indent}{name}{'' if name in required else '?'}: {self._type(member, depth + 1)},"

    def _type(self, schema: object, depth: int) -> str:
        self._nodes += 1
        if depth > _DEEPEST or self._nodes > _MOST_NODES:
            return compact(schema)
        if not isinstance(schema, dict):
            return "any"
        if isinstance(schema.get("enum"), list):
            return " | ".join(map(compact, schema["enum"]))
        for key in ("anyOf", "oneOf"):
            if isinstance(schema.get(key), list):
                return " | ".join(self._type(choice, depth + 1) for choice in schema[key])
        kinds = dict.fromkeys(_texts(schema.get("type")))
        return " | ".join(self._kind(kind, schema, depth) for kind in kinds) or "any"

    def _kind(self, kind: str, schema: dict[str, Any], depth: int) -> str:
        if kind == "array":
            return self._type(schema.get("items"), depth + 1) + "[]"
        if kind == "object":
            return "\n".join(["{", *self._members(schema, depth), "}"])
        return _NAMES.get(kind, "any")


def _comment(schema: object) -> Iterator[str]:
    if isinstance(schema, dict) and isinstance(schema.get("description"), str):
        yield f"// {schema['description']}"


def _name(function: dict[str, Any]) -> str:
    return " ".join(_texts(function.get("name")))


def _texts(value: object) -> list[str]:
    """The strings of a list, or a lone one."""
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]


def _is_function(tool: object) -> bool:
    """Whether a definition is a function's: by its type, or by having none, as in the older `functions`."""
    return isinstance(tool, dict) and tool.get("type", "function") == "function"


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    inner = tool.get("function")
    return inner if isinstance(inner, dict) else tool
