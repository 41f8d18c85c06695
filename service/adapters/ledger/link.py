"""Link: the scripts of a worker on their way to Redis, those of one moment in one write."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, NoScriptError, RedisError, ResponseError

from service.adapters.ledger.away import LedgerAway, reason_of, refused
from service.adapters.ledger.errand import Argument, Errand, fail
from service.adapters.ledger.scripts import Script, Scripts

__all__ = ["Argument", "LedgerAway", "Link"]

BATCH = 128  # calls in one write
WAITING = 10_000  # calls that may wait for a connection
LOOK_ANEW = ("LOADING", "READONLY", "MASTERDOWN")  # whose next answer may come from another server
TURNS = 8  # of the event loop in which an answer that is there is read and handed on


class Guide(Protocol):
    """Who knows where the server is, where the URL does not say."""

    async def lead(self, connection: AbstractConnection) -> None:
        """Connect it, or see that it leads to the right server still. Raises RedisError or OSError."""

    async def close(self) -> None:
        """Nobody is to be led any more."""


class Link:
    """A few connections to one server, made by redis-py, over which scripts run in batches.

    A caller that stops waiting does not disturb the wire: the batch is carried by a task of its own, and
    its answers are read to the end. `guide` connects where the URL does not say all.
    """

    splits = False  # a call may name any keys

    def __init__(
        self,
        url: str,
        scripts: Scripts,
        *,
        connections: int = 2,
        timeout: float = 1.0,
        guide: Guide | None = None,
    ) -> None:
        self.scripts = scripts
        self._guide = guide
        self._pool = ConnectionPool.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            driver_info=None,
        )
        self._idle: list[AbstractConnection] = [self._connection() for _ in range(connections)]
        self._connections = tuple(self._idle)
        self._taken: dict[
            AbstractConnection, float
        ] = {}  # since when each is busy, or what it sent is on its way
        self._waiting: deque[Errand] = deque()
        self._carriers: set[asyncio.Task[None]] = set()
        self._flush: asyncio.Handle | None = None

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Argument],
        *,
        deadline: float,
        asking: bool = False,
    ) -> tuple[str, list[int]]:
        """Run a script; returns its status and its numbers. `deadline` in seconds. Raises LedgerAway."""
        if len(self._waiting) >= WAITING:
            raise LedgerAway("too many calls are waiting", unknown=False)
        loop = asyncio.get_running_loop()
        call = Errand(script, keys, arguments, loop.create_future(), asking)
        self._waiting.append(call)
        if self._flush is None:
            self._flush = loop.call_soon(self._dispatch)
        timer = loop.call_later(deadline, self._expire, call, deadline, TURNS)
        try:
            answer = await call.answer
        finally:
            timer.cancel()
        status, *numbers = answer
        return (status.decode() if isinstance(status, bytes) else str(status)), [int(n) for n in numbers]

    async def warm(self) -> None:
        """Connect and load the scripts, so that no request waits for it. Raises LedgerAway."""
        try:
            for connection in self._connections:
                await self._connect(connection)
            await self._load(self._connections[0])
        except (RedisError, OSError) as error:
            raise LedgerAway(reason_of(error), unknown=False) from error

    @asynccontextmanager
    async def apart(self) -> AsyncIterator[AbstractConnection]:
        """A connection of one's own, for ordinary commands. Raises LedgerAway."""
        connection = self._connection()
        try:
            await self._connect(connection)
            yield connection
        except (RedisError, OSError) as error:
            raise LedgerAway(reason_of(error), unknown=True) from error
        finally:
            await connection.disconnect()

    async def ask(self, *command: Argument) -> object:
        """Run one ordinary command on a connection of its own; None where it may not. Raises LedgerAway."""
        async with self.apart() as connection:
            try:
                await connection.send_command(*command)
                return await connection.read_response()
            except ResponseError:
                return None

    async def masters(self) -> "list[Link]":
        """The one server there is."""
        return [self]

    async def is_there(self) -> bool:
        """Whether the server answers."""
        try:
            await self.ask("PING")
        except LedgerAway:
            return False
        return True

    async def close(self) -> None:
        """Let what is under way end, then close the connections."""
        while self._carriers or self._waiting:
            await asyncio.gather(asyncio.sleep(0), *self._carriers)
        for connection in self._connections:
            await connection.disconnect()
        if self._guide:
            await self._guide.close()

    def _expire(self, call: Errand, deadline: float, turns: int) -> None:
        """The time may be up: the ledger's, from when a call is on its way, or else those before it are.

        That this worker is busy is not the ledger's fault: what waits for its turn goes on waiting, and an
        answer that is there and was not read yet is not too late.
        """
        if call.answer.done():
            return
        loop = asyncio.get_running_loop()
        since = call.sent or min(self._taken.values(), default=loop.time())
        if (left := since + deadline - loop.time()) > 0:
            loop.call_later(left, self._expire, call, deadline, TURNS)
        elif turns:
            loop.call_soon(self._expire, call, deadline, turns - 1)
        else:
            fail([call], "no answer in time", unknown=call.begun)

    def _connection(self) -> AbstractConnection:
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        return connection

    def _dispatch(self) -> None:
        self._flush = None
        while self._waiting and self._idle:
            batch: list[Errand] = []
            while self._waiting and len(batch) < BATCH:
                call = self._waiting.popleft()
                if not call.answer.done():  # nobody waits for it, and nothing was sent
                    batch.append(call)
            if batch:
                connection = self._idle.pop()
                self._taken[connection] = asyncio.get_running_loop().time()
                carrier = asyncio.get_running_loop().create_task(self._carry(connection, batch))
                self._carriers.add(carrier)
                carrier.add_done_callback(self._carriers.discard)

    async def _carry(self, connection: AbstractConnection, batch: list[Errand]) -> None:
        try:
            unloaded = await self._exchange(connection, batch)
            if unloaded:
                await self._load(connection)
                unloaded = await self._exchange(connection, unloaded)
            if unloaded:  # forgotten again in between
                await self._exchange(connection, unloaded, in_full=True)
        except (RedisError, OSError, asyncio.CancelledError) as error:
            await connection.disconnect(nowait=True)
            fail(batch, reason_of(error), unknown=True)
        finally:
            fail(batch, "the link was closed", unknown=True)
            del self._taken[connection]
            self._idle.append(connection)
            if self._waiting and self._flush is None:
                self._flush = asyncio.get_running_loop().call_soon(self._dispatch)

    async def _exchange(
        self, connection: AbstractConnection, batch: list[Errand], *, in_full: bool = False
    ) -> list[Errand]:
        """One write, then the answers in order. Returns the calls whose script the server does not know."""
        try:
            await self._connect(connection)
        except (RedisError, OSError) as error:
            fail(batch, reason_of(error), unknown=False)
            return []
        batch = [call for call in batch if not call.answer.done()]  # somebody may have given up meanwhile
        for call in batch:
            call.begun = True
        packed = b"".join([call.packed(in_full=in_full) for call in batch])
        await connection.send_packed_command(packed, check_health=False)
        self._taken[connection] = now = asyncio.get_running_loop().time()
        for call in batch:
            call.sent = now
        unloaded, reasons = [], set()
        for call in batch:
            try:
                reply = await call.read(connection)
            except NoScriptError:
                call.begun = False
                unloaded.append(call)
            except (ResponseError, BusyLoadingError) as error:
                reasons.add(reason_of(error))
                call.fail(refused(error))
            else:
                call.succeed(reply)
        if not reasons.isdisjoint(LOOK_ANEW):
            await connection.disconnect(nowait=True)
        return unloaded

    async def _connect(self, connection: AbstractConnection) -> None:
        if self._guide:
            await self._guide.lead(connection)
        else:
            await connection.connect()  # type: ignore[no-untyped-call]

    async def _load(self, connection: AbstractConnection) -> None:
        await self._connect(connection)
        loads = [("SCRIPT", "LOAD", script.text) for script in self.scripts]
        try:
            await connection.send_packed_command(connection.pack_commands(loads), check_health=False)
            for _ in loads:
                await connection.read_response()
        except (RedisError, OSError):
            await connection.disconnect(nowait=True)  # for the answers that were not read
            raise
