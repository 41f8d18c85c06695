"""settle: a charge becomes what was used, once, as if it had been known at admission."""

import dataclasses

import pytest

from service.domain.account import Algorithm
from service.domain.calendar import Calendar, Unit
from service.domain.policy import Count, Policy
from tests.lua.calls import START, Calls, of
from tests.lua.model import MARKER

BUCKET = Policy(name="bucket", per=(), limit=100, window=10_000)  # drains ten a second
WINDOW = Policy(name="window", per=(), limit=100, window=10_000, algorithm=Algorithm.FIXED_WINDOW)
SLIDING = Policy(name="sliding", per=(), limit=100, window=10_000, algorithm=Algorithm.SLIDING_WINDOW)
DAY = Policy(
    name="day",
    per=(),
    limit=100,
    algorithm=Algorithm.FIXED_WINDOW,
    calendar=Calendar(Unit.DAY, "Asia/Kolkata"),
)
CALLS = Policy(name="calls", per=(), limit=5, window=10_000, count=Count.REQUESTS)
STREAMS = Policy(
    name="streams", per=(), limit=2, window=0, algorithm=Algorithm.CONCURRENCY, count=Count.CONCURRENT
)
BOB = "w1:{bob}"
OPEN = 10**9  # ms; a lease that no test outlives
assert DAY.calendar
DAY_LEFT = DAY.calendar.boundaries(START)[1] - START

# settled at (ms after START), reserved 60 at 0, used, charged after: what would be there had it been known
TABLES: list[tuple[Policy, list[tuple[int, float, float]]]] = [
    (
        BUCKET,
        [
            (0, 60, 60),
            (0, 10, 10),
            (0, 0, 0),
            (0, 75.5, 75.5),
            (0, 500, 500),  # debt
            (1_000, 60, 50),
            (1_000, 30, 20),
            (1_000, 5, 0),  # would have drained long since: nothing is left, and no credit
            (1_000, 90, 80),
            (9_000, 0, 0),
            (9_000, 90, 30),  # what exceeds the charge is charged now
        ],
    ),
    (
        SLIDING,
        [
            (9_999, 60, 60),
            (10_000, 60, 60),  # of the window before, all of it yet
            (10_000, 20, 20),
            (15_000, 20, 10),
            (15_000, 90, 60),  # 30 of before, and 30 now
            (15_000, 0.001, 0.001),  # half a thousandth counts in full
            (19_999, 60, 0.006),
            (20_000, 20, 0),
            (20_000, 90, 30),
        ],
    ),
    (
        DAY,
        [
            (DAY_LEFT - 1, 20, 20),
            (DAY_LEFT - 1, 90, 90),
            (DAY_LEFT, 20, 0),
            (DAY_LEFT, 90, 30),
        ],
    ),
    (
        WINDOW,
        [
            (9_999, 60, 60),
            (9_999, 0, 0),
            (9_999, 500, 500),
            (10_000, 0, 0),
            (10_000, 60, 0),
            (10_000, 90, 30),
        ],
    ),
]


@pytest.mark.parametrize(("policy", "rows"), TABLES, ids=[policy.name for policy, _ in TABLES])
def test_the_table(calls: Calls, policy: Policy, rows: list[tuple[int, float, float]]) -> None:
    for number, (after, used, charged) in enumerate(rows):
        subject = f"w1:{{row{number}}}"
        calls.reserve(START, "r", of(policy, 60, subject), lease=OPEN)
        answer = calls.settle(START + after, "r", of(policy, used, subject))
        assert (answer.status, answer.tokens) == ("settled", (charged,)), number


def test_a_bucket_that_ran_empty_meanwhile_gives_nothing_back(calls: Calls) -> None:
    """As if known: the excess would have drained for nothing, and what came after stays charged."""
    calls.reserve(START, "a", of(BUCKET, 50), lease=OPEN)
    calls.reserve(START + 5_000, "b", of(BUCKET, 80), lease=OPEN)
    assert calls.settle(START + 5_000, "a", of(BUCKET, 10)).tokens == (80,)


def test_a_bucket_gives_back_no_more_than_its_lowest_level_since(calls: Calls) -> None:
    """Level 20 before b came: of a's 50 unused, 20 were still there to give back."""
    calls.reserve(START, "a", of(BUCKET, 70), lease=OPEN)
    calls.reserve(START + 5_000, "b", of(BUCKET, 30), lease=OPEN)
    assert calls.settle(START + 5_000, "a", of(BUCKET, 20)).tokens == (30,)


