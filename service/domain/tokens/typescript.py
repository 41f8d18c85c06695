"""Typescript: functions as the model reads them, types in a namespace.

OpenAI does not document the rendering. It was found by comparing counts that the API reported: first by
openai-chat-tokens (hmarr) and openai-messages-token-helper (Azure); the rest from recorded exchanges, with
openai/harmony, where OpenAI publishes how another model's definitions are rendered, as a guide.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from service.domain.tokens.compact import compact

_DEEPEST = 16
_SIZE = 16  # characters of a definition that allow for a node
_NODE = 64  # characters of a text that weigh as much as a node
_NODES = 1_000  # that every definition may have, because references repeat what they lead to
_MOST_NODES = 20_000
_KINDS = 7  # of values in JSON Schema
_LESS, _LITTLE = 4, 512  # of what was recorded none is so many times shorter than its JSON, and so much
# What is shown elsewhere, or costs nothing as far as was recorded; all else is said behind a member.
_SHOWN = frozenset(
    {"type", "title", "description", "enum", "default", "properties", "required", "items", "anyOf", "oneOf"}
    | {"additionalProperties", "$ref", "$defs", "definitions", "$schema", "strict"}
)
_NAMES = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean", "null": "null"}

_OF_NOTHING = _SHOWN - {"$ref", "anyOf", "oneOf", "enum", "items"}  # what parameters may have that are none


def namespace(functions: list[dict[str, Any]], *, early: bool = False) -> str:
    """Functions as text; each is an object with `name`, `description` and `parameters`.

    `early` is how it was in 2023: of what is within a function's parameters nothing is said but types, which
    are indented, and each member has a line. Later all that has a title, a description or a default says so,
    nothing is indented, and an object of which nothing is said takes one line.
    """
    sources = [compact(function) for function in functions]
    rendering = _Rendering(sum(map(len, sources)), early=early)
    blocks = map(partial(_block, rendering), functions, sources)
    return "\n".join(["namespace functions {\n", *blocks, "} // namespace functions"])


def _block(rendering: "_Rendering", function: dict[str, Any], source: str) -> str:
    """A function; as the JSON it is where the rendering says far less than that."""
    block = "\n".join(rendering.function(function))
    lost = rendering.cut or len(source) > _LESS * len(block) + _LITTLE
    return max(block, source, key=len) if lost else block


class _Rendering:
    """One rendering of definitions that are `size` characters of JSON.

    What is deeper or larger than a sensible schema comes out as compact JSON, but only once: what references
    repeat beyond that is left out, and it is `cut`.
    """

    def __init__(self, size: int, *, early: bool) -> None:
        self.cut = False
        self._early = early
        self._nodes = min(_NODES + size // _SIZE, _MOST_NODES)  # that may still come
        self._left = size  # characters that may still come out as they are
        self._open: list[str] = []  # references that are being shown
        self._root: object = None

    def function(self, function: dict[str, Any]) -> Iterator[str]:
        """The lines of one definition."""
        self._root = parameters = function.get("parameters")
        yield from self._lines(function.get("description"))
        if isinstance(parameters, dict) and (_members(parameters) or parameters.keys() - _OF_NOTHING):
            shown = self._object(parameters, 0) if self._early else self._explained(parameters, 0)
            yield f"type {_name(function)} = (_: {shown}) => any;"
        else:
            yield f"type {_name(function)} = () => any;"
        yield ""

    def _explained(self, schema: object, depth: int) -> str:
        """A type below what is said of it."""
        resolved = self._resolved(schema)
        return "\n".join([*self._comment(resolved), self._type(schema, depth) + self._remarks(resolved)])

    def _type(self, schema: object, depth: int) -> str:
        """A type; what refers to itself is not shown within itself."""
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        self._nodes -= 1
        if not isinstance(reference, str):
            return self._direct(schema, depth)
        if reference in self._open:
            return "any"
        self._open.append(reference)
        shown = self._direct(self._resolved(schema), depth)
        self._open.pop()
        return shown

    def _direct(self, schema: object, depth: int) -> str:
        self._nodes -= _elements(schema) // _SIZE
        if depth > _DEEPEST or self._nodes < 0:
            return self._as_it_is(schema)
        if not isinstance(schema, dict):
            return "any"
        if isinstance(schema.get("enum"), list):
            return self._weighed(" | ".join(map(compact, schema["enum"])))
        for key in ("anyOf", "oneOf"):
            if isinstance(schema.get(key), list):
                return self._union(schema[key], depth)
        kinds = list(dict.fromkeys(_texts(schema.get("type"))))
        self.cut |= len(kinds) > _KINDS
        if len(kinds) > 1:
            choices = [{**schema, "type": kind} for kind in kinds[:_KINDS]]
            return self._union(choices, depth).removesuffix("\n")
        return self._kind(kinds[0] if kinds else "", schema, depth)

    def _kind(self, kind: str, schema: dict[str, Any], depth: int) -> str:
        if kind == "array":
            return self._array(schema.get("items"), depth + 1)
        if kind == "object" or (not kind and _members(schema)):
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
        shown = [*self._shown(schema, depth)]
        if not shown:
            return "object"
        if not self._early:
            shown += self._others(schema, depth)
            if not any(comment or remarks for comment, _, remarks in shown):
                return "{ " + ", ".join(line for _, line, _ in shown) + " }"
        indent = "  " * depth if self._early else ""
        lines = ["{"]
        for comment, line, remarks in shown:
            lines += [indent + words for words in comment]
            lines.append(f"{indent}{line},{remarks}")
        return "\n".join([*lines, "}"])

    def _shown(self, schema: dict[str, Any], depth: int) -> Iterator[tuple[list[str], str, str]]:
        """Of each member what is said above it, the member, and what is said behind it."""
        required = frozenset(_texts(schema.get("required")))
        for name, member in _members(schema).items():
            kind = self._type(member, depth + 1)
            member = self._resolved(member)
            comment = self._comment(member) if depth == 0 or not self._early else []
            colon = ":" if kind.startswith("\n") else ": "
            line = f"{self._weighed(name)}{'' if name in required else '?'}{colon}{kind}"
            yield comment, line, self._remarks(member)

    def _others(self, schema: dict[str, Any], depth: int) -> Iterator[tuple[list[str], str, str]]:
        """Members of any name, where an object says that it may have them."""
        others = schema.get("additionalProperties")
        if others is True or isinstance(others, dict):
            yield [], f"[key: string]: {self._type(others, depth + 1)}", ""

    def _comment(self, schema: object) -> list[str]:
        if not isinstance(schema, dict):
            return []
        title = () if self._early else self._lines(schema.get("title"))
        return [*title, *self._lines(schema.get("description"))]

    def _remarks(self, schema: object) -> str:
        """What is said behind a member."""
        if self._early or not isinstance(schema, dict):
            return ""
        default = f" // default: {compact(schema['default'])}" if "default" in schema else ""
        others = (f" // @{key}: {compact(value)}" for key, value in schema.items() if key not in _SHOWN)
        return self._weighed(default + "".join(others))

    def _lines(self, text: object) -> Iterator[str]:
        if isinstance(text, str):
            yield from (f"// {line.strip()}" for line in self._weighed(text).splitlines() if line.strip())

    def _weighed(self, text: str) -> str:
        self._nodes -= len(text) // _NODE
        return text

    def _as_it_is(self, schema: object) -> str:
        """A schema as JSON, as long as all that came out so is not longer than the definitions are."""
        text = compact(schema) if self._left > 0 else ""
        self._left -= len(text)
        self.cut |= self._left <= 0
        return "any" if self.cut else text

    def _resolved(self, schema: object) -> object:
        """What a reference within the parameters leads to; None where it leads nowhere, or in a circle."""
        for _ in range(_DEEPEST):
            if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
                return schema
            if self._nodes < 0:
                self.cut = True
                break
            found = self._root
            for step in self._weighed(schema["$ref"]).removeprefix("#").split("/")[1:]:
                found = found.get(step) if isinstance(found, dict) else None
            schema = found
        return None


def _elements(schema: object) -> int:
    """What an object and the lists in it have, all of which is looked through wherever it comes."""
    if not isinstance(schema, dict):
        return 0
    return len(schema) + sum(len(value) for value in schema.values() if isinstance(value, list))


def _members(schema: dict[str, Any]) -> Mapping[str, Any]:
    properties = schema.get("properties")
    return properties if isinstance(properties, dict) else {}


def _name(function: dict[str, Any]) -> str:
    return " ".join(_texts(function.get("name")))


def _texts(value: object) -> list[str]:
    """The strings of a list, or a lone one."""
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]
