"""Outbox: settles that could not be delivered, until the ledger is back."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from service.adapters.ledger.away import LedgerAway
from service.adapters.ledger.reservation import Reservation
from service.domain.usage import Usage

MOST = 10_000  # settles that may wait
TOGETHER = 64  # that go out side by side, while the ledger takes them
SHORTEST, LONGEST = 0.1, 2.0  # s between two tries


@dataclass(frozen=True, slots=True)
class Letter:
    """What one settle, or release, has to say."""

    verb: str
    reservation: Reservation
    usage: Usage


class Outbox:
    """Letters in the order they were written; `send` delivers one, or raises LedgerAway.

    `patience` says in how many seconds the ledger may be asked at all. `chance` is from 0 to 1: workers
    do not come back to it in step.
    """

    def __init__(
        self,
        send: Callable[[Letter], Awaitable[object]],
        *,
        most: int = MOST,
        patience: Callable[[], float] = lambda: 0.0,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._send = send
        self._most = most
        self._patience = patience
        self._chance = chance
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

        One letter tries; when it has passed, many go together. After a failure of all there is a pause,
        longer while nothing passes.
        """
        wait, together = SHORTEST, 1
        while True:
            letters = await self._next(together)
            if any(await asyncio.gather(*map(self._deliver, letters))):
                wait, together = SHORTEST, TOGETHER
            else:
                await self._pause(wait)
                wait, together = min(wait * 2, LONGEST), 1

    async def empty(self, grace: float) -> None:
        """Hurry: what cannot be delivered within so many seconds is dropped, and counted."""
        self._hurry.set()
        if self.waiting:
            with suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._letters.join()
        self.dropped += self.waiting
        self.waiting = 0

    async def _next(self, together: int) -> list[Letter]:
        letters = [await self._letters.get()]
        while len(letters) < together and not self._letters.empty():
            letters.append(self._letters.get_nowait())
        return letters

    async def _deliver(self, letter: Letter) -> bool:
        """Whether it was delivered; else it is put back."""
        try:
            await self._send(letter)
        except LedgerAway:
            self._letters.put_nowait(letter)
            return False
        except Exception as error:  # a fault of ours in one must not keep the others
            self.waiting -= 1
            self.dropped += 1
            told = {"message": "a settle could not be written down", "exception": error}
            asyncio.get_running_loop().call_exception_handler(told)
            return True
        else:
            self.waiting -= 1
            return True
        finally:
            self._letters.task_done()

    async def _pause(self, wait: float) -> None:
        """Until the ledger may be asked again; where it may, for some seconds."""
        if self._hurry.is_set():
            await asyncio.sleep(SHORTEST)
            return
        seconds = self._patience() or wait * (1 - self._chance() / 2)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
