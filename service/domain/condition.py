"""Condition: to which requests a policy applies, by what they ask for and who asks."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator

from service.domain.globs import Globs, Pattern, Patterns
from service.domain.headers import Field, joined

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")  # RFC 9110 section 5.6.2
_SECRETS = ("authorization", "proxy-authorization", "cookie")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a request is, as far as conditions ask; `user` is empty where nobody is named."""

    model: str
    user: str
    stream: bool
    headers: list[Field]


@dataclass(frozen=True, slots=True)
class Condition:
    """What must be so for a policy to apply: every member that is not None.

    A header that is not there has an empty value. The plan is asked for beforehand: it is the same for all
    requests of a credential.
    """

    model: Globs | None = None
    plan: Globs | None = None
    user: Globs | None = None
    headers: tuple[tuple[bytes, Globs], ...] = ()
    stream: bool | None = None

    def admits(self, plan: str) -> bool:
        """Whether it can hold for callers of this plan; empty for those of none."""
        return self.plan is None or self.plan.match(plan)

    def holds(self, facts: Facts) -> bool:
        """Whether the rest of it is so."""
        return (
            (self.stream is None or self.stream is facts.stream)
            and (self.model is None or self.model.match(facts.model))
            and (self.user is None or self.user.match(facts.user))
            and all(globs.match(joined(facts.headers, name)) for name, globs in self.headers)
        )


def header_name(text: str) -> str:
    """A header's name in lower case. Raises ValueError for what is none, or holds a secret."""
    name = text.lower()
    if not _TOKEN.fullmatch(name):
        raise ValueError("expected the name of a header field")
    if name in _SECRETS:
        raise ValueError("expected no header that holds secrets; who calls is the credential")
    return name


def _distinct(headers: Any) -> Any:
    if isinstance(headers, dict) and len({name.lower() for name in headers}) < len(headers):
        raise ValueError("expected each header field once, in whatever case")
    return headers


def _some(headers: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    if not headers:
        raise ValueError("expected at least one header field, or no member header")
    return headers


def _named(pattern: str) -> str:
    if not pattern:
        raise ValueError("expected a glob that some model matches, not an empty one")
    return pattern


def _latin(pattern: str) -> str:
    if any(ord(character) > 255 for character in pattern):
        raise ValueError("expected a glob of Latin-1, which is all that a header's value can be read as")
    return pattern


_Header = Annotated[str, AfterValidator(header_name)]
_Model = Annotated[Pattern, AfterValidator(_named)]
_Value = Annotated[Pattern, AfterValidator(_latin)]


class ConditionOptions(BaseModel):
    """A condition, as the definition writes it: globs, or lists of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Patterns[_Model] | None = None
    plan: Patterns[Pattern] | None = None
    user: Patterns[Pattern] | None = None
    header: (
        Annotated[dict[_Header, Patterns[_Value]], BeforeValidator(_distinct), AfterValidator(_some)] | None
    ) = None
    stream: bool | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self == ConditionOptions.model_construct():
            raise ValueError("expected at least one of header, model, plan, stream, user")
        return self

    def condition(self) -> Condition:
        """The condition it describes, its globs compiled."""
        return Condition(
            model=_globs(self.model),
            plan=_globs(self.plan),
            user=_globs(self.user),
            headers=tuple((name.encode(), Globs(globs)) for name, globs in (self.header or {}).items()),
            stream=self.stream,
        )


def _globs(patterns: tuple[str, ...] | None) -> Globs | None:
    return None if patterns is None else Globs(patterns)
