"""Policy: a named limit on what a subject may use, and the verdict of a ledger on a request's claims."""

from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from fnmatch import fnmatchcase
from hashlib import blake2b

from service.domain.account import KINDS, NEVER, Algorithm
from service.domain.calendar import DAY, Calendar
from service.domain.condition import Condition
from service.domain.usage import Estimate, Usage
from service.domain.weights import Weights

UNIT = 1000  # the ledger counts tokens and requests in thousandths
MILLIONTHS = 1_000_000  # and costs in these
MOST = 10**12  # the highest limit
MOST_COST = 10**9
EXACT = 2**52  # above every capacity and amount: two of these a script still adds exactly

_NUMBERS = {how: kind for kind, how in KINDS.items()}


class Count(StrEnum):
    """What a policy counts."""

    TOTAL = "total-tokens"
    PROMPT = "prompt-tokens"
    COMPLETION = "completion-tokens"
    COST = "cost"
    REQUESTS = "requests"
    CONCURRENT = "concurrent-requests"

    @property
    def is_tokens(self) -> bool:
        """Whether tokens are counted, and not what they cost, nor requests."""
        return self.value.endswith("tokens")

    @property
    def unit(self) -> int:
        """How many of the ledger's units one token, request or unit of cost is."""
        return MILLIONTHS if self is Count.COST else UNIT


class Reserve(StrEnum):
    """What is reserved for a completion that is not there yet."""

    DECLARED = "declared"
    LEARNED = "learned"
    PROMPT_ONLY = "prompt-only"


class OnLedgerFailure(StrEnum):
    """What happens to a request while the ledger is away."""

    REFUSE = "refuse"
    ALLOW = "allow"
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Policy:
    """`limit` tokens, requests or cost per `window`, and `burst` per cent beyond; for each value of `per`.

    `window` is in ms: 0 for concurrency, the calendar's nominal length where there is a `calendar`.
    `weights` says for a cost what a model's tokens weigh: the first glob that fits counts, the last is `*`.

    `allowed` is the limit, `capacity` what may be charged at once, both in the ledger's units, of which
    `unit` make one of the policy's own. `kind` is the scripts' number for how it forgets. `account` is the
    name of its accounts in the ledger: another window, algorithm, count or calendar is another account.
    """

    name: str
    per: tuple[str, ...]
    limit: int | Decimal
    window: int = 0
    count: Count = Count.TOTAL
    algorithm: Algorithm = Algorithm.LEAKY_BUCKET
    burst: int = 0  # per cent
    enforce: bool = True
    reserve: Reserve = Reserve.LEARNED
    on_ledger_failure: OnLedgerFailure = OnLedgerFailure.REFUSE
    calendar: Calendar | None = None
    weights: tuple[tuple[str, Weights], ...] = ()
    count_cached: bool = True
    when: Condition | None = None

    unit: int = field(init=False)
    allowed: int = field(init=False)
    capacity: int = field(init=False)
    kind: int = field(init=False)
    account: str = field(init=False)

    def __post_init__(self) -> None:
        allowed = int(self.limit * self.count.unit)
        kind = _NUMBERS[self.algorithm, self.calendar is not None]
        if self.calendar:
            object.__setattr__(self, "window", self.calendar.length)
        object.__setattr__(self, "unit", self.count.unit)
        object.__setattr__(self, "allowed", allowed)
        object.__setattr__(self, "capacity", allowed * (100 + self.burst) // 100)
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "account", f"{self.name}:{self._mark()}")

    def __hash__(self) -> int:
        """Of what tells most of them apart: made once, as headers look policies up for every answer."""
        return hash(self.account)

    @property
    def is_quota(self) -> bool:
        """Whether it is a budget for a day or longer, which no client should wait for."""
        return self.window >= DAY

    def amount(self, tokens: Estimate | Usage, model: str = "") -> int:
        """What a request of so many tokens to a model is charged, in the ledger's units, below EXACT."""
        match self.count:
            case Count.TOTAL:
                amount = (tokens.total - self._left_out(tokens)) * UNIT
            case Count.PROMPT:
                amount = (tokens.prompt - self._left_out(tokens)) * UNIT
            case Count.COMPLETION:
                amount = tokens.completion * UNIT
            case Count.COST:
                amount = self._weighing(model).cost(tokens)
            case _:
                amount = UNIT
        return min(amount, EXACT)

    def reserved(self, estimate: Estimate, model: str = "") -> int:
        """What is charged before the completion is known, in the ledger's units."""
        if self.reserve is Reserve.PROMPT_ONLY:
            estimate = Estimate(estimate.prompt, 0)
        elif self.reserve is Reserve.LEARNED and estimate.learned is not None:
            estimate = Estimate(estimate.prompt, estimate.learned)
        return self.amount(estimate, model)

    def _left_out(self, tokens: Estimate | Usage) -> int:
        """The prompt's tokens that do not count, once it is known how many were cached."""
        if self.count_cached or isinstance(tokens, Estimate):
            return 0
        return min(tokens.cached, tokens.prompt)

    def _weighing(self, model: str) -> Weights:
        return next(weights for glob, weights in self.weights if fnmatchcase(model, glob))

    def _mark(self) -> str:
        """Four characters, others wherever an account could not go on as it is."""
        parts = [self.algorithm, str(self.window), self.count]
        if self.calendar:
            parts += [self.calendar.unit, self.calendar.timezone, self.calendar.starts]
        return urlsafe_b64encode(blake2b(" ".join(parts).encode(), digest_size=3).digest()).decode()


