"""Walk: every subject of a ledger, read a batch at a time, so that neither side holds or waits for more."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from service.adapters.ledger import fields
from service.adapters.ledger.fields import Rule
from service.adapters.ledger.link import Argument
from service.adapters.ledger.wire import Wire
from service.domain.account import Account
from service.domain.subject import PREFIX

BATCH = 500  # subjects in one write


@dataclass(frozen=True, slots=True)
class Found:
    """A subject as it is written: its accounts, and the operator's rules, by the names of the accounts.

    The accounts are as of when they were written.
    """

    subject: str
    accounts: Mapping[str, Account]
    rules: Mapping[str, Rule]


async def walk(wire: Wire, names: Sequence[str]) -> AsyncIterator[tuple[int, list[Found]]]:
    """The subjects that have some of the accounts of these names, and the ledger's time in ms, in batches.

    By SCAN, on every master: what is there from the beginning to the end is found at least once, and what
    is on its way from one to the other perhaps not. Raises LedgerAway.
    """
    for link in await wire.masters():
        async with link.apart() as connection:  # as many commands go in one write
            async for batch in _batches(connection, names):
                yield batch


def parts(names: Sequence[str]) -> list[str]:
    """The fields of a subject that hold the accounts of these names and the rules for them."""
    return [*names, *(f"={name}" for name in names)]


def found(subject: str, names: Sequence[str], values: Sequence[object]) -> Found:
    """A subject of which `values` are what those fields hold."""
    accounts = zip(names, map(fields.account, values[: len(names)]), strict=True)
    rules = zip(names, map(fields.rule, values[len(names) :]), strict=True)
    return Found(
        subject,
        {name: account for name, account in accounts if account},
        {name: rule for name, rule in rules if rule},
    )


async def _batches(
    connection: AbstractConnection, names: Sequence[str]
) -> AsyncIterator[tuple[int, list[Found]]]:
    wanted, cursor = parts(names), b"0"
    while True:
        scan = ("SCAN", cursor, "MATCH", f"{PREFIX}*", "COUNT", BATCH, "TYPE", "hash")
        await connection.send_command(*scan)
        cursor, keys = await connection.read_response()
        reads = [("HMGET", key, *wanted) for key in keys]
        time, *values = await _ask_each(connection, [("TIME",), *reads])
        now = int(time[0]) * 1000 + int(time[1]) // 1000
        batch = [found(key.decode(), names, one) for key, one in zip(keys, values, strict=True) if one]
        yield now, [subject for subject in batch if subject.accounts]
        if cursor == b"0":
            return


async def _ask_each(connection: AbstractConnection, commands: Sequence[Sequence[Argument]]) -> list[Any]:
    """The answers to commands that go in one write; None where one is refused, as of a key that has moved."""
    packed = b"".join([pack_command(tuple(command)) for command in commands])  # type: ignore[arg-type]
    await connection.send_packed_command(packed, check_health=False)
    answers = []
    for _ in commands:
        try:
            answers.append(await connection.read_response(disconnect_on_error=False))
        except ResponseError:
            answers.append(None)
    return answers
