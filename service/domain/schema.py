"""Schema: a JSON Schema taken apart at its unions, so that a value meets only the variant it names.

`oneOf` tries every variant and can only say that none fits. Here each `oneOf` whose variants differ by
JSON type, and objects among them by OpenAPI's `discriminator`, is cut out; what is left is flat and goes
to a judge, and a value that arrives where a union was is led to one variant, itself cut and flat. A
union that cannot be told apart stays where it is, for the judge.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from service.domain import misfits
from service.domain.errors import InvalidRequest

# Says what is wrong with a value, of which it is told the path; None where nothing is.
Check = Callable[[Any, str], InvalidRequest | None]
# Makes a check of a flat schema.
Judge = Callable[[Mapping[str, Any]], Check]

_ANNOTATIONS = frozenset({"title", "description", "deprecated", "default", "example", "examples"})
# Types that no value has two of; an integer is a number, too.
_TOLD_APART = frozenset({"object", "array", "string", "boolean", "null", "number"})
_KINDS = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}


class Validator:
    """Checks values against one schema: what is flat in it first, then each union below."""

    def __init__(self) -> None:
        self._flat: Check = lambda value, path: None
        self._place: _Place | None = None

    def build(self, flat: Check, place: "_Place | None") -> None:
        """Complete this validator, to which its own variants may already refer."""
        self._flat, self._place = flat, place

    def check(self, value: Any, path: str = "") -> InvalidRequest | None:
        """What is wrong with a value, in the words of `misfits`; None where nothing is."""
        misfit = self._flat(value, path)
        return misfit if misfit or not self._place else self._place.check(value, path)


@dataclass(frozen=True, slots=True)
class _Union:
    """A choice of validators: by the discriminating member of an object, or by JSON type."""

    member: str | None
    named: Mapping[str, Validator]
    kinds: Mapping[str, Validator]

    def check(self, value: Any, path: str) -> InvalidRequest | None:
        """Lead a value to its variant."""
        kind = _KINDS.get(type(value), "number")
        if kind == "object" and self.member:
            return self._check_named(value, self.member, path)
        if kind in self.kinds:
            return self.kinds[kind].check(value, path)
        return misfits.wrong_type(path, [*self.kinds, *(["object"] if self.named else [])], value)

    def _check_named(self, value: Mapping[str, Any], member: str, path: str) -> InvalidRequest | None:
        if member not in value:
            return misfits.missing(f"{path}.{member}")
        name = value[member]
        if not isinstance(name, str):
            return misfits.wrong_type(f"{path}.{member}", "string", name)
        if name not in self.named:
            return misfits.unsupported(f"{path}.{member}", name, self.named)
        return self.named[name].check(value, path)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where unions are below a value: right here, in items, in members."""

    union: _Union | None = None
    items: "_Place | None" = None
    members: tuple[tuple[str, "_Place"], ...] = ()

    def check(self, value: Any, path: str) -> InvalidRequest | None:
        """The first misfit of any union reached from here."""
        misfit = self.union.check(value, path) if self.union else None
        if isinstance(value, dict):
            for name, place in self.members:
                if misfit is None and name in value:
                    misfit = place.check(value[name], f"{path}.{name}")
        elif self.items and isinstance(value, list):
            for index, item in enumerate(value):
                if misfit := self.items.check(item, f"{path}[{index}]"):
                    break
        return misfit


class Cutter:
    """Takes the schema of a document apart; `judge` checks what is flat."""

    def __init__(self, document: Mapping[str, Any], judge: Judge) -> None:
        self._document = document
        self._judge = judge
        self._validators: dict[str, Validator] = {}

    def validator(self, schema: Mapping[str, Any]) -> Validator:
        """The validator of a schema of the document; that of a reference is made once."""
        key = json.dumps(schema)
        if key not in self._validators:
            validator = self._validators[key] = Validator()
            flat, place = self._cut(schema, frozenset())
            if '"$ref"' in json.dumps(flat):
                flat = {**flat, "components": self._document["components"]}
            validator.build(self._judge(flat), place)
        return self._validators[key]

    def _cut(self, schema: Any, within: frozenset[str]) -> tuple[Any, _Place | None]:
        """A schema without its unions, and where they were. `within` are the references being followed."""
        if not isinstance(schema, Mapping) or schema.get("$ref") in within:
            return schema, None
        within |= {schema["$ref"]} if "$ref" in schema else set()
        schema = self._resolved(schema)
        union = self._union(schema)
        dropped = _ANNOTATIONS | ({"oneOf", "discriminator"} if union else {"discriminator"})
        flat = {key: value for key, value in schema.items() if key not in dropped}
        items = members = None
        if "items" in schema:
            flat["items"], items = self._cut(schema["items"], within)
        if isinstance(schema.get("properties"), Mapping):
            cut = {name: self._cut(member, within) for name, member in schema["properties"].items()}
            flat["properties"] = {name: member for name, (member, _) in cut.items() if member != {}}
            members = tuple((name, place) for name, (_, place) in cut.items() if place)
        flat = {
            key: value for key, value in flat.items() if key not in ("items", "properties") or value != {}
        }
        return flat, _Place(union, items, members or ()) if union or items or members else None

    def _union(self, schema: Mapping[str, Any]) -> _Union | None:
        """The union a schema is; None where it is none, or its variants cannot be told apart."""
        variants = schema.get("oneOf", ())
        if not variants or not all(isinstance(variant, Mapping) for variant in variants):
            return None
        discriminator = schema.get("discriminator", {})
        named: Mapping[str, str] = discriminator.get("mapping", {})
        member = discriminator.get("propertyName") if named else None
        references = {variant.get("$ref") for variant in variants}
        others = [variant for variant in variants if variant.get("$ref") not in named.values()]
        kinds = {str(self._resolved(variant).get("type")): variant for variant in others}
        told_apart = len(kinds) == len(others) and _TOLD_APART.issuperset(kinds)
        if named and not (member and references.issuperset(named.values()) and "object" not in kinds):
            return None
        if not told_apart:
            return None
        return _Union(
            member=member,
            named={name: self.validator({"$ref": target}) for name, target in named.items()},
            kinds={kind: self.validator(variant) for kind, variant in kinds.items()},
        )

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """A schema with its references followed. Raises ValueError where they lead nowhere but back."""
        followed: set[str] = set()
        while "$ref" in schema:
            reference = schema["$ref"]
            if reference in followed:
                raise ValueError(f"the reference {reference} leads back to itself")
            followed.add(reference)
            target: Any = self._document
            for part in reference.removeprefix("#/").split("/"):
                target = target[part]
            if not isinstance(target, Mapping):  # `true` takes everything, `false` nothing
                target = {} if target else {"not": {}}
            schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
        return schema
