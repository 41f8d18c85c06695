"""Masking: secrets taken out of what people will read."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

_NAMES = r"(?:[\w-]*[_-])?(?:authorization|api[_-]?key|password|secret|cookie|(?:access|refresh)[_-]token)"
_NAME = re.compile(rf"(?:{_NAMES}|token)\Z", re.IGNORECASE)
# A key begins where a word does, or after an escape such as \n in JSON that is text itself.
_START = r"(?:(?<![A-Za-z0-9])|(?<=\\[bfnrt])|(?<=\\u[\da-fA-F]{4}))"
# What is in the text, in lower case, wherever the pattern may match; the pattern; what stands there then.
# A key that a truncated body cuts in two is one still: hence the ends (\Z) of the first two.
_SECRETS = (
    ("sk-", re.compile(_START + r"sk-(?:[\w-]{6,}|[\w-]*\Z)"), "sk-****"),
    ("weir_", re.compile(_START + r"weir_(?:[\w-]{40,}|(?=[\w-]*[A-Z0-9])[\w-]*\Z)"), "weir_****"),
    ("bearer", re.compile(r"\b(bearer)[ \t]{1,8}[\w.~+/=-]+", re.IGNORECASE), r"\1 ****"),
    ("basic", re.compile(r"\b(basic)[ \t]{1,8}[\w+/]{12,}=*", re.IGNORECASE), r"\1 ****"),
    ("://", re.compile(r"://[^/\s\"'@]{1,512}@"), "://****@"),
    ('"', re.compile(rf'("{_NAMES}\\*"\s{{0,8}}:\s{{0,8}}\\*")[^"\\]*', re.IGNORECASE), r"\1****"),
)
# Wherever one of those, or the name of a secret, may be.
_NAMED = ("authorization", "apikey", "api_key", "api-key", "password", "secret", "cookie", "token")
_SUSPECT = (*(hint for hint, *_ in _SECRETS if hint != '"'), *_NAMED)


def masked(value: Any) -> Any:
    """The value as JSON has it, with every secret in it masked, however deep."""
    if isinstance(value, str):
        lower = value.lower()
        for hint, pattern, mask in _SECRETS:
            if hint in lower:
                value = pattern.sub(mask, value)
        return value
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, bytes):
        return masked(value.decode(errors="replace"))
    if isinstance(value, Mapping):
        return {masked(str(name)): _member(str(name), member) for name, member in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [masked(item) for item in value]
    return masked(repr(value))


def _member(name: str, value: Any) -> Any:
    return "****" if value and _NAME.match(name) else masked(value)


def plain(said: dict[str, object]) -> str | None:
    """A line of JSON, where it is plain and without a trace of a secret: nearly always, and a third as dear.

    None where only `masked` can tell.
    """
    try:
        line = json.dumps(said, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None
    lower = line.lower()
    return None if any(word in lower for word in _SUSPECT) else line + "\n"
