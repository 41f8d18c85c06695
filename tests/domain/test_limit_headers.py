"""Limit headers: what OpenAI's SDKs, and the IETF's draft, expect to read."""

import dataclasses
import math
from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service.domain.account import Account, Algorithm
from service.domain.calendar import DAY, Calendar, Unit
from service.domain.errors import RateLimited
from service.domain.headers import Field, first
from service.domain.limit_headers import blocked, duration, limit_headers, refusal, remaining, until_full
from service.domain.policy import Claim, Count, Policy, Standing, Verdict, verdict_of
from service.domain.weights import Weights

NOW = 1_763_000_040_000  # ms; the beginning of a minute
MINUTE = Policy(name="user-minute", per=("user",), limit=30_000, window=60_000)
KEY = Policy(name="key-minute", per=("credential",), limit=500_000, window=60_000)
MONTH = Policy(
    name="user-month",
    per=("user",),
    limit=2_000_000,
    algorithm=Algorithm.FIXED_WINDOW,
    calendar=Calendar(Unit.MONTH, "Europe/Berlin"),
)
SLIDING = dataclasses.replace(MINUTE, algorithm=Algorithm.SLIDING_WINDOW)
FIXED = dataclasses.replace(MINUTE, algorithm=Algorithm.FIXED_WINDOW)
COST = Policy(
    name="spent",
    per=("user",),
    limit=Decimal("2.5"),
    window=60_000,
    count=Count.COST,
    weights=(("*", Weights(1, 1)),),
)
CALLS = Policy(name="user-calls", per=("user",), limit=60, window=60_000, count=Count.REQUESTS)
STREAMS = Policy(
    name="streams", per=("user",), limit=8, window=0, algorithm=Algorithm.CONCURRENCY, count=Count.CONCURRENT
)
SHADOW = dataclasses.replace(MINUTE, name="shadow", limit=1, enforce=False)


def verdict(
    *rows: tuple[Policy, float, float],
    refusing: int = 0,
    wait: int = 0,
    now: int = NOW,
    overrides: tuple[int, ...] = (),
) -> Verdict:
    """Of (policy, asked, charged), in tokens; an override is index, limit and capacity as the ledger says."""
    claims = tuple(Claim(policy, "w1:{a}", round(amount * policy.unit)) for policy, amount, _ in rows)
    charged = (round(charged * policy.unit) for policy, _, charged in rows)
    return verdict_of(claims, [now, refusing, wait, *charged, *overrides])


def standing(policy: Policy, charged: int) -> Standing:
    return next(Verdict((Claim(policy, "w1:{a}", 0),), (charged,), NOW).standings())


def text(fields: list[Field], name: str) -> str | None:
    value = first(fields, name.encode())
    return None if value is None else value.decode()


@pytest.mark.parametrize(
    ("milliseconds", "written"),
    [
        (0, "0s"),
        (1, "1ms"),
        (12, "12ms"),
        (999, "999ms"),
        (1_000, "1s"),
        (1_001, "1.001s"),
        (6_400, "6.4s"),
        (59_999, "59.999s"),
        (60_000, "1m0s"),
        (360_000, "6m0s"),
        (100_500, "1m40.5s"),
        (3_600_000, "1h0m0s"),
        (83_909_144, "23h18m29.144s"),
        (86_400_000, "24h0m0s"),
        (30 * 86_400_000, "720h0m0s"),
    ],
)
def test_a_duration_is_written_as_go_does(milliseconds: int, written: str) -> None:
    assert duration(milliseconds) == written


@given(st.integers(0, 10**11))
def test_a_duration_says_what_it_is(milliseconds: int) -> None:
    written = duration(milliseconds).replace("ms", "x").replace("h", "*3600000+").replace("m", "*60000+")
    terms = written.replace("x", "*1").replace("s", "*1000").split("+")
    total = sum(float(value) * int(unit) for value, unit in (term.split("*") for term in terms))
    assert round(total) == milliseconds


@pytest.mark.parametrize(
    ("charged", "left"), [(0, 30_000), (1, 29_999), (999, 29_999), (1_000, 29_999), (40_000_000, 0)]
)
def test_what_remains_is_whole_and_never_below_zero(charged: int, left: int) -> None:
    assert remaining(standing(MINUTE, charged)) == left


