"""reserve: who is granted, who is refused and for how long, as tables with the clock as a column."""

import asyncio
from collections.abc import Sequence
from decimal import Decimal

import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.adapters.ledger.embedded import EmbeddedStore
from service.domain.account import NEVER, Algorithm
from service.domain.calendar import Calendar, Unit
from service.domain.policy import Count, Policy
from tests.lua.calls import LEASE, START, Calls, layout, of, own_calendar

BUCKET = Policy(name="bucket", per=(), limit=100, window=10_000)  # drains ten a second
BURST = Policy(name="burst", per=(), limit=100, window=10_000, burst=20)
WINDOW = Policy(name="window", per=(), limit=100, window=10_000, algorithm=Algorithm.FIXED_WINDOW)
SLIDING = Policy(name="sliding", per=(), limit=100, window=10_000, algorithm=Algorithm.SLIDING_WINDOW)
DAY = Policy(
    name="day",
    per=(),
    limit=100,
    algorithm=Algorithm.FIXED_WINDOW,
    calendar=Calendar(Unit.DAY, "Asia/Kolkata"),
)
COST = Policy(name="cost", per=(), limit=Decimal("0.25"), window=1_000, count=Count.COST)
CALLS = Policy(name="calls", per=(), limit=2, window=10_000, count=Count.REQUESTS)
STREAMS = Policy(
    name="streams", per=(), limit=2, window=0, algorithm=Algorithm.CONCURRENCY, count=Count.CONCURRENT
)
SHADOW = Policy(name="shadow", per=(), limit=100, window=10_000, enforce=False)
BOB = "w1:{bob}"
UNITS = 1000  # thousandths of a token
assert DAY.calendar
DAY_LEFT = DAY.calendar.boundaries(START)[1] - START  # ms

# now (ms after START), amount, granted, charged after, wait in ms (0: granted; NEVER)
Row = tuple[int, float, bool, float, int]
TABLES: list[tuple[Policy, list[Row]]] = [
    (
        BUCKET,
        [
            (0, 100, True, 100, 0),
            (0, 1, False, 100, 100),
            (99, 1, False, 99.01, 1),
            (100, 1, True, 100, 0),
            (5_100, 51, False, 50, 100),
            (5_100, 50, True, 100, 0),
            (5_100, 101, False, 100, NEVER),
            (60_000, 100, True, 100, 0),  # long idle: full, and not fuller
            (60_000, 100, False, 100, 10_000),
        ],
    ),
    (
        BURST,
        [
            (0, 120, True, 120, 0),
            (0, 121, False, 120, NEVER),
            (0, 10, False, 120, 1_000),
            (999, 10, False, 110.01, 1),
            (1_000, 10, True, 120, 0),
        ],
    ),
    (
        WINDOW,
        [
            (1, 60, True, 60, 0),
            (2, 41, False, 60, 9_998),
            (2, 40, True, 100, 0),
            (9_999, 1, False, 100, 1),
            (9_999, 101, False, 100, NEVER),
            (10_000, 100, True, 100, 0),
            (29_999, 100, True, 100, 0),
            (30_000, 100, True, 100, 0),
        ],
    ),
    (
        SLIDING,
        [
            (0, 60, True, 60, 0),
            (9_999, 41, False, 60, 168),  # until 59 of the 60 count: a sixtieth of the next window
            (10_000, 41, False, 60, 167),
            (12_500, 55, True, 100, 0),  # 45 of before count yet
            (12_500, 1, False, 100, 167),
            (19_999, 45.001, False, 55.006, 2),
            (19_999, 45, False, 55.006, 1),
            (20_000, 45, True, 100, 0),
            (20_000, 1, False, 100, 182),  # 10 s of a fifty-fifth, rounded up
            (50_000, 100, True, 100, 0),
            (50_000, 1, False, 100, 10_100),
            (50_000, 100, False, 100, 20_000),
            (50_000, 101, False, 100, NEVER),
        ],
    ),
    (
        DAY,
        [
            (0, 60, True, 60, 0),
            (1, 41, False, 60, DAY_LEFT - 1),
            (DAY_LEFT - 1, 41, False, 60, 1),
            (DAY_LEFT - 1, 101, False, 60, NEVER),
            (DAY_LEFT, 100, True, 100, 0),
            (DAY_LEFT, 1, False, 100, DAY.window),
            (DAY_LEFT + DAY.window, 100, True, 100, 0),
        ],
    ),
    (
        COST,
        [
            (0, 0.000001, True, 0.000001, 0),
            (0, 0.25, False, 0.000001, 1),
            (1, 0.25, True, 0.25, 0),
            (1, 0.000001, False, 0.25, 1),
        ],
    ),
    (
        CALLS,
        [
            (0, 1, True, 1, 0),
            (0, 1, True, 2, 0),
            (0, 1, False, 2, 5_000),
            (4_999, 1, False, 1.001, 5),  # a thousandth of a request takes 5 ms
            (5_000, 1, True, 2, 0),
        ],
    ),
    (
        STREAMS,
        [
            (0, 1, True, 1, 0),
            (0, 1, True, 2, 0),
            (0, 1, False, 2, 1_000),
            (50_000, 1, False, 2, 1_000),  # time alone ends nothing but leases
        ],
    ),
    (
        SHADOW,
        [
            (0, 100, True, 100, 0),
            (0, 100, True, 200, 0),  # evaluated, counted, never refused
            (0, 1_000, True, 1_200, 0),
            (10_000, 1, True, 1_101, 0),
        ],
    ),
]


