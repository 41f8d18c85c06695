"""Vitals: how a worker itself is: how late its event loop runs, what it works, and what it has in memory."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

EVERY = 0.5  # s between two looks
MEMORY = Path("/proc/self/statm")


class Told(Protocol):
    """Who hears of it: `lag` and `cpu` in s since the last look, `memory` in bytes, None where not known."""

    def __call__(self, *, lag: float, cpu: float, memory: int | None) -> None:
        """Hear of one look."""


class Vitals:
    """Looks at the process it runs in. `clock` is the loop's, `cpu` that of the work of all threads, in s."""

    def __init__(
        self,
        told: Told,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
        statm: Path = MEMORY,
    ) -> None:
        self._told = told
        self._clock = clock
        self._cpu = cpu
        self._statm = statm
        self._worked = 0.0

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            due = self._clock() + EVERY
            await asyncio.sleep(EVERY)
            self.look(due)

    def look(self, due: float) -> None:
        """Tell how it is now; this look was to be when the clock showed `due`."""
        worked = self._cpu()
        self._told(
            lag=max(0.0, self._clock() - due),
            cpu=worked - self._worked,
            memory=resident(self._statm),
        )
        self._worked = worked


def resident(statm: Path) -> int | None:
    """What Linux says that this process has in memory, in bytes; None elsewhere. See proc(5), statm."""
    try:
        pages = statm.read_bytes().split()[1]
    except FileNotFoundError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
