from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.tokens import tools
from service.domain.tokens.compact import compact

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


@pytest.mark.parametrize("early", [False, True])
def test_a_function_reads_as_typescript(early: bool) -> None:
    assert tools.rendered([{"type": "function", "function": WEATHER}], early=early) == (
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


def test_a_definition_without_a_type_is_a_function_as_in_the_older_form() -> None:
    assert tools.rendered([WEATHER]) == tools.rendered([{"type": "function", "function": WEATHER}])


def test_what_is_no_function_stands_before_the_functions_as_json() -> None:
    custom = {"type": "custom", "custom": {"name": "sql"}}
    assert tools.rendered([WEATHER, custom, 7]) == "\n".join(
        ['{"type":"custom","custom":{"name":"sql"}}', "7", tools.rendered([WEATHER])]
    )


def test_a_function_without_parameters_takes_nothing() -> None:
    assert "type now = () => any;\n" in tools.rendered([{"name": "now", "parameters": {"type": "object"}}])
    assert "type now = () => any;\n" in tools.rendered([{"name": "now"}])


def test_every_line_of_a_description_is_a_comment_and_empty_ones_are_none() -> None:
    text = tools.rendered([{"name": "now", "description": "One.\n\n  Two. \n"}])
    assert "\n// One.\n// Two.\ntype now" in text
    assert "//" not in tools.rendered([{"name": "now", "description": " "}]).partition("}")[0]


PLAIN = {"type": "object", "properties": {"b": {"type": "number"}}}
SAID = {"type": "object", "properties": {"b": {"description": "B"}}}


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
        ({"$ref": "#/$defs/x"}, "string"),
        ({"$ref": "#/$defs/loop"}, "any"),
        ({"$ref": "#/$defs/nowhere"}, "any"),
        ({"$ref": "#/properties/a/$ref"}, "any"),
        ({"type": "planet"}, "any"),
        ({"type": 3}, "any"),
        (True, "any"),
        ({"type": "object"}, "object"),
        (PLAIN, "{ b?: number }"),
        (SAID, "{\n// B\nb?: any,\n}"),
        ({"type": "array", "items": PLAIN}, "{ b?: number }[]"),
        ({"type": "array", "items": SAID}, "Array<\n{\n// B\nb?: any,\n}\n>"),
        ({"type": "array", "items": {"type": "string", "title": "T"}}, "Array<\n// T\nstring\n>"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "object"),
        ({**PLAIN, "additionalProperties": True}, "{ b?: number, [key: string]: any }"),
        ({**PLAIN, "additionalProperties": PLAIN}, "{ b?: number, [key: string]: { b?: number } }"),
        ({**PLAIN, "additionalProperties": False}, "{ b?: number }"),
        ({"anyOf": [{"type": "string", "title": "T"}, {"type": "null"}]}, "\n | // T\nstring\n | null\n"),
    ],
)
def test_a_schema_reads_as_a_type(schema: object, type_: str) -> None:
    definitions = {"x": {"type": "string"}, "loop": {"$ref": "#/$defs/loop"}}
    parameters = {
        "properties": {"a": schema, "z": {"title": "Z"}},
        "required": ["a"],
        "$defs": definitions,
    }
    space = "" if type_.startswith("\n") else " "
    assert f"{{\na:{space}{type_},\n// Z" in tools.rendered([{"name": "f", "parameters": parameters}])


def rendered(parameters: object, *, early: bool = False) -> str:
    text = tools.rendered([{"name": "f", "parameters": parameters}], early=early)
    return text.removeprefix("namespace functions {\n\ntype f = (_: ").removesuffix(
        ") => any;\n\n} // namespace functions"
    )


def test_an_object_of_which_nothing_is_said_takes_one_line() -> None:
    assert rendered({"properties": {"a": {"type": "string"}, "b": PLAIN}}) == (
        "{ a?: string, b?: { b?: number } }"
    )


