"""header: removes, renames, sets and adds header fields, of a request on its way up or of its answer."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, BeforeValidator

from service.domain.exchange import Exchange
from service.domain.headers import UNTOUCHABLE, Field, first, replaced, without
from service.domain.marks import near
from service.interceptors import Tools

_VARIABLES = ("credential", "user", "request.id", "trace.id", "trace.span", "model")
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_VISIBLE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")
_LONGEST = 256  # characters of a variable in a field


def _name(text: str) -> str:
    name = text.lower()
    if not _TOKEN.fullmatch(name):
        raise ValueError("expected the name of a header field")
    if name.encode() in UNTOUCHABLE:
        raise ValueError("expected a header field that travels end to end and frames nothing")
    return name


def _value(text: str) -> str:
    if not re.fullmatch(r"([!-~]([ -~]*[!-~])?)?", text):
        raise ValueError("expected a header value: printable ASCII with no space around it")
    for variable in _VARIABLE.findall(text):
        if variable not in _VARIABLES:
            known = ", ".join(f"${{{name}}}" for name in _VARIABLES)
            raise ValueError(f"expected no other variables than {known}{near(variable, _VARIABLES)}")
    return text


def _distinct(fields: Any) -> Any:
    if isinstance(fields, dict) and len({name.lower() for name in fields}) < len(fields):
        raise ValueError("expected each header field once, in whatever case")
    return fields


def _renamed(renames: dict[str, str]) -> dict[str, str]:
    if any(old == new for old, new in renames.items()):
        raise ValueError("expected a new name that is not the old one")
    return renames


Name = Annotated[str, AfterValidator(_name)]
Value = Annotated[str, AfterValidator(_value)]
Values = Annotated[dict[Name, Value], BeforeValidator(_distinct)]
Renames = Annotated[dict[Name, Name], BeforeValidator(_distinct), AfterValidator(_renamed)]


class Options(BaseModel, extra="forbid", frozen=True):
    """What happens to which fields, in this order; hop-by-hop and framing fields are refused.

    `remove`: these go. `rename`: from old to new, in place of what had the new name. `set`: exactly this
    value. `add`: this value where there is no such field. Values may use ${credential}, ${user},
    ${request.id}, ${trace.id}, ${trace.span} and ${model}.
    """

    remove: tuple[Name, ...] = ()
    rename: Renames = {}
    set: Values = {}
    add: Values = {}


class Header:
    """Changes header fields as its options say."""

    def __init__(self, options: Options, tools: Tools) -> None:
        self._remove = [name.encode() for name in options.remove]
        self._rename = [(old.encode(), new.encode()) for old, new in options.rename.items()]
        self._set = [(name.encode(), value) for name, value in options.set.items()]
        self._add = [(name.encode(), value) for name, value in options.add.items()]

    async def on_request(self, exchange: Exchange) -> None:
        """Change what upstream will see."""
        exchange.headers = self._changed(exchange.headers, exchange.variables())

    async def on_response(self, exchange: Exchange) -> None:
        """Change what the client will see."""
        if exchange.answer:
            exchange.answer.headers = self._changed(exchange.answer.headers, exchange.variables())

    def _changed(self, fields: Iterable[Field], variables: Mapping[str, str]) -> list[Field]:
        changed = without(fields, self._remove)
        for old, new in self._rename:
            if first(changed, old) is not None:
                changed = [(new if name == old else name, value) for name, value in without(changed, (new,))]
        for name, value in self._set:
            changed = replaced(changed, name, _filled(value, variables))
        for name, value in self._add:
            if first(changed, name) is None:
                changed.append((name, _filled(value, variables)))
        return changed


def _filled(value: str, variables: Mapping[str, str]) -> bytes:
    """A value with its variables in place.

    What a caller wrote cannot end or break a field: everything but visible ASCII is percent-encoded as
    UTF-8 (the percent sign too, so that no two names become one), and only 256 characters are used.
    """
    return _VARIABLE.sub(lambda match: _encoded(variables[match[1]]), value).encode()


def _encoded(text: str) -> str:
    return quote(text[:_LONGEST], safe=_VISIBLE, errors="replace")
