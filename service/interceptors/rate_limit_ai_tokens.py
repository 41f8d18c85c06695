"""rate-limit-ai-tokens: charges a request to every policy before it is sent, and settles when it is over."""

import asyncio
from functools import partial
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from service.adapters.ledger import LedgerAway, Reservation
from service.domain.api import kebab
from service.domain.chat import Chat
from service.domain.errors import LimiterUnavailable
from service.domain.exchange import Exchange
from service.domain.limit_headers import limit_headers, refusal
from service.domain.policies import PolicyOptions
from service.domain.policy import Claim, OnLedgerFailure, Verdict
from service.domain.subject import subject_keys, user_of, values_of
from service.domain.usage import NOTHING, Estimate, Usage
from service.interceptors import Tools

INLINE = 8_192  # bytes of a body whose tokens are counted on the event loop


class Options(BaseModel):
    """The policies, and what to do where a request leaves something open.

    `default-completion` tokens are reserved per choice where no cap is declared. `on-lost` says what
    becomes of a charge whose worker died.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=kebab)

    policies: Annotated[tuple[PolicyOptions, ...], Field(max_length=64)]
    remaining_header: bool = False
    missing_user: Literal["share", "refuse"] = "share"
    default_completion: Annotated[int, Field(ge=1, le=10**9)] = 1024
    on_lost: Literal["charge", "release"] = "charge"

    @field_validator("policies")
    @classmethod
    def _some_each_named_once(cls, policies: tuple[PolicyOptions, ...]) -> tuple[PolicyOptions, ...]:
        if not policies:  # said here: pydantic's own bound counts those that are right, and complains twice
            raise ValueError("expected at least one policy, not none")
        names = [policy.name for policy in policies]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"expected each name once, not {', '.join(twice)} again")
        return policies


class RateLimitAiTokens:
    """Reserves on the request; at the end of the exchange, however it ends, settles."""

    def __init__(self, options: Options, tools: Tools) -> None:
        self._options = options
        self._policies = tuple(one.policy() for one in options.policies)
        self._dimensions = tuple({policy.per for policy in self._policies})
        self._ledger = tools.ledger
        self._tokenizer = tools.tokenizer
        self._metrics = tools.metrics
        self._digest = tools.digest
        self._metrics.declare(policy.name for policy in self._policies)

    async def on_request(self, exchange: Exchange) -> None:
        """Estimate and reserve. Raises RateLimited or LimiterUnavailable."""
        chat = exchange.chat
        if chat is None:
            return
        exchange.user = user_of(chat, required=self._options.missing_user == "refuse")
        exchange.estimate = estimate = await self._estimate(exchange, chat)
        claims = self._claims(exchange, chat, estimate)
        reservation = Reservation(claims, keep_lost=self._options.on_lost == "charge")
        reservation.produced = lambda: exchange.produced() if exchange.produced else NOTHING
        # Before it is made: whatever cuts us off then, it is kept.
        exchange.at_end(partial(self._settle, exchange, reservation, estimate))
        try:
            verdict: Verdict = await self._ledger.reserve(reservation)
        except LedgerAway as away:
            self._go_without(exchange, reservation, away)
        else:
            self._obey(exchange, chat, estimate, verdict)

    async def _estimate(self, exchange: Exchange, chat: Chat) -> Estimate:
        count = partial(self._tokenizer.prompt, chat.document, chat.model)
        prompt = count() if len(exchange.body) <= INLINE else await asyncio.to_thread(count)
        return Estimate(prompt=prompt, completion=(chat.cap or self._options.default_completion) * chat.n)

    def _claims(self, exchange: Exchange, chat: Chat, estimate: Estimate) -> list[Claim]:
        keys = subject_keys(self._dimensions, values_of(exchange, chat), self._digest)
        return [Claim(policy, keys[policy.per], policy.reserved(estimate)) for policy in self._policies]

    def _obey(self, exchange: Exchange, chat: Chat, estimate: Estimate, verdict: Verdict) -> None:
        exchange.adds += limit_headers(verdict, remaining_header=self._options.remaining_header)
        shadow = [claim.policy.name for claim in verdict.in_shadow()]
        for name in shadow:
            self._metrics.refused(name, "limit", enforced=False)
        if shadow:
            exchange.notes["shadow"] = shadow
        if verdict.refusing is None:
            exchange.notes["reserved"] = estimate.total
            return
        name = verdict.refusing.policy.name
        exchange.notes["policy"] = name
        self._metrics.refused(name, "never" if verdict.wait is None else "limit", enforced=True)
        raise refusal(verdict, chat.model)

    def _go_without(self, exchange: Exchange, reservation: Reservation, away: LedgerAway) -> None:
        """The ledger is away: refuse, where one policy says so; else let it pass, and say it."""
        exchange.notes["ledger"] = str(away)
        for policy in self._policies:
            if policy.enforce and policy.on_ledger_failure is OnLedgerFailure.REFUSE:
                exchange.notes["policy"] = policy.name
                self._metrics.refused(policy.name, "ledger", enforced=True)
                raise LimiterUnavailable(
                    "The rate limiter is unavailable. Please try again shortly.",
                    headers=[(b"retry-after", b"1")],
                )
        names = ", ".join(policy.name for policy in self._policies)
        reservation.granted = True
        exchange.adds.append((b"x-weir-degraded", names.encode()))

    async def _settle(self, exchange: Exchange, reservation: Reservation, estimate: Estimate) -> None:
        if exchange.outcome == "rejected" or not reservation.granted:
            if reservation.granted or reservation.uncertain:
                await self._ledger.release(reservation)
            return
        usage = exchange.usage or Usage(estimate.prompt, estimate.completion, "reservation")
        exchange.notes["settled"] = await self._ledger.settle(reservation, usage)
        model, more = exchange.chat.model if exchange.chat else "", usage.total - estimate.total
        self._metrics.tokens(model, "reserved", estimate.total)
        self._metrics.tokens(model, "overrun" if more > 0 else "returned", abs(more))
