"""Time, for the scripts: deadlines, leases, drains, clocks that leap, and when a key ends."""

import struct
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from service.domain.account import Algorithm
from service.domain.calendar import Calendar, Unit
from service.domain.policy import Count, Policy
from tests.lua.calls import ALICE, LEASE, START, Calls, layout, of, own_calendar
from tests.lua.model import MARKER

BUCKET = Policy(name="bucket", per=(), limit=100, window=10_000)  # drains ten a second
WINDOW = Policy(name="window", per=(), limit=100, window=10_000, algorithm=Algorithm.FIXED_WINDOW)
DAY = Policy(
    name="day",
    per=(),
    limit=100,
    algorithm=Algorithm.FIXED_WINDOW,
    calendar=Calendar(Unit.DAY, "Europe/Berlin"),
)
SLIDING = Policy(name="sliding", per=(), limit=100, window=10_000, algorithm=Algorithm.SLIDING_WINDOW)
CALLS = Policy(name="calls", per=(), limit=2, window=10_000, count=Count.REQUESTS)
STREAMS = Policy(
    name="streams", per=(), limit=2, window=0, algorithm=Algorithm.CONCURRENCY, count=Count.CONCURRENT
)


def boundaries(around: int) -> tuple[int, int, int]:
    return own_calendar(around)(DAY)


def test_later_than_it_may_be_carried_out_it_writes_nothing(calls: Calls) -> None:
    assert calls.reserve(START + 1, "r", of(BUCKET, 1), not_after=START).status == "late"
    assert calls.everything()[0] == {}
    assert calls.reserve(START, "r", of(BUCKET, 1), not_after=START).status == "granted"


def test_after_the_marker_has_ended_a_straggler_is_late(calls: Calls) -> None:
    """Between them, marker and not_after leave no moment in which a straggler is carried out."""
    until = START + 5_000
    calls.release(START, "r", of(BUCKET, 60), not_after=until)
    for now in range(START, START + 8_000, 250):
        straggler = calls.reserve(now, "r", of(BUCKET, 60), not_after=until)
        assert straggler.status == ("aborted" if now <= until else "late")


def test_a_marker_is_there_to_its_last_millisecond_whoever_looks(calls: Calls) -> None:
    until = START + 5_000
    calls.release(START, "r", of(BUCKET, 60), not_after=until)
    calls.reserve(until, "looks", of(BUCKET, 1))
    assert calls.reserve(until, "r", of(BUCKET, 60), not_after=until).status == "aborted"


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
    calls.reserve(START, "dead", *parts, lease=3_000, undo=True)
    assert calls.reserve(START + 3_000, "r", *parts).tokens == (30, 2)


def test_a_subject_is_looked_through_once_a_second_at_most(calls: Calls) -> None:
    calls.reserve(START, "a", of(STREAMS, 1), lease=1_000)
    calls.reserve(START, "b", of(STREAMS, 1), lease=1_500)
    looks = [
        calls.reserve(START + after, f"c{after}", of(STREAMS, 1)) for after in (999, 1_000, 1_999, 2_000)
    ]
    assert [look.ended for look in looks] == [0, 1, 0, 1]


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
        keys, last = layout([of(many, 1)], own_calendar(START))
        for number in range(1_700):
            pipeline.evalsha(script.sha, 1, *keys, START, START + 5_000, f"r{number}", 1_000, 0, *last)
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


def test_what_was_charged_while_the_clock_was_behind_can_be_given_back(calls: Calls) -> None:
    calls.reserve(START, "a", of(WINDOW, 60))
    calls.reserve(START - 1, "b", of(WINDOW, 30))
    assert calls.settle(START - 1, "b", of(WINDOW, 10)).tokens == (70,)


@pytest.mark.parametrize("policy", [WINDOW, SLIDING], ids=lambda policy: policy.name)
def test_what_was_charged_before_the_clock_fell_far_back_gives_nothing_back(
    calls: Calls, policy: Policy
) -> None:
    calls.reserve(START + 10**9, "before", of(policy, 60), lease=10**9)
    assert calls.reserve(START, "after", of(policy, 10)).tokens == (70,)
    assert calls.settle(START, "before", of(policy, 0)).tokens == (70,)


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


HOUR = 3_600_000
LEFT = HOUR - START % HOUR


HOURLY = (
    Policy(name="bucket", per=(), limit=100, window=10 * HOUR),
    Policy(name="slides", per=(), limit=100, window=HOUR, algorithm=Algorithm.SLIDING_WINDOW),
    Policy(name="window", per=(), limit=100, window=HOUR, algorithm=Algorithm.FIXED_WINDOW),
)


