"""The leaderboard: who used most, added up over workers, in bounded memory and bounded keys."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from service.adapters.ledger import scripts as lua
from service.adapters.ledger.embedded import EmbeddedStore
from service.adapters.ledger.leaderboard import FRESH, HOUR, LIFE, MOST, SHOWN, Leaderboard, Leaders, key_of
from service.adapters.ledger.wire import open_wire
from service.app import default_definition, read_definition
from service.domain.tokens import Tokenizer
from service.operations import READY, operations
from service.settings import load
from tests.adapters.ledger.world import Wire, frozen
from tests.world import KEY as CALLERS_KEY
from tests.world import Model, World, whole

MOMENT = 1_795_000_000.0  # s since 1970
HOURS = key_of(MOMENT)


@asynccontextmanager
async def board(url: str, **options: Any) -> AsyncIterator[Leaderboard]:
    """One that writes only when told to, at one moment."""
    wire = open_wire(url, lua.load())
    made = Leaderboard(wire, str, **{"clock": lambda: MOMENT, **options})
    try:
        yield made
    finally:
        await made.close()
        await wire.close()


class Clock:
    def __init__(self) -> None:
        self.now = MOMENT

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def reader(url: str, clock: Clock) -> AsyncIterator[Leaders]:
    wire = open_wire(url, lua.load(), connections=1)
    made = Leaders(wire, clock=clock)
    try:
        yield made
    finally:
        await made.close()
        await wire.close()


async def test_what_workers_charge_is_added_up_and_the_first_comes_first(
    engine: EmbeddedStore, server: redis.Redis
) -> None:
    async with (
        board(engine.url) as one,
        board(engine.url) as other,
        reader(engine.url, Clock()) as leaders,
    ):
        one.charge("ada", 5)
        one.charge("bob", 9)
        one.charge("ada", 1)
        await one.flush()
        other.charge("ada", 4)
        await other.flush()
        await other.flush()  # it has nothing more to add
        assert await leaders.places() == [("ada", 10), ("bob", 9)]
    assert server.keys() == [HOURS.encode()]
    assert 0 < int(str(server.pttl(HOURS))) <= LIFE


async def test_ten_thousand_users_need_no_more_memory_and_no_more_keys(
    engine: EmbeddedStore, server: redis.Redis
) -> None:
    async with board(engine.url) as worker, reader(engine.url, Clock()) as leaders:
        most = 0
        for round in range(3):
            for number in range(10_000):
                worker.charge(f"user-{number}", 1 + number % 7)
                most = max(most, len(worker))
                if number % 100 == 0:
                    worker.charge("greatest", 1_000)
            await worker.flush()
            assert len(worker) == 0, round
            assert server.zcard(HOURS) == MOST
        assert most <= 2 * MOST
        places = await leaders.places()
    assert server.dbsize() == 1
    assert (len(places), places[0]) == (SHOWN, ("greatest", 300_000))


async def test_the_next_hour_begins_anew_and_the_last_one_is_let_go(store_url: str) -> None:
    clock = Clock()
    async with board(store_url, clock=clock) as worker, reader(store_url, clock) as leaders:
        worker.charge("ada", 5)
        await worker.flush()
        assert await leaders.places() == [("ada", 5)]
        clock.now += HOUR
        assert await leaders.places() == []
        worker.charge("bob", 2)
        await worker.flush()
        clock.now += FRESH
        assert await leaders.places() == [("bob", 2)]
    with redis.Redis.from_url(store_url) as server:
        assert all(int(str(server.pttl(key))) > 0 for key in server.scan_iter())


async def test_what_cannot_be_sent_is_added_when_the_server_is_back(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with board(store.url) as worker:
        worker.charge("ada", 5)
        store.stop()
        await worker.flush()
        worker.charge("ada", 2)
        store.start()
        await worker.flush()
        assert direct.zscore(HOURS, "ada") == 7


async def test_what_may_have_been_added_is_not_added_twice(store: EmbeddedStore, direct: redis.Redis) -> None:
    async with Wire(store.url) as wire, board(wire.url) as worker:
        wire.lose, wire.losing = 1, b"ZINCRBY"
        worker.charge("ada", 5)
        await worker.flush()
        await worker.flush()
        assert direct.zscore(HOURS, "ada") == 5


async def test_nothing_is_sent_while_it_may_not_and_closing_ends_all_the_same(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with board(store.url, may_send=lambda: False) as worker:
        worker.charge("ada", 5)
        await worker.flush()
        assert len(worker) == 1
    assert direct.dbsize() == 0
    async with board(store.url) as worker:
        worker.charge("ada", 5)
        with frozen(store):
            await worker.close(grace=0.05)


async def test_what_was_gathered_is_added_at_the_end(store_url: str) -> None:
    async with board(store_url) as worker:
        worker.open()
        worker.charge("ada", 5)
    with redis.Redis.from_url(store_url) as server:
        assert server.zscore(HOURS, "ada") == 5


async def test_the_places_are_read_every_ten_seconds_at_most_and_are_none_while_redis_is_away(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    clock = Clock()
    async with reader(store.url, clock) as leaders:
        direct.zadd(HOURS, {"ada": 5})
        assert await leaders.places() == [("ada", 5)]
        direct.zadd(HOURS, {"ada": 6})
        clock.now += FRESH - 0.001
        assert await leaders.places() == [("ada", 5)]
        clock.now += 0.001
        assert await leaders.places() == [("ada", 6)]
        clock.now += FRESH
        with frozen(store):
            assert await leaders.places() == []
        assert await leaders.places() == []  # it is not asked again at once
        clock.now += FRESH
        assert await leaders.places() == [("ada", 6)]
        direct.delete(HOURS)
        direct.set(HOURS, "of another type")
        clock.now += FRESH
        assert await leaders.places() == []


def answer(**usage: int) -> bytes:
    return whole(json.dumps({"choices": [], "usage": usage}).encode())


async def test_an_exchange_counts_for_its_user_s_digest_or_for_the_credential(
    store_url: str, tokenizer: Tokenizer
) -> None:
    asked: dict[str, Any] = {"model": "gpt-4o", "messages": []}
    async with (
        Model([answer(prompt_tokens=3, completion_tokens=4)]) as model,
        World(store_url, tokenizer, model.url) as world,
    ):
        await world.client(json.dumps({**asked, "user": "ada"}).encode()).ask()
        await world.client(json.dumps({**asked, "user": "ada"}).encode()).ask()
        await world.client(json.dumps(asked).encode()).ask()
        await world.client(b"{").ask()  # refused: nothing is used
        digest = world.tools.digest
    wire = open_wire(store_url, lua.load())
    leaders = Leaders(wire)
    assert await leaders.places() == [(digest("ada"), 14), ("key-" + digest(CALLERS_KEY)[:16], 7)]
    await leaders.close()
    await wire.close()
    assert {record["user"] for record in world.records("exchange.response")} == {digest("ada"), None}


async def page(url: str, folder: Path, accept: str = "") -> list[str]:
    """What the process for operations says of top subjects, `digest-of-ada` being one who may be named."""
    api = read_definition(default_definition(), load({}, {}))
    names = {"digest-of-ada": "ada"}
    app = operations(api, url=url, metrics=str(folder), states=[READY], names=names)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://weir")
    async with app.router.lifespan_context(app), client:
        said = await client.get("/metrics", headers={"accept": accept})
        assert said.status_code == 200
        return [line for line in said.text.splitlines() if "weir_top_subject_tokens" in line]


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
async def test_operations_show_the_first_places_as_digests_but_for_those_that_may_be_named(
    store_url: str, tmp_path: Path, accept: str
) -> None:
    assert await page(store_url, tmp_path, accept) == []
    wire = open_wire(store_url, lua.load())
    worker = Leaderboard(wire, str)
    for number in range(100):
        worker.charge(f"digest-{number}", number + 1)
    worker.charge("digest-of-ada", 1_000)
    await worker.close()
    await wire.close()
    _, kind, first, second, *others = await page(store_url, tmp_path, accept)
    assert kind == "# TYPE weir_top_subject_tokens gauge"
    assert first == 'weir_top_subject_tokens{rank="1",subject="ada"} 1000.0'
    assert second == 'weir_top_subject_tokens{rank="2",subject="digest-99"} 100.0'
    assert len(others) == SHOWN - 2
    assert await page("unix:///nowhere/s", tmp_path, accept) == []