@pytest.mark.parametrize(
    ("policy", "charged", "now", "milliseconds"),
    [
        (MINUTE, 0, NOW, 0),
        (MINUTE, 6_000_000, NOW, 12_000),
        (MINUTE, 1, NOW, 1),  # rounded up: never told too early
        (MINUTE, 60_000_000, NOW, 120_000),  # debt
        (CALLS, 1_000, NOW, 1_000),
        (COST, 1, NOW, 1),
        (COST, 1_250_000, NOW, 30_000),
        (FIXED, 5, NOW, 60_000),
        (FIXED, 5, NOW + 59_999, 1),
        (SLIDING, 5, NOW, 120_000),
        (SLIDING, 5, NOW + 59_999, 60_001),
        (MONTH, 5, NOW, 1_764_543_600_000 - NOW),  # the first of December in Berlin
        (STREAMS, 3_000, NOW, 0),
    ],
)
def test_until_full(policy: Policy, charged: int, now: int, milliseconds: int) -> None:
    assert until_full(standing(policy, charged), now) == milliseconds


@pytest.mark.parametrize("policy", [MINUTE, SLIDING, FIXED, MONTH, COST, CALLS, STREAMS])
def test_an_account_that_nobody_touched_is_full_now(policy: Policy) -> None:
    assert until_full(standing(policy, 0), NOW + 1) == 0
    assert text(limit_headers(verdict((policy, 1, 0))), "ratelimit") in (
        f'"{policy.name}";r={policy.limit};t=0',
        f'"{policy.name}";r={policy.limit}',
    )


