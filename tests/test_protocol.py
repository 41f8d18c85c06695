"""HTTP over real sockets, spoken by hand: the bounds on a head, and that nobody else notices them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from service.protocol import LONGEST_HEAD, Protocol

GET = b"GET / HTTP/1.1\r\nhost: weir\r\n\r\n"
SOON = 0.1  # s; a bound that a test does wait for


class Hasty(Protocol):
    head_timeout = SOON


@dataclass
class Server:
    """Answers with the path and the length of the body; `/slow` in two parts, the second when told to."""

    port: int = 0
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        text = b"%b %d" % (scope["path"].encode(), size)
        length = (b"content-length", b"%d" % len(text))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        if scope["path"] == "/slow":
            await send({"type": "http.response.body", "body": text[:1], "more_body": True})
            await self.go.wait()
            text = text[1:]
        await send({"type": "http.response.body", "body": text})


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, *pieces: bytes) -> None:
        with suppress(ConnectionError):  # told enough, the server may be gone already
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()
                await asyncio.sleep(0)

    async def answer(self) -> tuple[int, bytes]:
        """The next answer: status and content."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        status, length = int(head.split()[1]), 0
        for line in head.lower().splitlines():
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return status, await self.reader.readexactly(length)

    async def is_left(self) -> bool:
        """Whether the server says no more and ends the connection."""
        with suppress(ConnectionResetError):
            return await self.reader.read() == b""
        return True


@asynccontextmanager
async def serving(kind: type[Protocol] = Protocol, *, idle: float = 30.0) -> AsyncIterator[Server]:
    server = Server()
    config = uvicorn.Config(server, log_config=None, ws="none", timeout_keep_alive=idle)  # type: ignore[arg-type]
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: kind(config, state, {}), "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    async with listener, asyncio.timeout(20):
        yield server


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Client]:
    client = Client(*await asyncio.open_connection("127.0.0.1", server.port))
    try:
        yield client
    finally:
        client.writer.close()
        with suppress(ConnectionError):
            await client.writer.wait_closed()


def head(size: int) -> bytes:
    """A head of so many bytes of fields and address."""
    start = b"GET / HTTP/1.1\r\nx-long: "
    return start + b"a" * (size - len(b"/x-long: \r\n")) + b"\r\n\r\n"


TOO_LONG = {
    "in one piece": [head(LONGEST_HEAD + 1)],
    "in small pieces": [head(LONGEST_HEAD + 1)[at : at + 1000] for at in range(0, LONGEST_HEAD + 99, 1000)],
    "a field without end": [b"GET / HTTP/1.1\r\nx-long: ", *[b"a" * 1000] * 66],
    "an address": [b"GET /" + b"a" * LONGEST_HEAD + b" HTTP/1.1\r\n\r\n"],
    "many short fields": [b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 11_000 + b"\r\n"],
}


@pytest.mark.parametrize("pieces", TOO_LONG.values(), ids=TOO_LONG.keys())
async def test_a_head_over_64_kb_is_refused_and_the_connection_ends(pieces: list[bytes]) -> None:
    async with serving() as server, connected(server) as client:
        await client.say(*pieces)
        status, content = await client.answer()
        assert status == 431
        assert json.loads(content)["error"]["type"] == "invalid_request_error"
        assert await client.is_left()


async def test_a_long_head_behind_another_request_ends_the_connection_too() -> None:
    async with serving() as server, connected(server) as client:
        await client.say(GET + head(LONGEST_HEAD + 1))
        assert await client.is_left()


async def test_trailers_are_bounded_like_heads() -> None:
    async with serving() as server, connected(server) as client:
        await client.say(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
        await client.say(*[b"a: b\r\n" * 1000] * 20)
        assert await client.is_left()


async def test_a_head_of_64_kb_is_welcome_however_it_comes() -> None:
    async with serving() as server, connected(server) as client:
        for size in (LONGEST_HEAD, 60_000):
            await client.say(head(size))
            assert await client.answer() == (200, b"/ 0")
        await client.say(*[head(60_000)[at : at + 7000] for at in range(0, 60_100, 7000)])
        assert await client.answer() == (200, b"/ 0")


async def test_many_small_requests_on_one_connection_are_no_long_head() -> None:
    async with serving() as server, connected(server) as client:
        for _ in range(3000):  # 93 KB of heads
            client.writer.write(GET)
            assert await client.answer() == (200, b"/ 0")


async def test_requests_in_one_write_are_answered_one_after_the_other() -> None:
    async with serving() as server, connected(server) as client:
        await client.say(b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(500)))
        assert [await client.answer() for _ in range(500)] == [(200, b"/%d 0" % n) for n in range(500)]


async def test_a_long_body_is_no_long_head_nor_is_what_follows_it() -> None:
    body = b"a" * 1_000_000
    async with serving() as server, connected(server) as client:
        request = b"POST /long HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        await asyncio.gather(client.say(request + GET[:10]), asyncio.sleep(0))
        assert await client.answer() == (200, b"/long 1000000")
        await client.say(GET[10:])
        assert await client.answer() == (200, b"/ 0")


async def test_a_head_that_drips_is_bounded_in_time() -> None:
    async with serving(Hasty) as server, connected(server) as client:
        await client.say(GET[:5])

        async def drip() -> None:
            while True:
                await client.say(b"a")
                await asyncio.sleep(SOON / 5)

        dripping = asyncio.create_task(drip())
        status, content = await client.answer()
        dripping.cancel()
        assert status == 408
        assert "did not arrive in time" in json.loads(content)["error"]["message"]
        assert await client.is_left()


async def test_the_second_head_of_a_connection_is_bounded_in_time_too() -> None:
    async with serving(Hasty) as server, connected(server) as client:
        await client.say(GET)
        assert await client.answer() == (200, b"/ 0")
        await client.say(GET[:5])
        assert (await client.answer())[0] == 408
        assert await client.is_left()


async def test_a_body_may_take_longer_than_a_head() -> None:
    async with serving(Hasty) as server, connected(server) as client:
        await client.say(b"POST / HTTP/1.1\r\n", b"content-length: 2\r\n\r\na")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.read(1), 3 * SOON)
        await client.say(b"b")
        assert await client.answer() == (200, b"/ 2")


async def test_half_a_head_does_not_cut_the_answer_before_it() -> None:
    async with serving(Hasty) as server, connected(server) as client:
        await client.say(b"GET /slow HTTP/1.1\r\n\r\n", GET[:5])
        assert await client.reader.readuntil(b"\r\n\r\n/")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.read(1), 3 * SOON)
        server.go.set()
        assert await client.reader.readexactly(6) == b"slow 0"
        await client.say(GET[5:])
        assert await client.answer() == (200, b"/ 0")


async def test_a_connection_that_never_says_anything_ends_like_an_idle_one() -> None:
    async with serving(idle=SOON) as server, connected(server) as client:
        assert await client.is_left()


async def test_what_is_not_http_is_told_so_in_openais_envelope() -> None:
    async with serving() as server, connected(server) as client:
        await client.say(b"\x16\x03\x01 hello\r\n\r\n")
        status, content = await client.answer()
        assert (status, json.loads(content)["error"]["code"]) == (400, None)
        assert await client.is_left()
