"""Decoding: a part of a document becomes a model, or each reason why not is noted in its place."""

import json
import re
from collections.abc import Callable
from typing import TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from service.domain.marks import Document, Path, near

Model = TypeVar("Model", bound=BaseModel)
Place = Callable[[Path], Path]

_MISSING = "expected a value, but it is missing"


def decode(document: Document, path: Path, model: type[Model]) -> Model | None:
    """What stands at `path` as a model, without any conversion that JSON does not ask for.

    None where it is not one; the document has the faults then.
    """
    if not document.is_readable():
        return None
    if not document.has(path):
        document.fault(path[:-1], _MISSING, missing=str(path[-1]))
        return None
    return fitted(document, document.value(path), model, lambda within: (*path, *within))


def fitted(document: Document, value: object, model: type[Model], place: Place) -> Model | None:
    """A value that was made of parts of a document as a model, or None, as with `decode`.

    `place` says of a part of the value where in the document it stands.
    """
    try:
        return model.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            if document.is_readable(place(detail["loc"])):
                _note(document, place, model, detail)
        return None


def _note(document: Document, place: Place, model: type[BaseModel], detail: ErrorDetails) -> None:
    within, kind, context = detail["loc"], detail["type"], detail.get("ctx", {})
    at = place(within)
    if kind == "missing":
        document.fault(at[:-1], _MISSING, missing=str(at[-1]))
    elif kind == "extra_forbidden":
        names = _members(model, within[:-1])
        document.fault(at, f"expected one of {', '.join(names)}{near(str(at[-1]), names)}", at_name=True)
    elif kind in ("literal_error", "enum"):
        known = re.findall(r"'([^']*)'", context["expected"])
        guess = near(str(detail["input"]), known)
        document.fault(at, f"expected {context['expected']}, not {_brief(detail['input'])}{guess}")
    else:
        document.fault(at, _expectation(detail), at_name=within[-1:] == ("[key]",))


def _members(model: type[BaseModel], path: Path) -> list[str]:
    """The names a document may use at `path` within what a model describes."""
    models = [model]
    for part in path:
        within = [
            inner
            for outer in models
            for name, field in outer.model_fields.items()
            if part == (field.alias or name)
            for inner in _models(field.annotation)
        ]
        models = within or models  # an index, or a name that the definition gives
    return sorted(field.alias or name for model in models for name, field in model.model_fields.items())


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _expectation(detail: ErrorDetails) -> str:
    """What pydantic says, in our words; or what we say, and what is there instead where that is short."""
    ours, found = detail["type"] == "value_error", detail["input"]
    said = str(detail["ctx"]["error"]) if ours else detail["msg"]
    said = re.sub(r"^\w+ should (be )?", lambda match: "expected " if match[1] else "expected to ", said)
    told = ", not " in said or (ours and isinstance(found, dict | list))
    return said if told else f"{said}, not {_brief(found)}"


def _brief(value: object) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return json.dumps(value, ensure_ascii=False)[:100]
