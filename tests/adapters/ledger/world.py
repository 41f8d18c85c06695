"""The world around a ledger: conditions to wait for, claims, and a wire that loses answers."""

import asyncio
import os
import signal
import struct
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import redis

from service.adapters.ledger import Ledger, Reservation
from service.adapters.ledger import scripts as lua
from service.adapters.ledger.embedded import EmbeddedStore
from service.adapters.ledger.link import Link
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
    link = Link(url, lua.load(), connections=connections, timeout=timeout)
    ledger = Ledger(link, **options)
    await ledger.open()
    try:
        yield ledger
    finally:
        await ledger.close()


class Wire:
    """A proxy before a server's socket. It loses the next `lose` answers to scripts, or carries nothing."""

    def __init__(self, url: str) -> None:
        self._server = url.removeprefix("unix://")
        self._folder = tempfile.TemporaryDirectory(prefix="weir-wire-")
        self.path = str(Path(self._folder.name) / "s")
        self.url = f"unix://{self.path}"
        self.lose = 0
        self.silent = False
        self.slow = 0.0  # s that every answer takes
        self.connections = 0
        self.writes = 0  # pieces that came from clients
        self.overhear: Callable[[bytes], object] = len  # told each piece before the server is
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
        try:
            server_reader, server_writer = await asyncio.open_unix_connection(self._server)
        except OSError:  # no server: then there is no wire either
            writer.close()
            return
        try:
            while data := await reader.read(1 << 20):
                self.writes += 1
                if self.silent:
                    await reader.read()
                    break
                self.overhear(data)
                server_writer.write(data)
                answer = await server_reader.read(1 << 20)
                if self.lose and b"EVALSHA" in data:
                    self.lose -= 1
                    break
                await asyncio.sleep(self.slow)
                writer.write(answer)
                await writer.drain()
        except OSError:
            pass
        finally:
            for one in (writer, server_writer):
                one.close()
                with suppress(OSError):
                    await one.wait_closed()
