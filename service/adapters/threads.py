"""Threads: what takes long, done off the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TypeVar

INLINE = 8_192  # characters that are counted faster than a thread hears of them
LOOK = 65_536  # bytes that are read, checked or looked up so
PATIENCE = 1_024  # characters by which each that waits becomes smaller when another one comes

T = TypeVar("T")


class Threads:
    """Threads of one event loop, made when they are needed: at most `most`.

    Of those that wait the smallest goes first, so that what is huge holds up nobody. What came later counts
    as larger by PATIENCE for each that came before it, so that nothing waits for ever.
    """

    def __init__(self, most: int) -> None:
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="counting")
        self._free = most
        self._waiting = 0
        self._turns: list[tuple[int, int, asyncio.Future[None]]] = []  # a heap; some are cancelled
        self._arrivals = count()

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return self._waiting

    async def run(self, work: Callable[[], T], size: int) -> T:
        """What the work returns, or raises; where it is at most INLINE characters, it is done here and now.

        If this is cancelled, work that waits is never begun, and a thread that works comes to its end alone.
        Raises RuntimeError when closed.
        """
        if size <= INLINE:
            return work()
        await self._turn(size)
        try:
            running = asyncio.get_running_loop().run_in_executor(self._pool, work)
        except RuntimeError:  # closed meanwhile, which the next is to hear too
            self._over()
            raise
        running.add_done_callback(self._over)
        return await asyncio.shield(running)

    async def read(self, work: Callable[[], T], size: int) -> T:
        """The same for work that only reads `size` bytes, of which more may be read here and now: LOOK."""
        return work() if size <= LOOK else await self.run(work, size)

    def close(self) -> None:
        """Begin nothing more; what runs comes to its end alone."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _turn(self, size: int) -> None:
        if self._free:
            self._free -= 1
            return
        arrival, turn = next(self._arrivals), asyncio.get_running_loop().create_future()
        heappush(self._turns, (size + PATIENCE * arrival, arrival, turn))
        self._waiting += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting -= 1
                self._tidy()
            else:  # it had just become ours
                self._over()
            raise

    def _tidy(self) -> None:
        """Forget the cancelled turns once they are more than half, so that each costs the same on average."""
        if len(self._turns) > 2 * self._waiting:
            self._turns = [place for place in self._turns if not place[-1].cancelled()]
            heapify(self._turns)

    def _over(self, _: object = None) -> None:
        """A thread is free: for the next, if there is one."""
        while self._turns:
            turn = heappop(self._turns)[-1]
            if not turn.cancelled():
                self._waiting -= 1
                turn.set_result(None)
                return
        self._free += 1
