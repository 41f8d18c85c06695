"""Globs: patterns of names as a shell has them, compiled once."""

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BeforeValidator

LONGEST = 256  # characters of a glob
_NEVER = "(?!)"  # what fnmatch makes of a range without characters, such as [z-a]


@dataclass(frozen=True, slots=True)
class Globs:
    """Patterns as `fnmatch.fnmatchcase` reads them, of which one is to match."""

    patterns: tuple[str, ...]
    _match: Callable[[str], object] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        compiled = re.compile("|".join(translate(pattern) for pattern in self.patterns))
        object.__setattr__(self, "_match", compiled.match)

    def match(self, text: str) -> bool:
        """Whether one of them matches the whole text, case and all."""
        return self._match(text) is not None

    def any_of(self, texts: Iterable[str]) -> bool:
        """Whether one of them matches one of the texts."""
        return any(map(self.match, texts))


def _listed(value: object) -> object:
    if not isinstance(value, str | list):
        raise ValueError("expected a glob or a list of some")
    return (value,) if isinstance(value, str) else tuple(value)


def _some(patterns: tuple[str, ...]) -> tuple[str, ...]:
    if not patterns:
        raise ValueError("expected a glob or a list of some, not an empty list, which matches nothing")
    return patterns


def _possible(pattern: str) -> str:
    if len(pattern) > LONGEST:
        raise ValueError(f"expected a glob of at most {LONGEST} characters, not one of {len(pattern)}")
    if any(unicodedata.category(character) == "Cc" for character in pattern):
        raise ValueError("expected a glob without control characters")
    if _NEVER in translate(pattern):
        raise ValueError("expected a glob that something matches, not a range of no characters")
    return pattern


Pattern = Annotated[str, AfterValidator(_possible)]
Kind = TypeVar("Kind")
# `"gpt-4o*"`, or `["gpt-4o*", "o3*"]`, as the definition writes patterns of some kind.
Patterns = Annotated[tuple[Kind, ...], AfterValidator(_some), BeforeValidator(_listed)]
