"""Tools: definitions as the model reads them, functions in a TypeScript namespace.

OpenAI does not document the rendering. It was found by comparing counts that the API reported: first by
openai-chat-tokens (hmarr) and openai-messages-token-helper (Azure); the rest from recorded exchanges, with
openai/harmony, where OpenAI publishes how another model's definitions are rendered, as a guide.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

_DEEPEST = 16
_MOST_NODES = 10_000
_NODE = 64  # characters of comments that weigh as much as a node
_NAMES = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean", "null": "null"}


def rendered(definitions: list[Any], *, early: bool = False) -> str:
    """All definitions as the model reads them: functions in a namespace, what else there is as JSON.

    `early` is how it was in 2023: of what is within a function's parameters nothing is said but types, which
    are indented, and each member has a line. Later all that has a title, a description or a default says so,
    nothing is indented, and an object of which nothing is said takes one line.
    """
    others = [compact(tool) for tool in definitions if not is_function(tool)]
    functions = [named(tool) for tool in definitions if is_function(tool)]
    if not functions:
        return "\n".join(others)
    rendering = _Rendering(early=early)
    blocks = ("\n".join(rendering.function(function)) for function in functions)
    return "\n".join([*others, "namespace functions {\n", *blocks, "} // namespace functions"])


def named(tool: dict[str, Any]) -> dict[str, Any]:
    """The object with the name: the member that the type names, or in the older form the tool itself."""
    inner = tool.get("custom" if tool.get("type") == "custom" else "function")
    return inner if isinstance(inner, dict) else tool


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

    def __init__(self, *, early: bool) -> None:
        self._early = early
        self._nodes = 0
        self._root: object = None

    def function(self, function: dict[str, Any]) -> Iterator[str]:
        """The lines of one definition."""
        self._root = parameters = function.get("parameters")
        yield from self._lines(function.get("description"))
        if isinstance(parameters, dict) and _members(parameters):
            shown = self._object(parameters, 0) if self._early else self._explained(parameters, 0)
            yield f"type {_name(function)} = (_: {shown}) => any;"
        else:
            yield f"type {_name(function)} = () => any;"
        yield ""

    def _explained(self, schema: object, depth: int) -> str:
        """A type below what is said of it."""
        schema = self._resolved(schema)
        return "\n".join([*self._comment(schema), self._type(schema, depth)])

    def _type(self, schema: object, depth: int) -> str:
        schema = self._resolved(schema)
        if depth > _DEEPEST or self._nodes > _MOST_NODES:
            return compact(schema)
        if not isinstance(schema, dict):
            return "any"
        if isinstance(schema.get("enum"), list):
            return " | ".join(map(compact, schema["enum"]))
        for key in ("anyOf", "oneOf"):
            if isinstance(schema.get(key), list):
                return self._union(schema[key], depth)
        kinds = list(dict.fromkeys(_texts(schema.get("type")))) or ["object"] * bool(_members(schema))
        if len(kinds) > 1:
            return self._union([{**schema, "type": kind} for kind in kinds], depth)
        return self._kind(kinds[0], schema, depth) if kinds else "any"

    def _kind(self, kind: str, schema: dict[str, Any], depth: int) -> str:
        if kind == "array":
            return self._array(schema.get("items"), depth + 1)
        if kind == "object":
            return self._object(schema, depth)
        return _NAMES.get(kind, "any")

    def _array(self, items: object, depth: int) -> str:
        if self._early:
            return self._type(items, depth) + "[]"
        shown = self._explained(items, depth)
        return f"Array<\n{shown}\n>" if "\n" in shown else shown + "[]"

    def _union(self, choices: list[Any], depth: int) -> str:
        if self._early:
            return " | ".join(self._type(choice, depth + 1) for choice in choices)
        shown = [self._explained(choice, depth + 1) for choice in choices]
        if any("\n" in choice for choice in shown):
            return "".join(f"\n | {choice}" for choice in shown) + "\n"
        return " | ".join(shown)

    def _object(self, schema: dict[str, Any], depth: int) -> str:
        members = _members(schema)
        if not members:
            return "object"
        required = frozenset(_texts(schema.get("required")))
        shown = []
        for name, member in members.items():
            member = self._resolved(member)
            comment = self._comment(member) if depth == 0 or not self._early else []
            shown_type = self._type(member, depth + 1)
            colon = ":" if shown_type.startswith("\n") else ": "
            line = f"{name}{'' if name in required else '?'}{colon}{shown_type}"
            shown.append((comment, line, self._default(member)))
        if not self._early and not any(comment or default for comment, _, default in shown):
            return "{ " + ", ".join(line for _, line, _ in shown) + " }"
        indent = "  " * depth if self._early else ""
        lines = ["{"]
        for comment, line, default in shown:
            lines += [indent + words for words in comment]
            lines.append(f"{indent}{line},{default}")
        return "\n".join([*lines, "}"])

    def _comment(self, schema: object) -> list[str]:
        if not isinstance(schema, dict):
            return []
        title = () if self._early else self._lines(schema.get("title"))
        return [*title, *self._lines(schema.get("description"))]

    def _default(self, schema: object) -> str:
        if self._early or not isinstance(schema, dict) or "default" not in schema:
            return ""
        return f" // default: {compact(schema['default'])}"

    def _lines(self, text: object) -> Iterator[str]:
        if isinstance(text, str):
            self._nodes += len(text) // _NODE
            yield from (f"// {line.strip()}" for line in text.splitlines() if line.strip())

    def _resolved(self, schema: object) -> object:
        """What a reference within the parameters leads to; None where it leads nowhere, or in a circle."""
        self._nodes += 1
        for _ in range(_DEEPEST):
            if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
                return schema
            found = self._root
            for step in schema["$ref"].removeprefix("#/").split("/"):
                found = found.get(step) if isinstance(found, dict) else None
            schema = found
        return None


def _members(schema: dict[str, Any]) -> Mapping[str, Any]:
    properties = schema.get("properties")
    return properties if isinstance(properties, dict) else {}


def _name(function: dict[str, Any]) -> str:
    return " ".join(_texts(function.get("name")))


def _texts(value: object) -> list[str]:
    """The strings of a list, or a lone one."""
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]


def is_function(tool: object) -> bool:
    """Whether a definition is a function's: by its type, or by having none, as in the older `functions`."""
    return isinstance(tool, dict) and tool.get("type", "function") == "function"


def answer_format(wanted: dict[str, Any]) -> str:
    """The format of an answer as the model reads it: its name, its description, its schema.

    What every schema of a format has anyway, `required` and `additionalProperties`, is left out of it.
    """
    lines = ["# Response Formats", "", f"## {_name(wanted)}", ""]
    if isinstance(wanted.get("description"), str):
        lines.append(f"// {wanted['description']}")
    return "\n".join([*lines, compact(_less(wanted.get("schema")))])


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
        if key not in ("required", "additionalProperties")
    }