@given(charged=st.integers(1, 10**8), elapsed=st.integers(0, 10**6))
def test_a_sliding_window_is_empty_when_it_was_said_to_be(charged: int, elapsed: int) -> None:
    now = NOW + elapsed
    account = Account(Algorithm.SLIDING_WINDOW, 30_000_000, 60_000, now, now - now % 60_000, charged)
    full = now + until_full(standing(SLIDING, charged), now)
    account.roll(full - 1, (full - 1) // 60_000 * 60_000, 60_000)
    assert account.standing() == math.ceil(charged / 60_000)
    account.roll(full, full // 60_000 * 60_000, 60_000)
    assert account.standing() == 0


@given(
    limit=st.integers(1, 10**6),
    window=st.integers(1_000, 10**8),
    used=st.integers(0, 10**6),
    requested=st.integers(1, 10**6),
)
def test_the_wait_is_openais(limit: int, window: int, used: int, requested: int) -> None:
    """(used + requested - limit) / (limit / window), as its refusals show, rounded up to a millisecond."""
    requested = min(requested, limit)
    account = Account(Algorithm.LEAKY_BUCKET, limit * 1000, window, NOW, charged=used * 1000)
    wait = account.waiting(requested * 1000, limit * 1000, NOW)
    assert wait == pytest.approx(math.ceil((used + requested - limit) * window / limit), abs=1, rel=1e-12)


@given(
    limit=st.integers(1, 10**6),
    burst=st.integers(0, 100),
    window=st.integers(1_000, 10**8),
    charged=st.integers(1, 10**9),
    requested=st.integers(1, 10**9),
)
def test_a_refusal_tells_the_time_after_which_this_very_request_fits(
    limit: int, burst: int, window: int, charged: int, requested: int
) -> None:
    policy = dataclasses.replace(MINUTE, limit=limit, window=window, burst=burst)
    requested = min(requested, policy.capacity)
    account = Account(Algorithm.LEAKY_BUCKET, policy.allowed, window, NOW, charged=charged)
    excess = charged + requested - policy.capacity
    wait = max(0, math.ceil(excess * window / policy.allowed))
    assume(wait > 0)
    claim = Claim(policy, "w1:{a}", requested)
    said = verdict_of((claim,), [NOW, 1, account.waiting(requested, policy.capacity, NOW), charged])
    fields = refusal(said, "gpt-4o").headers
    assert int(text(fields, "retry-after-ms") or 0) == pytest.approx(wait, abs=1, rel=1e-12)
    assert int(text(fields, "retry-after") or 0) == math.ceil(int(text(fields, "retry-after-ms") or 0) / 1000)


def test_openais_six_fields_tell_of_the_tightest_enforced_policy_of_each_kind() -> None:
    fields = limit_headers(
        verdict(
            (KEY, 10, 499_000), (MINUTE, 10, 24_000), (CALLS, 1, 1), (SHADOW, 10, 90_000), (STREAMS, 1, 8)
        )
    )
    assert fields[:6] == [
        (b"x-ratelimit-limit-tokens", b"500000"),
        (b"x-ratelimit-remaining-tokens", b"1000"),
        (b"x-ratelimit-reset-tokens", b"59.88s"),
        (b"x-ratelimit-limit-requests", b"60"),
        (b"x-ratelimit-remaining-requests", b"59"),
        (b"x-ratelimit-reset-requests", b"1s"),
    ]


def test_a_kind_that_no_policy_enforces_has_no_fields() -> None:
    fields = limit_headers(verdict((SHADOW, 1, 1), (STREAMS, 1, 1)))
    assert [name for name, _ in fields] == [b"ratelimit-policy", b"ratelimit"]
    fields = limit_headers(verdict((CALLS, 1, 1)), remaining_header=True)
    assert text(fields, "x-ratelimit-limit-tokens") is None
    assert text(fields, "x-weir-remaining-tokens") is None


def test_the_remaining_tokens_can_be_asked_for_by_themselves() -> None:
    rows = verdict((MINUTE, 10, 24_000))
    assert text(limit_headers(rows, remaining_header=True), "x-weir-remaining-tokens") == "6000"
    assert text(limit_headers(rows), "x-weir-remaining-tokens") is None


def test_the_ietfs_fields_name_every_policy_and_where_it_stands() -> None:
    fields = limit_headers(verdict((MINUTE, 10, 24_000), (CALLS, 1, 1), (STREAMS, 1, 3), (SHADOW, 10, 90)))
    assert text(fields, "ratelimit-policy") == (
        '"user-minute";q=30000;qu="total-tokens";w=60, "user-calls";q=60;w=60, '
        '"streams";q=8;qu="concurrent-requests", "shadow";q=1;qu="total-tokens";w=60'
    )
    assert text(fields, "ratelimit") == (
        '"user-minute";r=6000;t=48, "user-calls";r=59;t=1, "streams";r=5, "shadow";r=0;t=5400'
    )


def test_costs_are_shown_as_decimals_and_not_among_openais_six() -> None:
    fields = limit_headers(verdict((COST, 0.1, 1.2499995), (MONTH, 1, 0)))
    assert fields[:2] == [
        (b"x-ratelimit-limit-tokens", b"2000000"),
        (b"x-ratelimit-remaining-tokens", b"2000000"),
    ]
    assert text(fields, "ratelimit-policy") == (
        '"spent";q=2.5;qu="cost";w=60, "user-month";q=2000000;qu="total-tokens";w=2592000'
    )
    # Three places are all that a structured field can have; what remains is never more than said.
    assert text(fields, "ratelimit") == '"spent";r=1.25;t=30, "user-month";r=2000000;t=0'
    assert [name for name, _ in limit_headers(verdict((COST, 1, 1)))] == [b"ratelimit-policy", b"ratelimit"]


@pytest.mark.parametrize(
    ("limit", "charged", "q", "r"),
    [
        ("2", 0, "2", "2"),
        ("0.000001", 0, "0", "0"),
        ("0.0015", 1, "0.001", "0.001"),
        ("10", 2_000_001, "10", "7.999"),
        ("1000000000", 0, "1000000000", "1000000000"),
        ("1", 2_000_000, "1", "0"),
    ],
)
def test_a_cost_is_a_number_of_a_structured_field(limit: str, charged: int, q: str, r: str) -> None:
    policy = dataclasses.replace(COST, limit=Decimal(limit))
    fields = limit_headers(verdict_of((Claim(policy, "w1:{a}", 1),), [NOW, 0, 0, charged]))
    assert text(fields, "ratelimit-policy") == f'"spent";q={q};qu="cost";w=60'
    assert (text(fields, "ratelimit") or "").startswith(f'"spent";r={r};t=')


def test_the_limit_that_is_shown_is_the_one_an_operator_gave() -> None:
    rows = verdict((KEY, 10, 400_000), (MINUTE, 10, 24_000), overrides=(2, 300_000_000, 300_000_000))
    fields = limit_headers(rows)
    assert text(fields, "x-ratelimit-remaining-tokens") == "100000"  # the key's is tighter now
    assert text(fields, "ratelimit") == '"key-minute";r=100000;t=48, "user-minute";r=276000;t=5'
    assert '"user-minute";q=300000;' in (text(fields, "ratelimit-policy") or "")
    lower = limit_headers(verdict((MINUTE, 10, 1_000), overrides=(1, 2_000_000, 2_200_000)))
    assert text(lower, "x-ratelimit-limit-tokens") == "2000"
    assert text(lower, "x-ratelimit-reset-tokens") == "30s"


# -- refusals ------------------------------------------------------------------------------------


def refused(policy: Policy, asked: float, charged: float, wait: int) -> RateLimited:
    return refusal(verdict((KEY, 1, 1), (policy, asked, charged), refusing=2, wait=wait), "gpt-4o")


@pytest.mark.parametrize(
    ("policy", "wait", "type", "code", "headers"),
    [
        (MINUTE, 12, "tokens", "rate_limit_exceeded", {"retry-after": "1", "retry-after-ms": "12"}),
        (MINUTE, 1_001, "tokens", "rate_limit_exceeded", {"retry-after": "2", "retry-after-ms": "1001"}),
        (MINUTE, 60_000, "tokens", "rate_limit_exceeded", {"retry-after": "60", "retry-after-ms": "60000"}),
        (
            MINUTE,
            60_001,
            "tokens",
            "rate_limit_exceeded",
            {"retry-after": "61", "retry-after-ms": "60001", "x-should-retry": "false"},
        ),
        (MINUTE, 0, "tokens", "rate_limit_exceeded", {"retry-after": "1", "retry-after-ms": "1"}),
        (MINUTE, -1, "tokens", "rate_limit_exceeded", {"x-should-retry": "false"}),
        (CALLS, 1_000, "requests", "rate_limit_exceeded", {"retry-after": "1", "retry-after-ms": "1000"}),
        (STREAMS, 1_000, "requests", "rate_limit_exceeded", {"retry-after": "1", "retry-after-ms": "1000"}),
        (
            MONTH,
            20_000,
            "insufficient_quota",
            "insufficient_quota",
            {"retry-after": "20", "retry-after-ms": "20000", "x-should-retry": "false"},
        ),
        (MONTH, -1, "tokens", "rate_limit_exceeded", {"x-should-retry": "false"}),
        (COST, 12, "tokens", "rate_limit_exceeded", {"retry-after": "1", "retry-after-ms": "12"}),
        (COST, -1, "tokens", "rate_limit_exceeded", {"x-should-retry": "false"}),
        (
            dataclasses.replace(COST, window=DAY),
            12,
            "insufficient_quota",
            "insufficient_quota",
            {"retry-after": "1", "retry-after-ms": "12", "x-should-retry": "false"},
        ),
    ],
)
def test_the_table_of_refusals(
    policy: Policy, wait: int, type: str, code: str, headers: dict[str, str]
) -> None:
    rejection = refused(policy, 5, 5, wait)
    assert (rejection.status, rejection.type, rejection.code, rejection.param) == (429, type, code, None)
    assert {name.decode(): value.decode() for name, value in rejection.headers} == headers


@pytest.mark.parametrize(
    ("policy", "asked", "charged", "wait", "message"),
    [
        (
            MINUTE,
            2_000,
            29_000.001,
            2_001,
            "Rate limit reached for gpt-4o on total tokens per min (policy user-minute): Limit 30000, "
            "Used 29001, Requested 2000. Please try again in 2.001s.",
        ),
        (
            dataclasses.replace(CALLS, window=10_000),
            1,
            60,
            167,
            "Rate limit reached for gpt-4o on requests per 10s (policy user-calls): Limit 60, "
            "Used 60, Requested 1. Please try again in 167ms.",
        ),
        (
            STREAMS,
            1,
            8,
            1_000,
            "Rate limit reached for gpt-4o on concurrent requests (policy streams): Limit 8, "
            "Used 8, Requested 1. Please try again in 1s.",
        ),
        (
            dataclasses.replace(MINUTE, window=3_600_000, count=Count.PROMPT, burst=10),
            33_001,
            0,
            -1,
            "Request too large for gpt-4o on prompt tokens per hour (policy user-minute): Limit 33000, "
            "Requested 33001. The input or output tokens must be reduced in order to run successfully.",
        ),
        (
            MONTH,
            5,
            1_999_999,
            3_600_000,
            "Rate limit reached for gpt-4o on total tokens per month (policy user-month): Limit 2000000, "
            "Used 1999999, Requested 5. Please try again in 1h0m0s.",
        ),
        (
            COST,
            0.000_001,
            2.5,
            24,
            "Rate limit reached for gpt-4o on cost per min (policy spent): Limit 2.5, "
            "Used 2.5, Requested 0.000001. Please try again in 24ms.",
        ),
        (
            dataclasses.replace(COST, window=2_000, burst=10),
            20,
            0,
            -1,
            "Request too large for gpt-4o on cost per 2s (policy spent): Limit 2.75, "
            "Requested 20. The input or output tokens must be reduced in order to run successfully.",
        ),
    ],
)
def test_a_refusal_is_worded_as_openais(
    policy: Policy, asked: float, charged: float, wait: int, message: str
) -> None:
    assert refused(policy, asked, charged, wait).message == message


@given(wait=st.integers(0, 10**8))
def test_whoever_waits_as_told_has_waited_long_enough(wait: int) -> None:
    fields = refused(MINUTE, 5, 5, wait).headers
    assert int(text(fields, "retry-after") or 0) * 1000 >= wait
    assert int(text(fields, "retry-after") or 0) >= 1
    assert int(text(fields, "retry-after-ms") or 0) >= wait


@pytest.mark.parametrize(("wait", "limit"), [(12, "Limit 5, Used 1"), (-1, "Limit 6, Requested")])
def test_a_refusal_shows_the_limit_that_an_operator_gave(wait: int, limit: str) -> None:
    rows = verdict((MINUTE, 7, 1), refusing=1, wait=wait, overrides=(1, 5_000, 6_000))
    assert limit in refusal(rows, "gpt-4o").message


@pytest.mark.parametrize(("until", "end"), [(NOW, " until 2025-11-13T02:14:00Z"), (10**15, ""), (2**53, "")])
def test_whom_an_operator_blocked_is_told_so_and_not_to_wait(until: int, end: str) -> None:
    claim = Claim(MINUTE, "w1:{a}", 1)
    rejection = blocked(verdict_of((claim,), [NOW, 1, until, 0], blocked=True))
    assert (rejection.status, rejection.type, rejection.code) == (403, "permission_error", "subject_blocked")
    assert (
        rejection.message == f"The people who run this gateway have blocked this caller{end}. Ask them why."
    )
    assert rejection.headers == []


def test_a_policy_of_the_same_name_in_another_plan_is_described_by_its_own_limit() -> None:
    """Their accounts are called the same, and what was written of one must not be said of the other."""
    plans = [MINUTE, dataclasses.replace(MINUTE, limit=200_000), dataclasses.replace(MINUTE, burst=10)]
    written = [text(limit_headers(verdict((policy, 1, 1))), "ratelimit-policy") for policy in plans]
    raised = limit_headers(verdict((MINUTE, 1, 1), overrides=(1, 7_000, 7_000)))
    assert [hash(policy) for policy in plans] == [hash(MINUTE)] * 3
    assert written == [f'"user-minute";q={q};qu="total-tokens";w=60' for q in (30_000, 200_000, 30_000)]
    assert text(raised, "ratelimit-policy") == '"user-minute";q=7;qu="total-tokens";w=60'
