"""Outbox: settles that could not be delivered, until the ledger is back."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from service.adapters.ledger.link import LedgerAway
from service.adapters.ledger.reservation import Reservation
from service.domain.usage import Usage

MOST = 10_000  # settles that may wait
SHORTEST, LONGEST = 0.1, 2.0  # s between two tries


@dataclass(frozen=True, slots=True)
class Letter:
    """What one settle, or release, has to say."""

    verb: str
    reservation: Reservation
    usage: Usage


class Outbox:
    """Letters in the order they were written; `send` delivers one, or raises LedgerAway."""

    def __init__(self, send: Callable[[Letter], Awaitable[object]], *, most: int = MOST) -> None:
        self._send = send
        self._most = most
        self._letters: asyncio.Queue[Letter] = asyncio.Queue()
        self._hurry = asyncio.Event()
        self.waiting = 0  # letters not delivered yet
        self.dropped = 0  # letters that could not be kept

    def put(self, letter: Letter) -> None:
        """Keep a letter; where there are too many, it is dropped, and counted."""
        if self.waiting >= self._most:
            self.dropped += 1
            return
        self.waiting += 1
        self._letters.put_nowait(letter)

    async def run(self) -> None:
        """Deliver, for ever. What cannot be delivered goes behind the others, which perhaps can be.

        After each failure there is a pause, longer while nothing passes.
        """
        wait = SHORTEST
        while True:
            letter = await self._letters.get()
            try:
                await self._send(letter)
            except LedgerAway:
                self._letters.put_nowait(letter)
                await self._pause(wait)
                wait = min(wait * 2, LONGEST)
            else:
                self.waiting -= 1
                wait = SHORTEST
            self._letters.task_done()

    async def empty(self, grace: float) -> None:
        """Hurry: what cannot be delivered within so many seconds is dropped, and counted."""
        self._hurry.set()
        if self.waiting:
            with suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._letters.join()
        self.dropped += self.waiting
        self.waiting = 0

    async def _pause(self, seconds: float) -> None:
        if self._hurry.is_set():
            await asyncio.sleep(SHORTEST)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