@dataclass(frozen=True, slots=True)
class Claim:
    """An amount (of the ledger's units) that a request to a model wants charged to a subject."""

    policy: Policy
    subject: str
    amount: int
    model: str = ""

    def so_far(self, produced: Usage) -> int:
        """What is used while the exchange goes on, in the ledger's units."""
        return self.policy.amount(produced, self.model)

    def settled(self, usage: Usage) -> int:
        """What stays charged once the exchange is over, in the ledger's units."""
        if self.policy.count is Count.CONCURRENT:
            return 0
        return self.amount if usage.source == "reservation" else self.policy.amount(usage, self.model)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a claim's account stands: charged so much, of a limit and a capacity, in the ledger's units."""

    claim: Claim
    charged: int
    limit: int
    capacity: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the ledger says to the claims of a request.

    `charged` is what stands charged with each claim's policy, in the ledger's units, after the decision;
    `now` is the ledger's time in ms. Where it refuses: `refusing` is the claim that does, `wait` the ms
    until this very request would fit, None where waiting cannot help. `limits` holds, by a claim's index
    from 0, the limit and capacity that an operator put in place of the policy's own. `blocked_until` is
    the ms of the ledger's clock until which the operator lets nothing pass.
    """

    claims: tuple[Claim, ...]
    charged: tuple[int, ...]
    now: int
    refusing: Claim | None = None
    wait: int | None = None
    limits: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    blocked_until: int | None = None

    @property
    def granted(self) -> bool:
        """Whether all policies agreed."""
        return self.refusing is None

    def standings(self) -> Iterator[Standing]:
        """Where the account of each claim stands, in their order."""
        for index, (claim, charged) in enumerate(zip(self.claims, self.charged, strict=True)):
            own = claim.policy.allowed, claim.policy.capacity
            yield Standing(claim, charged, *self.limits.get(index, own))

    def in_shadow(self) -> list[Claim]:
        """The claims that a policy would have refused, were it enforced."""
        if all(claim.policy.enforce for claim in self.claims):
            return []
        return [
            one.claim
            for one in self.standings()
            if not one.claim.policy.enforce and self._with(one) > one.capacity
        ]

    def _with(self, standing: Standing) -> int:
        return standing.charged if self.granted else standing.charged + standing.claim.amount


def verdict_of(claims: tuple[Claim, ...], answer: list[int], *, blocked: bool = False) -> Verdict:
    """The verdict in a script's answer.

    That is [now, refusing index or 0, wait or NEVER, charged ..., then index, limit and capacity of each
    claim that is overridden]; indices from 1. Where the operator `blocked` a subject, the wait is until when.
    """
    now, refusing, wait, *numbers = answer
    charged, overrides = numbers[: len(claims)], iter(numbers[len(claims) :])
    return Verdict(
        claims=claims,
        charged=tuple(charged),
        now=now,
        refusing=claims[refusing - 1] if refusing else None,
        wait=wait if refusing and wait != NEVER and not blocked else None,
        limits={
            index - 1: (limit, capacity) for index, limit, capacity in zip(*[overrides] * 3, strict=True)
        },
        blocked_until=wait if blocked else None,
    )
