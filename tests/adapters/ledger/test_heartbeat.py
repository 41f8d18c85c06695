"""Heartbeat: who is counted as alive, by the ledger's clock, and what is known while it is away."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import redis

from service.adapters.ledger import scripts as lua
from service.adapters.ledger.embedded import EmbeddedStore
from service.adapters.ledger.heartbeat import SILENCE, WORKERS, Heartbeat
from service.adapters.ledger.link import Argument, LedgerAway, Link
from service.adapters.ledger.scripts import Script
from tests.adapters.ledger.world import eventually

SCRIPTS = lua.load()


class Timed:
    """A ledger whose time the test says, and that may be away."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self.now = 1_763_000_000_000
        self.away = False
        self.beats = 0

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument], *, deadline: float
    ) -> tuple[str, list[int]]:
        self.beats += 1
        if self.away:
            raise LedgerAway("ConnectionError", unknown=False)
        answer: Any = self._client.eval(script.text, len(keys), *keys, self.now, *arguments[1:])
        return answer[0].decode(), answer[1:]


@pytest.fixture
def ledger(server: redis.Redis) -> Timed:
    return Timed(server)


@pytest.fixture
def workers(ledger: Timed) -> list[Heartbeat]:
    return [Heartbeat(ledger, SCRIPTS.heartbeat) for _ in range(3)]


async def test_who_beats_is_counted_and_who_leaves_no_more(ledger: Timed, workers: list[Heartbeat]) -> None:
    for worker in workers:
        await worker.beat()
    assert [worker.alive for worker in workers] == [1, 2, 3]
    await workers[2].leave()
    for _ in range(3):
        await workers[0].beat()
    assert workers[0].alive == 2


async def test_who_was_silent_for_fifteen_seconds_is_taken_for_dead(
    ledger: Timed, workers: list[Heartbeat]
) -> None:
    await workers[0].beat()
    ledger.now += SILENCE
    await workers[1].beat()
    assert workers[1].alive == 2
    ledger.now += 1
    for _ in range(3):
        await workers[1].beat()
    assert workers[1].alive == 1


async def test_after_a_ledger_came_back_empty_the_first_is_not_the_only_one(
    ledger: Timed, workers: list[Heartbeat], server: redis.Redis
) -> None:
    for worker in (*workers, workers[0]):
        await worker.beat()
    server.flushall()
    for _ in range(2):
        await workers[0].beat()
        assert workers[0].alive == 3
    await workers[0].beat()
    assert workers[0].alive == 1


async def test_while_the_ledger_is_away_the_last_known_number_stands(
    ledger: Timed, workers: list[Heartbeat]
) -> None:
    for worker in workers:
        await worker.beat()
    ledger.away = True
    for _ in range(10):
        await workers[2].beat()
    await workers[2].leave()
    assert workers[2].alive == 3


async def test_until_anybody_has_counted_there_are_as_many_as_were_started_here(ledger: Timed) -> None:
    ledger.away = True
    heartbeat = Heartbeat(ledger, SCRIPTS.heartbeat, alone=4)
    await heartbeat.beat()
    assert heartbeat.alive == 4
    ledger.away = False
    await heartbeat.beat()
    assert heartbeat.alive == 1


async def test_the_list_of_workers_goes_when_nobody_is_left(
    ledger: Timed, workers: list[Heartbeat], server: redis.Redis
) -> None:
    await workers[0].beat()
    assert 0 < int(server.pttl(WORKERS)) <= SILENCE
    await workers[0].leave()
    assert server.keys("*") == []


async def test_it_beats_again_and_again(ledger: Timed) -> None:
    running = asyncio.create_task(Heartbeat(ledger, SCRIPTS.heartbeat, every=0.001).run())
    await eventually(lambda: ledger.beats >= 3)
    running.cancel()


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 4.0), (0.5, 5.0), (1.0, 6.0)])
def test_workers_do_not_beat_in_step(ledger: Timed, chance: float, seconds: float) -> None:
    assert Heartbeat(ledger, SCRIPTS.heartbeat, chance=lambda: chance).rest() == pytest.approx(seconds)


async def test_over_a_real_link_it_goes_by_the_servers_own_clock(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    link = Link(store.url, SCRIPTS)
    heartbeat = Heartbeat(link, SCRIPTS.heartbeat)
    running = asyncio.create_task(heartbeat.run())
    await eventually(lambda: direct.zcard(WORKERS))
    clock: Any = direct.time()
    heard: Any = direct.zrange(WORKERS, 0, -1, withscores=True)
    assert abs(heard[0][1] / 1000 - clock[0]) < 60
    running.cancel()
    await heartbeat.leave()
    await link.close()
    assert direct.keys("*") == []
