"""What does not fit is said as OpenAI says it."""

from typing import Any

import pytest

from service.domain.misfits import misfit, unsupported, wrong_type


@pytest.mark.parametrize(
    ("rule", "schema", "value", "code", "message"),
    [
        (
            *("minLength", {"minLength": 2}, "a", "string_below_min_length"),
            "string too short. "
            "Expected a string with minimum length 2, but got a string with length 1 instead.",
        ),
        (
            *("minItems", {"minItems": 2}, [1], "array_below_min_length"),
            "array too short. "
            "Expected an array with minimum length 2, but got an array with length 1 instead.",
        ),
        (
            *("minLength", {"minLength": 1}, "", "empty_string"),
            "empty string. Expected a string with minimum length 1, but got an empty string instead.",
        ),
        (
            *("minItems", {"minItems": 1}, [], "empty_array"),
            "empty array. Expected an array with minimum length 1, but got an empty array instead.",
        ),
        (
            *("maxLength", {"maxLength": 2}, "abc", "string_above_max_length"),
            "string too long. "
            "Expected a string with maximum length 2, but got a string with length 3 instead.",
        ),
        (
            *("maxItems", {"maxItems": 1}, [1, 2], "array_above_max_length"),
            "array too long. "
            "Expected an array with maximum length 1, but got an array with length 2 instead.",
        ),
        (
            *("maximum", {"maximum": 1, "type": ["number", "null"]}, 2, "decimal_above_max_value"),
            "decimal above maximum value. Expected a value <= 1, but got 2 instead.",
        ),
        (
            *("pattern", {"pattern": "^a$"}, "b", "invalid_value"),
            "string does not match pattern. Expected a string that matches the pattern '^a$'.",
        ),
        (
            *("maxProperties", {"maxProperties": 0}, {"a": 1}, "object_above_max_properties"),
            "too many properties. "
            "Expected an object with at most 0 properties, but got an object with 1 properties instead.",
        ),
        ("not", {"not": {}}, "b", "invalid_value", "not what this API accepts here."),
    ],
)
def test_a_bound_is_said_with_what_was_expected(
    rule: str, schema: dict[str, Any], value: Any, code: str, message: str
) -> None:
    wrong = misfit(".a.b", value, rule, schema)

    assert (wrong.status, wrong.param, wrong.code) == (400, "a.b", code)
    assert wrong.message == f"Invalid 'a.b': {message}"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        *((None, "null"), (True, "a boolean"), (1, "an integer"), (1.0, "a decimal"), ("a", "a string")),
        *(("", "an empty string"), ([], "an array"), ({}, "an object")),
    ],
)
def test_a_type_is_said_in_words(value: Any, kind: str) -> None:
    assert wrong_type(".a", "string", value).message.endswith(f"expected a string, but got {kind} instead.")


def test_null_is_not_offered_unless_nothing_else_is() -> None:
    assert "expected an integer, but" in wrong_type(".a", ["integer", "null"], "").message
    assert "expected null, but" in wrong_type(".a", "null", "").message


@pytest.mark.parametrize(
    ("supported", "words"),
    [(["a"], "'a'"), (["a", "b"], "'a' and 'b'"), (["a", "b", "c", None], "'a', 'b', and 'c'")],
)
def test_what_is_supported_is_listed(supported: list[Any], words: str) -> None:
    assert unsupported(".a", "x", supported).message == f"Invalid value: 'x'. Supported values are: {words}."


def test_a_constant_is_the_only_supported_value() -> None:
    assert misfit(".a", 2, "const", {"const": 1}).message == "Invalid value: '2'. Supported values are: '1'."


def test_what_is_wrong_with_the_whole_body_has_no_path() -> None:
    assert wrong_type("", "object", []).param is None
