"""Upstream over real sockets: how requests go out, how answers come in, and how either goes wrong."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from service.adapters.upstream import HIGH, MAX_CONTENT, PIECE, Unsent, Upstream, forwarded, returned
from service.domain.errors import InvalidRequest, UpstreamFailed, UpstreamTimeout
from service.domain.exchange import Answer
from service.domain.headers import Field, first

JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
NEVER = 30.0  # s; a timeout that no test waits for
SOON = 0.05  # s; one that a test does wait for


@dataclass
class Server:
    """A server that speaks bytes by hand: what it says is in the test."""

    url: str = ""
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)  # a request is here
    go: asyncio.Event = field(default_factory=asyncio.Event)  # the test lets the server go on
    left: asyncio.Event = field(default_factory=asyncio.Event)  # the client closed a connection


@dataclass
class Connection:
    """One connection of the server's."""

    server: Server
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> bytes:
        """The next request, head and body."""
        request = await self.reader.readuntil(b"\r\n\r\n")
        for line in request.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                request += await self.reader.readexactly(int(line.partition(b":")[2]))
        self.server.requests.append(request)
        self.server.asked.set()
        return request

    async def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def wait_left(self) -> None:
        assert await self.reader.read() == b""
        self.server.left.set()

    def reset(self) -> None:
        self.writer.transport.abort()


