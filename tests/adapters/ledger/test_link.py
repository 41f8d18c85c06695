"""Link: many calls in one write, each caller with its own patience, and no answer for another's question."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
import redis

from service.adapters.ledger import link as links
from service.adapters.ledger import scripts as lua
from service.adapters.ledger.embedded import EmbeddedStore
from service.adapters.ledger.link import LedgerAway, Link
from service.adapters.ledger.scripts import Script
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


async def test_the_deadline_of_a_call_does_not_end_a_handshake(store: EmbeddedStore) -> None:
    """Else a slow server is never reached: every call would begin the handshake anew, and give it up."""
    async with Wire(store.url) as wire:
        wire.slow = 0.1
        link = Link(wire.url, with_echo(), connections=1)
        with pytest.raises(LedgerAway):
            await echo(link, 1, deadline=0.02)
        await eventually(lambda: not link._carriers)
        wire.slow = 0.0
        assert await echo(link, 2, deadline=0.5) == 2
        assert wire.connections == 1
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
    asking = [asyncio.create_task(echo(link, number, deadline=0.01)) for number in range(300)]
    for _ in range(3):  # the first go on their way, the last wait for their turn
        await asyncio.sleep(0)
        direct.blpop(["nobody-pushes"], timeout=0.05)
    assert await asyncio.gather(*asking) == list(range(300))
