"""Caps: how far a completion is reckoned to go where its request declares no cap, by model."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from service.domain.chat import CAP, MOST_TOKENS, Chat, capped
from service.domain.exchange import Exchange
from service.domain.globs import Globs, Pattern

REST = "*"  # the glob for all models that none before it matches


@dataclass(frozen=True, slots=True)
class Caps:
    """Tokens per choice by globs of models, of which the first that matches counts."""

    entries: tuple[tuple[Globs, int], ...]

    def of(self, model: str) -> int:
        """The cap of a model, in tokens per choice."""
        return next(cap for globs, cap in self.entries if globs.match(model))


def caps(tokens: dict[str, int]) -> Caps:
    """The caps that `tokens` by globs stand for; the last glob is `*`."""
    return Caps(tuple((Globs((glob,)), cap) for glob, cap in tokens.items()))


def declare(exchange: Exchange, chat: Chat, cap: int) -> None:
    """Put a cap into the request that goes upstream, where it declares none itself."""
    if chat.cap is None:
        exchange.body = capped(exchange.body, cap, has_cap=CAP in chat.document)
        exchange.chat = replace(chat, cap=cap)


def _for_all(value: Any) -> Any:
    return value if isinstance(value, dict) else {REST: value}


def _rest_at_the_end(tokens: dict[str, int]) -> dict[str, int]:
    if REST not in tokens or next(reversed(tokens)) != REST:
        raise ValueError(f'expected "{REST}" as the last glob, for all other models')
    return tokens


# `1024`, or `{"o3*": 8192, "*": 1024}`: tokens per choice.
CapsOption = Annotated[
    dict[Pattern, Annotated[int, Field(ge=1, le=MOST_TOKENS)]],
    AfterValidator(_rest_at_the_end),
    BeforeValidator(_for_all),
]
