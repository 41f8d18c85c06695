"""reserve: who is granted, who is refused and for how long, as tables with the clock as a column."""

import asyncio
from collections.abc import Sequence

import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.adapters.ledger.embedded import EmbeddedStore
from service.domain.account import NEVER, Algorithm
from service.domain.policy import Count, Policy
from tests.lua.calls import LEASE, START, Calls, of
from tests.lua.model import MARKER

BUCKET = Policy(name="bucket", per=(), limit=100, window=10_000)  # drains ten a second
BURST = Policy(name="burst", per=(), limit=100, window=10_000, burst=20)
WINDOW = Policy(name="window", per=(), limit=100, window=10_000, algorithm=Algorithm.FIXED_WINDOW)
CALLS = Policy(name="calls", per=(), limit=2, window=10_000, count=Count.REQUESTS)
STREAMS = Policy(
    name="streams", per=(), limit=2, window=0, algorithm=Algorithm.CONCURRENCY, count=Count.CONCURRENT
)
SHADOW = Policy(name="shadow", per=(), limit=100, window=10_000, enforce=False)
ALL = (BUCKET, BURST, WINDOW, CALLS, STREAMS, SHADOW)
BOB = "w1:{bob}"
UNITS = 1000  # thousandths of a token

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
        assert (answer.status == "granted", answer.tokens, answer.wait) == (granted, (charged,), wait), number
        assert answer.refusing == (0 if granted else 1)


def test_all_subjects_grant_or_none_is_charged(calls: Calls) -> None:
    calls.reserve(START, "bobs", of(BUCKET, 95, BOB))
    answer = calls.reserve(START, "both", of(BUCKET, 10), of(WINDOW, 10), of(BUCKET, 10, BOB))
    assert (answer.status, answer.refusing, answer.wait) == ("refused", 3, 500)
    assert calls.server.exists("w1:{alice}") == 0
    assert calls.peek(START, of(BUCKET, 0, BOB)).tokens == (95,)
    answer = calls.reserve(START, "both", of(BUCKET, 5), of(WINDOW, 5), of(BUCKET, 5, BOB))
    assert answer.tokens == (5, 5, 100)


