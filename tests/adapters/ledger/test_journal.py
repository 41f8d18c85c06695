"""The exchange stream: what workers note reaches it, within its bounds, and never at a request's expense."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from service.adapters.ledger import journal as journals
from service.adapters.ledger import scripts as lua
from service.adapters.ledger.breaker import State
from service.adapters.ledger.embedded import EmbeddedStore, server_program
from service.adapters.ledger.journal import BATCH, KEY, LIFE, MOST_TEXT, WAITING, Journal, follow
from service.adapters.ledger.leaderboard import Leaderboard, Leaders
from service.adapters.ledger.wire import open_wire
from service.domain.tokens import Tokenizer
from tests.adapters.ledger.servers import Nodes
from tests.adapters.ledger.world import Wire, eventually, frozen
from tests.world import CALLER, LIMITED, Model, World, whole

CANARY = "sk-" + "Canary7" * 6
MOMENT = 1_795_000_000.25  # s since 1970
DEPLOYING = Path(__file__).parents[3] / "deploy" / "README.md"


@asynccontextmanager
async def journal(url: str, **options: Any) -> AsyncIterator[Journal]:
    """One that writes only when told to."""
    wire = open_wire(url, lua.load())
    made = Journal(wire, **{"keep": 10_000, "clock": lambda: MOMENT, **options})
    try:
        yield made
    finally:
        await made.close()
        await wire.close()


def kept(server: redis.Redis) -> list[dict[str, Any]]:
    entries: Any = server.xrange(KEY)
    return [json.loads(fields[b"record"]) for _, fields in entries]


def ids(server: redis.Redis) -> list[int]:
    return [record["id"] for record in kept(server)]


async def test_what_is_noted_is_in_the_stream_in_order_and_the_stream_does_not_live_for_ever(
    engine: EmbeddedStore, server: redis.Redis
) -> None:
    async with journal(engine.url) as written:
        for number in range(3):
            written.note({"id": number, "user": "digest"})
        assert await written.flush()
        timestamp = "2026-11-18T11:06:40.250Z"
        assert kept(server) == [{"timestamp": timestamp, "id": n, "user": "digest"} for n in range(3)]
        assert 0 < int(str(server.pttl(KEY))) <= LIFE
        assert not await written.flush()  # there was no more


async def test_the_stream_is_bounded_whatever_ten_thousand_users_do(
    engine: EmbeddedStore, server: redis.Redis
) -> None:
    async with journal(engine.url, keep=1_000) as written:
        for number in range(10_000):
            written.note({"id": number, "user": f"user-{number}"})
            if len(written) == BATCH:
                await written.flush()
        assert written.dropped == 0
    length = int(str(server.xlen(KEY)))
    assert 1_000 <= length <= 1_100  # whole pages of a hundred at most leave it
    assert ids(server)[-1] == 9_999
    assert server.keys() == [KEY.encode()]


async def test_one_that_keeps_nothing_writes_nothing(store_url: str) -> None:
    async with journal(store_url, keep=0) as written:
        written.note({"id": 1})
        assert len(written) == 0
        assert not await written.flush()
    with redis.Redis.from_url(store_url) as server:
        assert server.keys() == []


async def test_what_is_too_much_to_wait_pushes_the_oldest_out_and_is_counted(store_url: str) -> None:
    async with journal(store_url) as written:
        for number in range(WAITING + 7):
            written.note({"id": number})
        assert (len(written), written.dropped) == (WAITING, 7)
    with redis.Redis.from_url(store_url) as server:
        assert ids(server) == list(range(7, WAITING + 7))


async def test_the_texts_that_wait_are_bounded_too(store_url: str) -> None:
    async with journal(store_url) as written:
        for number in range(20):
            written.note({"id": number, "body": "x" * (MOST_TEXT // 8), "request_body": b""})
        assert (len(written), written.dropped) == (8, 12)


async def test_one_write_is_no_longer_than_others_can_wait(store_url: str) -> None:
    async with journal(store_url) as written:
        for number in range(BATCH + 1):
            written.note({"id": number})
        await written.flush()
        assert len(written) == 1
        await written.flush()
        for number in range(3):
            written.note({"id": number, "body": "x" * journals.BATCH_TEXT})
        await written.flush()
        assert len(written) == 2


async def test_nothing_is_sent_while_it_may_not(store_url: str) -> None:
    allowed = False
    async with journal(store_url, may_send=lambda: allowed) as written:
        written.note({"id": 1})
        assert not await written.flush()
        with redis.Redis.from_url(store_url) as server:
            assert kept(server) == []
            allowed = True
            assert await written.flush()
            assert ids(server) == [1]


async def test_what_could_not_be_sent_waits_until_the_server_is_back(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    """Also when the connection it had is dead, and nobody had heard of that."""
    async with journal(store.url) as written:
        written.note({"id": 1})
        await written.flush()
        store.stop()
        written.note({"id": 2})
        assert not await written.flush()
        store.start()
        written.note({"id": 3})
        assert await written.flush()
        assert (ids(direct), written.dropped) == ([2, 3], 0)


async def test_what_is_refused_waits(store: EmbeddedStore, direct: redis.Redis) -> None:
    async with journal(store.url) as written:
        direct.config_set("maxmemory", "1")
        written.note({"id": 1})
        assert not await written.flush()
        direct.config_set("maxmemory", "0")
        assert await written.flush()
        assert (ids(direct), written.dropped) == ([1], 0)


async def test_what_may_have_been_written_is_not_written_twice(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with Wire(store.url) as wire, journal(wire.url) as written:
        wire.lose, wire.losing = 1, b"XADD"
        written.note({"id": 1})
        assert not await written.flush()
        written.note({"id": 2})
        assert await written.flush()
        assert (ids(direct), written.dropped) == ([1, 2], 1)


async def test_closing_writes_what_waits(store_url: str) -> None:
    async with journal(store_url) as written:
        written.open()
        for number in range(2 * BATCH):
            written.note({"id": number})
    assert written.dropped == 0
    with redis.Redis.from_url(store_url) as server:
        assert ids(server) == list(range(2 * BATCH))


async def test_closing_ends_though_the_server_does_not_answer(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with journal(store.url) as written:
        with frozen(store):
            for number in range(BATCH + 5):
                written.note({"id": number})
            await written.close(grace=0.05)
            assert (len(written), written.dropped) == (0, BATCH + 5)


async def test_it_writes_by_itself_what_comes(store: EmbeddedStore, direct: redis.Redis) -> None:
    async with journal(store.url) as written:
        written.open()
        written.note({"id": 1})
        await eventually(lambda: len(kept(direct)) == 1)
        written.note({"id": 2})
        await eventually(lambda: len(kept(direct)) == 2)


async def test_what_comes_faster_than_one_write_takes_is_written_all_the_same(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with journal(store.url) as written:
        written.open()
        for number in range(WAITING):
            written.note({"id": number})
        await eventually(lambda: direct.xlen(KEY) == WAITING)
        assert written.dropped == 0


async def test_secrets_are_masked_as_in_the_log(store_url: str) -> None:
    async with journal(store_url) as written:
        written.note({"body": f"my key is {CANARY}".encode(), "headers": {"authorization": "abc"}})
    with redis.Redis.from_url(store_url) as server:
        (record,) = kept(server)
    assert record["body"] == "my key is sk-****"
    assert record["headers"] == {"authorization": "****"}


async def test_a_reader_sees_what_came_and_what_comes(engine: EmbeddedStore, server: redis.Redis) -> None:
    wire = open_wire(engine.url, lua.load(), timeout=5)
    begun = await journals.now(wire) - 1
    async with journal(engine.url) as written, aclosing(follow(wire, str(begun))) as pages:
        written.note({"id": 1})
        await written.flush()
        [(first, text)] = await anext(pages)
        assert json.loads(text)["id"] == 1
        news = asyncio.create_task(anext(pages))
        written.note({"id": 2})
        await written.flush()
        [(second, text)] = await news
        assert json.loads(text)["id"] == 2
        assert second != first
        server.xadd(KEY, {"foreign": "entry"})
        assert [text for _, text in await anext(pages)] == [""]
        assert await anext(pages) == []  # a second without news
    await wire.close()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    made = Nodes(server_program(), tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.close()


async def test_a_cluster_keeps_stream_and_board_on_the_master_that_has_them(nodes: Nodes) -> None:
    wire = open_wire(nodes.url, lua.load(), timeout=5)
    begun = await journals.now(wire) - 1
    async with journal(nodes.url) as written:
        written.note({"id": 1})
        assert await written.flush()
    async with aclosing(follow(wire, str(begun))) as pages:
        assert [json.loads(text)["id"] for _, text in await anext(pages)] == [1]
    leaderboard, leaders = Leaderboard(wire, str), Leaders(wire)
    leaderboard.charge("ada", 5)
    await leaderboard.close()
    assert await leaders.places() == [("ada", 5)]
    await leaders.close()
    await wire.close()


async def test_what_the_page_allows_the_gateway_is_enough(store: EmbeddedStore, direct: redis.Redis) -> None:
    for rule in re.findall(r"^ACL SETUSER weir (.*)$", DEPLOYING.read_text(), re.MULTILINE)[:2]:
        words = rule.replace(">secret", ">x").split()
        direct.execute_command("ACL", "SETUSER", "weir", *words)  # type: ignore[no-untyped-call]
    url = f"{store.url}?username=weir&password=x"
    wire = open_wire(url, lua.load(), timeout=5)
    begun = await journals.now(wire) - 1
    leaderboard, leaders = Leaderboard(wire, str), Leaders(wire)
    async with journal(url) as written, aclosing(follow(wire, str(begun))) as pages:
        written.note({"id": 1})
        assert await written.flush()
        assert len(await anext(pages)) == 1
        leaderboard.charge("ada", 5)
        await leaderboard.close()
        assert await leaders.places() == [("ada", 5)]
    await leaders.close()
    await wire.close()


ANSWER = whole(json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}).encode())


def body(content: str = "Hello", user: str = "ada") -> bytes:
    said = {"model": "gpt-4o", "user": user, "messages": [{"role": "user", "content": content}]}
    return json.dumps(said).encode()


async def test_each_exchange_is_in_the_stream_as_in_the_log(store_url: str, tokenizer: Tokenizer) -> None:
    async with Model([ANSWER]) as model, World(store_url, tokenizer, model.url) as world:
        await world.client(body()).ask()
        await world.client(b"{").ask()
    with redis.Redis.from_url(store_url) as server:
        records = kept(server)
    logged = world.records("exchange.response")
    for one in (*records, *logged):
        one.pop("timestamp")
    assert records == [{k: v for k, v in one.items() if k not in ("level", "event")} for one in logged]
    assert [one["status"] for one in records] == [200, 400]


async def test_bodies_are_in_the_stream_where_the_step_says_so_and_never_long(
    store_url: str, tokenizer: Tokenizer
) -> None:
    logged = {"log": {"bodies": "full"}}
    async with (
        Model([ANSWER]) as model,
        World(store_url, tokenizer, model.url, request=[logged, LIMITED], response=[logged]) as world,
    ):
        await world.client(body()).ask()
        await world.client(body("é" * 5_000)).ask()
    with redis.Redis.from_url(store_url) as server:
        short, long = kept(server)
    assert (short["request_body"], short["request_body_truncated"]) == (body().decode(), False)
    assert short["body"].startswith('{"choices"')
    assert (len(long["request_body"]), long["request_body_truncated"]) == (2048, True)
    assert not any("asked" in record for record in world.records())


async def test_an_exchange_neither_waits_nor_fails_when_the_stream_cannot_be_written(
    store_url: str, tokenizer: Tokenizer
) -> None:
    with redis.Redis.from_url(store_url) as server:
        server.set(KEY, "of another type")
        async with Model([ANSWER]) as model, World(store_url, tokenizer, model.url) as world:
            for _ in range(8):
                assert (await world.client(body()).ask()).status == 200
            ledger = world.tools.ledger
            assert ledger.breaker is State.CLOSED
        assert server.get(KEY) == b"of another type"
    assert world.metric("weir_exchanges_dropped_total") == 8


def everything(server: redis.Redis) -> bytes:
    """Every key, and every value that is stored, as the server dumps it or hands it out."""
    found = []
    for key in server.scan_iter():
        kind: Any = server.type(key)
        reads: dict[bytes, Any] = {
            b"hash": server.hgetall,
            b"stream": server.xrange,
            b"zset": lambda name: server.zrange(name, 0, -1),
            b"string": server.get,
        }
        found.append(key + repr(reads[kind](key)).encode())
    return b"\n".join(found)


async def test_a_secret_that_was_sent_is_found_nowhere(store_url: str, tokenizer: Tokenizer) -> None:
    """In headers that nobody reads, in the key, in the path's query, and in the body, with bodies: none."""
    headers = [(name, CANARY.encode() if name != b"authorization" else value) for name, value in CALLER[3:]]
    headers += [*CALLER[:1], *CALLER[2:], (b"authorization", b"Bearer " + CANARY.encode())]
    headers += [(b"x-secret", CANARY.encode()), (b"cookie", b"session=" + CANARY.encode())]
    logged: dict[str, Any] = {"log": {}}
    async with (
        Model([ANSWER]) as model,
        World(store_url, tokenizer, model.url, request=[logged, LIMITED], response=[logged]) as world,
    ):
        for content in (body(CANARY), body(user=CANARY), body()[:-1] + b', "model": "%b"}' % CANARY.encode()):
            await world.client(content, headers=headers, query=b"key=" + CANARY.encode()).ask()
        with redis.Redis.from_url(store_url) as server:
            await eventually(lambda: server.exists(KEY))
        page, _ = world.tools.metrics.page()
    with redis.Redis.from_url(store_url) as server:
        stored = everything(server)
        assert len(kept(server)) == 3
    assert b"w1:top:" in stored
    for place in (stored, world.written().encode(), page):
        assert b"Canary7" not in place
