"""Subject: whose account a policy charges; the tuple of the values that the policy is `per`."""

import unicodedata
from collections.abc import Callable, Iterable, Mapping
from json.encoder import encode_basestring_ascii
from typing import Annotated

from pydantic import AfterValidator

from service.domain.address import Proxies
from service.domain.chat import Chat
from service.domain.condition import header_name
from service.domain.errors import InvalidRequest
from service.domain.exchange import Exchange
from service.domain.headers import joined
from service.domain.marks import near

LONGEST = 256  # characters of a user, or of a header's value
PREFIX = "w1:"  # the version of what the ledger's keys hold
HEADER = "header:"

Dimensions = tuple[str, ...]

_NAMES = ("credential", "user", "model", "api", "ip")


def _dimension(name: str) -> str:
    if name.startswith(HEADER):
        return HEADER + header_name(name.removeprefix(HEADER))
    if name not in _NAMES:
        raise ValueError(f'expected {", ".join(_NAMES)} or header:<name>, not "{name}"{near(name, _NAMES)}')
    return name


# What a policy may be per, as the definition writes it; a header's name in lower case.
Dimension = Annotated[str, AfterValidator(_dimension)]


def user_of(chat: Chat, *, required: bool) -> str:
    """Whom a request is for, as the client writes it; empty for those who share one account.

    Raises InvalidRequest where it is too long, holds control characters, or is `required` and missing.
    """
    user = chat.user or ""
    if len(user) > LONGEST:
        raise _too_long("'user'", user, param="user")
    if any(unicodedata.category(character) == "Cc" for character in user):
        raise InvalidRequest(
            "Invalid 'user': control characters are not allowed.", param="user", code="invalid_value"
        )
    if required and not user:
        raise InvalidRequest(
            "Missing required parameter: 'user'.", param="user", code="missing_required_parameter"
        )
    return user


class SubjectKeys:
    """Makes the keys of requests' subjects: no name can reach a key, and no two subjects share one."""

    def __init__(self, *, api: str, proxies: Proxies, digest: Callable[[str], str]) -> None:
        self._api = api
        self._proxies = proxies
        self._digest = digest

    def of(self, dimensions: Iterable[Dimensions], exchange: Exchange, chat: Chat) -> dict[Dimensions, str]:
        """The ledger's key of each subject of a request.

        Raises InvalidRequest where the value of a header is too long.
        """
        wanted = set(dimensions)
        values = {name: self._value(name, exchange, chat) for per in wanted for name in per}
        return {per: subject_key(per, values, self._digest) for per in wanted}

    def _value(self, name: str, exchange: Exchange, chat: Chat) -> str:
        """What a request has for a dimension; empty where it has nothing."""
        match name:
            case "credential":
                return exchange.credential.id if exchange.credential else ""
            case "user":
                return exchange.user or ""
            case "model":
                return chat.model
            case "api":
                return self._api
            case "ip":
                return self._proxies.client(exchange.peer, joined(exchange.headers, b"x-forwarded-for"))
        name = name.removeprefix(HEADER)
        value = joined(exchange.headers, name.encode())
        if len(value) > LONGEST:
            raise _too_long(f"header '{name}'", value, param=name)
        return value


def subject_key(per: Dimensions, values: Mapping[str, str], digest: Callable[[str], str]) -> str:
    """The ledger's key of one subject: its digest, that of names and values as JSON, is the hash tag."""
    named = ", ".join([f'["{name}", {encode_basestring_ascii(values[name])}]' for name in per])
    return f"{PREFIX}{{{digest('[' + named + ']')}}}"


def _too_long(what: str, value: str, *, param: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid {what}: string too long. Expected a string with maximum length {LONGEST}, "
        f"but got a string with length {len(value)} instead.",
        param=param,
        code="string_above_max_length",
    )