@pytest.mark.parametrize(("policy", "rows"), TABLES, ids=[policy.name for policy, _ in TABLES])
def test_the_table(calls: Calls, policy: Policy, rows: list[Row]) -> None:
    for number, (after, amount, granted, charged, wait) in enumerate(rows):
        answer = calls.reserve(START + after, f"r{number}", of(policy, amount))
        told = (answer.status == "granted", answer.charged, answer.wait)
        assert told == (granted, (of(policy, charged).amount,), wait), number
        assert answer.refusing == (0 if granted else 1)


def test_all_subjects_grant_or_none_is_charged(calls: Calls) -> None:
    calls.reserve(START, "bobs", of(BUCKET, 95, BOB))
    answer = calls.reserve(START, "both", of(BUCKET, 10), of(WINDOW, 10), of(BUCKET, 10, BOB))
    assert (answer.status, answer.refusing, answer.wait) == ("refused", 3, 500)
    assert calls.server.exists("w1:{alice}") == 0
    assert calls.peek(START, of(BUCKET, 0, BOB)).tokens == (95,)
    answer = calls.reserve(START, "both", of(BUCKET, 5), of(WINDOW, 5), of(BUCKET, 5, BOB))
    assert answer.tokens == (5, 5, 100)


@pytest.mark.parametrize(
    "policy", [BUCKET, WINDOW, SLIDING, DAY, CALLS, STREAMS], ids=lambda policy: policy.name
)
def test_a_refusal_changes_nothing(calls: Calls, policy: Policy) -> None:
    calls.reserve(START, "first", of(policy, policy.limit), of(SHADOW, 7))
    before = calls.everything()
    lives = calls.server.pttl("w1:{alice}")
    for later in (0, 1, 500):
        answer = calls.reserve(
            START + later, f"more{later}", of(policy, policy.limit), of(SHADOW, 7), of(BURST, 1)
        )
        assert answer.status == "refused"
    assert calls.everything() == before
    assert 0 < calls.server.pttl("w1:{alice}") <= lives


def test_what_can_never_fit_is_told_so_however_full_the_others_are(calls: Calls) -> None:
    calls.reserve(START, "first", of(WINDOW, 100))
    answer = calls.reserve(START, "huge", of(WINDOW, 50), of(BUCKET, 101), of(CALLS, 1))
    assert (answer.status, answer.refusing, answer.wait) == ("refused", 2, NEVER)
    answer = calls.reserve(START, "huge", of(BUCKET, 101), of(WINDOW, 50))
    assert (answer.refusing, answer.wait) == (1, NEVER)


def test_the_longest_wait_of_all_that_refuse_is_told(calls: Calls) -> None:
    calls.reserve(START, "first", of(BUCKET, 100), of(WINDOW, 100), of(CALLS, 2))
    answer = calls.reserve(START, "more", of(BUCKET, 10), of(WINDOW, 10), of(CALLS, 1))
    assert (answer.refusing, answer.wait) == (2, 10_000)
    assert calls.reserve(START + 9_999, "more", of(BUCKET, 10), of(WINDOW, 10), of(CALLS, 1)).wait == 1
    assert calls.reserve(START + 10_000, "more", of(BUCKET, 10), of(WINDOW, 10)).status == "granted"


