"""A deadline that moves: it is kept to, and costs a timer only when it must."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import pytest

from service.adapters.upstream.patience import Patience


class Clock:
    """What Patience asks of an event loop; time passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def call_at(self, when: float, ring: Callable[[], None]) -> "Timer":
        timer = Timer(when, ring)
        self.timers.append(timer)
        return timer

    def move(self, now: float) -> None:
        self.now = now
        due = [timer for timer in self.timers if timer.when <= now]
        self.timers = [timer for timer in self.timers if timer.when > now]
        for timer in due:
            if not timer.cancelled:
                timer.ring()


@dataclass
class Timer:
    when: float
    ring: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


def patient(clock: Clock, over: Callable[[], None]) -> Patience:
    return Patience(cast(asyncio.AbstractEventLoop, clock), over)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_it_is_over_when_the_last_named_moment_has_come(clock: Clock) -> None:
    over: list[float] = []
    patience = patient(clock, lambda: over.append(clock.now))
    for deadline in (10.0, 12.0, 15.0):
        patience.until(deadline)
    assert len(clock.timers) == 1
    clock.move(10.0)
    clock.move(14.9)
    assert over == []
    clock.move(15.0)
    clock.move(100.0)
    assert over == [15.0]


def test_a_nearer_moment_is_kept_to(clock: Clock) -> None:
    over: list[float] = []
    patience = patient(clock, lambda: over.append(clock.now))
    patience.until(600.0)
    patience.rest()
    patience.until(5.0)
    clock.move(5.0)
    assert over == [5.0]


@pytest.mark.parametrize("stop", [Patience.rest, Patience.end])
def test_at_rest_and_at_its_end_it_is_never_over(clock: Clock, stop: Callable[[Patience], None]) -> None:
    over: list[float] = []
    patience = patient(clock, lambda: over.append(clock.now))
    patience.until(5.0)
    stop(patience)
    clock.move(100.0)
    assert over == []
