"""rate-limit-ai-tokens: charges a request to every policy before it is sent, and settles when it is over."""

from collections.abc import Sequence
from functools import partial

from service.adapters.ledger import LedgerAway, Reservation
from service.domain.caps import declare
from service.domain.chat import Chat
from service.domain.errors import LimiterUnavailable
from service.domain.exchange import Exchange
from service.domain.learning import Learner
from service.domain.limit_headers import blocked, limit_headers, refusal
from service.domain.limits import LimitOptions as Options
from service.domain.limits import claims, limits_by_plan, reserved
from service.domain.local import needing_ledger, without_ledger
from service.domain.policy import Claim, Policy, Verdict
from service.domain.subject import SubjectKeys, user_of
from service.domain.tokens.prompt import Prompt, Tally
from service.domain.usage import NOTHING, Estimate, Usage
from service.interceptors import Tools


class RateLimitAiTokens:
    """Reserves on the request; at the end of the exchange, however it ends, settles."""

    def __init__(self, options: Options, tools: Tools) -> None:
        self._options = options
        self._limits = limits_by_plan(options, tools.api.plans)
        self._keys = SubjectKeys(api=tools.api.title, proxies=tools.proxies, digest=tools.digest)
        self._learner = Learner()
        self._ledger = tools.ledger
        self._tokenizer = tools.tokenizer
        self._threads = tools.threads
        self._metrics = tools.metrics
        self._metrics.declare({policy.name for limits in self._limits.values() for policy in limits.policies})

    async def on_request(self, exchange: Exchange) -> None:
        """Estimate and reserve. Raises InvalidRequest, Forbidden, RateLimited or LimiterUnavailable."""
        chat = exchange.chat
        if chat is None:
            return
        exchange.user = user_of(chat, required=self._options.missing_user == "refuse")
        limits = self._limits[exchange.credential.plan if exchange.credential else ""]
        policies = limits.applying(exchange, chat)
        if policies:
            keys = self._keys.of((policy.per for policy in policies), exchange, chat)
            cap = chat.cap or limits.caps.of(chat.model)
            if self._options.cap_completion:
                declare(exchange, chat, cap)
            exchange.estimate = estimate = await self._estimate(exchange, chat, cap)
            await self._reserve(exchange, claims(policies, keys, estimate, chat.model), estimate)

    async def _estimate(self, exchange: Exchange, chat: Chat, cap: int) -> Estimate:
        completion = cap * chat.n
        learned = self._learner.expect(_id(exchange), chat.model, completion)
        return Estimate(await self._prompt(exchange, chat), completion, learned)

    async def _prompt(self, exchange: Exchange, chat: Chat) -> int:
        """The prompt's tokens. What was counted before is looked up, and what is long is for threads."""
        read, size = partial(self._tokenizer.tally, chat.document, chat.model), len(exchange.body)
        tally: Tally = await self._threads.read(read, size)
        prompt: Prompt = await self._threads.run(tally.finish, tally.remaining)
        self._metrics.counted(tally.work)
        if not prompt.exact:
            exchange.notes["estimate_exact"] = False
        return prompt.tokens

    async def _reserve(self, exchange: Exchange, wanted: Sequence[Claim], estimate: Estimate) -> None:
        reservation = Reservation(wanted, keep_lost=self._options.on_lost == "charge")
        reservation.produced = partial(_so_far, exchange)
        # Before it is made: whatever cuts us off then, it is kept.
        exchange.at_end(partial(self._settle, exchange, reservation, estimate))
        try:
            verdict: Verdict = await self._ledger.reserve(reservation)
        except LedgerAway as away:
            self._go_without(exchange, reservation, estimate, away)
        else:
            self._obey(exchange, verdict, reserved(wanted, estimate))

    def _obey(self, exchange: Exchange, verdict: Verdict, tokens: int) -> None:
        exchange.adds += limit_headers(verdict, remaining_header=self._options.remaining_header)
        exchange.notes |= _decided_on(verdict)
        shadow = [claim.policy.name for claim in verdict.in_shadow()]
        for name in shadow:
            self._metrics.refused(name, "limit", enforced=False)
        if shadow:
            exchange.notes["shadow"] = shadow
        if verdict.refusing is None:
            exchange.notes["reserved"] = tokens
            exchange.at_end(partial(self._let_go, tokens))
            self._metrics.held(tokens)
            return
        name = verdict.refusing.policy.name
        exchange.notes["policy"] = name
        if verdict.blocked_until is not None:
            self._metrics.refused(name, "blocked", enforced=True)
            raise blocked(verdict)
        self._metrics.refused(name, "never" if verdict.wait is None else "limit", enforced=True)
        raise refusal(verdict, verdict.refusing.model)

    async def _let_go(self, tokens: int) -> None:
        self._metrics.held(-tokens)

    def _go_without(
        self, exchange: Exchange, reservation: Reservation, estimate: Estimate, away: LedgerAway
    ) -> None:
        """The ledger is away: refuse, where a policy says so; else go by this worker's shares, and say it."""
        exchange.notes["ledger"] = str(away)
        if needing := needing_ledger(reservation.claims):
            exchange.notes["policy"] = name = needing.policy.name
            self._metrics.refused(name, "ledger", enforced=True)
            self._metrics.degraded(name, "refuse")
            raise LimiterUnavailable(
                "The rate limiter is unavailable. Please try again shortly.",
                headers=[(b"retry-after", b"1")],
            )
        policies = [claim.policy for claim in reservation.claims]
        for policy in policies:
            self._metrics.degraded(policy.name, without_ledger(policy))
        exchange.adds.append((b"x-weir-degraded", ", ".join(policy.name for policy in policies).encode()))
        if verdict := self._ledger.stand_in(reservation):
            self._obey(exchange, verdict, reserved(reservation.claims, estimate))

    async def _settle(self, exchange: Exchange, reservation: Reservation, estimate: Estimate) -> None:
        if exchange.outcome == "rejected" or not reservation.granted:
            if reservation.granted or reservation.uncertain:
                await self._ledger.release(reservation)
            return
        usage = exchange.usage or Usage(estimate.prompt, estimate.completion, "reservation")
        model = reservation.claims[0].model
        if exchange.outcome == "complete" and usage.source in ("provider", "local"):
            self._learner.learn(_id(exchange), model, usage.completion)
        exchange.notes["settled"] = await self._ledger.settle(reservation, usage)
        tokens = reserved(reservation.claims, estimate)
        self._metrics.tokens(model, "reserved", tokens)
        self._metrics.tokens(
            model, "overrun" if usage.total > tokens else "returned", abs(usage.total - tokens)
        )


async def _so_far(exchange: Exchange) -> Usage:
    """What an exchange produced until now; nothing where nothing flows, or no more."""
    return await exchange.produced() if exchange.produced else NOTHING


def _id(exchange: Exchange) -> str:
    return exchange.credential.id if exchange.credential else ""


def _decided_on(verdict: Verdict) -> dict[str, object]:
    """For the log: the ledger's ms, what stands charged, and a capacity that is not the policy's own."""
    policies = [claim.policy for claim in verdict.claims]
    both = zip(policies, verdict.charged, strict=True)
    charged = {policy.name: _in_its_unit(policy, units) for policy, units in both}
    facts: dict[str, object] = {"decided": verdict.now, "charged": charged}
    limits = [(policies[index], capacity) for index, (_, capacity) in verdict.limits.items()]
    other = [(policy, capacity) for policy, capacity in limits if capacity != policy.capacity]
    if other:
        facts["capacity"] = {policy.name: _in_its_unit(policy, capacity) for policy, capacity in other}
    return facts


def _in_its_unit(policy: Policy, units: int) -> int | float:
    return units / policy.unit if units % policy.unit else units // policy.unit
