"""Tokens: how many a text or a whole request is to a model; the one door to tiktoken."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from service.domain.tokens import chat, encodings
from service.domain.tokens.encodings import Counter
from service.domain.tokens.families import Family, family

_LONGEST_NAME = 256  # characters of a model's name that are looked at; the name is the client's
_REMEMBERED_NAMES = 1024


class Tokenizer:
    """Counts tokens as a model's own tokenizer does.

    `vocabularies` maps `o200k_base` and `cl100k_base` to their .tiktoken text; building takes about a
    second. Safe to use from several threads. Nothing that JSON can say makes it raise.
    """

    def __init__(self, vocabularies: Mapping[str, bytes]) -> None:
        self._encodings = {name: encodings.build(name, vocabularies[name]) for name in encodings.PATTERNS}
        self._family = lru_cache(_REMEMBERED_NAMES)(family)

    def count(self, text: str, model: str) -> int:
        """The tokens of a text; what looks like a special token is plain text."""
        return self._counter(self._of(model))(text)

    def prompt(self, document: Mapping[str, Any], model: str) -> int:
        """The tokens of everything in a Chat Completions request that enters the prompt."""
        family = self._of(model)
        return chat.prompt(document, family, self._counter(family))

    def _of(self, model: str) -> Family:
        return self._family(model[:_LONGEST_NAME])

    def _counter(self, family: Family) -> Counter:
        return Counter(self._encodings[family.encoding])
