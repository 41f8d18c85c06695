"""Cluster: each call reaches the master that has its keys, once, wherever the slots and the nodes go."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from service.adapters.ledger import scripts as lua
from service.adapters.ledger.away import LedgerAway
from service.adapters.ledger.cluster import Cluster
from service.adapters.ledger.wire import maxmemory_policy
from tests.adapters.ledger.servers import COUNT, COUNTING, ENGINES, Move, Nodes, Server, program
from tests.adapters.ledger.world import eventually

BOTH = lua._script("both", "return {'both', redis.call('HLEN', KEYS[1]) + redis.call('HLEN', KEYS[2])}")
KEYS = [f"{{moving}}:{number}" for number in range(12)]  # all of one slot
PATIENT = 10.0  # s


@pytest.fixture(scope="module", params=ENGINES)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    nodes = Nodes(program(request.param), tmp_path_factory.mktemp(request.param))
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.close()


@pytest.fixture
def nodes(running: Nodes) -> Nodes:
    """A cluster that is whole, with nothing in it."""
    for server in running.all:
        if not server.answers():
            server.start()
    running.wait_until_whole()
    for server in running.all:
        if server.is_master():
            server.ask("FLUSHALL")
    return running


@pytest.fixture
async def cluster(nodes: Nodes) -> AsyncIterator[Cluster]:
    cluster = Cluster(nodes.url, COUNTING)
    await cluster.warm()
    yield cluster
    await cluster.close()


async def count(cluster: Cluster, key: str, name: str = "n", *, deadline: float = PATIENT) -> int:
    """Call once; how often it was called with this key and name."""
    status, [number] = await cluster.run(COUNT, [key], [name], deadline=deadline)
    assert status == "counted"
    return number


async def test_each_call_goes_to_the_master_that_has_its_keys(nodes: Nodes, cluster: Cluster) -> None:
    keys = [f"key:{number}" for number in range(90)]
    assert await asyncio.gather(*(count(cluster, key) for key in keys)) == [1] * 90
    sizes = [server.ask("DBSIZE") for server in nodes.all if server.is_master()]
    assert sum(sizes) == 90
    assert min(sizes) > 0
    assert len(await cluster.masters()) == 3


async def test_a_call_names_keys_of_one_slot(cluster: Cluster) -> None:
    assert cluster.splits
    await count(cluster, "{a}:1")
    assert await cluster.run(BOTH, ["{a}:1", "{a}:2"], [], deadline=PATIENT) == ("both", [1])
    for keys in (["a", "b"], []):
        with pytest.raises(ValueError, match="one slot"):
            await cluster.run(BOTH, keys, [], deadline=PATIENT)


async def test_scripts_that_one_node_has_forgotten_are_loaded_and_run_once(
    nodes: Nodes, cluster: Cluster
) -> None:
    nodes.owner("a").ask("SCRIPT FLUSH")
    names = [f"n{number}" for number in range(30)]
    assert await asyncio.gather(*(count(cluster, "a", name) for name in names)) == [1] * 30


async def test_while_a_slot_moves_every_call_is_carried_out_once(nodes: Nodes, cluster: Cluster) -> None:
    move = Move(nodes, KEYS[0])
    answered: dict[str, int] = {}
    moved = asyncio.Event()

    async def call(caller: int) -> None:
        number = 0
        while not moved.is_set():
            number += 1
            name = f"{caller}:{number}"
            answered[name] = await count(cluster, KEYS[(caller + number) % len(KEYS)], name)

    async def some_calls() -> None:
        before = len(answered)
        await eventually(lambda: len(answered) > before + 20)

    async with asyncio.TaskGroup() as callers:
        for caller in range(6):
            callers.create_task(call(caller))
        await some_calls()
        await asyncio.to_thread(move.begin)
        await some_calls()
        while await asyncio.to_thread(move.carry):
            await some_calls()
        await asyncio.to_thread(move.end)
        await some_calls()
        moved.set()
    assert set(answered.values()) == {1}
    assert {key for key in KEYS if move.target.ask("EXISTS", key)} == set(KEYS)
    assert sum(move.target.ask("HLEN", key) for key in KEYS) == len(answered)
    assert nodes.owner(KEYS[0]) is move.target


async def test_a_key_on_its_way_is_asked_for_where_it_goes_even_without_the_script(
    nodes: Nodes, cluster: Cluster
) -> None:
    for key in KEYS[:2]:
        await count(cluster, key)
    move = Move(nodes, KEYS[0])
    move.begin()
    move.target.ask("SCRIPT FLUSH")
    assert move.carry() == 1
    assert [await count(cluster, key) for key in KEYS[:3]] == [2, 2, 1]
    assert move.target.ask("DBSIZE") >= 2  # the one carried, and the new one
    while move.carry():
        pass
    move.end()
    assert [await count(cluster, key) for key in KEYS[:3]] == [3, 3, 2]


async def test_keys_on_both_sides_are_tried_again_until_they_are_together(
    nodes: Nodes, cluster: Cluster
) -> None:
    for key in KEYS[:2]:
        await count(cluster, key)
    move = Move(nodes, KEYS[0])
    move.begin()
    move.carry()
    with pytest.raises(LedgerAway, match=r"^TRYAGAIN$") as away:
        await cluster.run(BOTH, KEYS[:2], [], deadline=0.4)
    assert not away.value.unknown
    waiting = asyncio.create_task(cluster.run(BOTH, KEYS[:2], [], deadline=PATIENT))
    await asyncio.to_thread(move.carry)
    await asyncio.to_thread(move.end)
    assert await waiting == ("both", [2])


async def test_a_map_of_yesterday_is_corrected_by_the_first_that_knows_better(
    nodes: Nodes, cluster: Cluster
) -> None:
    move = Move(nodes, KEYS[0])
    move.begin()
    move.end()
    assert cluster._slots.masters[move.slot] == move.source.node
    cluster._rested = asyncio.get_running_loop().time() + 60  # nor does a look help
    assert await asyncio.gather(*(count(cluster, key) for key in KEYS)) == [1] * len(KEYS)
    assert cluster._slots.masters[move.slot] == move.target.node


async def test_a_replica_that_was_promoted_is_found(nodes: Nodes, cluster: Cluster) -> None:
    master, replica = nodes.replicated()
    key, elsewhere = _key_of(nodes, master), _key_of(nodes, _another(nodes, master))
    await count(cluster, key)
    master.kill()
    with pytest.raises(LedgerAway):
        await count(cluster, key, deadline=0.2)
    assert not await cluster.is_there()
    assert await count(cluster, elsewhere) == 1  # others are not concerned
    replica.ask("CLUSTER FAILOVER", "TAKEOVER")
    assert await _succeeds(cluster, key) >= 1
    assert cluster._links.keys() >= {replica.node}
    await eventually(lambda: master.node not in cluster._links)
    assert await cluster.is_there()


async def test_a_master_that_does_not_answer_any_more_is_left_for_its_replica(
    nodes: Nodes, cluster: Cluster
) -> None:
    master, replica = nodes.replicated()
    key = _key_of(nodes, master)
    await count(cluster, key)
    with master.frozen():
        with pytest.raises(LedgerAway, match=r"^no answer in time$") as away:
            await count(cluster, key, deadline=0.1)
        assert away.value.unknown
        replica.ask("CLUSTER FAILOVER", "TAKEOVER")
        assert await _succeeds(cluster, key) >= 1


async def test_a_call_of_unknown_outcome_is_not_repeated_elsewhere(nodes: Nodes, cluster: Cluster) -> None:
    master, replica = nodes.replicated()
    key = _key_of(nodes, master)
    await count(cluster, key, "before")
    with master.frozen():
        calling = asyncio.create_task(count(cluster, key))
        for _ in range(10):  # it is on its way
            await asyncio.sleep(0)
        replica.ask("CLUSTER FAILOVER", "TAKEOVER")
        master.kill()
    with pytest.raises(LedgerAway, match=r"^ConnectionError$") as away:
        await calling
    assert away.value.unknown
    assert await _succeeds(cluster, key) == 1


async def test_a_node_that_is_away_as_calls_are_made_has_not_carried_them_out(
    nodes: Nodes, cluster: Cluster
) -> None:
    master, replica = nodes.replicated()
    key = _key_of(nodes, master)
    master.kill()
    promoted = asyncio.create_task(asyncio.to_thread(replica.ask, "CLUSTER FAILOVER", "TAKEOVER"))
    outcomes = await asyncio.gather(
        *(count(cluster, key, f"n{number}") for number in range(50)), return_exceptions=True
    )
    await promoted
    for number, outcome in enumerate(outcomes):  # those on a connection that was cut may be lost
        if isinstance(outcome, LedgerAway):
            assert outcome.unknown
            assert replica.ask("HGET", key, f"n{number}") is None
        else:
            assert outcome == 1


async def test_what_the_masters_do_when_full_is_told_by_the_worst(nodes: Nodes, cluster: Cluster) -> None:
    assert await maxmemory_policy(cluster) == "noeviction"
    one = nodes.owner("a")
    one.ask("CONFIG SET", "maxmemory-policy", "allkeys-lru")
    try:
        assert await maxmemory_policy(cluster) == "allkeys-lru"
    finally:
        one.ask("CONFIG SET", "maxmemory-policy", "noeviction")
    assert await cluster.ask("PING") in (b"PONG", "PONG")


async def test_where_no_node_answers_nothing_was_carried_out() -> None:
    cluster = Cluster("redis+cluster://127.0.0.1:1,127.0.0.1:2", COUNTING)
    calls = (
        count(cluster, "a", deadline=0.05),
        cluster.warm(),
        cluster.ask("PING"),
        maxmemory_policy(cluster),
    )
    for call in calls:
        with pytest.raises(LedgerAway) as away:
            await call
        assert not away.value.unknown
        assert "127" not in str(away.value)
    assert not await cluster.is_there()
    await cluster.close()


async def test_a_server_that_is_no_cluster_is_told_apart(tmp_path: Path) -> None:
    server = Server(program("valkey-server"), tmp_path, "--save", "")
    server.start()
    cluster = Cluster(f"redis+cluster://127.0.0.1:{server.port}", COUNTING)
    with pytest.raises(LedgerAway, match=r"^no node tells the slots$"):
        await cluster.warm()
    await cluster.close()
    server.kill()


def _key_of(nodes: Nodes, server: Server) -> str:
    """A key that this master has."""
    return next(key for key in map(str, range(1000)) if nodes.owner(key) is server)


def _another(nodes: Nodes, master: Server) -> Server:
    return next(server for server in nodes.all if server.is_master() and server is not master)


async def _succeeds(cluster: Cluster, key: str, within: float = PATIENT) -> int:
    """Call until it succeeds."""
    end = asyncio.get_running_loop().time() + within
    while True:
        try:
            return await count(cluster, key, deadline=0.25)
        except LedgerAway:
            assert asyncio.get_running_loop().time() < end
