"""Breaker: whether to ask a store that failed again and again, and a link that asks its breaker first."""

import random
import time
from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import partial
from typing import Protocol

from service.adapters.ledger.away import LedgerAway
from service.adapters.ledger.errand import Argument
from service.adapters.ledger.scripts import Script

AFTER = 5  # failures in a row
SHORTEST, LONGEST = 0.5, 5.0  # s that it stays open: at first, and at most

UNASKED = "breaker open"

# What went wrong, and is no fault of the store: it answered, or was never asked.
_ANSWERED = frozenset({"ResponseError", "WRONGTYPE", "TRYAGAIN", "MOVED", "ASK"})
_UNASKED = frozenset({"too many calls are waiting", "the link was closed"})


class State(IntEnum):
    """What a breaker lets through: all, one call to see, nothing."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """Opens after `AFTER` failures, one after the other, for half a second at first and 5 s at most; then
    lets one call through, to see. Moments are seconds of any clock that only goes forward.

    Who was allowed a call says how it went: `succeeded`, `failed`, or `abandoned`. `chance` is from 0 to 1:
    workers that lost the store together do not come back to it together.
    """

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self.reset()

    def reset(self) -> None:
        """As if nothing had ever failed."""
        self._failures = 0
        self._last = 0.0  # when the last of them was seen
        self._wait = SHORTEST
        self._until: float | None = None  # closed: None; else when one call may go
        self._probing = False

    def state(self, now: float) -> State:
        """What it lets through now."""
        if self._until is None:
            return State.CLOSED
        return State.OPEN if now < self._until else State.HALF_OPEN

    def patience(self, now: float) -> float:
        """In how many seconds a call may go; 0 where it may."""
        return 0.0 if self._until is None else max(0.0, self._until - now)

    def allows(self, now: float) -> bool:
        """Whether this call may go."""
        state = self.state(now)
        if state is State.HALF_OPEN and not self._probing:
            self._probing = True
            return True
        return state is State.CLOSED

    def succeeded(self) -> None:
        """The store answered: closed."""
        self.reset()

    def failed(self, now: float, began: float) -> None:
        """The store did not answer, or could not do what it is for.

        The calls that were on their way together fail together: that is one failure.
        """
        state = self.state(now)
        if state is State.OPEN or began < self._last:
            return
        self._failures, self._last = self._failures + 1, now
        if state is State.HALF_OPEN or self._failures >= AFTER:
            self._until = now + self._wait * (1 - self._chance() / 2)
            self._wait = min(self._wait * 2, LONGEST)
            self._probing = False

    def abandoned(self) -> None:
        """Nobody waited to see how it went: the next may try."""
        self._probing = False


class Runs(Protocol):
    """What runs scripts: a link."""

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument], *, deadline: float
    ) -> tuple[str, list[int]]:
        """Run a script; returns its status and its numbers. Raises LedgerAway."""


class Guard:
    """A link that is not asked while its breaker is open."""

    def __init__(
        self, link: Runs, breaker: Breaker | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._link = link
        self._clock = clock
        self.breaker = breaker or Breaker()
        self.why = ""  # the last call failed; empty where it did not

    @property
    def state(self) -> State:
        """What it lets through now."""
        return self.breaker.state(self._clock())

    def patience(self) -> float:
        """In how many seconds a call may go; 0 where it may."""
        return self.breaker.patience(self._clock())

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument], *, deadline: float
    ) -> tuple[str, list[int]]:
        """As the link does it, or at once. Raises LedgerAway."""
        began = self._clock()
        if not self.breaker.allows(began):
            raise LedgerAway(UNASKED, unknown=False)
        judge = self.breaker.abandoned  # whatever else cuts it off
        try:
            answer = await self._link.run(script, keys, arguments, deadline=deadline)
            judge, self.why = self.breaker.succeeded, ""
        except LedgerAway as away:
            judge = partial(self._judge, away.reason, began)
            raise
        finally:
            judge()
        return answer

    def _judge(self, reason: str, began: float) -> None:
        if reason in _ANSWERED:
            self.breaker.succeeded()
        elif reason in _UNASKED:
            self.breaker.abandoned()
        else:
            self.why = reason
            self.breaker.failed(self._clock(), began)