def test_limits_are_said_behind_a_member() -> None:
    assert rendered({"properties": {"a": {"type": "integer", "minimum": 1, "default": 2}}}) == (
        "{\na?: number, // default: 2 // @minimum: 1\n}"
    )


def test_titles_descriptions_and_defaults_are_said() -> None:
    member = {"type": "string", "title": "A", "description": "About a", "default": "x"}
    schema = {"title": "All", "description": "Of it", "properties": {"a": member}}
    assert rendered(schema) == ('// All\n// Of it\n{\n// A\n// About a\na?: string, // default: "x"\n}')


def test_a_reference_says_what_it_leads_to() -> None:
    found = {"type": "string", "title": "Found"}
    assert rendered({"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": found}}) == (
        "{\n// Found\na?: string,\n}"
    )


def test_early_definitions_say_little_and_indent_it() -> None:
    schema = {"title": "All", "properties": {"a": {**SAID, "title": "A", "description": "a", "default": 1}}}
    assert rendered(schema, early=True) == "{\n// a\na?: {\n  b?: any,\n},\n}"


def nested(depth: int, leaf: object) -> Any:
    for _ in range(depth):
        leaf = {"type": "array", "items": leaf}
    return leaf


def test_a_schema_deeper_than_sense_comes_out_as_compact_json() -> None:
    text = rendered({"properties": {"a": nested(20, {"type": "string"})}})
    assert '{"type":"array","items":{"type":"string"}}}}}[][][]' in text


def test_a_schema_wider_than_sense_comes_out_as_compact_json() -> None:
    members = {f"m{serial}": {"type": "string"} for serial in range(20_002)}
    text = rendered({"properties": members})
    assert "m400?: string," in text
    assert 'm20001?: {"type":"string"} }' in text


def test_what_refers_to_itself_is_not_shown_within_itself() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "value": {"type": "string"}}}
    parameters = {"properties": {"head": {"$ref": "#/$defs/node"}}, "$defs": {"node": node}}
    assert rendered(parameters) == "{ head?: { next?: any, value?: string } }"
    tree = {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}}
    assert rendered(tree) == "{ left?: { left?: any, right?: any }, right?: { left?: any, right?: any } }"


def test_references_that_multiply_have_an_end() -> None:
    levels = {
        f"l{level}": {"properties": {name: {"$ref": f"#/$defs/l{level + 1}"} for name in "abcdefgh"}}
        | {"type": "object", "description": "x" * 1000}
        for level in range(12)
    }
    text = rendered({"properties": {"a": {"$ref": "#/$defs/l0"}}, "$defs": levels})
    assert len(text) < 2_000_000


def test_a_value_too_deep_for_json_is_its_strings() -> None:
    assert compact(nested(100_000, "leaf")).startswith("leaf array items")


def test_a_format_reads_as_its_name_its_description_and_what_is_left_of_its_schema() -> None:
    inner: dict[str, Any] = {
        "type": "object",
        "properties": {"required": {"type": "string"}},
        "required": ["required"],
    }
    inner |= {"maxItems": 1, "default": True}
    schema = {"title": "é", "properties": {"a": inner}, "required": ["a"], "additionalProperties": False}
    assert tools.answer_format(
        {"name": "thing", "description": "A thing", "schema": schema, "strict": True}
    ) == (
        "# Response Formats\n\n## thing\n\n// A thing\n"
        '{"title":"\\u00e9","properties":{"a":{"type":"object","properties":{"required":{"type":"string"}}}}}'
    )


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
    st.lists(st.fixed_dictionaries({}, optional={"name": JSON, "description": JSON, "parameters": SCHEMA})),
    st.booleans(),
)
def test_any_definitions_have_a_rendering(functions: list[dict[str, Any]], early: bool) -> None:
    text = tools.rendered(functions, early=early)
    assert text.startswith("namespace functions {") or not functions


@given(st.fixed_dictionaries({}, optional={"name": JSON, "description": JSON, "schema": SCHEMA}))
def test_any_format_has_a_rendering(wanted: dict[str, Any]) -> None:
    assert tools.answer_format(wanted).startswith("# Response Formats")