Script = Callable[[Connection], Awaitable[None]]


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Server]:
    server = Server()
    ends: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        task = asyncio.current_task()
        assert task is not None
        ends.add(task)
        try:
            await script(Connection(server, reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            server.left.set()
        finally:
            ends.discard(task)
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**20)
    host, port = listener.sockets[0].getsockname()
    server.url = f"http://{host}:{port}/v1"
    try:
        yield server
    finally:
        listener.close()
        for task in list(ends):
            task.cancel()
        await asyncio.gather(*ends, return_exceptions=True)


@asynccontextmanager
async def talking(script: Script, *, connections: int = 3) -> AsyncIterator[tuple[Upstream, Server]]:
    async with serving(script) as server:
        upstream = Upstream(server.url, connections=connections)
        try:
            yield upstream, server
        finally:
            await upstream.close()


async def answering(connection: Connection) -> None:
    """A good server: `{}` to everything, on the same connection."""
    while True:
        await connection.request()
        await connection.say(JSON)


async def ask(upstream: Upstream, *, body: bytes = b"{}", timeout: float = NEVER) -> Answer:
    return await upstream.send("POST", "/chat/completions", [], body, timeout=timeout)


async def relayed(answer: Answer) -> bytes:
    assert not isinstance(answer.body, bytes)
    return b"".join([piece async for piece in answer.body])


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def turns() -> None:
    """Let the event loop look at its sockets."""
    for _ in range(10):
        await asyncio.sleep(0)


# What goes out


async def test_a_request_goes_out_as_it_is_with_nothing_added_but_its_framing() -> None:
    async with talking(answering) as (upstream, server):
        fields: list[Field] = [(b"authorization", b"Bearer sk-1"), (b"x-odd", "ü".encode())]
        await upstream.send("POST", "/chat/completions?a=b%20c", fields, b'{"a" :1}', timeout=NEVER)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    line, *lines = head.split(b"\r\n")
    assert line == b"POST /v1/chat/completions?a=b%20c HTTP/1.1"
    assert body == b'{"a" :1}'
    sent = {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}
    assert sent.pop(b"host") in server.url.encode()
    assert sent == {b"authorization": b"Bearer sk-1", b"x-odd": "ü".encode(), b"content-length": b"8"}


async def test_a_request_without_a_body_has_none() -> None:
    async with talking(answering) as (upstream, server):
        await upstream.send("GET", "/models", [], b"", timeout=NEVER)
    assert server.requests[0].startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert b"content-length" not in server.requests[0].lower()


async def test_a_long_request_arrives_whole() -> None:
    body = bytes(range(256)) * (PIECE // 256 * 2 + 1)
    async with talking(answering) as (upstream, server):
        await ask(upstream, body=body)
    assert server.requests[0].endswith(b"\r\n\r\n" + body)
    assert b"transfer-encoding" not in server.requests[0].partition(b"\r\n\r\n")[0].lower()


# What comes in


async def test_an_answer_is_whole_and_has_the_fields_that_travel_end_to_end() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.say(
            b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nX-One: 1\r\nx-one: 2\r\n"
            b"Date: today\r\nServer: s\r\nKeep-Alive: timeout=5\r\nContent-Length: 13\r\n\r\n",
            b'{"a" ',
            b': "b" }\n',
        )

    async with talking(script) as (upstream, _):
        answer = await ask(upstream)
    assert answer.status == 201
    assert answer.headers == [(b"content-type", b"application/json"), (b"x-one", b"1"), (b"x-one", b"2")]
    assert answer.body == b'{"a" : "b" }\n'
    assert not answer.is_stream()


async def test_a_stream_is_relayed_byte_for_byte_while_it_comes() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.say(STREAM, chunk(b"data: 1\n"))
        await connection.server.go.wait()
        await connection.say(chunk(b"\r\n: \xff"), b"0\r\n\r\n")

    async with talking(script) as (upstream, server):
        answer = await ask(upstream)
        assert not isinstance(answer.body, bytes)
        assert await anext(answer.body) == b"data: 1\n"
        server.go.set()
        assert await relayed(answer) == b"\r\n: \xff"
        assert answer.close is not None
        await answer.close()


async def test_a_compressed_answer_is_left_compressed() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.say(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc")

    async with talking(script) as (upstream, _):
        answer = await ask(upstream)
    assert answer.body == b"abc"
    assert first(answer.headers, b"content-encoding") == b"gzip"


async def test_a_redirect_is_an_answer_like_any_other() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.say(
            b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /v1/other\r\ncontent-length: 0\r\n\r\n"
        )

    async with talking(script) as (upstream, server):
        answer = await ask(upstream)
    assert answer.status == 307
    assert len(server.requests) == 1


async def test_cookies_are_not_kept() -> None:
    async def script(connection: Connection) -> None:
        while True:
            await connection.request()
            await connection.say(JSON.replace(b"\r\n\r\n", b"\r\nset-cookie: a=b\r\n\r\n"))

    async with serving(script) as server:
        by_name = server.url.replace("127.0.0.1", "localhost")  # an address would have no cookies anyway
        upstream = Upstream(by_name, connections=1)
        await ask(upstream)
        await ask(upstream)
        await upstream.close()
    assert b"cookie" not in server.requests[1].lower()


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with talking(answering) as (upstream, _):
        assert (await ask(upstream)).status == 200


# Connections


async def test_a_connection_serves_one_request_after_another() -> None:
    async with talking(answering) as (upstream, server):
        for _ in range(5):
            await ask(upstream)
    assert server.connections == 1


async def test_a_stream_that_was_read_to_its_end_gives_its_connection_back() -> None:
    async def script(connection: Connection) -> None:
        while True:
            await connection.request()
            await connection.say(STREAM, chunk(b"data: 1\n\n"), b"0\r\n\r\n")

    async with talking(script, connections=1) as (upstream, server):
        for _ in range(3):
            answer = await ask(upstream)
            await relayed(answer)
            assert answer.close is not None
            await answer.close()
            await answer.close()
    assert server.connections == 1


async def test_an_idle_connection_that_the_server_closed_is_not_used() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.say(JSON)

    async with talking(script) as (upstream, server):
        for _ in range(3):
            await ask(upstream)
            await turns()
    assert (server.connections, len(server.requests)) == (3, 3)


async def test_a_stream_closed_early_closes_the_connection_at_once() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.say(STREAM, chunk(b"data: 1\n\n"))
        await connection.wait_left()

    async with talking(script) as (upstream, server):
        answer = await ask(upstream)
        assert not isinstance(answer.body, bytes)
        await anext(answer.body)
        assert answer.close is not None
        await answer.close()
        async with asyncio.timeout(1):
            await server.left.wait()


async def test_closing_from_a_cancelled_task_closes_the_connection_too() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.say(STREAM)
        await connection.wait_left()

    async def read(upstream: Upstream) -> None:
        answer = await ask(upstream)
        try:
            await relayed(answer)
        finally:
            assert answer.close is not None
            await answer.close()

    async with talking(script, connections=1) as (upstream, server):
        for _ in range(2):  # the second needs the place of the first
            server.asked.clear()
            server.left.clear()
            task = asyncio.create_task(read(upstream))
            await server.asked.wait()
            await turns()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with asyncio.timeout(1):
                await server.left.wait()


async def test_a_request_cancelled_before_the_head_closes_its_connection() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.wait_left()

    async with talking(script) as (upstream, server):
        task = asyncio.create_task(ask(upstream))
        await server.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(1):
            await server.left.wait()


async def test_requests_cancelled_while_they_wait_for_a_connection_take_none_away() -> None:
    async def script(connection: Connection) -> None:
        while True:
            await connection.request()
            await connection.server.go.wait()
            await connection.say(JSON)

    async with talking(script, connections=3) as (upstream, server):
        tasks = [asyncio.create_task(ask(upstream)) for _ in range(20)]
        await server.asked.wait()
        for task in tasks[1:18]:
            task.cancel()
        await turns()
        server.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(result, Answer) for result in results] == [True, *[False] * 17, True, True]
        async with asyncio.timeout(1):
            answers = await asyncio.gather(*[ask(upstream) for _ in range(9)])
        assert {answer.status for answer in answers} == {200}


async def test_a_connection_offered_to_a_request_that_was_just_cancelled_goes_to_the_next() -> None:
    async with talking(holding, connections=1) as (upstream, server):
        first_one = await ask(upstream)
        second, third = asyncio.create_task(ask(upstream)), asyncio.create_task(ask(upstream))
        await turns()
        assert first_one.close is not None
        await first_one.close()
        second.cancel()
        async with asyncio.timeout(1):
            answer = await third
        assert second.cancelled()
        assert answer.close is not None
        await answer.close()
    assert len(server.requests) == 2


async def holding(connection: Connection) -> None:
    """A server whose streams begin and do not end."""
    await connection.request()
    await connection.say(STREAM, chunk(b"data: 1\n\n"))
    await connection.wait_left()


async def test_waiting_for_a_connection_ends_and_nothing_was_sent() -> None:
    async with talking(holding, connections=1) as (upstream, server):
        answer = await ask(upstream)
        with pytest.raises(Unsent):
            await ask(upstream, timeout=SOON)
        assert len(server.requests) == 1
        assert answer.close is not None
        await answer.close()


async def test_closing_twice_gives_back_one_place() -> None:
    async with talking(holding, connections=1) as (upstream, _):
        answer = await ask(upstream)
        assert answer.close is not None
        await answer.close()
        await answer.close()
        second = await ask(upstream)
        with pytest.raises(Unsent):
            await ask(upstream, timeout=SOON)
        assert second.close is not None
        await second.close()


# What goes wrong


async def test_a_refused_connection_is_told_from_a_lost_one() -> None:
    async with serving(answering) as server:
        upstream = Upstream(server.url, connections=1)
    with pytest.raises(Unsent) as refused:
        await ask(upstream)
    await upstream.close()
    assert refused.value.status == 502
    assert "127.0.0.1" not in refused.value.message


async def test_a_server_that_speaks_no_tls_was_sent_nothing() -> None:
    async def script(connection: Connection) -> None:
        await connection.reader.read(1)
        await connection.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serving(script) as server:
        upstream = Upstream(server.url.replace("http:", "https:"), connections=1)
        with pytest.raises(Unsent):
            await ask(upstream)
        await upstream.close()


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
async def test_a_request_whose_connection_is_lost_before_the_head_is_not_sent_again(reset: bool) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        if reset:
            connection.reset()

    async with talking(script, connections=1) as (upstream, server):
        for count in (1, 2):
            with pytest.raises(UpstreamFailed) as failed:
                await ask(upstream)
            await turns()
            assert not isinstance(failed.value, Unsent)
            assert len(server.requests) == count


async def test_what_is_not_http_is_an_upstream_failure() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.say(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

    async with talking(script) as (upstream, _):
        with pytest.raises(UpstreamFailed):
            await ask(upstream)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
    ],
    ids=["by length", "by chunks"],
)
async def test_half_an_answer_is_none(head: bytes) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.say(head)

    async with talking(script) as (upstream, _):
        with pytest.raises(UpstreamFailed):
            await ask(upstream)


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
async def test_a_stream_that_breaks_says_so_after_what_came(reset: bool) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.say(STREAM, chunk(b"data: 1\n\n"))
        await connection.server.go.wait()
        if reset:
            connection.reset()

    async with talking(script, connections=1) as (upstream, server):
        answer = await ask(upstream)
        assert not isinstance(answer.body, bytes)
        assert await anext(answer.body) == b"data: 1\n\n"
        server.go.set()
        with pytest.raises(UpstreamFailed):
            await anext(answer.body)
        assert answer.close is not None
        await answer.close()


@pytest.mark.parametrize("said", [b"", JSON[:-1]], ids=["before the head", "within the answer"])
async def test_a_server_that_stalls_is_too_slow(said: bytes) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.say(said)
        await connection.wait_left()

    async with talking(script) as (upstream, server):
        with pytest.raises(UpstreamTimeout):
            await ask(upstream, timeout=SOON)
        async with asyncio.timeout(1):
            await server.left.wait()


async def test_a_server_that_does_not_read_is_too_slow() -> None:
    async def script(connection: Connection) -> None:
        await connection.server.go.wait()

    async with talking(script) as (upstream, server):
        with pytest.raises(UpstreamTimeout):
            await ask(upstream, body=bytes(MAX_CONTENT), timeout=SOON)
        server.go.set()


async def test_a_stream_that_stalls_is_too_slow() -> None:
    async with talking(holding) as (upstream, _):
        answer = await ask(upstream, timeout=SOON)
        with pytest.raises(UpstreamTimeout):
            await relayed(answer)
        assert answer.close is not None
        await answer.close()


async def test_an_answer_that_does_not_end_is_refused() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.say(b"HTTP/1.1 200 OK\r\n\r\n", *[bytes(PIECE)] * (MAX_CONTENT // PIECE + 1))
        await connection.wait_left()

    async with talking(script) as (upstream, server):
        with pytest.raises(UpstreamFailed, match="too long"):
            await ask(upstream)
        async with asyncio.timeout(1):
            await server.left.wait()


# What the wire may do


@pytest.mark.parametrize("said", [b"a\r\nx-other: b", b"a\nb", b"a\rb", b"a\0b"])
async def test_a_field_that_would_break_out_of_its_line_is_refused_before_anything_is_sent(
    said: bytes,
) -> None:
    async with talking(answering) as (upstream, server):
        with pytest.raises(InvalidRequest):
            await upstream.send("GET", "/models", [(b"x-one", said)], b"", timeout=NEVER)
        with pytest.raises(InvalidRequest):
            await upstream.send("GET", "/models", [(said, b"1")], b"", timeout=NEVER)
        assert server.connections == 0


async def test_a_path_stays_within_its_line() -> None:
    async with talking(answering) as (upstream, server):
        await upstream.send("GET", "/models?a=b c\r\nx: \xff'(\"%zz", [], b"", timeout=NEVER)
    assert server.requests[0].startswith(b"GET /v1/models?a=b%20c%0D%0Ax:%20%FF'(\"%zz HTTP/1.1\r\nhost: ")


async def test_interim_answers_are_passed_over() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.say(
            b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\na: b\r\n\r\n", JSON
        )

    async with talking(script) as (upstream, _):
        answer = await ask(upstream)
    assert (answer.status, answer.headers, answer.body) == (
        200,
        [(b"content-type", b"application/json")],
        b"{}",
    )


@pytest.mark.parametrize(
    "said",
    [
        JSON.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"),
        JSON.replace(b"HTTP/1.1", b"HTTP/1.0"),
        JSON + b"HTTP/1.1 200 OK\r\n\r\n",
    ],
    ids=["it closes", "it is old", "it says more"],
)
async def test_a_connection_whose_answer_was_its_last_is_closed_by_us(said: bytes) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.say(said)
        await connection.wait_left()

    async with talking(script, connections=1) as (upstream, server):
        for count in (1, 2):
            assert (await ask(upstream)).body == b"{}"
            assert server.connections == count
            async with asyncio.timeout(1):
                await server.left.wait()


async def test_what_comes_over_an_idle_connection_ends_it() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.say(JSON)
        await connection.server.go.wait()
        await connection.say(JSON)  # would be taken for the answer to the next request
        await connection.wait_left()

    async with talking(script, connections=1) as (upstream, server):
        await ask(upstream)
        server.go.set()
        async with asyncio.timeout(1):
            await server.left.wait()
        assert (await ask(upstream)).status == 200
        assert server.connections == 2


async def test_an_answer_before_the_request_is_whole_is_an_answer_and_ends_the_connection() -> None:
    async def script(connection: Connection) -> None:
        await connection.reader.readuntil(b"\r\n\r\n")
        await connection.say(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\n{}")
        await connection.server.go.wait()

    async with talking(script, connections=1) as (upstream, server):
        answers = [await ask(upstream, body=bytes(MAX_CONTENT)) for _ in range(2)]
        server.go.set()
    assert [(answer.status, answer.body) for answer in answers] == [(413, b"{}")] * 2
    assert server.connections == 2


async def test_a_stream_that_nobody_reads_makes_its_server_wait() -> None:
    count, said = 64, 0

    async def script(connection: Connection) -> None:
        nonlocal said
        await connection.request()
        await connection.say(STREAM)
        for _ in range(count):
            await connection.say(chunk(bytes(PIECE)))
            said += 1
        await connection.say(b"0\r\n\r\n")

    async with talking(script) as (upstream, _):
        answer = await ask(upstream)
        before = -1
        while before != said:
            before = said
            for _ in range(10):
                await turns()
        assert said < count
        assert isinstance(answer.body, AsyncIterator)
        sizes = [len(piece) async for piece in answer.body]
        assert answer.close is not None
        await answer.close()
    assert sum(sizes) == count * PIECE
    assert max(sizes) < HIGH + PIECE  # the most that was held at a time


async def test_who_waits_longest_is_served_first() -> None:
    async with talking(answering, connections=1) as (upstream, server):
        await asyncio.gather(
            *[upstream.send("GET", f"/{number}", [], b"", timeout=NEVER) for number in range(20)]
        )
    assert [line.split()[1] for line in server.requests] == [b"/v1/%d" % number for number in range(20)]
    assert server.connections == 1


@pytest.mark.parametrize("count", range(1, 12))
async def test_whenever_a_waiting_request_is_cancelled_its_place_is_not_lost(count: int) -> None:
    async with talking(answering, connections=1) as (upstream, _):
        one, two, three = (asyncio.create_task(ask(upstream)) for _ in range(3))
        for _ in range(count):
            await asyncio.sleep(0)
        two.cancel()
        async with asyncio.timeout(1):
            await asyncio.gather(one, three)
            await asyncio.gather(two, return_exceptions=True)
            assert (await ask(upstream)).status == 200


async def test_idle_connections_are_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.adapters.upstream.pool.KEEP_IDLE", SOON)

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.say(JSON)
        await connection.wait_left()

    async with talking(script) as (upstream, server):
        await ask(upstream)
        async with asyncio.timeout(1):
            await server.left.wait()


# Fields at the border


def test_a_client_s_key_travels_on_and_compression_is_not_asked_for() -> None:
    fields = [
        (b"host", b"weir"),
        (b"authorization", b"Bearer sk-caller"),
        (b"openai-organization", b"org"),
        (b"accept-encoding", b"gzip"),
        (b"connection", b"keep-alive, x-hop"),
        (b"x-hop", b"1"),
        (b"content-length", b"2"),
    ]
    assert forwarded(fields, key=None) == [
        (b"authorization", b"Bearer sk-caller"),
        (b"openai-organization", b"org"),
        (b"accept-encoding", b"identity"),
    ]


def test_our_key_replaces_the_caller_s_key_organization_and_project() -> None:
    fields = [
        (b"authorization", b"Bearer sk-caller"),
        (b"authorization", b"Bearer sk-second"),
        (b"openai-organization", b"org"),
        (b"openai-project", b"project"),
        (b"accept", b"*/*"),
    ]
    assert forwarded(fields, key="sk-ours") == [
        (b"accept", b"*/*"),
        (b"accept-encoding", b"identity"),
        (b"authorization", b"Bearer sk-ours"),
    ]


def test_upstream_s_limits_and_request_id_are_told_from_ours() -> None:
    fields = [
        (b"x-ratelimit-limit-requests", b"60"),
        (b"x-request-id", b"req_1"),
        (b"retry-after", b"1"),
        (b"openai-processing-ms", b"7"),
    ]
    assert returned(fields) == [
        (b"x-upstream-ratelimit-limit-requests", b"60"),
        (b"x-upstream-request-id", b"req_1"),
        (b"retry-after", b"1"),
        (b"openai-processing-ms", b"7"),
    ]
