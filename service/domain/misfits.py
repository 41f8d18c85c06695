"""Misfits: what is wrong with a request's value, in OpenAI's words, codes and paths."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from service.domain.errors import InvalidRequest

_KINDS = {
    "string": "a string",
    "integer": "an integer",
    "number": "a decimal",
    "boolean": "a boolean",
    "array": "an array",
    "object": "an object",
}
_LONGEST_ECHO = 100  # characters of a client's value in a message


def misfit(path: str, value: Any, rule: str, schema: Mapping[str, Any]) -> InvalidRequest:
    """What to answer where `value`, at `path`, breaks a rule (a keyword) of a JSON Schema."""
    if rule == "type":
        return wrong_type(path, schema["type"], value)
    if rule == "required":
        return missing(f"{path}.{next(name for name in schema['required'] if name not in value)}")
    if rule in ("enum", "const"):
        supported = schema["enum"] if rule == "enum" else [schema["const"]]
        return unsupported(path, value, supported)
    words, code = _BOUNDS.get(rule, _unknown)(value, schema.get(rule), schema)
    return _invalid(path, f"Invalid '{_shown(path)}': {words}", code)


def wrong_type(path: str, expected: str | Iterable[str], value: Any) -> InvalidRequest:
    """A value of a type that its place does not take; `expected` are JSON Schema's names of types."""
    names = [expected] if isinstance(expected, str) else list(expected)
    kinds = [_KINDS[name] for name in names if name in _KINDS] or ["null"]
    first, *others = kinds
    wanted = " or ".join([f"one of {first}", *(kind.split()[-1] for kind in others)]) if others else first
    message = f"Invalid type for '{_shown(path)}': expected {wanted}, but got {_kind(value)} instead."
    return _invalid(path, message, "invalid_type")


def missing(path: str) -> InvalidRequest:
    """A member that must be there, and is not."""
    return _invalid(path, f"Missing required parameter: '{_shown(path)}'.", "missing_required_parameter")


def unsupported(path: str, value: Any, supported: Iterable[Any]) -> InvalidRequest:
    """A value that is not one of the few there are."""
    values = [f"'{each}'" for each in supported if each is not None]
    *most, last = values
    known = ", ".join(most) + f"{',' if len(most) > 1 else ''} and {last}" if most else last
    return _invalid(path, f"Invalid value: '{_echo(value)}'. Supported values are: {known}.", "invalid_value")


def _invalid(path: str, message: str, code: str) -> InvalidRequest:
    return InvalidRequest(message, param=_shown(path) or None, code=code)


def _shown(path: str) -> str:
    return path.removeprefix(".")


def _echo(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_ECHO else text[:_LONGEST_ECHO] + "…"


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {bool: "a boolean", int: "an integer", float: "a decimal", str: "a string", list: "an array"}
    if value == "":
        return "an empty string"
    return kinds.get(type(value), "an object")


Words = tuple[str, str]


def _least(value: Any, bound: Any, schema: Mapping[str, Any]) -> Words:
    kind = _number(schema)
    words = f"{kind} below minimum value. Expected a value >= {bound}, but got {_echo(value)} instead."
    return words, f"{kind}_below_min_value"


def _most(value: Any, bound: Any, schema: Mapping[str, Any]) -> Words:
    kind = _number(schema)
    words = f"{kind} above maximum value. Expected a value <= {bound}, but got {_echo(value)} instead."
    return words, f"{kind}_above_max_value"


def _number(schema: Mapping[str, Any]) -> str:
    return "integer" if "integer" in schema.get("type", "") else "decimal"


def _shortest(value: Any, bound: Any, schema: Mapping[str, Any]) -> Words:
    if isinstance(value, str):
        kind, unit = "string", "a string"
    else:
        kind, unit = "array", "an array"
    short, code = (
        (f"empty {kind}", f"empty_{kind}") if not value else (f"{kind} too short", f"{kind}_below_min_length")
    )
    got = f"an empty {kind}" if not value else f"{unit} with length {len(value)}"
    return f"{short}. Expected {unit} with minimum length {bound}, but got {got} instead.", code


def _longest(value: Any, bound: Any, schema: Mapping[str, Any]) -> Words:
    kind, unit = ("string", "a string") if isinstance(value, str) else ("array", "an array")
    wanted = f"Expected {unit} with maximum length {bound}"
    words = f"{kind} too long. {wanted}, but got {unit} with length {len(value)} instead."
    return words, f"{kind}_above_max_length"


def _fullest(value: Any, bound: Any, schema: Mapping[str, Any]) -> Words:
    wanted = f"Expected an object with at most {bound} properties"
    words = f"too many properties. {wanted}, but got an object with {len(value)} properties instead."
    return words, "object_above_max_properties"


def _pattern(value: Any, bound: Any, schema: Mapping[str, Any]) -> Words:
    return (
        f"string does not match pattern. Expected a string that matches the pattern '{bound}'.",
        "invalid_value",
    )


def _names(value: Any, bound: Any, schema: Mapping[str, Any]) -> Words:
    return "an object with a property name that this API does not accept.", "invalid_value"


def _unknown(value: Any, bound: Any, schema: Mapping[str, Any]) -> Words:
    return "not what this API accepts here.", "invalid_value"


_BOUNDS: Mapping[str, Callable[[Any, Any, Mapping[str, Any]], Words]] = {
    "minimum": _least,
    "maximum": _most,
    "minLength": _shortest,
    "minItems": _shortest,
    "maxLength": _longest,
    "maxItems": _longest,
    "maxProperties": _fullest,
    "pattern": _pattern,
    "propertyNames": _names,
}
