"""Requests made from the definition's own schema, with wild values wherever it allows any."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from service import interceptors
from service.domain.api import parse
from service.domain.chat import Chat
from service.domain.errors import InvalidRequest
from service.domain.exchange import Exchange
from service.interceptors.json_schema_validation import JsonSchemaValidation, Options

DEFINITION = Path(__file__).parents[3] / "deploy" / "OpenAI_Chat_Completions_API.yaml"

# Strings that something is made of: names that are looked for, keys that are rendered, what is cut and split.
WORDS = (
    "", "a", "f", "#", "#/", "#/$defs/d", "#/properties/a", "$ref", "object", "array", "string", "null",
    "none", "weir", "water under the weir, " * 3, "{}", '{"a": [1, "é"]}', "[[[[", "NaN", "1e999",
    "\x00", "\n\n", "\r",
    "\u2028", "\ud83d", "🌊🌊", "水" * 20, "<|endoftext|>", "data:image/png;base64,iVBORw0KGgo=", "call-1",
)  # fmt: skip
TEXTS = st.sampled_from(WORDS) | st.text(st.characters(codec=None), max_size=20)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.sampled_from((-0.0, 1e308))
    | TEXTS
)
JSON: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)


def _schema(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """JSON Schemas of which some members are not what they should be."""
    members = {
        "type": st.sampled_from(("object", "array", "string", "integer", "poem")) | st.lists(TEXTS) | SCALARS,
        "properties": st.dictionaries(TEXTS, inner, max_size=4),
        "items": inner,
        "anyOf": st.lists(inner, max_size=4),
        "oneOf": st.lists(inner, max_size=4),
        "allOf": st.lists(inner, max_size=2),
        "enum": st.lists(SCALARS, max_size=4) | SCALARS,
        "required": st.lists(TEXTS, max_size=4) | SCALARS,
        "$ref": TEXTS,
        "$defs": st.dictionaries(st.just("d"), inner),
        "description": TEXTS,
        "title": TEXTS,
        "default": SCALARS,
    }
    return st.fixed_dictionaries({}, optional=members)


SCHEMAS: st.SearchStrategy[Any] = st.recursive(st.just({}) | JSON, _schema, max_leaves=12)
EXTRAS: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.dictionaries(TEXTS, JSON, max_size=2)


class Requests:
    """The request schema of the definition: what it accepts, and a strategy of that."""

    def __init__(self) -> None:
        api = parse(
            DEFINITION.read_text(),
            file=DEFINITION.name,
            variables={"UPSTREAM_URL": "http://models.test"},
            steps=interceptors.options(),
        )
        tools = interceptors.Tools(api=api, ledger=None, tokenizer=None, logs=None, metrics=None, digest=str)
        self._step = JsonSchemaValidation(Options(), tools)
        self._schema = api.request_schema
        self._made: dict[str, st.SearchStrategy[Any]] = {}

    def accepts(self, document: Mapping[str, Any]) -> bool:
        """Whether the step json-schema-validation lets it pass."""
        exchange = Exchange("POST", "/", b"", [], chat=Chat(document, model="m"))
        try:
            self._step.on_request(exchange).send(None)
        except StopIteration:
            return True
        except InvalidRequest:
            return False
        raise AssertionError("a step that waits for something")

    def any(self) -> st.SearchStrategy[dict[str, Any]]:
        """Documents that it accepts."""
        return self._of({key: value for key, value in self._schema.items() if key != "components"})

    def _of(self, schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
        key = json.dumps(schema)
        if key not in self._made:
            self._made[key] = st.deferred(lambda: self._strategy(schema))
        return self._made[key]

    def _strategy(self, schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
        if "$ref" in schema:
            return self._of(self._schema["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
        if "oneOf" in schema:
            return st.one_of(*map(self._of, schema["oneOf"]))
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        kinds = schema.get("type", [])
        return st.one_of(
            *(self._kind(kind, schema) for kind in ([kinds] if isinstance(kinds, str) else kinds))
        )

    def _kind(self, kind: str, schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
        low, high = schema.get("minimum"), schema.get("maximum")
        match kind:
            case "null":
                return st.none()
            case "boolean":
                return st.booleans()
            case "integer":
                return st.integers(low, high)
            case "number":
                return st.floats(low, high, allow_nan=False)
            case "string":
                return TEXTS.filter(
                    lambda text: schema.get("minLength", 0) <= len(text) <= schema.get("maxLength", 99)
                )
            case "array":
                fewest, most = schema.get("minItems", 0), schema.get("maxItems", 4)
                return st.lists(self._of(schema["items"]), min_size=fewest, max_size=min(most, fewest + 4))
        return self._object(schema)

    def _object(self, schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
        """What it says, beside whatever it says nothing of."""
        members = schema.get("properties")
        if members is None:
            others = schema.get("additionalProperties")
            return (
                st.dictionaries(TEXTS, self._of(others))
                if others
                else SCHEMAS.filter(lambda one: type(one) is dict)
            )
        needed = set(schema.get("required", ()))
        made = st.fixed_dictionaries(
            {name: self._of(member) for name, member in members.items() if name in needed},
            optional={name: self._of(member) for name, member in members.items() if name not in needed},
        )
        return st.builds(
            lambda extras, said: {name: one for name, one in extras.items() if name not in members} | said,
            EXTRAS,
            made,
        )
