"""Sentinel: the link finds the master, and finds it again wherever it has gone."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from service.adapters.ledger.away import LedgerAway
from service.adapters.ledger.wire import Wire, maxmemory_policy, open_wire
from tests.adapters.ledger.servers import COUNT, COUNTING, ENGINES, Watched, program, until

LATE = "no answer in time"
WITHIN = 10.0  # s in which calls succeed again after a failover


@contextmanager
def watching(engine: str, folder: Path) -> Iterator[Watched]:
    watched = Watched(program(engine), folder)
    try:
        watched.start()
        yield watched
    finally:
        watched.close()


@pytest.fixture(params=ENGINES)
def watched(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Watched]:
    """A master of the test's own, to be replaced."""
    with watching(request.param, tmp_path) as watched:
        yield watched


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """One that stays the master."""
    with watching("valkey-server", tmp_path_factory.mktemp("quiet")) as watched:
        yield watched


@pytest.fixture
async def wire(watched: Watched) -> AsyncIterator[Wire]:
    wire = open_wire(watched.url, COUNTING)
    await wire.warm()
    yield wire
    await wire.close()


async def count(wire: Wire, name: str = "n", *, deadline: float = 0.25) -> int:
    """Call once; how often it was called with this name."""
    status, [number] = await wire.run(COUNT, ["key"], [name], deadline=deadline)
    assert status == "counted"
    return number


async def again(wire: Wire) -> list[LedgerAway]:
    """Call until it succeeds on both connections, each call with a name of its own; how the others failed."""
    failures: list[LedgerAway] = []
    until, good = asyncio.get_running_loop().time() + WITHIN, 0
    while good < 4:
        try:
            assert await count(wire, f"again {len(failures)} {good}") == 1
            good += 1
        except LedgerAway as away:
            assert asyncio.get_running_loop().time() < until, "calls do not succeed again"
            failures.append(away)
            good = 0
            await asyncio.sleep(0.01)
    return failures


async def test_calls_reach_the_master_and_soon_the_one_that_replaces_it(watched: Watched, wire: Wire) -> None:
    first = watched.master()
    calls = (count(wire, str(number), deadline=WITHIN) for number in range(200))
    assert await asyncio.gather(*calls) == [1] * 200
    assert first.ask("HLEN", "key") == 200
    [second] = [server for server in watched.servers if server is not first]
    watched.sentinels[0].ask("SENTINEL FAILOVER", "ledger")
    await asyncio.to_thread(until, second.is_master, "the replica is promoted")
    end = asyncio.get_running_loop().time() + WITHIN
    while not second.ask("HEXISTS", "key", "new"):  # the first goes on as if nothing had happened
        assert asyncio.get_running_loop().time() < end, "the new master is not found"
        with suppress(LedgerAway):
            await count(wire, "new")
    assert await again(wire) == []


async def test_calls_succeed_again_when_the_master_was_killed(watched: Watched, wire: Wire) -> None:
    assert await count(wire) == 1
    watched.master().kill()
    failures = await again(wire)
    assert failures
    assert {away.reason for away in failures} <= {"ConnectionError", "TimeoutError", "READONLY", LATE}
    assert watched.master().ask("HLEN", "key") >= 4


async def test_behind_sentinels_there_is_one_server(quiet: Watched) -> None:
    wire = open_wire(quiet.url, COUNTING)
    assert await wire.is_there()
    assert await maxmemory_policy(wire) == "noeviction"
    assert len(await wire.masters()) == 1
    assert not wire.splits
    await wire.close()


async def test_sentinels_that_are_away_or_silent_are_passed_over(quiet: Watched) -> None:
    gone, silent, awake = quiet.sentinels
    with silent.frozen():
        wire = open_wire(
            f"{quiet.by(gone, silent, awake)}&socket_timeout=0.2".replace(str(gone.port), "1"), COUNTING
        )
        await wire.warm()
        assert await count(wire) == 1
        await wire.close()


async def test_a_master_that_is_not_known_or_may_not_be_asked_for_is_nowhere(quiet: Watched) -> None:
    unknown = quiet.url.replace("/ledger", "/other")
    wrong = quiet.url.replace("sentinel_password=", "sentinel_password=not")
    for url in (unknown, wrong):
        wire = open_wire(url, COUNTING)
        with pytest.raises(LedgerAway) as away:
            await count(wire, deadline=WITHIN)
        assert not away.value.unknown
        assert not await wire.is_there()
        await wire.close()


async def test_a_replica_that_is_taken_for_the_master_is_not_called(quiet: Watched) -> None:
    """As by a sentinel that has not heard yet."""
    [replica] = [server for server in quiet.servers if not server.is_master()]
    mistaken = quiet.sentinel(replica)
    mistaken.start()
    try:
        wire = open_wire(quiet.by(mistaken), COUNTING)
        with pytest.raises(LedgerAway, match=r"^READONLY$") as away:
            await count(wire, deadline=WITHIN)
        assert not away.value.unknown
        await wire.close()
        both = open_wire(quiet.by(mistaken, quiet.sentinels[0]), COUNTING)
        assert await count(both, "both", deadline=WITHIN) == 1
        await both.close()
    finally:
        mistaken.kill()
