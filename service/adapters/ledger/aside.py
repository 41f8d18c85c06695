"""Aside: plain commands about a key, in one write, on a connection beside those of the ledger's calls."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import BusyLoadingError, RedisError, ResponseError

from service.adapters.ledger.away import LedgerAway, reason_of
from service.adapters.ledger.errand import Argument
from service.adapters.ledger.link import Link
from service.adapters.ledger.wire import Wire, master_of

PATIENCE = 1.0  # s that one write and its answers may take


class Aside:
    """One connection that is kept, to the server that has the key; no call of the ledger waits for it."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._life = AsyncExitStack()
        self._link: Link | None = None
        self._connection: AbstractConnection | None = None
        self._failed = False  # the last time: the key may lie elsewhere now

    async def ask(self, key: str, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """The answers to commands about this key.

        Raises LedgerAway, `unknown` unless the server was not reached, or refused the first of them.
        """
        sent = False
        try:
            async with asyncio.timeout(PATIENCE):
                connection = await self._connected(key)
                packed = b"".join([pack_command(tuple(command)) for command in commands])  # type: ignore[arg-type]
                sent, self._failed = True, True
                await connection.send_packed_command(packed, check_health=False)
                answers = [await _answer(connection) for _ in commands]
        except (LedgerAway, RedisError, OSError) as error:
            await self._leave()
            reason = error.reason if isinstance(error, LedgerAway) else reason_of(error)
            raise LedgerAway(reason, unknown=sent) from error
        except asyncio.CancelledError:
            await self._leave()
            raise
        for refused in (answer for answer in answers if isinstance(answer, RedisError)):
            await self._leave()
            raise LedgerAway(reason_of(refused), unknown=refused is not answers[0])
        self._failed = False
        return answers

    async def close(self) -> None:
        """Let the connection go."""
        await self._leave()

    async def _connected(self, key: str) -> AbstractConnection:
        link = await master_of(self._wire, key, anew=self._failed)
        if self._connection is None or link is not self._link or await _was_closed(self._connection):
            await self._leave()
            self._link, self._connection = link, await self._life.enter_async_context(link.apart())
        return self._connection

    async def _leave(self) -> None:
        self._link = self._connection = None
        await self._life.aclose()


async def _was_closed(connection: AbstractConnection) -> bool:
    """Whether the server has hung up, which nobody heard as nobody was reading."""
    try:
        return bool(await connection.can_read())
    except (RedisError, OSError):
        return True


async def _answer(connection: AbstractConnection) -> Any:
    """What a command is answered, a refusal too. Raises RedisError or OSError where the connection fails."""
    try:
        return await connection.read_response(disconnect_on_error=False)
    except (ResponseError, BusyLoadingError) as refused:
        return refused
