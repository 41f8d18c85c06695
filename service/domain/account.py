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
    SLIDING_WINDOW = "sliding-window"
    FIXED_WINDOW = "fixed-window"
    CONCURRENCY = "concurrency"


# The scripts' number for how an account forgets, and whether by a calendar.
KINDS = {
    1: (Algorithm.LEAKY_BUCKET, False),
    2: (Algorithm.SLIDING_WINDOW, False),
    3: (Algorithm.FIXED_WINDOW, False),
    4: (Algorithm.FIXED_WINDOW, True),
    5: (Algorithm.CONCURRENCY, False),
}


def drained(limit: int, window: int, *, since: int, until: int) -> int:
    """What leaves a bucket of limit per window between two moments; sums do not depend on the steps."""

    def part(time: int) -> int:
        return math.floor(float(time % window) * limit / window)

    return (until // window - since // window) * limit + part(until) - part(since)


@dataclass(slots=True)
class Account:
    """One policy's account of one subject.

    `time` is when `charged` was true (for concurrency, when the account was opened). `start` is the
    beginning of a window (0 for those that have none), `before` what was charged in the window before, where
    that slides. `lows` holds (time, lowest level), levels rising; those of a window are all zero: what was
    admitted before counts no more.
    """

    algorithm: Algorithm
    limit: int
    window: int
    time: int
    start: int = 0
    charged: int = 0
    before: int = 0
    lows: list[tuple[int, int]] = field(default_factory=list)

    @property
    def is_window(self) -> bool:
        """Whether charges end with a window."""
        return self.algorithm in (Algorithm.SLIDING_WINDOW, Algorithm.FIXED_WINDOW)

    @property
    def end(self) -> int:
        """When the window ends."""
        return self.start + self.window

    def roll(self, now: int, start: int | None, window: int) -> None:
        """Bring the account to now, which lies in the window of that start and length.

        Where nobody knows the start, which only a policy does of a calendar, an account outside its own
        window is left as it is.
        A stored time ahead of now wins for at most GRACE or the window; then the account goes back with
        the clock, keeps its charges, and gives nothing back of earlier ones.
        """
        if self.algorithm is Algorithm.CONCURRENCY:
            return
        if start is None and self.is_window and not self.start <= now < self.end:
            return
        if now < self.time:
            if self.time - now <= max(GRACE, self.window):
                return
            self._remember(self.time + 1, 0 if self.is_window else self.charged)
        elif self.algorithm is Algorithm.LEAKY_BUCKET:
            out = drained(self.limit, self.window, since=self.time, until=now)
            self.charged = max(0, self.charged - out)
        self.time = now
        if self.is_window and start is not None:
            self._enter(now, start, window)

    def _enter(self, now: int, start: int, window: int) -> None:
        if self.start <= now < self.end:
            return
        if now >= self.end:
            slides = self.algorithm is Algorithm.SLIDING_WINDOW and now < self.end + self.window
            self.before = self.charged if slides else 0
            self.charged = 0
        self.start, self.window = start, window

    def standing(self) -> int:
        """What counts as charged: of the window before, as much as still lies within the window's reach."""
        if not self.before:
            return self.charged
        return self.charged + math.ceil(float(self.before) * (self.end - self.time) / self.window)

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
        lows = [low for time, low in self.lows if time > at]
        if not self.is_window or at >= self.start:
            back = min([amount, self.charged, *lows])
            self.charged -= back
        elif self.algorithm is Algorithm.SLIDING_WINDOW and at >= self.start - self.window:
            back = min([amount, self.before, *lows])
            self.before -= back
        else:
            return 0
        self.lows = [(time, low - back if time > at else low) for time, low in self.lows]
        return back

    def reset(self, now: int) -> None:
        """Make the charge zero; what was admitted before gives nothing back to what comes after.

        It begins anew a millisecond later; in the last one of a window nothing gives anything back.
        """
        if self.algorithm is Algorithm.CONCURRENCY:
            return
        time = max(now, self.time) + 1
        self.charged = self.before = 0
        self._remember(time, 0)
        if not self.is_window or time < self.end:
            self.time = time

    def waiting(self, amount: int, capacity: int, now: int) -> int:
        """In how many ms the amount would fit; NEVER where waiting cannot help.

        For the bucket: (charged + amount - capacity) / (limit / window). When something open will end
        is not known, so concurrency says a second.
        """
        room = capacity - amount
        if room < 0:
            return NEVER
        match self.algorithm:
            case Algorithm.CONCURRENCY:
                return 1000
            case Algorithm.LEAKY_BUCKET:
                excess = float(self.charged - room)
                return max(0, self.time - now) + math.ceil(excess * self.window / self.limit)
            case Algorithm.FIXED_WINDOW:
                return self.end - now
        if self.charged <= room:
            return self.end - math.floor(float(room - self.charged) * self.window / self.before) - now
        return self.end + self.window - math.floor(float(room) * self.window / self.charged) - now

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
