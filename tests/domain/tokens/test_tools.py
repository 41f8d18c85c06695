from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.tokens import tools

WEATHER = {
    "name": "get_current_weather",
    "description": "Get the current weather in a given location",
    "parameters": {
        "type": "object",
        "properties": {
            "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        },
        "required": ["location"],
    },
}


def test_a_function_reads_as_typescript() -> None:
    assert tools.namespace([WEATHER]) == (
        "namespace functions {\n"
        "\n"
        "// Get the current weather in a given location\n"
        "type get_current_weather = (_: {\n"
        "// The city and state, e.g. San Francisco, CA\n"
        "location: string,\n"
        'unit?: "celsius" | "fahrenheit",\n'
        "}) => any;\n"
        "\n"
        "} // namespace functions"
    )


def test_a_function_without_parameters_takes_nothing() -> None:
    assert "type now = () => any;\n" in tools.namespace([{"name": "now", "parameters": {"type": "object"}}])
    assert "type now = () => any;\n" in tools.namespace([{"name": "now"}])


@pytest.mark.parametrize(
    ("schema", "type_"),
    [
        ({"type": "integer"}, "number"),
        ({"type": "boolean"}, "boolean"),
        ({"type": "null"}, "null"),
        ({"type": "array", "items": {"type": "string"}}, "string[]"),
        ({"type": "array"}, "any[]"),
        ({"type": ["string", "null"]}, "string | null"),
        ({"enum": ["a", 1, None]}, '"a" | 1 | null'),
        ({"anyOf": [{"type": "string"}, {"type": "number"}]}, "string | number"),
        ({"oneOf": [{"type": "string"}, {}]}, "string | any"),
        ({"$ref": "#/$defs/x"}, "any"),
        ({"type": "planet"}, "any"),
        ({"type": 3}, "any"),
        (True, "any"),
        ({"type": "object", "properties": {"b": {"type": "number"}}}, "{\n  b?: number,\n}"),
        ({"type": "object", "properties": {"b": {"description": "B"}}}, "{\n  // B\n  b?: any,\n}"),
    ],
)
def test_a_schema_reads_as_a_type(schema: object, type_: str) -> None:
    function = {"name": "f", "parameters": {"properties": {"a": schema}, "required": ["a"]}}
    assert f"\na: {type_},\n" in tools.namespace([function])


def test_what_a_reference_points_to_is_counted() -> None:
    parameters = {"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"type": "string"}}}
    assert '{"x":{"type":"string"}}' in tools.namespace([{"name": "f", "parameters": parameters}])


def nested(depth: int, leaf: object) -> Any:
    for _ in range(depth):
        leaf = {"type": "array", "items": leaf}
    return leaf


def test_a_schema_deeper_than_sense_comes_out_as_compact_json() -> None:
    text = tools.namespace(
        [{"name": "f", "parameters": {"properties": {"a": nested(20, {"type": "string"})}}}]
    )
    assert '{"type":"array","items":{"type":"string"}}}}}[][][]' in text


def test_a_schema_wider_than_sense_comes_out_as_compact_json() -> None:
    members = {f"m{serial}": {"type": "string"} for serial in range(10_002)}
    text = tools.namespace([{"name": "f", "parameters": {"properties": members}}])
    assert "m9999?: string," in text
    assert 'm10001?: {"type":"string"},' in text


def test_a_value_too_deep_for_json_is_its_strings() -> None:
    assert tools.compact(nested(100_000, "leaf")).startswith("leaf array items")


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
WORDS = st.sampled_from(["string", "object", "array", "null", "x"])
SCHEMA: st.SearchStrategy[Any] = st.recursive(
    JSON,
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": WORDS | st.lists(WORDS) | JSON,
            "description": st.text() | JSON,
            "enum": st.lists(JSON) | JSON,
            "properties": st.dictionaries(st.text(), inner) | JSON,
            "required": st.lists(st.text()) | JSON,
            "items": inner,
            "anyOf": st.lists(inner) | JSON,
            "$defs": JSON,
        },
    ),
    max_leaves=8,
)


@given(
    st.lists(st.fixed_dictionaries({}, optional={"name": JSON, "description": JSON, "parameters": SCHEMA}))
)
def test_any_definitions_have_a_rendering(functions: list[dict[str, Any]]) -> None:
    assert tools.namespace(functions).startswith("namespace functions {")