@pytest.mark.parametrize("policy", [BUCKET, WINDOW, CALLS, STREAMS], ids=lambda policy: policy.name)
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
    fixed=st.booleans(),
    amounts=AMOUNTS,
    steps=st.lists(st.integers(0, 30_000), min_size=8, max_size=8),
)
def test_the_wait_told_is_enough_and_hardly_more(
    calls: Calls,
    limit: int,
    window: int,
    burst: int,
    fixed: bool,
    amounts: Sequence[int],
    steps: Sequence[int],
) -> None:
    """Enough to the millisecond; and not longer than one thousandth of a token takes to drain."""
    calls.server.flushall()
    algorithm = Algorithm.FIXED_WINDOW if fixed else Algorithm.LEAKY_BUCKET
    policy = Policy(name="p", per=(), limit=limit, window=window, burst=burst, algorithm=algorithm)
    calls = Calls(calls.server)
    now = START
    for number, (amount, step) in enumerate(zip(amounts, steps, strict=False)):
        part = of(policy, min(amount, policy.capacity) / UNITS)
        answer = calls.reserve(now, f"r{number}", part, lease=10**9)
        if answer.status == "refused":
            coarse = 0 if fixed else -(-window // (limit * UNITS))
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


def test_later_than_it_may_be_carried_out_it_writes_nothing(calls: Calls) -> None:
    assert calls.reserve(START + 1, "r", of(BUCKET, 1), not_after=START).status == "late"
    assert calls.everything() == {}
    assert calls.reserve(START, "r", of(BUCKET, 1), not_after=START).status == "granted"


def test_after_the_marker_has_ended_a_straggler_is_late(calls: Calls) -> None:
    """Between them, marker and not_after leave no moment in which a straggler is carried out."""
    until = START + 5_000
    calls.release(START, "r", of(BUCKET, 60), not_after=until)
    for now in range(START, START + 8_000, 250):
        straggler = calls.reserve(now, "r", of(BUCKET, 60), not_after=until)
        assert straggler.status == ("aborted" if now <= until else "late")


def test_looking_often_drains_as_much_as_looking_once(calls: Calls) -> None:
    """Seven thousandths and a bit a millisecond: a remainder lost at each look would never drain."""
    slow = Policy(name="slow", per=(), limit=100, window=13_337)
    for key in ("w1:{often}", "w1:{once}"):
        calls.reserve(START, "full", of(slow, 100, key))
    for step in range(1, 400):
        calls.reserve(START + 7 * step, f"r{step}", of(slow, 0, "w1:{often}"), lease=10**9)
    now = START + 7 * 400
    often, once = (calls.peek(now, of(slow, 0, key)).charged for key in ("w1:{often}", "w1:{once}"))
    assert often == once
    assert once[0] == 100_000 - 100_000 * (now - START) // 13_337


def test_a_lease_that_ended_gives_concurrency_back_and_keeps_the_charge(calls: Calls) -> None:
    parts = [of(WINDOW, 30), of(STREAMS, 2)]
    calls.reserve(START, "dead", *parts, lease=3_000)
    assert calls.reserve(START + 2_999, "r", *parts).status == "refused"
    assert calls.reserve(START + 3_000, "r", *parts).tokens == (60, 2)


def test_a_lease_that_ended_is_undone_where_the_policy_says_so(calls: Calls) -> None:
    parts = [of(WINDOW, 30), of(STREAMS, 2)]
    calls.reserve(START, "dead", *parts, lease=3_000, lost="u")
    assert calls.reserve(START + 3_000, "r", *parts).tokens == (30, 2)


def test_ended_leases_are_looked_after_on_a_refusal_too(calls: Calls) -> None:
    calls.reserve(START, "dead", of(STREAMS, 2), of(BUCKET, 100), lease=3_000)
    answer = calls.reserve(START + 3_000, "r", of(STREAMS, 1), of(BUCKET, 100))
    assert (answer.status, answer.refusing) == ("refused", 2)
    assert calls.peek(START + 3_000, of(STREAMS, 0)).tokens == (0,)


def test_thousands_of_dead_leases_are_cleared_in_bounded_pieces(calls: Calls) -> None:
    """More than one look takes: none is forgotten, and nobody waits for all of them."""
    many = Policy(name="many", per=(), limit=5_000, window=0, algorithm=Algorithm.CONCURRENCY)
    with calls.server.pipeline(transaction=False) as pipeline:
        script = calls.scripts.reserve
        for number in range(1_700):
            policy = (1, many.account, str(many.algorithm), 5_000_000, 5_000_000, 0, 1_000, 1)
            pipeline.evalsha(
                script.sha, 1, "w1:{alice}", START, START + 5_000, f"r{number}", 1_000, "k", *policy
            )
        pipeline.execute()
    left = []
    for second in range(1, 6):
        calls.reserve(START + 1_000 * second, f"look{second}", of(many, 0), lease=10**6)
        left.append(calls.peek(START + 1_000 * second, of(many, 0)).tokens[0])
    assert left == [1_200, 700, 200, 0, 0]


def test_the_servers_own_clock_decides_where_none_is_given(calls: Calls) -> None:
    seconds, microseconds = calls.server.time()
    answer = calls.reserve("", "r", of(BUCKET, 10))
    assert 0 <= answer.now - (seconds * 1000 + microseconds // 1000) < 5_000
    assert answer.status == "granted"


def test_a_clock_that_goes_back_reopens_no_window(calls: Calls) -> None:
    calls.reserve(START, "r", of(WINDOW, 100))
    for back in (1, 9_999, 10_000, 59_999):
        assert calls.reserve(START - back, f"b{back}", of(WINDOW, 1)).status == "refused"


def test_a_clock_that_goes_back_by_hours_reopens_no_longer_window(calls: Calls) -> None:
    day = Policy(name="day", per=(), limit=100, window=86_400_000, algorithm=Algorithm.FIXED_WINDOW)
    later = START + day.window
    calls.reserve(later, "r", of(day, 100))
    answer = calls.reserve(later - 20 * 3_600_000, "s", of(day, 1))  # in the day before
    assert (answer.status, answer.wait > 20 * 3_600_000) == ("refused", True)


def test_refusals_alone_bring_an_account_back_with_a_clock_that_fell_far_back(calls: Calls) -> None:
    """Charges stay; but were the fall forgotten at each refusal, they would stay for a year."""
    year = 365 * 86_400_000
    calls.reserve(START + year, "r", of(WINDOW, 100), of(BUCKET, 100))
    assert calls.reserve(START, "s", of(WINDOW, 1)).wait <= 10_000
    assert calls.reserve(START, "s", of(BUCKET, 1)).wait == 100
    assert calls.reserve(START + 10_000, "s", of(WINDOW, 1), of(BUCKET, 1)).status == "granted"


def test_a_changed_limit_holds_at_once_and_forgets_no_charge(calls: Calls) -> None:
    calls.reserve(START, "r", of(BUCKET, 80))
    lower = Policy(name="bucket", per=(), limit=50, window=10_000)
    assert calls.reserve(START, "s", of(lower, 1)).tokens == (80,)
    higher = Policy(name="bucket", per=(), limit=1_000, window=10_000)
    assert calls.reserve(START, "t", of(higher, 900)).tokens == (980,)


def test_every_key_ends_and_its_end_never_comes_nearer(calls: Calls) -> None:
    month = Policy(name="month", per=(), limit=100, window=30 * 86_400_000, algorithm=Algorithm.FIXED_WINDOW)
    ends = 0
    for number, (policy, lease) in enumerate(
        [(BUCKET, 1_000), (BUCKET, LEASE), (month, 1_000), (CALLS, 1_000)]
    ):
        calls.reserve(START, f"r{number}", of(policy, 1), lease=lease)
        calls.settle(START, f"r{number}", of(policy, 0), mark=True)
        lives = calls.server.pttl("w1:{alice}")
        assert isinstance(lives, int)
        assert lives >= ends - 1_000  # a second of the server's own clock for what this test takes
        assert lives >= lease + MARKER
        ends = lives
    assert ends > month.window - START % month.window - 1_000


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
    policy = [1, day.account, str(day.algorithm), 1_000_000, 1_000_000, day.window, 7_000, 1]
    try:
        answers = await asyncio.gather(
            *(
                clients[number % 8].evalsha(
                    script.sha, 1, "w1:{alice}", "", 2**52, f"r{number}", LEASE, "k", *map(str, policy)
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
