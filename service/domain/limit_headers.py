"""Limit headers: what a client is told about its policies, on every answer and when one refuses."""

import math
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal
from functools import lru_cache

from service.domain.account import Algorithm
from service.domain.errors import Forbidden, RateLimited
from service.domain.headers import Field
from service.domain.policy import Count, Policy, Standing, Verdict

LONGEST_WAIT = 60_000  # ms; node's SDK hammers when told to wait longer, so it is told not to retry

_WINDOWS = {1000: "sec", 60_000: "min", 3_600_000: "hour", 86_400_000: "day"}
_THOUSANDTH = Decimal("0.001")  # the finest that a structured field can say (RFC 9651)
_FAR = datetime(9999, 1, 1, tzinfo=UTC).timestamp() * 1000  # ms; a block beyond has no end


def duration(milliseconds: int) -> str:
    """A duration as Go writes it, and so OpenAI: `12ms`, `6.4s`, `6m0s`, `23h18m29.144s`."""
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    seconds = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes or hours else "") + seconds


def amount(policy: Policy, units: int, *, up: bool = False) -> int | Decimal:
    """So many of the ledger's units in the policy's own: a cost exactly, else whole, rounded down or `up`."""
    if policy.count is Count.COST:
        return Decimal(units) / policy.unit
    return -(-units // policy.unit) if up else units // policy.unit


def remaining(standing: Standing) -> int | Decimal:
    """What is left below the limit, in the policy's own unit; the burst is not counted."""
    return amount(standing.claim.policy, max(0, standing.limit - standing.charged))


def until_full(standing: Standing, now: int) -> int:
    """In how many ms nothing will be charged: for a bucket charged / (limit / window).

    A sliding window is said to need the rest of the next window too, though what is charged may be of the
    one before, which is through sooner.
    """
    policy = standing.claim.policy
    if not standing.charged or policy.algorithm is Algorithm.CONCURRENCY:
        return 0
    if policy.calendar:
        return policy.calendar.boundaries(now)[1] - now
    if policy.algorithm is Algorithm.LEAKY_BUCKET:
        return -(-standing.charged * policy.window // standing.limit)
    windows = 2 if policy.algorithm is Algorithm.SLIDING_WINDOW else 1
    return windows * policy.window - now % policy.window


def limit_headers(verdict: Verdict, *, remaining_header: bool = False) -> list[Field]:
    """OpenAI's six fields for the tightest enforced policies, and the IETF's two for all policies.

    `x-ratelimit-reset-*` is the time until full, not until the next request fits, as with OpenAI. The
    IETF's are those of draft-ietf-httpapi-ratelimit-headers-10. `remaining_header` adds
    `x-weir-remaining-tokens`.
    """
    fields: list[Field] = []
    standings = list(verdict.standings())
    enforced = [(_kind(one.claim.policy), one) for one in standings if one.claim.policy.enforce]
    for kind in ("tokens", "requests"):
        if alike := [one for its, one in enforced if its == kind]:
            tightest = min(alike, key=remaining)
            left = _written(remaining(tightest))
            fields += [
                _field(f"x-ratelimit-limit-{kind}", _written(_limit(tightest))),
                _field(f"x-ratelimit-remaining-{kind}", left),
                _field(f"x-ratelimit-reset-{kind}", duration(until_full(tightest, verdict.now))),
            ]
            if kind == "tokens" and remaining_header:
                fields.append(_field("x-weir-remaining-tokens", left))
    described = [_described(one.claim.policy, one.limit) for one in standings]
    fields.append(_field("ratelimit-policy", ", ".join(described)))
    fields.append(_field("ratelimit", ", ".join([_left(one, verdict.now) for one in standings])))
    return fields


def refusal(verdict: Verdict, model: str) -> RateLimited:
    """The 429 of a verdict that refuses, in OpenAI's words and with the headers its SDKs obey."""
    standing = _refusing(verdict)
    claim, policy = standing.claim, standing.claim.policy
    kind = "requests" if policy.count in (Count.REQUESTS, Count.CONCURRENT) else "tokens"
    requested = _written(amount(policy, claim.amount, up=True))
    if verdict.wait is None:
        return RateLimited(
            f"Request too large for {model} {_measure(policy)}: "
            f"Limit {_written(amount(policy, standing.capacity))}, Requested {requested}. "
            "The input or output tokens must be reduced in order to run successfully.",
            type=kind,
            headers=[(b"x-should-retry", b"false")],
        )
    used = _written(amount(policy, standing.charged, up=True))
    message = (
        f"Rate limit reached for {model} {_measure(policy)}: Limit {_written(_limit(standing))}, "
        f"Used {used}, Requested {requested}. Please try again in {duration(verdict.wait)}."
    )
    headers = [
        _field("retry-after", max(1, math.ceil(verdict.wait / 1000))),
        _field("retry-after-ms", max(1, verdict.wait)),
    ]
    if verdict.wait > LONGEST_WAIT or policy.is_quota:
        headers.append((b"x-should-retry", b"false"))
    if policy.is_quota:
        return RateLimited(message, type="insufficient_quota", code="insufficient_quota", headers=headers)
    return RateLimited(message, type=kind, headers=headers)


def blocked(verdict: Verdict) -> Forbidden:
    """The 403 of a verdict on a subject that an operator has blocked; waiting is not what it asks for."""
    until = verdict.blocked_until
    assert until is not None
    end = "" if until >= _FAR else f" until {datetime.fromtimestamp(until / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    return Forbidden(
        f"The people who run this gateway have blocked this caller{end}. Ask them why.",
        code="subject_blocked",
    )


def _refusing(verdict: Verdict) -> Standing:
    return next(one for one in verdict.standings() if one.claim is verdict.refusing)


@lru_cache(maxsize=1024)
def _kind(policy: Policy) -> str:
    return "tokens" if policy.count.is_tokens else policy.count.value


def _measure(policy: Policy) -> str:
    """`on total tokens per min (policy user-minute)`."""
    counted = policy.count.replace("-", " ")
    if policy.count is Count.CONCURRENT:
        return f"on {counted} (policy {policy.name})"
    window = policy.calendar.unit if policy.calendar else _WINDOWS.get(policy.window)
    return f"on {counted} per {window or duration(policy.window)} (policy {policy.name})"


@lru_cache(maxsize=1024)
def _described(policy: Policy, limit: int) -> str:
    parts = [f'"{policy.name}"', f"q={_coarse(amount(policy, limit))}"]
    if policy.count is not Count.REQUESTS:
        parts.append(f'qu="{policy.count}"')
    if policy.window:
        parts.append(f"w={math.ceil(policy.window / 1000)}")
    return ";".join(parts)


def _left(standing: Standing, now: int) -> str:
    policy = standing.claim.policy
    left = f'"{policy.name}";r={_coarse(remaining(standing))}'
    return f"{left};t={-(-until_full(standing, now) // 1000)}" if policy.window else left


def _limit(standing: Standing) -> int | Decimal:
    return amount(standing.claim.policy, standing.limit)


def _coarse(number: int | Decimal) -> str:
    """As a structured field says it; what is finer is cut off."""
    return str(number) if isinstance(number, int) else _written(number.quantize(_THOUSANDTH, ROUND_DOWN))


def _written(number: int | Decimal) -> str:
    """Without an exponent, and without zeros at the end of its decimals."""
    if isinstance(number, int):
        return str(number)
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _field(name: str, value: object) -> Field:
    return name.encode(), str(value).encode()
