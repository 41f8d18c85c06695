"""History: the second oracle. All that happened to an account, replayed with what was truly used."""

from collections.abc import Callable
from dataclasses import dataclass, field

from service.domain.account import Account, Algorithm

Windows = Callable[[int], tuple[int, int]]  # the beginning and the end of the window around a moment


@dataclass(slots=True)
class Spent:
    """One charge in the history of an account; `amount` becomes what was truly used."""

    amount: int


@dataclass(slots=True)
class History:
    """What an account would be, had every usage been known when its request was admitted.

    `exact` says whether the account must equal it; else it must not be better. It need not where the list
    of lows was full, where the clock fell back so far that the account followed, where a window was reset
    in its last millisecond, and where a record's charges were put together. It must again once both are
    empty and nobody is open who could give something back.
    """

    algorithm: Algorithm
    windows: Windows
    time: int
    limit: int
    window: int
    events: list[tuple[str, int, object]] = field(default_factory=list)
    exact: bool = True

    def note(self, kind: str, at: int, what: object = None) -> None:
        """One of: charge (Spent), reset, limit (the new one), back (the clock fell to that moment)."""
        self.events.append((kind, at, what))

    def doubt(self) -> None:
        self.exact = False

    def heal(self, account: Account) -> None:
        """Begin anew where account and history are empty."""
        empty = not (account.charged or account.before or account.lows)
        if not self.exact and empty and not self.level(account.time):
            self.events.clear()
            self.time, self.limit, self.exact = account.time, account.limit, True

    def level(self, now: int) -> int:
        """What stands charged then."""
        level = before = 0
        time, limit = self.time, self.limit
        start, end = self.windows(time)
        for kind, at, what in [*self.events, ("look", now, None)]:
            if kind == "back":
                time = at
                start, end = self.windows(at)
            elif self.algorithm is Algorithm.LEAKY_BUCKET and at > time:
                level = max(0, level - (at * limit // self.window - time * limit // self.window))
                time = at
            elif at >= end:
                slides = self.algorithm is Algorithm.SLIDING_WINDOW and at < end + self.window
                before, level = level if slides else 0, 0
                start, end = self.windows(at)
            if isinstance(what, Spent):
                level += what.amount
            elif isinstance(what, int):
                limit = what
            elif kind == "reset":
                level = before = 0
                time = at
        return level + -(-before * (end - now) // (end - start))


def windows_of(algorithm: Algorithm, window: int) -> Windows:
    """Those that are anchored to the clock; one for ever where there are none."""
    if algorithm in (Algorithm.SLIDING_WINDOW, Algorithm.FIXED_WINDOW):
        return lambda at: (at - at % window, at - at % window + window)
    return lambda at: (0, 2**60)
