"""Breaker: when it opens, for how long, who may look, and what is no fault of the store."""

import asyncio
from collections.abc import Sequence

import pytest

from service.adapters.ledger import scripts as lua
from service.adapters.ledger.breaker import AFTER, Breaker, Guard, State
from service.adapters.ledger.link import Argument, LedgerAway
from service.adapters.ledger.scripts import Script

RESERVE = lua.load().reserve


def never() -> float:
    return 0.0


def broken(breaker: Breaker, now: float = 0.0) -> Breaker:
    for _ in range(AFTER):
        breaker.failed(now, now)
    return breaker


def test_it_opens_after_five_failures_in_a_row() -> None:
    breaker = Breaker(never)
    for _ in range(4):
        breaker.failed(0.0, 0.0)
    assert (breaker.state(0.0), breaker.allows(0.0)) == (State.CLOSED, True)
    breaker.failed(0.0, 0.0)
    assert (breaker.state(0.0), breaker.allows(0.0)) == (State.OPEN, False)


def test_a_success_between_makes_the_row_begin_anew() -> None:
    breaker = Breaker(never)
    for _ in range(3):
        for _ in range(4):
            breaker.failed(0.0, 0.0)
        breaker.succeeded()
    assert breaker.state(0.0) is State.CLOSED


def test_it_stays_open_half_a_second_and_twice_as_long_each_time_up_to_five() -> None:
    breaker, now, spans = broken(Breaker(never)), 0.0, []
    for _ in range(6):
        spans.append(breaker.patience(now))
        now += spans[-1]
        assert breaker.allows(now)
        breaker.failed(now, now)
    assert spans == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 0.5), (0.5, 0.375), (1.0, 0.25)])
def test_chance_makes_it_shorter_by_up_to_half(chance: float, seconds: float) -> None:
    breaker = broken(Breaker(lambda: chance), now=7.0)
    assert breaker.state(7.0 + seconds - 0.001) is State.OPEN
    assert breaker.state(7.0 + seconds) is State.HALF_OPEN


def test_then_one_call_at_a_time_may_look() -> None:
    breaker = broken(Breaker(never))
    assert [breaker.allows(0.5) for _ in range(3)] == [True, False, False]
    breaker.failed(0.6, 0.6)
    assert not breaker.allows(1.5)
    assert [breaker.allows(1.6) for _ in range(3)] == [True, False, False]


def test_when_it_succeeds_the_breaker_is_as_new() -> None:
    breaker = broken(Breaker(never))
    assert breaker.allows(0.5)
    breaker.failed(0.5, 0.5)
    assert breaker.allows(1.5)
    breaker.succeeded()
    assert breaker.state(1.5) is State.CLOSED
    assert broken(breaker, now=2.0).patience(2.0) == 0.5


def test_calls_that_were_on_their_way_together_fail_once() -> None:
    """A connection that breaks takes all with it that it carried: that is no reason to ask no more."""
    breaker = Breaker(never)
    for now in (1.0, 2.0, 3.0, 4.0):
        for _ in range(100):
            breaker.failed(now, now - 0.1)
        assert breaker.state(now) is State.CLOSED
    breaker.failed(5.0, 4.9)
    assert breaker.state(5.0) is State.OPEN


def test_when_nobody_waits_for_it_another_may_look() -> None:
    breaker = broken(Breaker(never))
    assert breaker.allows(0.5)
    breaker.abandoned()
    assert breaker.state(0.5) is State.HALF_OPEN
    assert breaker.allows(0.5)


def test_what_was_on_its_way_when_it_opened_and_fails_too_makes_it_no_longer() -> None:
    breaker = broken(Breaker(never))
    breaker.failed(0.4, 0.0)
    assert breaker.patience(0.4) == pytest.approx(0.1)


# -- the guard --------------------------------------------------------------------------------------


class Store:
    """Answers, or fails as it is told; and counts how often it was asked."""

    def __init__(self, fault: BaseException | None = None) -> None:
        self.fault = fault
        self.asked = 0

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument], *, deadline: float
    ) -> tuple[str, list[int]]:
        self.asked += 1
        if self.fault:
            raise self.fault
        return "granted", [1]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def tried(guard: Guard, times: int = 1) -> list[str]:
    """What so many calls came to."""
    results = []
    for _ in range(times):
        try:
            status, _ = await guard.run(RESERVE, ["w1:{a}"], [], deadline=1.0)
        except LedgerAway as away:
            status = str(away)
        results.append(status)
    return results


