"""Policy: a named limit on what a subject may use, and the verdict of a ledger on a request's claims."""

from dataclasses import dataclass, field
from enum import StrEnum

from service.domain.account import NEVER, Algorithm
from service.domain.usage import Estimate, Usage

UNIT = 1000  # the ledger counts in thousandths
MOST = 10**12  # the highest limit: in thousandths still far below 2**53
LONG = 86_400_000  # ms; a policy of a day or more is a quota, not a rate


class Count(StrEnum):
    """What a policy counts."""

    TOTAL = "total-tokens"
    PROMPT = "prompt-tokens"
    COMPLETION = "completion-tokens"
    REQUESTS = "requests"
    CONCURRENT = "concurrent-requests"

    @property
    def is_tokens(self) -> bool:
        """Whether tokens are counted, and not requests."""
        return self.value.endswith("tokens")


class Reserve(StrEnum):
    """What is reserved for a completion that is not there yet."""

    DECLARED = "declared"
    PROMPT_ONLY = "prompt-only"


class OnLedgerFailure(StrEnum):
    """What happens to a request while the ledger is away."""

    REFUSE = "refuse"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class Policy:
    """`limit` tokens (or requests) per `window` ms, and `burst` per cent beyond; for each value of `per`.

    `capacity` is what may be charged at once, in thousandths. `account` is the name of its accounts in
    the ledger: another algorithm or count is another account.
    """

    name: str
    per: tuple[str, ...]
    limit: int
    window: int  # ms; 0 for concurrency
    count: Count = Count.TOTAL
    algorithm: Algorithm = Algorithm.LEAKY_BUCKET
    burst: int = 0  # per cent
    enforce: bool = True
    reserve: Reserve = Reserve.DECLARED
    on_ledger_failure: OnLedgerFailure = OnLedgerFailure.REFUSE

    capacity: int = field(init=False)
    account: str = field(init=False)

    def __post_init__(self) -> None:
        kind = self.algorithm.value[0] + self.count.value[:2]
        object.__setattr__(self, "capacity", self.limit * (100 + self.burst) * UNIT // 100)
        object.__setattr__(self, "account", f"{self.name}:{kind}")

    @property
    def is_quota(self) -> bool:
        """Whether it is a budget for a day or longer, which no client should wait for."""
        return self.window >= LONG

    def amount(self, tokens: Estimate | Usage) -> int:
        """What a request of so many tokens is charged, in thousandths."""
        match self.count:
            case Count.TOTAL:
                return tokens.total * UNIT
            case Count.PROMPT:
                return tokens.prompt * UNIT
            case Count.COMPLETION:
                return tokens.completion * UNIT
        return UNIT

    def reserved(self, estimate: Estimate) -> int:
        """What is charged before the completion is known, in thousandths."""
        if self.reserve is Reserve.PROMPT_ONLY:
            return self.amount(Estimate(prompt=estimate.prompt, completion=0))
        return self.amount(estimate)


@dataclass(frozen=True, slots=True)
class Claim:
    """An amount (thousandths) that a request wants charged to a subject under a policy."""

    policy: Policy
    subject: str
    amount: int

    def settled(self, usage: Usage) -> int:
        """What stays charged once the exchange is over, in thousandths."""
        if self.policy.count is Count.CONCURRENT:
            return 0
        return self.amount if usage.source == "reservation" else self.policy.amount(usage)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the ledger says to the claims of a request.

    `charged` is what stands charged with each claim's policy, in thousandths, after the decision; `now`
    is the ledger's time in ms. Where it refuses: `refusing` is the claim that does, `wait` the ms until this
    very request would fit, None where waiting cannot help.
    """

    claims: tuple[Claim, ...]
    charged: tuple[int, ...]
    now: int
    refusing: Claim | None = None
    wait: int | None = None

    @property
    def granted(self) -> bool:
        """Whether all policies agreed."""
        return self.refusing is None

    def in_shadow(self) -> list[Claim]:
        """The claims that a policy would have refused, were it enforced."""
        return [
            claim
            for claim, charged in zip(self.claims, self.charged, strict=True)
            if not claim.policy.enforce and self._with(claim, charged) > claim.policy.capacity
        ]

    def _with(self, claim: Claim, charged: int) -> int:
        return charged if self.granted else charged + claim.amount


def verdict_of(claims: tuple[Claim, ...], answer: list[int]) -> Verdict:
    """The verdict in a script's answer: [now, refusing index or 0, wait or NEVER, charged ...]."""
    now, refusing, wait, *charged = answer
    return Verdict(
        claims=claims,
        charged=tuple(charged),
        now=now,
        refusing=claims[refusing - 1] if refusing else None,
        wait=wait if refusing and wait != NEVER else None,
    )
