"""A schema is taken apart where a value can tell which variant it means, and nowhere else."""

from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest

from service.domain.errors import InvalidRequest
from service.domain.misfits import misfit
from service.domain.schema import Check, Cutter, Validator

CAT = {
    "type": "object",
    "required": ["kind"],
    "properties": {"kind": {"enum": ["cat"]}, "lives": {"type": "integer"}},
}
DOG = {
    "type": "object",
    "required": ["kind"],
    "properties": {"kind": {"enum": ["dog"]}, "friend": {"$ref": "#/s/Pet"}},
}
PET = {
    "oneOf": [{"$ref": "#/s/Cat"}, {"$ref": "#/s/Dog"}, {"type": "string", "minLength": 1}],
    "discriminator": {"propertyName": "kind", "mapping": {"cat": "#/s/Cat", "dog": "#/s/Dog"}},
}


class Flat:
    """A judge that keeps what it was given."""

    def __init__(self) -> None:
        self.schemas: list[Mapping[str, Any]] = []

    def __call__(self, schema: Mapping[str, Any]) -> Check:
        self.schemas.append(schema)
        judge = jsonschema.Draft7Validator(schema)

        def check(value: Any, path: str) -> InvalidRequest | None:
            error = next(judge.iter_errors(value), None)
            if error is None:
                return None
            return misfit(
                path + error.json_path.removeprefix("$"), error.instance, error.validator, error.schema
            )

        return check


def cut(schema: dict[str, Any], **others: Any) -> tuple[Validator, Flat]:
    flat = Flat()
    document = {"s": {"Cat": CAT, "Dog": DOG, "Pet": PET, **others}, "components": {}}
    return Cutter(document, flat).validator(schema), flat


def path_of(validator: Validator, value: Any) -> str | None:
    wrong = validator.check(value)
    return wrong.param if wrong else None


def test_no_union_reaches_the_judge() -> None:
    _, flat = cut({"type": "object", "properties": {"pets": {"type": "array", "items": {"$ref": "#/s/Pet"}}}})

    assert not any("oneOf" in str(schema) for schema in flat.schemas)
    assert len(flat.schemas) == 4  # the root, and each variant once


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({}, None),
        ({"pets": []}, None),
        ({"pets": [{"kind": "cat", "lives": 9}, {"kind": "dog"}, "Rex"]}, None),
        ({"pets": 1}, "pets"),
        ({"pets": [{"kind": "cat", "lives": "many"}]}, "pets[0].lives"),
        ({"pets": ["Rex", {"kind": "fish"}]}, "pets[1].kind"),
        ({"pets": [{}]}, "pets[0].kind"),
        ({"pets": [{"kind": ["cat"]}]}, "pets[0].kind"),
        ({"pets": [""]}, "pets[0]"),
        ({"pets": [1]}, "pets[0]"),
        ({"pets": [None]}, "pets[0]"),
    ],
)
def test_a_value_meets_the_variant_it_names(value: Any, path: str | None) -> None:
    validator, _ = cut(
        {"type": "object", "properties": {"pets": {"type": "array", "items": {"$ref": "#/s/Pet"}}}}
    )

    assert path_of(validator, value) == path


def test_a_schema_may_lead_back_to_itself_through_a_union() -> None:
    validator, _ = cut({"$ref": "#/s/Pet"})

    assert path_of(validator, {"kind": "dog", "friend": {"kind": "dog", "friend": {"kind": "cat"}}}) is None
    assert (
        path_of(validator, {"kind": "dog", "friend": {"kind": "dog", "friend": {"kind": "cow"}}})
        == "friend.friend.kind"
    )


def test_a_schema_that_leads_back_to_itself_otherwise_is_left_to_the_judge() -> None:
    tree = {
        "type": "object",
        "properties": {"branches": {"type": "array", "items": {"$ref": "#/components/Tree"}}},
    }
    flat = Flat()
    validator = Cutter({"components": {"Tree": tree}}, flat).validator({"$ref": "#/components/Tree"})

    assert path_of(validator, {"branches": [{"branches": []}]}) is None
    assert (
        path_of(validator, {"branches": [{"branches": [{"branches": 1}]}]})
        == "branches[0].branches[0].branches"
    )


@pytest.mark.parametrize(
    "variants",
    [
        [{"type": "object", "required": ["a"]}, {"type": "object", "required": ["b"]}],
        [{"type": "integer"}, {"type": "string"}],
        [{"enum": ["a"]}, {"type": "object"}],
        [{"type": ["string", "null"]}, {"type": "object"}],
        [True, {"type": "object"}],
    ],
)
def test_a_union_that_cannot_be_told_apart_is_left_to_the_judge(variants: list[Any]) -> None:
    _, flat = cut({"properties": {"x": {"oneOf": variants}}})

    assert flat.schemas == [{"properties": {"x": {"oneOf": variants}}}]


def test_a_number_is_told_apart_from_other_types() -> None:
    validator, _ = cut({"oneOf": [{"type": "number", "minimum": 1}, {"type": "boolean"}, {"type": "array"}]})

    values: list[Any] = [1, 1.5, True, []]
    assert [path_of(validator, value) for value in values] == [None] * 4
    wrong = validator.check("one")
    assert wrong
    assert wrong.message == (
        "Invalid type for '': expected one of a decimal or boolean or array, but got a string instead."
    )
    assert validator.check(0)


def test_rules_beside_a_union_still_hold() -> None:
    validator, _ = cut({**PET, "maxLength": 3})

    assert validator.check("Rex") is None
    assert validator.check("Bello")


@pytest.mark.parametrize(
    "change",
    [
        {"oneOf": [{"$ref": "#/s/Cat"}]},
        {"discriminator": {"mapping": {"cat": "#/s/Cat", "dog": "#/s/Dog"}}},
        {"oneOf": [{"$ref": "#/s/Cat"}, {"$ref": "#/s/Dog"}, {"type": "object"}]},
    ],
    ids=["leads elsewhere", "names no member", "leaves an object out"],
)
def test_a_union_whose_discriminator_does_not_tell_is_left_to_the_judge(change: dict[str, Any]) -> None:
    _, flat = cut({**PET, **change})

    assert "oneOf" in flat.schemas[0]


def test_references_may_lead_to_true_and_false() -> None:
    validator, _ = cut(
        {"properties": {"x": {"$ref": "#/s/All"}, "y": {"$ref": "#/s/No"}}}, All=True, No=False
    )

    assert validator.check({"x": 1}) is None
    assert validator.check({"y": 1})


def test_references_that_lead_only_back_are_refused() -> None:
    with pytest.raises(ValueError, match="the reference #/s/A leads back to itself"):
        cut({"$ref": "#/s/A"}, A={"$ref": "#/s/B"}, B={"$ref": "#/s/A"})


def test_what_is_no_mapping_of_properties_is_left_to_the_judge() -> None:
    _, flat = cut({"type": "object", "properties": None})

    assert flat.schemas == [{"type": "object", "properties": None}]


def test_a_schema_of_true_or_false_stays_what_it_is() -> None:
    validator, flat = cut({"properties": {"x": True, "y": False}})

    assert flat.schemas == [{"properties": {"x": True, "y": False}}]
    assert validator.check({"x": 1}) is None
