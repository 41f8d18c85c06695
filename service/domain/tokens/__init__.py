"""Tokens: how many a text or a whole request is to a model."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from service.domain.globs import Globs
from service.domain.tokens import chat
from service.domain.tokens.counters import Counter, Exact, Rough
from service.domain.tokens.encodings import Encode
from service.domain.tokens.families import Family, family
from service.domain.tokens.options import Counting, ModelOptions
from service.domain.tokens.prompt import Prompt, Tally
from service.domain.tokens.work import Work

_LONGEST_NAME = 256  # characters of a model's name that are looked at; the name is the client's
_REMEMBERED_NAMES = 1024
_AS_KNOWN = ModelOptions()


@dataclass(frozen=True, slots=True)
class _Model:
    """How one model counts: its family, what counts its texts, and a margin in per cent."""

    family: Family
    counter: Counter
    margin: int


class Tokenizer:
    """Counts tokens as a model's own tokenizer does.

    `encodings` are those that the families name; `counting` says what the definition says of some models.
    `clock`, in seconds, measures the budget of a request. Safe to use from several threads. Nothing that JSON
    can say makes it raise.
    """

    def __init__(
        self,
        encodings: Mapping[str, Encode],
        counting: Counting | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counters = {name: Exact(encode) for name, encode in encodings.items()}
        self._counting = [(Globs((glob,)), options) for glob, options in (counting or {}).items()]
        self._clock = clock
        self._model = lru_cache(_REMEMBERED_NAMES)(self._resolved)

    def tally(self, document: Mapping[str, Any], model: str) -> Tally:
        """The prompt of a Chat Completions request, read and counted as far as that is free."""
        of = self._model(model[:_LONGEST_NAME])
        return Tally(chat.read(document, of.family), of.counter, Work(self._clock), margin=of.margin)

    def prompt(self, document: Mapping[str, Any], model: str) -> Prompt:
        """The tokens of everything in a Chat Completions request that enters the prompt."""
        return self.tally(document, model).finish()

    def count(self, text: str, model: str) -> int:
        """The tokens of a text; what looks like a special token is plain text."""
        return self.counts(model)(text)

    def counts(self, model: str) -> Callable[[str], int]:
        """What counts texts as a model does, all of them within the budget of one request."""
        return partial(self._model(model[:_LONGEST_NAME]).counter.count, work=Work(self._clock))

    def family(self, model: str) -> Family:
        """What is known of how a model counts."""
        return self._model(model[:_LONGEST_NAME]).family

    def _resolved(self, name: str) -> _Model:
        options = next((options for globs, options in self._counting if globs.match(name)), _AS_KNOWN)
        found = family(options.like or name)
        said = {f"unknown_{part}": getattr(options, part) for part in ("image", "audio", "file")}
        found = replace(found, **said)
        if options.bytes_per_token:
            found = replace(found, known=False, typescript=False)
            return _Model(found, Rough(options.bytes_per_token), options.margin)
        return _Model(found, self._counters[found.encoding], options.margin)
