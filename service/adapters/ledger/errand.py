"""Errand: a script on its way over a connection, and what came back."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import BusyLoadingError, ResponseError

from service.adapters.ledger.away import LedgerAway
from service.adapters.ledger.scripts import Script

Argument = str | int | bytes
Reply = list[bytes | int]

_ASKING = b"*1\r\n$6\r\nASKING\r\n"


@dataclass(slots=True)
class Errand:
    """One call. `asking`: of the node of a cluster that its keys are on their way to."""

    script: Script
    keys: Sequence[str]
    arguments: Sequence[Argument]
    answer: "asyncio.Future[Reply]"
    asking: bool = False
    begun: bool = False  # it may have been carried out
    sent: float | None = None  # when it was written, s of the loop's clock

    def packed(self, *, in_full: bool) -> bytes:
        """What is written: the script by its digest, or in full."""
        how = ("EVAL", self.script.text) if in_full else ("EVALSHA", self.script.sha)
        command: bytes = pack_command((*how, len(self.keys), *self.keys, *self.arguments))  # type: ignore[arg-type]
        return _ASKING + command if self.asking else command

    async def read(self, connection: AbstractConnection) -> Reply:
        """Its answer, past that to ASKING. Raises RedisError; a refusal leaves the connection as it is."""
        if self.asking:
            with suppress(ResponseError, BusyLoadingError):  # then the call itself is refused
                await connection.read_response(disconnect_on_error=False)
        reply: Reply = await connection.read_response(disconnect_on_error=False)
        return reply

    def succeed(self, reply: Reply) -> None:
        """Hand the answer on, where somebody waits for it still."""
        if not self.answer.done():
            self.answer.set_result(reply)

    def fail(self, away: LedgerAway) -> None:
        """Say why there is no answer, where somebody waits for it still."""
        if not self.answer.done():
            self.answer.set_exception(away)


def fail(batch: Sequence[Errand], reason: str, *, unknown: bool) -> None:
    """All of them that have no answer yet have failed for this reason."""
    for errand in batch:
        errand.fail(LedgerAway(reason, unknown=unknown))
