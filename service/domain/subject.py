"""Subject: whose account a policy charges; the tuple of the values that the policy is `per`."""

import json
import unicodedata
from collections.abc import Callable, Iterable, Mapping

from service.domain.chat import Chat
from service.domain.errors import InvalidRequest
from service.domain.exchange import Exchange

LONGEST_USER = 256  # characters
PREFIX = "w1:"  # the version of what the ledger's keys hold

Dimensions = tuple[str, ...]


def user_of(chat: Chat, *, required: bool) -> str:
    """Whom a request is for, as the client writes it; empty for those who share one account.

    Raises InvalidRequest where it is too long, holds control characters, or is `required` and missing.
    """
    user = chat.user or ""
    if len(user) > LONGEST_USER:
        raise InvalidRequest(
            f"Invalid 'user': string too long. Expected a string with maximum length {LONGEST_USER}, "
            f"but got a string with length {len(user)} instead.",
            param="user",
            code="string_above_max_length",
        )
    if any(unicodedata.category(character) == "Cc" for character in user):
        raise InvalidRequest(
            "Invalid 'user': control characters are not allowed.", param="user", code="invalid_value"
        )
    if required and not user:
        raise InvalidRequest(
            "Missing required parameter: 'user'.", param="user", code="missing_required_parameter"
        )
    return user


def values_of(exchange: Exchange, chat: Chat) -> Mapping[str, str]:
    """What a request has for each dimension a policy may be per."""
    return {
        "credential": exchange.credential.id if exchange.credential else "",
        "user": exchange.user or "",
        "model": chat.model,
    }


def subject_keys(
    dimensions: Iterable[Dimensions], values: Mapping[str, str], digest: Callable[[str], str]
) -> dict[Dimensions, str]:
    """The ledger's key of each subject: no name can reach it, and no two subjects share one."""
    return {per: subject_key(per, values, digest) for per in dimensions}


def subject_key(per: Dimensions, values: Mapping[str, str], digest: Callable[[str], str]) -> str:
    """The ledger's key of one subject, its digest being the hash tag."""
    named = json.dumps([[name, values[name]] for name in per])
    return f"{PREFIX}{{{digest(named)}}}"
