"""Tools: what may be called and the format of the answer, as the model reads them."""

from typing import Any

from service.domain.tokens.compact import compact
from service.domain.tokens.typescript import namespace

LONGEST = 1_048_576  # characters of JSON that is rendered; beyond, it counts as it is
_DEEPEST = 16
_NAMED = ("properties", "$defs", "definitions")  # whose members are named by whoever writes a schema


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
    """A schema without what was recorded to cost nothing."""
    if depth > _DEEPEST:
        return schema
    if isinstance(schema, list):
        return [_less(item, depth + 1) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _less(one, depth + 1) for name, one in value.items()}
        if key in _NAMED and isinstance(value, dict)
        else _less(value, depth + 1)
        for key, value in schema.items()
        if not _costs_nothing(key, value, schema)
    }


def _costs_nothing(key: str, value: object, schema: dict[str, Any]) -> bool:
    match key:
        case "additionalProperties" | "maxItems" | "default":
            return value is None or value == "" or isinstance(value, bool | int | float)
        case "required":
            names = schema.get("properties")
            return (
                isinstance(value, list)
                and isinstance(names, dict)
                and all(_is_in(names, one) for one in value)
            )
    return False


def _is_in(names: dict[str, Any], name: object) -> bool:
    return isinstance(name, str) and name in names
