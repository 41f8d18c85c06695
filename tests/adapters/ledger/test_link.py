"""Link: many calls in one write, each caller with its own patience, and no answer for another's question."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from service.adapters.ledger import link as links
from service.adapters.ledger import scripts as lua
from service.adapters.ledger.embedded import EmbeddedStore, server_program
from service.adapters.ledger.link import LedgerAway, Link
from service.adapters.ledger.scripts import Script
from tests.adapters.ledger.servers import HOST, PASSWORD, Server
from tests.adapters.ledger.world import Wire, eventually

ECHO = lua._script("echo", "return {'echo', tonumber(ARGV[1])}")
WRONG = lua._script("wrong", "return redis.call('HGET', KEYS[1])")
NUMBERED = lua._script("numbered", "return {'at', redis.call('RPUSH', KEYS[1], ARGV[1])}")


def with_echo(script: Script = ECHO) -> lua.Scripts:
    """Scripts that only say what they are told: `peek` is this one."""
    return lua.Scripts(**{**dict.fromkeys(lua.NAMES, NUMBERED), "peek": script})


@pytest.fixture
async def link(store: EmbeddedStore) -> AsyncIterator[Link]:
    link = Link(store.url, with_echo(), timeout=0.5)
    await link.warm()
    yield link
    await link.close()


async def echo(link: Link, number: int, *, deadline: float = 5.0) -> int:
    status, numbers = await link.run(link.scripts.peek, ["k"], [number], deadline=deadline)
    assert status == "echo"
    return numbers[0]


async def test_each_of_400_callers_at_once_gets_its_own_answer(link: Link) -> None:
    assert await asyncio.gather(*(echo(link, number) for number in range(400))) == list(range(400))


async def test_400_calls_go_over_two_connections_in_a_few_writes(store: EmbeddedStore) -> None:
    async with Wire(store.url) as wire:
        link = Link(wire.url, with_echo())
        await link.warm()
        before = wire.writes
        await asyncio.gather(*(echo(link, number) for number in range(400)))
        assert wire.connections == 2
        assert 4 <= wire.writes - before <= 20  # 128 calls a write; the wire may hand one on in pieces
        await link.close()


async def test_a_caller_that_leaves_disturbs_nobody_in_its_batch(link: Link) -> None:
    for turns in range(8):
        tasks = [asyncio.create_task(echo(link, number)) for number in range(50)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks[::7]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for number, answer in enumerate(answers):
            if number % 7:
                assert answer == number
            else:
                assert isinstance(answer, asyncio.CancelledError) or answer == number
    assert await echo(link, 7) == 7


async def test_a_caller_that_left_before_the_write_sends_nothing(link: Link, direct: redis.Redis) -> None:
    task = asyncio.create_task(link.run(NUMBERED, ["list"], [1], deadline=5.0))
    await asyncio.sleep(0)  # it has been put on the list of those that go together
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await echo(link, 1) == 1
    assert direct.exists("list") == 0


async def test_one_callers_patience_is_not_anothers(store: EmbeddedStore, link: Link) -> None:
    os.kill(store.pid, signal.SIGSTOP)
    try:
        patient = asyncio.create_task(echo(link, 1))
        with pytest.raises(LedgerAway) as away:
            await echo(link, 2, deadline=0.05)
        assert away.value.unknown
    finally:
        os.kill(store.pid, signal.SIGCONT)
    assert await patient == 1


async def test_a_script_that_fails_fails_for_its_caller_alone(store: EmbeddedStore) -> None:
    link = Link(store.url, with_echo(WRONG))
    await link.warm()
    wrong = [link.run(WRONG, ["k"], [], deadline=5.0) for _ in range(3)]
    right = [link.run(NUMBERED, ["list"], [number], deadline=5.0) for number in range(3)]
    answers = await asyncio.gather(*wrong, *right, return_exceptions=True)
    for answer in answers[:3]:
        assert isinstance(answer, LedgerAway)
        assert not answer.unknown
    assert answers[3:] == [("at", [1]), ("at", [2]), ("at", [3])]
    await link.close()


async def test_scripts_the_server_has_forgotten_are_loaded_and_run_once(
    link: Link, direct: redis.Redis
) -> None:
    direct.script_flush()
    answers = await asyncio.gather(*(link.run(NUMBERED, ["list"], [n], deadline=5.0) for n in range(20)))
    assert sorted(numbers[0] for _, numbers in answers) == list(range(1, 21))
    assert direct.llen("list") == 20


async def test_scripts_forgotten_again_and_again_are_nobodys_error(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with Wire(store.url) as wire:
        wire.overhear = lambda data: direct.script_flush() if b"EVALSHA" in data else None
        link = Link(wire.url, with_echo())
        answers = await asyncio.gather(*(link.run(NUMBERED, ["list"], [n], deadline=5.0) for n in range(5)))
        assert sorted(numbers[0] for _, numbers in answers) == [1, 2, 3, 4, 5]
        assert direct.llen("list") == 5
        await link.close()


async def test_where_nobody_listens_nothing_was_carried_out() -> None:
    link = Link("unix:///nowhere/at/all", with_echo())
    with pytest.raises(LedgerAway) as away:
        await link.run(ECHO, ["k"], [1], deadline=1.0)
    assert not away.value.unknown
    for call in (link.warm(), link.ask("PING")):
        with pytest.raises(LedgerAway, match=r"^ConnectionError$"):  # the reason names no address
            await call
    await link.close()


async def test_a_connection_that_died_is_made_anew(link: Link, direct: redis.Redis) -> None:
    assert await echo(link, 1) == 1
    direct.client_kill_filter(_type="normal", skipme=True)
    await asyncio.gather(echo(link, 2), return_exceptions=True)  # may find out by failing
    await asyncio.gather(echo(link, 3), return_exceptions=True)  # on the second connection too
    assert await echo(link, 4) == 4


async def test_a_server_that_hangs_up_at_once_is_known_to_have_done_nothing(store: EmbeddedStore) -> None:
    store.stop()
    async with Wire(store.url) as wire:
        link = Link(wire.url, with_echo())
        with pytest.raises(LedgerAway) as away:
            await link.run(ECHO, ["k"], [1], deadline=1.0)
        assert not away.value.unknown
        await link.close()


async def test_more_calls_than_may_wait_are_turned_away(
    store: EmbeddedStore, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "WAITING", 5)
    answers = await asyncio.gather(*(echo(link, n) for n in range(9)), return_exceptions=True)
    assert answers[:5] == [0, 1, 2, 3, 4]
    for answer in answers[5:]:
        assert isinstance(answer, LedgerAway)
        assert not answer.unknown


async def test_the_deadline_of_a_call_does_not_end_a_handshake(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    """Else a slow server is never reached: every call would begin the handshake anew, and give it up."""
    async with Wire(store.url) as wire:
        wire.slow = 0.1
        link = Link(wire.url, with_echo(), connections=1)
        with pytest.raises(LedgerAway) as away:
            await link.run(NUMBERED, ["list"], [1], deadline=0.02)
        assert not away.value.unknown
        await eventually(lambda: not link._carriers)
        wire.slow = 0.0
        assert await echo(link, 2, deadline=0.5) == 2
        assert wire.connections == 1
        assert direct.exists("list") == 0  # the first was not sent any more
        await link.close()


async def test_close_lets_what_is_under_way_end(store: EmbeddedStore, direct: redis.Redis) -> None:
    link = Link(store.url, with_echo())
    await link.warm()
    os.kill(store.pid, signal.SIGSTOP)
    tasks = [asyncio.create_task(link.run(NUMBERED, ["list"], [n], deadline=5.0)) for n in range(10)]
    await eventually(lambda: link._carriers)
    closing = asyncio.create_task(link.close())
    os.kill(store.pid, signal.SIGCONT)
    await closing
    assert len([await task for task in tasks]) == 10
    assert direct.llen("list") == 10


async def test_an_answer_that_a_busy_worker_has_not_read_yet_is_not_too_late(
    link: Link, direct: redis.Redis
) -> None:
    """Everything else this worker does in between takes longer than the ledger may."""
    asking = [asyncio.create_task(echo(link, number, deadline=0.3)) for number in range(300)]
    for _ in range(3):  # the first go on their way, the last wait for their turn
        await asyncio.sleep(0)
        direct.blpop(["nobody-pushes"], timeout=0.2)
    assert await asyncio.gather(*asking) == list(range(300))


@pytest.mark.parametrize(
    ("told", "word"),
    [
        (("CONFIG SET", "maxmemory", "1"), "OOM"),
        (("CONFIG SET", "min-replicas-to-write", "1"), "NOREPLICAS"),
        (("REPLICAOF", "127.0.0.1", "1"), "READONLY"),
    ],
)
async def test_what_the_server_refuses_is_not_carried_out_and_is_said_in_its_word(
    link: Link, direct: redis.Redis, told: tuple[str, ...], word: str
) -> None:
    _tell(direct, *told)
    for _ in range(2):
        with pytest.raises(LedgerAway) as away:
            await link.run(NUMBERED, ["list"], [1], deadline=5.0)
        assert (away.value.reason, str(away.value), away.value.unknown) == (word, word, False)
    assert direct.exists("list") == 0
    for command in (("CONFIG SET", "maxmemory", "0"), ("CONFIG SET", "min-replicas-to-write", "0")):
        _tell(direct, *command)
    _tell(direct, "REPLICAOF", "NO", "ONE")
    assert await link.run(NUMBERED, ["list"], [1], deadline=5.0) == ("at", [1])


async def test_a_server_that_is_a_replica_now_or_has_lost_its_master_is_left(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with Wire(store.url) as wire:
        link = Link(wire.url, with_echo(), connections=1)
        await link.warm()
        _tell(direct, "REPLICAOF", "127.0.0.1", "1")
        calls = [link.run(NUMBERED, ["list"], [n], deadline=5.0) for n in range(3)]
        for away in await asyncio.gather(*calls, return_exceptions=True):  # all in one write
            assert isinstance(away, LedgerAway)
            assert (away.reason, away.unknown) == ("READONLY", False)
        assert wire.connections == 1
        direct.config_set("replica-serve-stale-data", "no")
        for connections in (2, 3):
            with pytest.raises(LedgerAway, match=r"^MASTERDOWN$") as down:
                await echo(link, 1)
            assert not down.value.unknown
            assert wire.connections == connections
        await link.close()


async def test_a_server_that_is_busy_with_a_script_says_so(link: Link, direct: redis.Redis) -> None:
    direct.config_set("lua-time-limit", 1)
    spinning = asyncio.create_task(asyncio.to_thread(_spin, direct))
    refused: list[LedgerAway] = []

    try:
        async with asyncio.timeout(10):
            while not refused:
                try:
                    await echo(link, 1, deadline=0.05)
                except LedgerAway as away:
                    refused += [away] if away.reason == "BUSY" else []
    finally:
        while not spinning.done():
            with suppress(redis.ResponseError):  # it spins not yet, or not any more
                direct.script_kill()
            await asyncio.wait([spinning], timeout=0.02)
    assert [away.unknown for away in refused] == [False]


async def test_a_server_that_loads_its_data_has_not_carried_anything_out(tmp_path: Path) -> None:
    server = Server(server_program(), tmp_path, "--requirepass", PASSWORD)
    try:
        server.start()
        server.ask("EVAL", "for n = 1, 4000 do redis.call('SET', n, string.rep('x', 100)) end", 0)
        server.ask("SAVE")
        server.kill()
        server.begin("--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")
        link = Link(f"redis://:{quote(PASSWORD)}@{HOST}:{server.port}", with_echo())
        calls = [link.run(NUMBERED, ["list"], [n], deadline=5.0) for n in range(3)]
        for away in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(away, LedgerAway)
            assert (away.reason, away.unknown) == ("LOADING", False)
        await link.close()
    finally:
        server.kill()


def _tell(direct: redis.Redis, *command: str) -> None:
    direct.execute_command(*command)  # type: ignore[no-untyped-call]


def _spin(direct: redis.Redis) -> None:
    with suppress(redis.RedisError):  # it is killed
        direct.eval("while true do end", 0)