@pytest.mark.parametrize(
    ("policy", "ends"),
    [*zip(HOURLY, (10 * HOUR, HOUR + LEFT, LEFT), strict=True), (DAY, boundaries(START)[1] - START)],
    ids=lambda value: value.name if isinstance(value, Policy) else "",
)
def test_a_key_lives_as_long_as_what_it_holds_counts(calls: Calls, policy: Policy, ends: int) -> None:
    calls.reserve(START, "r", of(policy, 100), lease=1_000)
    calls.settle(START, "r", of(policy, 100))
    assert calls.peek(START + ends - 1_000, of(policy, 0)).charged > (0,)
    assert calls.peek(START + ends, of(policy, 0)).charged == (0,)
    lives: Any = calls.server.pttl(ALICE)
    assert lives > ends


def test_ended_leases_among_thousands_that_run_are_all_found_in_time(calls: Calls) -> None:
    """A look is bounded; the next one goes on where it stopped."""
    calls.reserve(START, "first", of(STREAMS, 1), lease=10**9)
    charge = struct.pack(">ddB", 1_000, START, len(STREAMS.account)) + STREAMS.account.encode()
    live, dead = (struct.pack(">dB", START + stop, 0) + charge for stop in (10**9, 1))
    fields: dict[Any, Any] = {f"~live-{number}": live for number in range(7_000)}
    fields |= {f"~dead-{number}": dead for number in range(300)}
    hint = struct.pack(">dddd", START + 1, 7_301, START + 10**9, 0) + b"0"
    calls.server.hset(ALICE, mapping={**fields, "~": hint})
    for second in range(2, 12):
        calls.reserve(START + 1_000 * second, "r", of(STREAMS, 5))
    left: Any = calls.server.hkeys(ALICE)
    assert [field for field in left if field.startswith(b"~dead")] == []


def test_outside_the_boundaries_it_carries_a_call_is_stale_and_does_nothing(calls: Calls) -> None:
    midnight = boundaries(START)[1]
    calls.reserve(midnight - 1, "open", of(DAY, 60), of(BUCKET, 1))
    before = calls.everything()
    for around in (midnight - 2 * DAY.window - 1, midnight + DAY.window):
        calls.around = around
        assert calls.reserve(midnight - 1, "r", of(BUCKET, 1), of(DAY, 1)).status == "stale"
        assert calls.reserve(midnight - 1, "r", of(DAY, 1)).now == midnight - 1
        for call in (calls.renew, calls.settle):
            assert call(midnight - 1, "open", of(DAY, 60), of(BUCKET, 1)).status == "stale"
        assert calls.peek(midnight - 1, of(DAY, 0)).status == "stale"
        assert calls.reset(midnight - 1, of(DAY, 0)).status == "stale"
    assert calls.everything() == before


def test_a_call_may_come_a_whole_window_after_its_boundaries_were_worked_out(calls: Calls) -> None:
    calls.around = START
    one, midnight, next_one = boundaries(START)
    assert calls.reserve(one, "first", of(DAY, 60)).tokens == (60,)
    assert calls.reserve(midnight - 1, "last", of(DAY, 41)).wait == 1
    assert calls.reserve(midnight, "next", of(DAY, 41)).tokens == (41,)
    assert calls.settle(midnight, "first", of(DAY, 0)).tokens == (41,)
    assert calls.reserve(next_one - 1, "end", of(DAY, 100)).wait == 1
    assert calls.reserve(next_one, "late", of(DAY, 1)).status == "stale"


@pytest.mark.parametrize(("date", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)])
def test_a_day_is_as_long_as_its_clocks_make_it(calls: Calls, date: str, hours: int) -> None:
    start = int(datetime.fromisoformat(date).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp()) * 1000
    end = start + hours * 3_600_000
    calls.reserve(start, "all", of(DAY, 100))
    assert calls.reserve(start, "more", of(DAY, 1)).wait == end - start
    assert calls.reserve(end - 1, "more", of(DAY, 1)).wait == 1
    assert calls.settle(end - 1, "all", of(DAY, 70)).tokens == (70,)
    assert calls.reserve(end, "more", of(DAY, 100)).tokens == (100,)


def test_a_calendars_lease_met_without_its_policy_lets_no_window_be_had_twice(calls: Calls) -> None:
    """Brought to a moment of which nobody knew the window, what came just behind it was charged to none."""
    midnight = boundaries(START)[1]
    calls.reserve(START, "dead", of(DAY, 100), lease=1_000)
    calls.reserve(midnight + 1, "other", of(BUCKET, 1))
    assert calls.reserve(midnight, "all", of(DAY, 100)).tokens == (100,)
    assert calls.reserve(midnight + 2, "more", of(DAY, 1)).status == "refused"
