"""Tools: what may be called and the format of the answer, as the model reads them."""

from typing import Any

from service.domain.tokens.compact import compact
from service.domain.tokens.typescript import namespace

_DEEPEST = 16
_LEFT_OUT = ("required", "additionalProperties", "default", "maxItems")  # of a schema


def rendered(definitions: list[Any], *, early: bool = False) -> str:
    """All definitions: functions in a namespace, what else there is as JSON before it."""
    others = [compact(tool) for tool in definitions if not is_function(tool)]
    functions = [named(tool) for tool in definitions if is_function(tool)]
    return "\n".join([*others, namespace(functions, early=early)] if functions else others)


def named(tool: dict[str, Any]) -> dict[str, Any]:
    """The object with the name: the member that the type names, or in the older form the tool itself."""
    inner = tool.get("custom" if tool.get("type") == "custom" else "function")
    return inner if isinstance(inner, dict) else tool


def is_function(tool: object) -> bool:
    """Whether a definition is a function's: by its type, or by having none, as in the older `functions`."""
    return isinstance(tool, dict) and tool.get("type", "function") == "function"


def answer_format(wanted: dict[str, Any]) -> str:
    """The format of an answer as the model reads it: its name, its description, its schema.

    Some of the schema is left out, and it has no characters beyond ASCII.
    """
    name, description = wanted.get("name"), wanted.get("description")
    lines = ["# Response Formats", "", f"## {name if isinstance(name, str) else ''}", ""]
    if isinstance(description, str):
        lines.append(f"// {description}")
    return "\n".join([*lines, compact(_less(wanted.get("schema")), ascii=True)])


def _less(schema: object, depth: int = 0) -> object:
    if depth > _DEEPEST:
        return schema
    if isinstance(schema, list):
        return [_less(item, depth + 1) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _less(one, depth + 1) for name, one in value.items()}
        if key == "properties" and isinstance(value, dict)
        else _less(value, depth + 1)
        for key, value in schema.items()
        if key not in _LEFT_OUT
    }
