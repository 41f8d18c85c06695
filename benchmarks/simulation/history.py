"""History: all that was charged to one account, replayed with what is known now, and held against P1.

P1: at every grant what is charged is within the capacity; later it goes beyond by no more than what the
requests that were open then turn out to use beyond their charges.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

from service.domain.account import MOST_LOWS, Algorithm, drained
from service.domain.policy import Policy


@dataclass(eq=False, slots=True)
class Spent:
    """An amount that counts for a moment; what is given back later was never spent."""

    at: int
    amount: int
    admitted: bool  # charged as its request was granted, not afterwards
    final: bool = False
    undone: int = 0


@dataclass(eq=False, slots=True)
class Share:
    """What one request has spent of one account."""

    spent: list[Spent] = field(default_factory=list)

    @property
    def total(self) -> int:
        """All that it has."""
        return sum(one.amount for one in self.spent)

    def close(self) -> None:
        """Nothing will change any more."""
        for one in self.spent:
            one.final = True


@dataclass(frozen=True, slots=True)
class Change:
    """A share stood at `total` from then on, whether or not its request was open still."""

    at: int
    share: Share
    total: int
    is_open: bool
    granted: bool = False


@dataclass(frozen=True, slots=True)
class Breach:
    """More was used of a window, or stood charged, than P1 allows."""

    policy: str
    at: int
    used: int
    bound: int


class History:
    """One policy's account of one subject."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.spent: list[Spent] = []
        self.changes: list[Change] = []
        self._first = 0  # of those that may still matter for what stands charged
        self._outs: list[int] = []  # what a bucket has drained since 1970 by the time of each of them
        self._level, self._out = 0, 0  # of a bucket, before the first
        self._since_empty = 0

    # What happens to it

    def grant(self, amount: int, now: int) -> Share:
        """A request was granted, its estimate charged."""
        share = Share()
        self._spend(share, amount, now, admitted=True)
        self.changes.append(Change(now, share, amount, is_open=True, granted=True))
        return share

    def renew(self, share: Share, used: int, now: int) -> None:
        """A request has used so much until now."""
        if used > share.total:
            self._spend(share, used - share.total, now)
            self.changes.append(Change(now, share, share.total, is_open=True))

    def settle(self, share: Share, used: int, now: int) -> None:
        """A request is over, and has used so much: the latest of its charges is given back first."""
        over = share.total - used
        if over < 0:
            self._spend(share, -over, now)
        for one in reversed(share.spent):
            back = max(0, min(over, one.amount))
            one.amount -= back
            over -= back
        self.close(share, now)

    def undo(self, share: Share, now: int) -> None:
        """A request's lease has ended and its charges are gone, though it may yet be settled."""
        for one in share.spent:
            one.amount, one.undone = 0, one.amount
        self.changes.append(Change(now, share, 0, is_open=True))

    def redo(self, share: Share) -> None:
        """Nobody had noticed that its lease had ended."""
        for one in share.spent:
            one.amount += one.undone

    def close(self, share: Share, now: int) -> None:
        """A request is over, with what it is charged."""
        share.close()
        self.changes.append(Change(now, share, share.total, is_open=False))

    def _spend(self, share: Share, amount: int, now: int, *, admitted: bool = False) -> None:
        one = Spent(now, amount, admitted)
        share.spent.append(one)
        self.spent.append(one)
        if self.policy.algorithm is Algorithm.LEAKY_BUCKET:
            self._outs.append(self._out_by(now))
        self._since_empty += 1

    # What stands charged

    def standing(self, now: int) -> int:
        """What is charged now, had all that is known now been known at admission."""
        match self.policy.algorithm:
            case Algorithm.CONCURRENCY:
                return self._sum(self._drop(now + 1))
            case Algorithm.LEAKY_BUCKET:
                return self._bucket(now)
            case Algorithm.FIXED_WINDOW:
                return self._sum(self._drop(self._start(now)))
        start, window = self._start(now), self.policy.window
        begun = bisect_left(self.spent, start, self._drop(start - window), key=lambda one: one.at)
        before = sum(one.amount for one in self.spent[self._first : begun])
        return self._sum(begun) + math.ceil(float(before) * (start + window - now) / window)

    def agrees(self, charged: int, now: int) -> bool:
        """Whether that is what stands charged, or more where a bucket's lows may have been merged."""
        expected = self.standing(now)
        return charged == expected or (charged > expected and self._since_empty > MOST_LOWS)

    def began_empty(self, charged: bool) -> None:
        """The ledger's account is empty, or was before it `charged` what came last."""
        self._since_empty = int(charged)

    def _start(self, now: int) -> int:
        if self.policy.calendar:
            return self.policy.calendar.boundaries(now)[0]
        return now - now % self.policy.window

    def _sum(self, first: int) -> int:
        return sum(one.amount for one in self.spent[first:])

    def _drop(self, before: int) -> int:
        """Leave what was spent before that time, and can change nothing any more."""
        while self._first < len(self.spent) and self.spent[self._first].at < before:
            if self.policy.algorithm is Algorithm.CONCURRENCY and not self.spent[self._first].final:
                break
            self._first += 1
        return self._first

    def _bucket(self, now: int) -> int:
        level, out, settled = self._level, self._out, True
        for index in range(self._first, len(self.spent)):
            one, its = self.spent[index], self._outs[index]
            level, out = max(0, level - its + out) + one.amount, its
            settled = settled and one.final
            if settled:
                self._first, self._level, self._out = index + 1, level, out
        return max(0, level - self._out_by(now) + out)

    def _out_by(self, now: int) -> int:
        return drained(self.policy.allowed, self.policy.window, since=0, until=now)

    # What P1 allows

    def breaches(self) -> Iterator[Breach]:
        """Where it was broken, now that all requests are over."""
        if not self.policy.enforce or self.policy.algorithm is Algorithm.CONCURRENCY:
            return
        if self.policy.algorithm is Algorithm.LEAKY_BUCKET:
            yield from self._breaches_of_bucket()
        else:
            yield from self._breaches_of_windows()

    def excesses(self) -> Iterator[tuple[Change, int]]:
        """Each change, and what those then open will turn out to use beyond their charges."""
        excess, owed = 0, {id(change.share): 0 for change in self.changes}
        finals = {id(change.share): change.share.total for change in self.changes}
        for change in self.changes:
            key = id(change.share)
            excess -= owed[key]
            owed[key] = max(0, finals[key] - change.total) if change.is_open else 0
            excess += owed[key]
            yield change, excess

    def windows(self) -> int:
        """How many windows something was charged to."""
        return len(self._used()) if self.policy.window else 0

    def _used(self) -> dict[int, int]:
        """By the beginnings of windows, what counts for them."""
        groups = groupby(self.spent, key=lambda one: self._start(one.at))
        return {start: sum(one.amount for one in group) for start, group in groups}

    def _breaches_of_windows(self) -> Iterator[Breach]:
        allowed: dict[int, int] = {}
        excess = 0
        for change, later in self.excesses():
            start = self._start(change.at)
            if change.granted:
                allowed[start] = later
            elif start not in allowed:
                allowed[start] = excess
            excess = later
        for start, amount in self._used().items():
            bound = self.policy.capacity + allowed[start]
            if amount > bound:
                yield Breach(self.policy.name, start, amount, bound)

    def _breaches_of_bucket(self) -> Iterator[Breach]:
        """Of what stands charged, and of what is used in any window that ends with a charge."""
        grants = [(change.at, excess) for change, excess in self.excesses() if change.granted]
        capacity, window = self.policy.capacity, self.policy.window
        level, out, used, first, grant, allowed = 0, 0, 0, 0, 0, 0
        for one, its in zip(self.spent, self._outs, strict=True):
            if one.admitted:
                allowed, grant = grants[grant][1], grant + 1
            level, out = max(0, level - its + out) + one.amount, its
            used += one.amount
            while self.spent[first].at <= one.at - window:
                used -= self.spent[first].amount
                first += 1
            if level > capacity + allowed:
                yield Breach(self.policy.name, one.at, level, capacity + allowed)
            if used > capacity + self.policy.allowed + allowed:
                yield Breach(self.policy.name, one.at, used, capacity + self.policy.allowed + allowed)