def test_what_one_gives_back_another_cannot_give_back_again(calls: Calls) -> None:
    calls.reserve(START, "a", of(BUCKET, 40), lease=OPEN)
    calls.reserve(START, "b", of(BUCKET, 40), lease=OPEN)
    calls.reserve(START + 5_000, "c", of(BUCKET, 60), lease=OPEN)  # 30 were left of a and b
    assert calls.settle(START + 5_000, "a", of(BUCKET, 20)).tokens == (70,)
    assert calls.settle(START + 5_000, "b", of(BUCKET, 20)).tokens == (60,)


def test_of_two_admitted_in_one_millisecond_neither_is_the_others_lowest_level(calls: Calls) -> None:
    calls.reserve(START, "a", of(BUCKET, 10), lease=OPEN)
    calls.reserve(START, "b", of(BUCKET, 60), lease=OPEN)
    assert calls.settle(START, "b", of(BUCKET, 0)).tokens == (10,)


def test_of_more_low_levels_than_are_kept_the_lower_and_the_later_stay(calls: Calls) -> None:
    """40, 40.5, 41 and so on: the first two become one, of 40."""
    wide = dataclasses.replace(BUCKET, limit=1_000, window=100_000)
    calls.reserve(START, "a", of(wide, 50), lease=OPEN)
    for number in range(20):
        now = START + 1_000 + 50 * number
        calls.reserve(now, f"b{number}", of(wide, 1 + number), lease=OPEN)
    charged = calls.peek(now, of(wide, 0)).tokens[0]
    assert calls.settle(now, "a", of(wide, 0)).tokens == (charged - 40,)


def test_what_a_sliding_window_gives_back_is_of_its_own_window(calls: Calls) -> None:
    calls.reserve(START, "a", of(SLIDING, 60), lease=OPEN)
    calls.reserve(START + 19_000, "b", of(SLIDING, 50), lease=OPEN)
    calls.reserve(START + 20_000, "c", of(SLIDING, 5), lease=OPEN)
    assert calls.settle(START + 20_000, "a", of(SLIDING, 0)).tokens == (55,)
    assert calls.settle(START + 20_000, "b", of(SLIDING, 20)).tokens == (25,)


def test_requests_and_streams_are_settled_too(calls: Calls) -> None:
    calls.reserve(START, "r", of(CALLS, 1), of(STREAMS, 1))
    assert calls.settle(START, "r", of(CALLS, 1), of(STREAMS, 0)).tokens == (1, 0)


def test_a_release_gives_everything_back(calls: Calls) -> None:
    parts = [of(WINDOW, 60), of(CALLS, 1), of(STREAMS, 1), of(BUCKET, 60, BOB)]
    calls.reserve(START, "r", *parts)
    answer = calls.release(START, "r", *parts)
    assert (answer.status, answer.tokens) == ("settled", (0, 0, 0, 0))


def test_settled_twice_it_is_settled_once(calls: Calls) -> None:
    parts, used = [of(WINDOW, 60), of(BUCKET, 60, BOB)], [of(WINDOW, 25), of(BUCKET, 25, BOB)]
    calls.reserve(START, "r", *parts)
    assert calls.settle(START, "r", *used, mark=True).status == "settled"
    before = calls.everything()
    for again in (True, False):
        answer = calls.settle(START, "r", *used, first=again, mark=True)
        assert (answer.status, answer.tokens) == ("again", (25, 25))
    assert calls.everything() == before


def test_repeated_without_a_marker_it_is_settled_once(calls: Calls) -> None:
    calls.reserve(START, "r", of(WINDOW, 60))
    calls.settle(START, "r", of(WINDOW, 25))
    answer = calls.settle(START, "r", of(WINDOW, 25), first=False)
    assert (answer.status, answer.tokens) == ("again", (25,))


def test_a_straggling_reserve_after_the_settle_is_aborted(calls: Calls) -> None:
    calls.reserve(START, "r", of(WINDOW, 60))
    calls.settle(START, "r", of(WINDOW, 25), mark=True)
    assert calls.reserve(START + 1, "r", of(WINDOW, 60)).status == "aborted"
    assert calls.peek(START + 1, of(WINDOW, 0)).tokens == (25,)


def test_later_than_it_may_be_carried_out_it_writes_nothing(calls: Calls) -> None:
    calls.reserve(START, "r", of(WINDOW, 60))
    before = calls.everything()
    assert calls.settle(START + 1, "r", of(WINDOW, 1), not_after=START).status == "late"
    assert calls.renew(START + 1, "r", of(WINDOW, 90), not_after=START).status == "late"
    assert calls.everything() == before


