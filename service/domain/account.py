"""Account: what a subject has been charged under one policy, in plain arithmetic, without a ledger.

The scripts in lua/ do the same sums inside Redis; the tests hold the two against each other. Amounts are
whole thousandths (of a token, of a request), times whole milliseconds.

The law: once a request is settled, an account is as if its real usage had been known when it was admitted.
A leaky bucket (GCRA) drains at limit/window and stops at zero, so of a charge only as much can be given
back as the lowest level since; `lows` remembers those levels.
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

MOST_LOWS = 16
GRACE = 60_000  # ms a stored time may lie ahead of now, where the window is shorter than that
NEVER = -1


class Algorithm(StrEnum):
    """How an account forgets."""

    LEAKY_BUCKET = "leaky-bucket"
    FIXED_WINDOW = "fixed-window"
    CONCURRENCY = "concurrency"


def drained(limit: int, window: int, *, since: int, until: int) -> int:
    """What leaves a bucket of limit per window between two moments; sums do not depend on the steps."""

    def part(time: int) -> int:
        return math.floor(float(time % window) * limit / window)

    return (until // window - since // window) * limit + part(until) - part(since)


@dataclass(slots=True)
class Account:
    """One policy's account of one subject.

    `time` is when `charged` was true (for concurrency, when the account was opened). `lows` holds
    (time, lowest level), levels rising; those of a window are all zero: what was admitted before counts
    no more.
    """

    algorithm: Algorithm
    limit: int
    window: int
    time: int
    charged: int = 0
    lows: list[tuple[int, int]] = field(default_factory=list)

    @property
    def start(self) -> int:
        """When the window began."""
        return self.time - self.time % self.window

    @property
    def end(self) -> int:
        """When the window ends."""
        return self.start + self.window

    def roll(self, now: int) -> None:
        """Bring the account to now.

        A stored time ahead of now wins for at most GRACE or the window; then the account goes back with
        the clock, keeps its charges, and gives nothing back of earlier ones.
        """
        if self.algorithm is Algorithm.CONCURRENCY:
            return
        if now < self.time:
            if self.time - now <= max(GRACE, self.window):
                return
            self._remember(self.time + 1, self.charged if self.algorithm is Algorithm.LEAKY_BUCKET else 0)
        elif self.algorithm is Algorithm.LEAKY_BUCKET:
            out = drained(self.limit, self.window, since=self.time, until=now)
            self.charged = max(0, self.charged - out)
        elif now >= self.end:
            self.charged = 0
        self.time = now

    def adopt(self, *, limit: int, window: int) -> None:
        """Go on under another limit or window; what is charged stays.

        What was admitted before the window that the charges are of gives nothing back, were the new
        window to reach so far.
        """
        if self.algorithm is Algorithm.FIXED_WINDOW and window != self.window:
            self._remember(self.start, 0)
        self.limit, self.window = limit, window

    def charge(self, amount: int, now: int, *, remember: bool) -> int:
        """Charge, and return the moment it counts for.

        `remember` says that somebody admitted earlier may yet be given something back.
        """
        if not remember:
            self.lows.clear()
        elif self.algorithm is Algorithm.LEAKY_BUCKET and amount > 0:
            self._remember(self.time, self.charged)
        self.charged += amount
        return max(now, self.time)

    def give_back(self, amount: int, at: int) -> int:
        """Give back what was charged at that moment, as far as the law allows; return how much it was."""
        if self.algorithm is Algorithm.FIXED_WINDOW and at < self.start:
            return 0
        back = min([amount, self.charged, *(low for time, low in self.lows if time > at)])
        self.charged -= back
        self.lows = [(time, low - back if time > at else low) for time, low in self.lows]
        return back

    def reset(self, now: int) -> None:
        """Make the charge zero; what was admitted before gives nothing back to what comes after."""
        if self.algorithm is Algorithm.CONCURRENCY:
            return
        self.charged = 0
        self.time = max(now, self.time) + 1
        self._remember(self.time, 0)

    def waiting(self, amount: int, capacity: int, now: int) -> int:
        """In how many ms the amount would fit; NEVER where waiting cannot help.

        For the bucket: (charged + amount - capacity) / (limit / window). When something open will end
        is not known, so concurrency says a second.
        """
        if amount > capacity:
            return NEVER
        if self.algorithm is Algorithm.FIXED_WINDOW:
            return self.end - now
        if self.algorithm is Algorithm.CONCURRENCY:
            return 1000
        excess = self.charged + amount - capacity
        return max(0, self.time - now) + math.ceil(float(excess) * self.window / self.limit)

    def _remember(self, time: int, level: int) -> None:
        """Note a low level; above MOST_LOWS the two nearest become one, the lower and the later."""
        lows = self.lows
        if lows:
            time = max(time, lows[-1][0])
        while lows and lows[-1][1] >= level:
            lows.pop()
        if lows and lows[-1][0] == time:
            return
        lows.append((time, level))
        if len(lows) > MOST_LOWS:
            gaps = [later[1] - earlier[1] for earlier, later in pairwise(lows)]
            nearest = gaps.index(min(gaps))
            merged = (lows[nearest + 1][0], min(lows[nearest][1], lows[nearest + 1][1]))
            lows[nearest : nearest + 2] = [merged]
