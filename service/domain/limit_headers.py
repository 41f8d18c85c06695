"""Limit headers: what a client is told about its policies, on every answer and when one refuses."""

import math
from collections.abc import Iterator

from service.domain.account import Algorithm
from service.domain.errors import RateLimited
from service.domain.headers import Field
from service.domain.policy import UNIT, Claim, Count, Policy, Verdict

LONGEST_WAIT = 60_000  # ms; node's SDK hammers when told to wait longer, so it is told not to retry

_WINDOWS = {1000: "sec", 60_000: "min", 3_600_000: "hour", 86_400_000: "day"}


def duration(milliseconds: int) -> str:
    """A duration as Go writes it, and so OpenAI: `12ms`, `6.4s`, `6m0s`, `23h18m29.144s`."""
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    seconds = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes or hours else "") + seconds


def remaining(policy: Policy, charged: int) -> int:
    """Whole tokens (or requests) left below the limit; the burst is not counted."""
    return max(0, policy.limit * UNIT - charged) // UNIT


def until_full(policy: Policy, charged: int, now: int) -> int:
    """In how many ms nothing will be charged: for a bucket charged / (limit / window)."""
    if policy.algorithm is Algorithm.FIXED_WINDOW:
        return policy.window - now % policy.window
    if policy.algorithm is Algorithm.LEAKY_BUCKET:
        return math.ceil(charged * policy.window / (policy.limit * UNIT))
    return 0


def limit_headers(verdict: Verdict, *, remaining_header: bool = False) -> list[Field]:
    """OpenAI's six fields for the tightest enforced policies, and the IETF's two for all policies.

    `x-ratelimit-reset-*` is the time until full, not until the next request fits, as with OpenAI. The
    IETF's are those of draft-ietf-httpapi-ratelimit-headers-10. `remaining_header` adds
    `x-weir-remaining-tokens`.
    """
    fields: list[Field] = []
    for kind in ("tokens", "requests"):
        left = [
            (remaining(claim.policy, charged), claim.policy, charged)
            for claim, charged in zip(verdict.claims, verdict.charged, strict=True)
            if claim.policy.enforce and _kind(claim.policy) == kind
        ]
        if left:
            least, policy, charged = min(left, key=lambda one: one[0])
            reset = duration(until_full(policy, charged, verdict.now))
            fields += [
                _field(f"x-ratelimit-limit-{kind}", policy.limit),
                _field(f"x-ratelimit-remaining-{kind}", least),
                _field(f"x-ratelimit-reset-{kind}", reset),
            ]
            if kind == "tokens" and remaining_header:
                fields.append(_field("x-weir-remaining-tokens", least))
    fields.append(_field("ratelimit-policy", ", ".join(map(_described, verdict.claims))))
    fields.append(_field("ratelimit", ", ".join(_standing(verdict))))
    return fields


def refusal(verdict: Verdict, model: str) -> RateLimited:
    """The 429 of a verdict that refuses, in OpenAI's words and with the headers its SDKs obey."""
    claim = verdict.refusing
    assert claim is not None
    policy, requested = claim.policy, math.ceil(claim.amount / UNIT)
    used = math.ceil(verdict.charged[verdict.claims.index(claim)] / UNIT)
    kind = "tokens" if policy.count.is_tokens else "requests"
    if verdict.wait is None:
        return RateLimited(
            f"Request too large for {model} {_measure(policy)}: Limit {policy.capacity // UNIT}, "
            f"Requested {requested}. "
            "The input or output tokens must be reduced in order to run successfully.",
            type=kind,
            headers=[(b"x-should-retry", b"false")],
        )
    message = (
        f"Rate limit reached for {model} {_measure(policy)}: Limit {policy.limit}, Used {used}, "
        f"Requested {requested}. Please try again in {duration(verdict.wait)}."
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


def _kind(policy: Policy) -> str:
    if policy.count.is_tokens:
        return "tokens"
    return "requests" if policy.count is Count.REQUESTS else "concurrency"


def _measure(policy: Policy) -> str:
    """`on total tokens per min (policy user-minute)`."""
    counted = policy.count.replace("-", " ")
    if policy.count is Count.CONCURRENT:
        return f"on {counted} (policy {policy.name})"
    window = _WINDOWS.get(policy.window) or duration(policy.window)
    return f"on {counted} per {window} (policy {policy.name})"


def _described(claim: Claim) -> str:
    policy = claim.policy
    parts = [f'"{policy.name}"', f"q={policy.limit}"]
    if policy.count is not Count.REQUESTS:
        parts.append(f'qu="{policy.count}"')
    if policy.window:
        parts.append(f"w={math.ceil(policy.window / 1000)}")
    return ";".join(parts)


def _standing(verdict: Verdict) -> Iterator[str]:
    for claim, charged in zip(verdict.claims, verdict.charged, strict=True):
        policy = claim.policy
        left = f'"{policy.name}";r={remaining(policy, charged)}'
        yield (
            f"{left};t={math.ceil(until_full(policy, charged, verdict.now) / 1000)}"
            if policy.window
            else left
        )


def _field(name: str, value: object) -> Field:
    return name.encode(), str(value).encode()