def test_after_the_lease_has_ended_it_is_corrected_once(calls: Calls) -> None:
    calls.reserve(START, "r", of(WINDOW, 60), of(STREAMS, 1), lease=3_000)
    calls.reserve(START + 3_000, "s", of(WINDOW, 5), of(STREAMS, 1))
    used = [of(WINDOW, 20), of(STREAMS, 0)]
    corrected = calls.settle(START + 3_001, "r", *used)
    assert (corrected.status, corrected.tokens) == ("corrected", (25, 1))
    again = calls.settle(START + 3_002, "r", *used)
    assert (again.status, again.tokens) == ("again", (25, 1))


def test_after_the_lease_was_undone_what_was_used_is_charged(calls: Calls) -> None:
    calls.reserve(START, "r", of(WINDOW, 60), lease=3_000, undo=True)
    assert calls.reserve(START + 3_000, "s", of(WINDOW, 5)).tokens == (5,)
    corrected = calls.settle(START + 3_001, "r", of(WINDOW, 20))
    assert (corrected.status, corrected.tokens) == ("corrected", (25,))


def test_a_lease_nobody_looked_at_is_settled_as_if_alive(calls: Calls) -> None:
    calls.reserve(START, "r", of(BUCKET, 60), lease=1_000)
    assert calls.settle(START + 2_000, "r", of(BUCKET, 30)).status == "settled"


def test_a_lease_that_ended_and_is_settled_gives_back_once(calls: Calls) -> None:
    for rid in ("r", "s"):
        calls.reserve(START, rid, of(STREAMS, 1), lease=1_000 if rid == "r" else OPEN)
    assert calls.settle(START + 2_000, "r", of(STREAMS, 0)).tokens == (1,)


def test_what_the_ledger_lost_is_charged_on_the_first_try_alone(calls: Calls) -> None:
    calls.reserve(START, "r", of(WINDOW, 60))
    calls.server.flushdb()
    assert calls.settle(START, "r", of(WINDOW, 20), first=False).status == "again"
    charged = calls.settle(START, "r", of(WINDOW, 20))
    assert (charged.status, charged.tokens) == ("charged", (20,))


def test_what_the_ledger_forgot_is_charged_until_the_markers_end_and_not_after(calls: Calls) -> None:
    forget = START + MARKER
    assert calls.settle(forget + 1, "r", of(WINDOW, 20), forget=forget).status == "forgotten"
    assert calls.everything()[0] == {}
    assert calls.settle(forget, "r", of(WINDOW, 20), forget=forget).status == "charged"


def test_a_marker_covers_the_time_until_which_the_unknown_is_charged(calls: Calls) -> None:
    """No moment lies between: either the marker is there, and corrects; or it is too late to charge."""
    ends = START + 3_000
    calls.reserve(START, "r", of(WINDOW, 60), lease=3_000)
    statuses = []
    for now in range(ends, ends + MARKER + 50_000, 10_000):
        calls.reserve(now, f"look{now}", of(WINDOW, 1), lease=1)
        statuses.append(calls.settle(now, "r", of(WINDOW, 20), forget=ends + MARKER).status)
    assert statuses[0] == "corrected"
    assert set(statuses[1:]) == {"again", "forgotten"}


def test_one_subject_lost_and_the_other_not_is_settled_for_each(calls: Calls) -> None:
    calls.reserve(START, "r", of(WINDOW, 60), of(WINDOW, 60, BOB))
    calls.server.delete(BOB)
    assert calls.settle(START, "r", of(WINDOW, 20), of(WINDOW, 20, BOB)).tokens == (20, 20)


def test_a_policy_that_came_meanwhile_is_not_charged(calls: Calls) -> None:
    """An exchange settles with the policies it reserved, whatever was deployed meanwhile."""
    calls.reserve(START, "r", of(WINDOW, 60))
    assert calls.settle(START, "r", of(WINDOW, 20)).tokens == (20,)
    assert calls.peek(START, of(WINDOW, 0), of(BUCKET, 0)).tokens == (20, 0)


def test_memory_being_full_does_not_stop_a_settle(calls: Calls) -> None:
    calls.reserve(START, "r", of(WINDOW, 60), of(WINDOW, 60, BOB))
    calls.server.config_set("maxmemory", "1")
    try:
        answer = calls.settle(START, "r", of(WINDOW, 20), of(WINDOW, 20, BOB), mark=True)
    finally:
        calls.server.config_set("maxmemory", "0")
    assert (answer.status, answer.tokens) == ("settled", (20, 20))
