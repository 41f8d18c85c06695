"""Client: what our own load counts, against a server that answers by the book, in pieces, badly or never."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count

import pytest

from benchmarks import request
from benchmarks.client import Client
from benchmarks.load import LoadError

Answer = Callable[[int, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[str]:
    """A server that answers its first, second, ... request as told; its address."""
    number = count()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            try:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(request.LENGTH)
            except asyncio.IncompleteReadError:
                break
            await answer(next(number), writer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


async def well(number: int, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


async def in_pieces(number: int, writer: asyncio.StreamWriter) -> None:
    for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}":
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)


async def badly_at_times(number: int, writer: asyncio.StreamWriter) -> None:
    status = b"200 OK" if number % 4 else b"503 Service Unavailable"
    writer.write(b"HTTP/1.1 %b\r\ncontent-length: 0\r\n\r\n" % status)


async def never(number: int, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def without_length(number: int, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")


@pytest.mark.parametrize("answer", [well, in_pieces])
async def test_every_answer_is_counted_once(answer: Answer) -> None:
    async with server(answer) as url:
        heard = await Client(connections=3, most=20).run(url, 60)
    assert (heard.answers, heard.refused, heard.lost) == (20, 0, 0)
    assert 0 < heard.p50 <= heard.p99


async def test_what_is_not_2xx_is_counted_as_refused() -> None:
    async with server(badly_at_times) as url:
        heard = await Client(connections=2, most=20).run(url, 60)
    assert (heard.answers, heard.refused, heard.lost) == (20, 5, 0)


async def test_a_request_whose_connection_is_closed_is_lost() -> None:
    async with server(never) as url:
        heard = await Client(connections=2, most=20).run(url, 60)
    assert (heard.answers, heard.lost) == (0, 2)


async def test_an_answer_that_cannot_be_read_is_told() -> None:
    async with server(without_length) as url:
        with pytest.raises(LoadError, match="content-length"):
            await Client(connections=1, most=1).run(url, 60)


async def test_when_the_time_is_over_nothing_more_is_asked() -> None:
    async with server(well) as url:
        heard = await Client(connections=2).run(url, 0)
    assert heard.answers == 0


async def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(LoadError, match=r"127\.0\.0\.1:1"):
        await Client(connections=1, most=1).run("http://127.0.0.1:1", 60)
