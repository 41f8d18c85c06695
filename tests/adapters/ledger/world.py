"""The world around a ledger: conditions to wait for, claims, and wires that fail as they are told."""

import asyncio
import os
import signal
import struct
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import redis

from service.adapters.ledger import Ledger, LedgerAway, Reservation
from service.adapters.ledger import scripts as lua
from service.adapters.ledger.embedded import EmbeddedStore
from service.adapters.ledger.link import Argument, Link
from service.adapters.ledger.scripts import Script
from service.adapters.ledger.subjects import Subjects
from service.domain.account import Algorithm
from service.domain.policy import Claim, Count, Policy
from service.domain.usage import Usage

ALICE = "w1:{alice}"
DAY = Policy(name="day", per=(), limit=1_000, window=86_400_000, algorithm=Algorithm.FIXED_WINDOW)
STREAMS = Policy(
    name="streams", per=(), limit=2, window=0, algorithm=Algorithm.CONCURRENCY, count=Count.CONCURRENT
)


def asked(tokens: int, *, subject: str = ALICE, policy: Policy = DAY, keep_lost: bool = True) -> Reservation:
    return Reservation([Claim(policy, subject, tokens * 1000)], keep_lost=keep_lost)


def used(tokens: int) -> Usage:
    return Usage(prompt=0, completion=tokens, source="provider")


def charged(server: redis.Redis, *, subject: str = ALICE, policy: Policy = DAY) -> float:
    """What stands in the account, in tokens."""
    text = server.hget(subject, policy.account)
    return float(struct.unpack_from(">d", text, 1)[0]) / 1000 if isinstance(text, bytes) else 0


def open_reservations(server: redis.Redis, subject: str = ALICE) -> int:
    fields: Any = server.hkeys(subject)
    return sum(field.startswith(b"~") and field != b"~" for field in fields)


def end_lease(server: redis.Redis, reservation: Reservation, *, subject: str = ALICE) -> None:
    """As if its lease had ended a second ago, and it were time to look."""
    field = f"~{reservation.id}"
    values: Any = server.hmget(subject, [field, "~"])
    record, hint = values
    seconds, microseconds = server.time()
    past = struct.pack(">d", seconds * 1000 + microseconds // 1000 - 1000)
    server.hset(subject, mapping={field: past + record[8:], "~": past + hint[8:]})


async def eventually(condition: Callable[[], object], within: float = 10.0) -> None:
    """Wait until it is so; fail after so many seconds."""
    until = asyncio.get_running_loop().time() + within
    for moment in iter(asyncio.get_running_loop().time, until):
        if condition():
            return
        assert moment < until, "it did not come so"
        await asyncio.sleep(0.002)


@contextmanager
def frozen(store: EmbeddedStore) -> Iterator[None]:
    os.kill(store.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(store.pid, signal.SIGCONT)


@asynccontextmanager
async def opened(
    url: str, *, connections: int = 2, timeout: float = 1.0, **options: Any
) -> AsyncIterator[Ledger]:
    """A ledger over a link to one server."""
    async with running(Link(url, lua.load(), connections=connections, timeout=timeout), **options) as ledger:
        yield ledger


@asynccontextmanager
async def running(wire: Any, **options: Any) -> AsyncIterator[Ledger]:
    """A ledger over a wire, for its life."""
    ledger = Ledger(wire, **options)
    await ledger.open()
    try:
        yield ledger
    finally:
        await ledger.close()


def operator(ledger: Ledger) -> Subjects:
    """What an operator asks, over the same wire."""
    wire: Any = ledger._wire
    return Subjects(wire)


class Wire:
    """A proxy before a server's socket, which carries as it is told: late, in part, or nothing at all."""

    def __init__(self, url: str) -> None:
        self._server = url.removeprefix("unix://")
        self._folder = tempfile.TemporaryDirectory(prefix="weir-wire-")
        self.path = str(Path(self._folder.name) / "s")
        self.url = f"unix://{self.path}"
        self.lose = 0  # so many answers get lost once the server has given them, and the connection with them
        self.losing = b"EVALSHA"  # those to what says this
        self.silent = False  # what is said gets lost, and nobody is told
        self.slow = 0.0  # s that an answer takes; a new connection takes as long too
        self.cut: int | None = None  # bytes of answers that it carries yet, before it hangs up
        self.connections = 0
        self.writes = 0  # pieces that came from clients
        self.overhear: Callable[[bytes], object] = len  # told each piece before the server is
        self.late: dict[bytes, asyncio.Event] = {}  # what says this is carried no sooner than that
        self._carriers: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Wire":
        self._listener = await asyncio.start_unix_server(self._accept, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        await asyncio.wait_for(asyncio.gather(*self._carriers), 5)
        self._folder.cleanup()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._carriers.add(asyncio.get_running_loop().create_task(self._carry(reader, writer)))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self.slow)
        try:
            server_reader, server_writer = await asyncio.open_unix_connection(self._server)
        except OSError:  # no server: then there is no wire either
            writer.close()
            return
        lost = asyncio.Event()
        answering = asyncio.create_task(self._answer(server_reader, writer, lost))
        with suppress(OSError):
            while data := await reader.read(1 << 20):
                self.writes += 1
                if self.silent:
                    continue
                for event in [event for said, event in self.late.items() if said in data]:
                    await event.wait()
                self.overhear(data)
                if self.lose and self.losing in data:
                    self.lose -= 1
                    lost.set()
                server_writer.write(data)
        server_writer.close()
        await answering

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lost: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while (answer := await reader.read(1 << 20)) and not lost.is_set():
                await asyncio.sleep(self.slow)
                if self.cut is not None:
                    answer, self.cut = answer[: self.cut], max(0, self.cut - len(answer))
                writer.write(answer)
                await writer.drain()
                if self.cut == 0:
                    break
        writer.close()


class Split:
    """A link to one server that is asked as a cluster is: each call names the keys of one subject.

    The next call of a script about a subject fails as `failing` says: before it is carried out or, where
    that is unknown, after.
    """

    splits = True

    def __init__(self, url: str, *, connections: int = 2, timeout: float = 1.0) -> None:
        self._link = Link(url, lua.load(), connections=connections, timeout=timeout)
        self.scripts = self._link.scripts
        self.failing: dict[tuple[str, str], list[LedgerAway]] = {}  # by script and subject
        self.asked: list[tuple[str, str]] = []
        self.warm, self.is_there, self.close = self._link.warm, self._link.is_there, self._link.close

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument], *, deadline: float
    ) -> tuple[str, list[int]]:
        (key,) = keys
        self.asked.append((script.name, key))
        faults = self.failing.get((script.name, key))
        fault = faults.pop(0) if faults else None
        if fault and not fault.unknown:
            raise fault
        answer = await self._link.run(script, keys, arguments, deadline=deadline)
        if fault:
            raise fault
        return answer


class Clocked:
    """A link to one server whose time is what the test says, in ms."""

    splits = False

    def __init__(self, url: str, now: int) -> None:
        self._link = Link(url, lua.load())
        self.scripts = self._link.scripts
        self.now = now
        self.answers: list[str] = []
        self.warm, self.is_there, self.close = self._link.warm, self._link.is_there, self._link.close

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument], *, deadline: float
    ) -> tuple[str, list[int]]:
        assert arguments[0] == ""  # the worker leaves it to the server
        told = [str(self.now), *arguments[1:]]
        status, numbers = await self._link.run(script, keys, told, deadline=deadline)
        if script is not self.scripts.heartbeat:
            self.answers.append(status)
        return status, numbers
