"""Heartbeat: tells the ledger that this worker is alive, and hears how many are."""

import asyncio
import random
import secrets
from collections import deque
from collections.abc import Callable

from service.adapters.ledger.away import LedgerAway
from service.adapters.ledger.breaker import Runs
from service.adapters.ledger.errand import Argument
from service.adapters.ledger.scripts import Script

WORKERS = "w1:{workers}"
EVERY = 5.0  # s between two beats
SILENCE = 15_000  # ms without a beat after which a worker is taken for dead
DEADLINE = 1.0  # s that a beat may take


async def counted(link: Runs, script: Script) -> int:
    """How many workers are alive, asked by none of them. Raises LedgerAway, also where no script may run."""
    _, numbers = await link.run(script, [WORKERS], ["", "", 0, SILENCE], deadline=DEADLINE)
    return numbers[-1]


class Heartbeat:
    """The beats of one worker over a link, `every` so many seconds, not in step with the others.

    `alone` is how many workers there are while nobody has counted. `alive` is the most that the beats within
    `SILENCE` counted: after a ledger was away, or came back empty, the first to be heard is not the only one.
    While it is away the last known number stands.
    """

    def __init__(
        self,
        link: Runs,
        script: Script,
        *,
        alone: int = 1,
        every: float = EVERY,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._link = link
        self._script = script
        self._alone = alone
        self._every = every
        self._chance = chance
        self._id = secrets.token_urlsafe(12)
        self._counted: deque[int] = deque(maxlen=round(SILENCE / 1000 / EVERY))

    @property
    def alive(self) -> int:
        """How many workers there are, as far as this one knows; never 0."""
        return max(self._counted, default=self._alone)

    async def run(self) -> None:
        """Beat, for ever."""
        while True:
            await self.beat()
            await asyncio.sleep(self.rest())

    def rest(self) -> float:
        """How many seconds until the next beat; up to a fifth more or less than `every`."""
        return self._every * (0.8 + 0.4 * self._chance())

    async def beat(self) -> None:
        """Be alive, and count those who are. A ledger that is away is not an error."""
        try:
            self._counted.append(await self._say(SILENCE))
        except LedgerAway:
            return

    async def leave(self) -> None:
        """Be counted no more."""
        try:
            await self._say(0)
        except LedgerAway:
            return

    async def _say(self, silence: int) -> int:
        arguments: list[Argument] = ["", self._id, silence, SILENCE]
        _, numbers = await self._link.run(self._script, [WORKERS], arguments, deadline=DEADLINE)
        return numbers[-1]
