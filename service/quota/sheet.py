"""Sheet: how a subject stands with each of its policies, for people and for programs."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from service.adapters.ledger.fields import Rule
from service.adapters.ledger.subjects import Seen
from service.columns import table
from service.domain.account import Algorithm
from service.domain.limit_headers import amount, duration, remaining, until_full
from service.domain.policy import Policy, Standing
from service.quota.subject import Subject, digest_in

_HEAD = ("policy", "charged", "limit", "remaining", "window", "full in", "")
_LENGTHS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000}
_LAST = 253_402_300_799_000  # ms; the year 9999 ends


def moment(time: int) -> str:
    """A time in ms since 1970, as people and programs read it: `2026-01-31T23:59:59Z`."""
    return f"{datetime.fromtimestamp(min(time, _LAST) / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def written(number: int | Decimal) -> str:
    """An amount, without an exponent or zeros at the end of its decimals."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def for_people(subject: Subject, seen: Seen, rules: Mapping[str, Rule]) -> str:
    """A table, below a line about the subject as a whole."""
    facts = [digest_in(subject.key)]
    if subject.plan:
        facts.append(f"plan {subject.plan}")
    facts.append(f"reservations and markers: {seen.entries}")
    if seen.blocked_until:
        facts.append(f"BLOCKED until {moment(seen.blocked_until)}")
    rows = [_row(standing, seen.now, rules) for standing in seen.standings]
    return f"{', '.join(facts)}\n{table([_HEAD, *rows])}"


def for_programs(subject: Subject, seen: Seen, rules: Mapping[str, Rule]) -> str:
    """The same as JSON, amounts in the policy's own unit; the plan is null where nobody knows it."""
    members = {
        "subject": digest_in(subject.key),
        "plan": subject.plan,
        "now": moment(seen.now),
        "entries": seen.entries,
        "blocked_until": moment(seen.blocked_until) if seen.blocked_until else None,
        "policies": [_members(standing, seen.now, rules) for standing in seen.standings],
    }
    return json.dumps(members, indent=2)


def plain(number: int | Decimal) -> int | float:
    """An amount as JSON has it; below 2^53 of the ledger's units, so that it is exact."""
    return number if isinstance(number, int) else float(number)


def _row(standing: Standing, now: int, rules: Mapping[str, Rule]) -> tuple[str, ...]:
    policy = standing.claim.policy
    return (
        policy.name,
        written(amount(policy, standing.charged, up=True)),
        written(amount(policy, standing.limit)),
        written(remaining(standing)),
        _window(policy) or "-",
        duration(until_full(standing, now)) if policy.window else "-",
        ", ".join(_remarks(policy, _until(policy, now, rules))),
    )


def _members(standing: Standing, now: int, rules: Mapping[str, Rule]) -> dict[str, Any]:
    policy = standing.claim.policy
    until = _until(policy, now, rules)
    return {
        "policy": policy.name,
        "count": policy.count,
        "enforced": policy.enforce,
        "charged": plain(amount(policy, standing.charged, up=True)),
        "limit": plain(amount(policy, standing.limit)),
        "capacity": plain(amount(policy, standing.capacity)),
        "remaining": plain(remaining(standing)),
        "window": _window(policy),
        "full_in_ms": until_full(standing, now) if policy.window else None,
        "overridden_until": moment(until) if until else None,
    }


def _until(policy: Policy, now: int, rules: Mapping[str, Rule]) -> int:
    """Until when another limit is in force, ms; 0 where none is."""
    rule = rules.get(policy.account)
    return rule.until if rule and rule.until > now else 0


def _remarks(policy: Policy, until: int) -> Iterator[str]:
    if until:
        own = written(amount(policy, policy.allowed))
        yield f"set until {moment(until)}, else {own}"
    if not policy.enforce:
        yield "not enforced"


def _window(policy: Policy) -> str | None:
    """`1m`, `month from 1 (UTC)`; None where nothing ends by time."""
    if policy.algorithm is Algorithm.CONCURRENCY:
        return None
    if policy.calendar:
        return f"{policy.calendar.unit} from {policy.calendar.starts} ({policy.calendar.timezone})"
    unit = next(unit for unit, length in _LENGTHS.items() if policy.window % length == 0)
    return f"{policy.window // _LENGTHS[unit]}{unit}"
