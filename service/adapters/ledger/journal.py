"""Journal: what there is to see of exchanges, the newest of them in a stream, written off their path."""

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from redis.asyncio.connection import AbstractConnection

from service.adapters.ledger.aside import Aside
from service.adapters.ledger.away import LedgerAway
from service.adapters.ledger.errand import Argument
from service.adapters.ledger.wire import Wire, master_of
from service.domain.masking import masked, plain

KEY = "w1:exchanges"
FIELD = "record"
LIFE = 7 * 86_400_000  # ms that the stream lives when nothing is added any more
EVERY = 0.25  # s between two times that what waits is written
WAITING = 2_000  # records that may wait
MOST_TEXT = 8 * 1024 * 1024  # characters of bodies that may wait
BATCH, BATCH_TEXT = 500, 256 * 1024  # records, and characters of their bodies, in one write
BLOCK = 1_000  # ms that a reader waits for news
PAGE = 100  # entries that a reader takes at once


class Record(NamedTuple):
    """What waits to be written. `time` is in seconds since 1970; `size` that of its texts."""

    time: float
    fields: Mapping[str, object]
    size: int


class Journal:
    """The writer of one worker: `keep` is how many exchanges the stream holds, of all workers; 0: none.

    What waits is bounded: when it is too much the oldest are dropped, and counted. Nothing is sent unless
    `may_send`. What was not carried out is sent again; where nobody knows, it is counted as dropped.
    """

    def __init__(
        self,
        wire: Wire,
        *,
        keep: int,
        may_send: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._aside = Aside(wire)
        self._keep = keep
        self._may_send = may_send
        self._clock = clock
        self._waiting: deque[Record] = deque()
        self._text = 0
        self._news = asyncio.Event()
        self._sending = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0  # records that nobody will see

    def __len__(self) -> int:
        return len(self._waiting)

    def note(self, fields: Mapping[str, object]) -> None:
        """An exchange is over, and this is what is to be seen of it. Never waits, never fails."""
        if self._keep:
            size = sum(len(value) for value in fields.values() if isinstance(value, str | bytes))
            self._put(Record(self._clock(), fields, size))
            self._news.set()

    def open(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run())

    async def close(self, grace: float = 1.0) -> None:
        """Write what waits, for at most `grace` seconds; what is left is dropped."""
        try:
            async with asyncio.timeout(grace):
                async with self._sending:  # what is under way is not cut off
                    self._stop()
                while await self.flush():
                    pass
        except TimeoutError:
            self._stop()
        if self._task:
            await asyncio.gather(self._task, return_exceptions=True)
        while self._waiting:
            self._drop()
        await self._aside.close()

    async def flush(self) -> bool:
        """Write what waits, as far as one write takes it; whether it was written."""
        async with self._sending:
            batch = self._batch() if self._may_send() else []
            if not batch:
                return False
            try:
                lines = await asyncio.to_thread(lambda: [line(record) for record in batch])
                await self._aside.ask(KEY, self._commands(lines))
            except LedgerAway as away:
                self._return(batch, lost=away.unknown)
                return False
            except asyncio.CancelledError:
                self._return(batch, lost=True)
                raise
            return True

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            await asyncio.sleep(EVERY)
            while await self.flush():
                pass
            if not self._waiting:
                self._news.clear()

    def _stop(self) -> None:
        if self._task:
            self._task.cancel()

    def _commands(self, lines: list[str]) -> list[list[Argument]]:
        adds: list[list[Argument]] = [
            ["XADD", KEY, "MAXLEN", "~", self._keep, "*", FIELD, one] for one in lines
        ]
        return [*adds, ["PEXPIRE", KEY, LIFE]]

    def _batch(self) -> list[Record]:
        batch: list[Record] = []
        size = 0
        while self._waiting and len(batch) < BATCH and size < BATCH_TEXT:
            batch.append(self._waiting.popleft())
            size += batch[-1].size
        self._text -= size
        return batch

    def _put(self, record: Record) -> None:
        self._waiting.append(record)
        self._text += record.size
        while len(self._waiting) > WAITING or self._text > MOST_TEXT:
            self._drop()

    def _drop(self) -> None:
        self._text -= self._waiting.popleft().size
        self.dropped += 1

    def _return(self, batch: list[Record], *, lost: bool) -> None:
        """What was not written waits again, before what came since; what is lost is counted."""
        if lost:
            self.dropped += len(batch)
            return
        since, self._waiting, self._text = self._waiting, deque(), 0
        for record in (*batch, *since):
            self._put(record)


def line(record: Record) -> str:
    """A record as JSON, every secret in it masked."""
    moment = datetime.fromtimestamp(record.time, UTC).isoformat(timespec="milliseconds")
    said = {"timestamp": moment.replace("+00:00", "Z"), **record.fields}
    return (plain(said) or json.dumps(masked(said))).rstrip("\n")


async def now(wire: Wire) -> int:
    """The time in ms by which the stream's entries are named. Raises LedgerAway."""
    answer = await (await master_of(wire, KEY)).ask("TIME")
    if not isinstance(answer, list):
        raise LedgerAway("TIME is not allowed", unknown=False)
    return int(answer[0]) * 1000 + int(answer[1]) // 1000


async def follow(
    wire: Wire, after: str, *, anew: bool = False
) -> AsyncGenerator[list[tuple[str, str]], None]:
    """The entries behind one, id and record, as they come; none where a second passed without.

    On a connection of its own; `anew` where the last one failed. Raises LedgerAway.
    """
    link = await master_of(wire, KEY, anew=anew)
    async with link.apart() as connection:
        while True:
            entries = await _read(connection, after)
            yield entries
            if entries:
                after = entries[-1][0]


async def _read(connection: AbstractConnection, after: str) -> list[tuple[str, str]]:
    await connection.send_command("XREAD", "COUNT", PAGE, "BLOCK", BLOCK, "STREAMS", KEY, after)
    answer: Any = await connection.read_response()
    streams = answer.items() if isinstance(answer, dict) else answer or ()
    return [(name.decode(), _record(fields)) for _, entries in streams for name, fields in entries]


def _record(fields: list[bytes]) -> str:
    """The record in an entry, which somebody else may have written; empty where there is none."""
    members = dict(zip(fields[::2], fields[1::2], strict=True))
    return members.get(FIELD.encode(), b"").decode(errors="replace")
