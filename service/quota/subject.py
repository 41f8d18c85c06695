"""Subject: whom an operator means, and how that is written on a command line."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from service.domain.address import parsed
from service.domain.policy import Claim, Policy
from service.domain.subject import HEADER, PREFIX
from service.quota.book import EVERYONE, Book
from service.quota.misasked import Misasked

_DIGEST = re.compile(r"(?:w1:)?(\{[A-Za-z0-9_-]{22}\})")
_CREDENTIALS = {
    "pass-through": r"key-[A-Za-z0-9_-]{16}",
    "virtual-keys": r"[A-Za-z0-9][A-Za-z0-9._@:-]{0,63}",
}


@dataclass(frozen=True, slots=True)
class Subject:
    """A subject's key in the ledger, the policies that apply to it, and its plan: None where nobody knows."""

    key: str
    policies: tuple[Policy, ...]
    plan: str | None

    def claims(self) -> list[Claim]:
        """What a peek or a reset is about."""
        return [Claim(policy, self.key, 0) for policy in self.policies]


def parted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words that name the subject, at least one, and those behind them."""
    named = list(takewhile(lambda word: "=" in word, words)) or [words[0]]
    return named, list(words[len(named) :])


def key_of(word: str) -> str | None:
    """The ledger's key, where a word is that or its digest in braces, as top shows it; else None."""
    match = _DIGEST.fullmatch(word)
    return PREFIX + match[1] if match else None


def digest_in(key: str) -> str:
    """The digest in a key, in the braces by which it can be told from other words."""
    return key.removeprefix(PREFIX)


def values_of(words: Sequence[str], book: Book) -> dict[str, str]:
    """The values of a subject's dimensions, as the gateways see them. Raises Misasked."""
    if list(words) == [EVERYONE]:
        return {}
    values = dict(_dimension(word, book) for word in words)
    if len(values) < len(words):
        raise Misasked("SUBJECT: expected each dimension once")
    return values


def _dimension(word: str, book: Book) -> tuple[str, str]:
    name, given, value = word.partition("=")
    if not name or not given:
        raise Misasked(
            f"SUBJECT: expected {EVERYONE}, a digest in braces, or name=value of each, not {word!r}"
        )
    if name.startswith(HEADER):
        return name.lower(), value.encode(errors="surrogateescape").decode("latin-1").strip(" \t")
    match name:
        case "credential":
            _check_credential(value, book.api.authentication)
        case "ip":
            return name, _ip(value)
        case "api" if value != book.api.title:
            raise Misasked(f'SUBJECT: expected "api={book.api.title}", as the definition says', unknown=True)
    return name, value


def _check_credential(value: str, authentication: str) -> None:
    """Raises Misasked for what no credential is called; it is not repeated, as it may be a key."""
    if not re.fullmatch(_CREDENTIALS[authentication], value):
        raise Misasked(
            "SUBJECT: expected the credential's id, as logs have it, after credential=;"
            " each further dimension is a word of its own"
        )


def _ip(value: str) -> str:
    address = parsed(value)
    if value and address is None:
        raise Misasked(f"SUBJECT: expected an address after ip=, not {value!r}")
    return str(address or "")
