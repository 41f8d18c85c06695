"""Api: what an operator deploys, read from one OpenAPI 3.1 document and its extension `x-weir`."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, field_validator
from pydantic_core.core_schema import ValidationInfo

from service.domain.decoding import decode
from service.domain.marks import Document, Path, near
from service.domain.measures import Duration, Size, kebab
from service.domain.plans import Surroundings, is_particular, plans_of, surroundings
from service.domain.tokens.options import Counting, CountingOption, unreached

_PHASES = ("request", "response")
_SCHEMAS = "#/components/schemas/"


class DefinitionError(Exception):
    """A definition that is not one; `errors` are lines of `file:line:column: path: what was expected`."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


def _upstream(text: str) -> str:
    try:
        parts = urlsplit(text)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        whole = False
    if not whole or parts.query or parts.fragment:
        raise ValueError("expected an http or https URL of a host and perhaps a path")
    if "@" in parts.netloc:
        raise ValueError("expected a URL with no password in it, not one that would be shown")
    return text.rstrip("/")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a flow: which, and how."""

    name: str
    options: BaseModel


@dataclass(frozen=True, slots=True)
class Api:
    """A definition, decoded.

    `timeout` is in seconds, `max_body` in bytes. `request_schema` is the JSON Schema of a chat request, with
    the document's own `components` beside it, where its references lead. `plans` are, for the callers of
    each plan, the options of the one step that has policies. `counting` is how tokens of some models are
    counted. `revision` is the first 12 hexadecimal digits of the text's SHA-256.
    """

    title: str
    version: str
    lifecycle: str
    base_path: str
    timeout: float
    max_body: int
    upstream: str
    authentication: str
    deprecated: date | None
    sunset: date | None
    request: tuple[Step, ...]
    response: tuple[Step, ...]
    plans: Mapping[str, BaseModel]
    request_schema: Mapping[str, Any]
    revision: str
    counting: Counting = field(default_factory=dict)


def _limits(options: type[BaseModel] | None) -> bool:
    return options is not None and "policies" in options.model_fields


def _one_step(entry: dict[str, Any]) -> dict[str, Any]:
    if len(entry) != 1:
        raise ValueError("expected one step, as its name and its options")
    return entry


class _Flows(BaseModel, extra="forbid"):
    request: list[Annotated[dict[str, Any], AfterValidator(_one_step)]]
    response: list[Annotated[dict[str, Any], AfterValidator(_one_step)]]


class _Weir(BaseModel, extra="forbid", alias_generator=kebab):
    lifecycle: Literal["DRAFT", "AVAILABLE", "DEPRECATED", "RETIRED"]
    base_path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~-]+)+$")]
    timeout: Duration
    max_body: Size
    upstream: Annotated[str, AfterValidator(_upstream)]
    authentication: Literal["pass-through", "virtual-keys"]
    deprecated: date | None = None
    sunset: date | None = None
    flows: _Flows
    plans: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")], dict[str, Any]] = {}
    counting: CountingOption = {}

    @field_validator("deprecated", "sunset")
    @classmethod
    def _only_when_deprecated(cls, value: date | None, info: ValidationInfo) -> date | None:
        if value and info.data.get("lifecycle") in ("DRAFT", "AVAILABLE"):
            raise ValueError("expected only where the lifecycle is DEPRECATED or RETIRED")
        return value


class _Info(BaseModel):
    title: Annotated[str, Field(min_length=1)]
    version: Annotated[str, Field(min_length=1)]


class _OpenApi(BaseModel):
    openapi: Annotated[str, Field(pattern=r"^3\.1\.\d+$")]
    info: _Info
    paths: dict[str, Any]


def parse(
    text: str,
    *,
    file: str,
    variables: Mapping[str, str],
    steps: Mapping[str, type[BaseModel]],
    phases: Mapping[str, Sequence[str]] | None = None,
) -> Api:
    """Decode a definition.

    `variables` replace ${NAME} within x-weir; `steps` are the options of every step there is; `phases`
    says for a step which of `request` and `response` it takes part in (both, where it says nothing).
    Raises DefinitionError with every error there is.
    """
    document = Document(text, file=file)
    document.fill(("x-weir",), variables)
    frame = decode(document, (), _OpenApi)
    weir = decode(document, ("x-weir",), _Weir)
    taking_part = {name: (phases or {}).get(name, _PHASES) for name in steps}
    around = surroundings(document)
    request, response = (_flow(document, phase, steps, taking_part, around) for phase in _PHASES)
    limiting = {path: steps[name] for path, name in _named(document, "request") if _limits(steps.get(name))}
    plans = plans_of(document, limiting, around)
    schema = _request_schema(document, weir.base_path) if weir else None
    _reached(document, ("x-weir", "counting"))
    if not frame or not weir or not schema or document.errors():
        raise DefinitionError(document.errors())
    return Api(
        **frame.info.model_dump(),
        **weir.model_dump(exclude={"flows", "plans", "counting"}),
        request=request,
        response=response,
        plans=plans,
        request_schema=schema,
        revision=hashlib.sha256(text.encode()).hexdigest()[:12],
        counting=weir.counting,
    )


def _flow(
    document: Document,
    phase: str,
    steps: Mapping[str, type[BaseModel]],
    phases: Mapping[str, Sequence[str]],
    around: Surroundings,
) -> tuple[Step, ...]:
    flow = []
    for path, name in _named(document, phase):
        if name not in steps:
            known = ", ".join(sorted(steps))
            document.fault(path, f"expected one of the steps {known}{near(name, steps)}", at_name=True)
        elif phase not in phases[name]:
            flows = " or ".join(phases[name])
            document.fault(path, f"expected in no other flow than {flows}", at_name=True)
        elif options := decode(document, path, steps[name]):
            flow.append(Step(name=name, options=options))
            for within, message in options.faults(around) if is_particular(options) else ():
                document.fault((*path, *within), message)
    return tuple(flow)


def _named(document: Document, phase: str) -> Iterator[tuple[Path, str]]:
    """The steps that a flow names, and where."""
    at: Path = ("x-weir", "flows", phase)
    entries = document.value(at)
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        for name in entry if isinstance(entry, dict) else ():
            yield (*at, index, name), name


def _reached(document: Document, at: Path) -> None:
    """Note which globs of an object can never count."""
    globs = document.value(at)
    for glob, wide in unreached(globs) if isinstance(globs, dict) else ():
        document.fault((*at, glob), f'expected before "{wide}", which matches all that it does', at_name=True)


def _request_schema(document: Document, base_path: str) -> dict[str, Any] | None:
    """The schema that POST <base>/chat/completions refers to, its references checked."""
    operation = (f"{base_path}/chat/completions", "post")
    at: Path = ("paths", *operation, "requestBody", "content", "application/json", "schema", "$ref")
    reference = document.value(at)
    schemas = document.value(("components", "schemas"))
    if not isinstance(reference, str) or not isinstance(schemas, dict):
        document.fault(at, f"expected POST {operation[0]} with a $ref to the JSON Schema of its request")
        return None
    for path, target in [(at, reference), *_references(schemas, ("components", "schemas"))]:
        if target.removeprefix(_SCHEMAS) not in schemas:
            names = [_SCHEMAS + name for name in schemas]
            document.fault(path, f"expected a reference to one of components.schemas{near(target, names)}")
    schema = schemas.get(reference.removeprefix(_SCHEMAS))
    return {**schema, "components": {"schemas": schemas}} if isinstance(schema, dict) else None


def _references(schema: object, path: Path) -> Iterator[tuple[Path, str]]:
    members = (
        schema.items() if isinstance(schema, dict) else enumerate(schema) if isinstance(schema, list) else ()
    )
    for key, member in members:
        if key == "$ref" and isinstance(member, str):
            yield (*path, key), member
        else:
            yield from _references(member, (*path, key))