@pytest.mark.parametrize(
    "reason",
    [
        "no answer in time",
        "ConnectionError",
        "TimeoutError",
        "ConnectionRefusedError",
        "OutOfMemoryError",
        "ReadOnlyError",
        "BusyLoadingError",
        "MasterDownError",
        "NOREPLICAS",
        "BUSY",
    ],
)
async def test_what_the_store_is_to_blame_for_opens_it(reason: str) -> None:
    store, clock = Store(LedgerAway(reason, unknown=True)), Clock()
    guard = Guard(store, Breaker(never), clock=clock)
    assert await tried(guard, 7) == [reason] * 5 + ["breaker open"] * 2
    assert (store.asked, guard.state, guard.patience()) == (5, State.OPEN, 0.5)
    store.fault, clock.now = None, 100.5
    assert guard.state is State.HALF_OPEN
    assert await tried(guard, 2) == ["granted", "granted"]
    assert (guard.state, guard.patience()) == (State.CLOSED, 0.0)


@pytest.mark.parametrize("reason", ["ResponseError", "too many calls are waiting", "the link was closed"])
async def test_what_it_is_not_to_blame_for_does_not(reason: str) -> None:
    store = Store(LedgerAway(reason, unknown=False))
    assert await tried(Guard(store, Breaker(never)), 20) == [reason] * 20


async def test_a_call_that_was_not_made_has_changed_nothing() -> None:
    guard = Guard(Store(LedgerAway("TimeoutError", unknown=True)), Breaker(never), clock=Clock())
    await tried(guard, 5)
    with pytest.raises(LedgerAway) as caught:
        await guard.run(RESERVE, ["w1:{a}"], [], deadline=1.0)
    assert not caught.value.unknown


async def test_an_error_about_one_account_shows_that_the_store_is_there() -> None:
    store, clock = Store(LedgerAway("TimeoutError", unknown=True)), Clock()
    guard = Guard(store, Breaker(never), clock=clock)
    await tried(guard, 5)
    clock.now += 0.5
    store.fault = LedgerAway("ResponseError", unknown=False)
    await tried(guard)
    assert guard.state is State.CLOSED


async def test_a_caller_who_leaves_says_nothing_about_the_store() -> None:
    store, clock = Store(asyncio.CancelledError()), Clock()
    guard = Guard(store, Breaker(never), clock=clock)
    for _ in range(20):
        with pytest.raises(asyncio.CancelledError):
            await tried(guard)
    assert guard.state is State.CLOSED
    store.fault = LedgerAway("TimeoutError", unknown=True)
    await tried(guard, 5)
    clock.now += 0.5
    store.fault = asyncio.CancelledError()
    for _ in range(2):  # the one that was to look leaves, and the next looks
        with pytest.raises(asyncio.CancelledError):
            await tried(guard)
    assert store.asked == 27


async def test_a_fault_of_ours_in_the_call_that_was_to_look_lets_the_next_look() -> None:
    """It was waited for to say how it went, for ever."""
    store, clock = Store(LedgerAway("TimeoutError", unknown=True)), Clock()
    guard = Guard(store, Breaker(never), clock=clock)
    await tried(guard, 5)
    clock.now += 0.5
    store.fault = ValueError("keys of several slots")
    with pytest.raises(ValueError, match="slots"):
        await tried(guard)
    store.fault = None
    assert await tried(guard) == ["granted"]


async def test_it_can_say_why_the_store_is_away_also_while_it_is_not_asked() -> None:
    store, clock = Store(LedgerAway("NOAUTH", unknown=False)), Clock()
    guard = Guard(store, Breaker(never), clock=clock)
    assert guard.why == ""
    await tried(guard, 7)
    assert (guard.state, guard.why) == (State.OPEN, "NOAUTH")
    store.fault, clock.now = None, 100.5
    await tried(guard)
    assert guard.why == ""