AMOUNTS = st.lists(st.integers(1, 70_000), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    limit=st.integers(1, 500),
    window=st.integers(1_000, 90_000),
    burst=st.sampled_from([0, 50]),
    algorithm=st.sampled_from([Algorithm.LEAKY_BUCKET, Algorithm.SLIDING_WINDOW, Algorithm.FIXED_WINDOW]),
    amounts=AMOUNTS,
    steps=st.lists(st.integers(0, 30_000), min_size=8, max_size=8),
)
def test_the_wait_told_is_enough_and_hardly_more(
    calls: Calls,
    limit: int,
    window: int,
    burst: int,
    algorithm: Algorithm,
    amounts: Sequence[int],
    steps: Sequence[int],
) -> None:
    """Enough to the millisecond; and not longer than one thousandth of a token takes to drain."""
    calls.server.flushall()
    policy = Policy(name="p", per=(), limit=limit, window=window, burst=burst, algorithm=algorithm)
    calls = Calls(calls.server)
    now = START
    for number, (amount, step) in enumerate(zip(amounts, steps, strict=False)):
        part = of(policy, min(amount, policy.capacity) / UNITS)
        answer = calls.reserve(now, f"r{number}", part, lease=10**9)
        if answer.status == "refused":
            coarse = -(-window // (limit * UNITS)) if algorithm is Algorithm.LEAKY_BUCKET else 0
            early = calls.reserve(now + answer.wait - 1 - coarse, f"e{number}", part, lease=10**9)
            assert answer.wait <= coarse or early.status == "refused"
            now += answer.wait
            assert calls.reserve(now, f"w{number}", part, lease=10**9).status == "granted"
        now += step


def test_asked_again_it_grants_again_and_charges_once(calls: Calls) -> None:
    parts = [of(BUCKET, 60), of(CALLS, 1), of(STREAMS, 1), of(WINDOW, 60, BOB)]
    assert calls.reserve(START, "r", *parts).tokens == (60, 1, 1, 60)
    before = calls.everything()
    again = calls.reserve(START, "r", *parts)
    assert (again.status, again.tokens) == ("granted", (60, 1, 1, 60))
    assert calls.everything() == before


def test_a_release_that_overtook_it_ends_it(calls: Calls) -> None:
    parts = [of(BUCKET, 60), of(WINDOW, 60, BOB)]
    assert calls.release(START, "r", *parts).status == "again"
    assert calls.reserve(START + 1, "r", *parts).status == "aborted"
    assert calls.peek(START + 1, of(BUCKET, 0)).tokens == (0,)
    assert calls.reserve(START + 1, "another", *parts).status == "granted"


def test_with_memory_full_nothing_is_reserved_nor_changed(calls: Calls) -> None:
    calls.reserve(START, "open", of(BUCKET, 40), of(STREAMS, 1))
    before = calls.everything()
    calls.server.config_set("maxmemory", "1")
    try:
        with pytest.raises(redis.ResponseError, match=r"(?i)oom|maxmemory"):
            calls.reserve(START, "more", of(BUCKET, 1), of(STREAMS, 1), of(BUCKET, 1, BOB))
        assert calls.everything() == before
        assert calls.settle(START, "open", of(BUCKET, 4), of(STREAMS, 0)).tokens == (4, 0)
        again = calls.settle(START, "open", of(BUCKET, 4), of(STREAMS, 0), first=False)
        assert again.status == "again"
    finally:
        calls.server.config_set("maxmemory", "0")
    assert calls.peek(START, of(BUCKET, 0), of(STREAMS, 0)).tokens == (4, 0)


async def test_of_200_at_once_exactly_those_that_fit_are_granted(
    server: redis.Redis, engine: EmbeddedStore
) -> None:
    """Over eight connections, under the server's own clock: floor(1000 / 7), and not one more."""
    day = Policy(name="day", per=(), limit=1000, window=86_400_000, algorithm=Algorithm.FIXED_WINDOW)
    script = Calls(server).scripts.reserve
    clients = [redis.asyncio.Redis.from_url(engine.url, single_connection_client=True) for _ in range(8)]
    keys, last = layout([of(day, 7)], own_calendar(START))
    try:
        answers = await asyncio.gather(
            *(
                clients[number % 8].evalsha(
                    script.sha, 1, *keys, "", 2**52, f"r{number}", str(LEASE), "0", *last
                )
                for number in range(200)
            )
        )
    finally:
        for client in clients:
            await client.aclose()
    statuses = [answer[0] for answer in answers]
    assert statuses.count(b"granted") == 1000 // 7
    assert statuses.count(b"refused") == 200 - 1000 // 7
