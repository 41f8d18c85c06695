"""Leaderboard: who used most tokens this hour, by all workers, as far as a bounded memory knows."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from service.adapters.ledger.aside import Aside
from service.adapters.ledger.away import LedgerAway
from service.adapters.ledger.errand import Argument
from service.adapters.ledger.wire import Wire
from service.domain.exchange import Exchange

PREFIX = "w1:top:"
HOUR = 3600  # s
LIFE = 3 * HOUR * 1000  # ms that an hour's board lives
EVERY = 5.0  # s between two writes
MOST = 1_000  # subjects on a board, and as many again in a worker's memory before the smallest are forgotten
SHOWN = 20  # places that are read at most
FRESH = 10.0  # s for which what was read counts as current

Place = tuple[str, int]  # a subject, and its tokens


def key_of(moment: float) -> str:
    """The board of the hour of a moment, s since 1970."""
    return f"{PREFIX}{int(moment // HOUR)}"


class Leaderboard:
    """What one worker gathers of it. Stands at the end of the response flow.

    A subject is the user's digest, as logs have it; of who named nobody, the credential's id. Nothing is sent
    unless `may_send`. What was not carried out is sent again.
    """

    def __init__(
        self,
        wire: Wire,
        digest: Callable[[str], str],
        *,
        may_send: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._aside = Aside(wire)
        self._digest = digest
        self._may_send = may_send
        self._clock = clock
        self._tokens: dict[str, int] = {}
        self._sending = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._tokens)

    async def on_response(self, exchange: Exchange) -> None:
        """Promise to count what the exchange uses, when that is known."""
        exchange.at_end(partial(self._count, exchange))

    async def _count(self, exchange: Exchange) -> None:
        user = exchange.user or (exchange.chat.user if exchange.chat else None)
        subject = self._digest(user) if user else exchange.credential.id if exchange.credential else ""
        if subject and exchange.usage and exchange.usage.total:
            self.charge(subject, exchange.usage.total)

    def charge(self, subject: str, tokens: int) -> None:
        """A subject used so many tokens more."""
        self._tokens[subject] = self._tokens.get(subject, 0) + tokens
        if len(self._tokens) > 2 * MOST:
            self._forget()

    def open(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run())

    async def close(self, grace: float = 1.0) -> None:
        """Write what was gathered, for at most `grace` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self.flush()
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._aside.close()

    async def flush(self) -> None:
        """Add what was gathered to the board of this hour."""
        async with self._sending:
            if not self._tokens or not self._may_send():
                return
            self._forget()
            gathered, self._tokens = self._tokens, {}
            key = key_of(self._clock())
            try:
                await self._aside.ask(key, _commands(key, gathered))
            except LedgerAway as away:
                if not away.unknown:
                    for subject, tokens in gathered.items():
                        self.charge(subject, tokens)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            await self.flush()

    def _forget(self) -> None:
        """Keep those who used most."""
        if len(self._tokens) > MOST:
            ranked = sorted(self._tokens.items(), key=lambda one: one[1], reverse=True)
            self._tokens = dict(ranked[:MOST])


def _commands(key: str, gathered: dict[str, int]) -> list[list[Argument]]:
    adds: list[list[Argument]] = [["ZINCRBY", key, tokens, subject] for subject, tokens in gathered.items()]
    return [*adds, ["ZREMRANGEBYRANK", key, 0, -MOST - 1], ["PEXPIRE", key, LIFE]]


class Leaders:
    """The first places of this hour's board, read when asked, and seldom."""

    def __init__(self, wire: Wire, *, clock: Callable[[], float] = time.time) -> None:
        self._aside = Aside(wire)
        self._clock = clock
        self._read = float("-inf")  # when that was tried, s of the clock
        self._places: list[Place] = []

    async def places(self) -> list[Place]:
        """At most `SHOWN`, the first one first, as of the last ten seconds; none while the store is away."""
        now = self._clock()
        if not 0 <= now - self._read < FRESH:
            self._read = now
            self._places = await self._look(key_of(now))
        return self._places

    async def close(self) -> None:
        """Let the connection go."""
        await self._aside.close()

    async def _look(self, key: str) -> list[Place]:
        try:
            [found] = await self._aside.ask(key, [["ZREVRANGE", key, 0, SHOWN - 1, "WITHSCORES"]])
        except LedgerAway:
            return []
        flat = [item for one in found for item in (one if isinstance(one, list) else [one])]  # RESP3, RESP2
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return [(subject.decode(errors="replace"), round(float(tokens))) for subject, tokens in pairs]
