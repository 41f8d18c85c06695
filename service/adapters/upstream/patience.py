"""Patience: a deadline that moves with every request, on a timer that seldom does."""

import asyncio
from collections.abc import Callable


class Patience:
    """Calls `over` when the time that was last named has come.

    A timer costs more than a number: it stays set when the deadline moves away, and looks again when it
    rings.
    """

    __slots__ = ("_deadline", "_loop", "_over", "_rings", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, over: Callable[[], None]) -> None:
        self._loop = loop
        self._over = over
        self._deadline: float | None = None
        self._rings = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def until(self, deadline: float) -> None:
        """Have patience until then: a moment of the loop's clock, in seconds."""
        self._deadline = deadline
        if self._timer is None or deadline < self._rings:
            self._set(deadline)

    def rest(self) -> None:
        """There is nothing to be waited for."""
        self._deadline = None

    def end(self) -> None:
        """Never call `over` again."""
        self._deadline = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings = deadline
        self._timer = self._loop.call_at(deadline, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        if self._deadline > self._rings:
            self._set(self._deadline)
        else:
            self.end()
            self._over()
