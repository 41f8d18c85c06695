"""renew and reset: a lease goes on, charged as it goes; a charge becomes zero and nothing comes back."""

import pytest

from service.domain.account import Algorithm
from service.domain.calendar import Calendar, Unit
from service.domain.policy import Count, Policy
from tests.lua.calls import START, Calls, of

BUCKET = Policy(name="bucket", per=(), limit=100, window=10_000)  # drains ten a second
WINDOW = Policy(name="window", per=(), limit=100, window=10_000, algorithm=Algorithm.FIXED_WINDOW)
SLIDING = Policy(name="sliding", per=(), limit=100, window=10_000, algorithm=Algorithm.SLIDING_WINDOW)
DAY = Policy(name="day", per=(), limit=100, algorithm=Algorithm.FIXED_WINDOW, calendar=Calendar(Unit.DAY))
STREAMS = Policy(
    name="streams", per=(), limit=2, window=0, algorithm=Algorithm.CONCURRENCY, count=Count.CONCURRENT
)


def test_a_renewed_lease_ends_later(calls: Calls) -> None:
    calls.reserve(START, "r", of(STREAMS, 2), lease=3_000)
    for now in range(START + 2_000, START + 20_000, 2_000):
        assert calls.renew(now, "r", of(STREAMS, 2), lease=3_000).status == "renewed"
    assert calls.reserve(START + 20_999, "s", of(STREAMS, 1)).status == "refused"
    assert calls.reserve(START + 21_999, "s", of(STREAMS, 1)).status == "granted"  # looked at once a second


def test_what_is_produced_beyond_the_charge_is_charged_as_it_comes(calls: Calls) -> None:
    calls.reserve(START, "r", of(WINDOW, 30))
    totals = [(10, 30), (30, 30), (45, 45), (45, 45), (40, 45), (80, 80)]
    for used, charged in totals:
        assert calls.renew(START, "r", of(WINDOW, used)).tokens == (charged,)
    assert calls.settle(START, "r", of(WINDOW, 70)).tokens == (70,)


def test_of_what_was_charged_at_several_moments_the_latest_is_given_back_first(calls: Calls) -> None:
    """As if known: the first ten have drained, and ten more came a second later."""
    calls.reserve(START, "r", of(BUCKET, 10))
    assert calls.renew(START + 1_000, "r", of(BUCKET, 40)).tokens == (30,)
    assert calls.settle(START + 1_000, "r", of(BUCKET, 20)).tokens == (10,)


def test_however_often_a_stream_overruns_its_record_stays_small(calls: Calls) -> None:
    calls.reserve(START, "r", of(WINDOW, 1))
    for used in range(2, 60):
        calls.renew(START + used, "r", of(WINDOW, used))
    record = calls.server.hget("w1:{alice}", "~r")
    assert isinstance(record, bytes)
    assert record.count(b"window") == 4
    assert calls.settle(START + 60, "r", of(WINDOW, 3)).tokens == (3,)


def test_what_ended_is_not_renewed(calls: Calls) -> None:
    calls.reserve(START, "settled", of(WINDOW, 10))
    calls.settle(START, "settled", of(WINDOW, 10))
    calls.reserve(START, "dead", of(WINDOW, 10), lease=1_000)
    calls.reserve(START + 2_000, "other", of(WINDOW, 10))
    before = calls.everything()
    for rid in ("settled", "dead", "never"):
        assert calls.renew(START + 2_000, rid, of(WINDOW, 90)).status == "gone"
    assert calls.everything() == before


# -- reset ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [WINDOW, BUCKET, SLIDING, DAY], ids=lambda policy: policy.name)
def test_what_was_admitted_before_a_reset_gives_nothing_back_after(calls: Calls, policy: Policy) -> None:
    calls.reserve(START, "before", of(policy, 60))
    assert calls.reset(START, of(policy, 0)).tokens == (0,)
    calls.reserve(START, "after", of(policy, 40))
    assert calls.settle(START, "before", of(policy, 10)).tokens == (40,)


def test_a_reset_leaves_what_is_open_and_when_it_ends(calls: Calls) -> None:
    calls.reserve(START, "r", of(WINDOW, 60), of(STREAMS, 1))
    _, lives_set = calls.everything()
    assert calls.reset(START, of(WINDOW, 0), of(STREAMS, 0)).tokens == (0, 1)
    assert calls.everything()[1] == lives_set
    assert calls.server.hexists("w1:{alice}", "~r")


def test_a_reset_forgets_the_window_before_too(calls: Calls) -> None:
    calls.reserve(START, "r", of(SLIDING, 60))
    assert calls.reset(START + 10_000, of(SLIDING, 0)).tokens == (0,)
    assert calls.settle(START + 10_001, "r", of(SLIDING, 10)).tokens == (0,)


def test_after_a_reset_in_the_last_millisecond_of_a_window_the_window_still_ends(calls: Calls) -> None:
    last = START + 9_999
    calls.reserve(last, "before", of(WINDOW, 60))
    calls.reset(last, of(WINDOW, 0))
    assert calls.reserve(last, "after", of(WINDOW, 40)).tokens == (40,)
    assert calls.settle(last, "before", of(WINDOW, 10)).tokens == (40,)
    assert calls.peek(last + 1, of(WINDOW, 0)).tokens == (0,)


def test_a_reset_of_nobody_makes_nobody(calls: Calls) -> None:
    calls.reset(START, of(WINDOW, 0), of(STREAMS, 0))
    assert calls.everything()[0] == {}
