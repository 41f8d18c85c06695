"""Ledger: over a server that dies, comes back empty, is full, or is interrupted under load."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress

import pytest
import redis

from service.adapters.ledger import LedgerAway, Reservation
from service.adapters.ledger.breaker import State
from service.adapters.ledger.embedded import EmbeddedStore
from service.domain.policy import Claim
from tests.adapters.ledger.world import (
    ALICE,
    DAY,
    STREAMS,
    Wire,
    asked,
    charged,
    eventually,
    frozen,
    open_reservations,
    opened,
    used,
)

SUBJECTS = (ALICE, "w1:{acme}", "w1:{all}")


def several(tokens: int) -> Reservation:
    """Of several policies, and several subjects."""
    days = [Claim(DAY, subject, tokens * 1000) for subject in SUBJECTS]
    return Reservation([days[0], Claim(STREAMS, ALICE, 1_000), *days[1:]])


async def test_what_is_pending_is_delivered_when_the_server_is_back(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    """A server that lost everything meanwhile is told what was used: once."""
    async with opened(store.url) as ledger:
        reservations = [asked(100) for _ in range(3)]
        for reservation in reservations:
            await ledger.reserve(reservation)
        store.stop()
        for reservation in reservations:
            assert await ledger.settle(reservation, used(70)) == "pending"
        assert ledger.pending == 3
        store.start()
        await eventually(lambda: ledger.pending == 0)
        assert charged(direct) in (140, 210)  # of the first, a try's outcome may not be known
        assert ledger.dropped == 0


async def test_what_is_pending_is_delivered_on_close(store: EmbeddedStore, direct: redis.Redis) -> None:
    async with opened(store.url) as ledger:
        reservation = asked(100)
        await ledger.reserve(reservation)
        os.kill(store.pid, signal.SIGSTOP)
        assert await ledger.settle(reservation, used(70)) == "pending"
        os.kill(store.pid, signal.SIGCONT)
    assert (charged(direct), ledger.pending, ledger.dropped) == (70, 0, 0)


async def test_what_cannot_be_delivered_on_close_is_counted(store: EmbeddedStore) -> None:
    async with opened(store.url) as ledger:
        reservation = asked(100)
        await ledger.reserve(reservation)
        store.stop()
        await ledger.settle(reservation, used(70))
        await ledger.close(grace=0.05)
        assert (ledger.pending, ledger.dropped) == (0, 1)


async def test_a_server_that_comes_back_empty_needs_no_restart_of_ours(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with opened(store.url) as ledger:
        await ledger.reserve(asked(900))
        store.stop()
        with pytest.raises(LedgerAway):
            await ledger.reserve(asked(1))
        store.start()
        assert (await ledger.reserve(asked(900))).granted
        assert ledger.available
        assert charged(direct) == 900


async def test_usage_is_charged_though_the_reserve_before_it_got_lost(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    """A policy lets pass what the ledger does not answer: what was used is charged when it is back."""
    async with Wire(store.url) as wire, opened(wire.url, connections=1) as ledger:
        await ledger.reserve(asked(1, subject="w1:{warm}"))
        wire.lose = 2
        reservation = asked(300)
        with pytest.raises(LedgerAway):
            await ledger.reserve(reservation)
        store.stop()  # and what it knew is gone
        assert await ledger.settle(reservation, used(120)) == "pending"
        assert (reservation.uncertain, reservation.tried) == (True, set())
        store.start()
        await eventually(lambda: ledger.pending == 0)
        assert charged(direct) == 120


async def test_a_worker_that_began_without_a_ledger_charges_what_was_used_meanwhile(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    """It does not know the ledger's time yet; what it let pass is not forgotten for that."""
    store.stop()
    async with opened(store.url) as ledger:
        reservation = asked(300)
        with pytest.raises(LedgerAway):
            await ledger.reserve(reservation)
        assert not reservation.uncertain
        assert await ledger.settle(reservation, used(120)) == "pending"
        store.start()
        await eventually(lambda: ledger.pending == 0)
        assert charged(direct) == 120


async def test_with_memory_full_nothing_is_charged_and_what_is_open_is_settled_all_the_same(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with opened(store.url, deadline=2.0) as ledger:
        reservation = several(300)
        await ledger.reserve(reservation)
        direct.config_set("maxmemory", "1")
        other = several(1)
        with pytest.raises(LedgerAway, match=r"^OOM$"):
            await ledger.reserve(other)
        assert not other.uncertain
        assert [charged(direct, subject=subject) for subject in SUBJECTS] == [300, 300, 300]
        assert charged(direct, policy=STREAMS) == 1
        assert await ledger.settle(reservation, used(120)) == "settled"
        assert [charged(direct, subject=subject) for subject in SUBJECTS] == [120, 120, 120]
        assert (charged(direct, policy=STREAMS), open_reservations(direct)) == (0, 0)
        assert not direct.exists("w1:{new}")
        with pytest.raises(LedgerAway, match=r"^OOM$"):
            await ledger.reserve(asked(1, subject="w1:{new}"))
        assert not direct.exists("w1:{new}")


Told = Callable[[redis.Redis], object]


@pytest.mark.parametrize(
    ("word", "befalls", "passes"),
    [
        ("READONLY", lambda r: r.replicaof("127.0.0.1", "1"), lambda r: r.replicaof("NO", "ONE")),
        (
            "NOREPLICAS",
            lambda r: r.config_set("min-replicas-to-write", 1),
            lambda r: r.config_set("min-replicas-to-write", 0),
        ),
    ],
)
async def test_a_server_that_may_not_write_is_away_has_done_nothing_and_is_found_again(
    store: EmbeddedStore, direct: redis.Redis, word: str, befalls: Told, passes: Told
) -> None:
    async with opened(store.url, deadline=2.0) as ledger:
        served, refused = several(300), several(300)
        await ledger.reserve(served)
        befalls(direct)
        with pytest.raises(LedgerAway, match=f"^{word}$"):
            await ledger.reserve(refused)
        assert not refused.uncertain
        assert await ledger.settle(served, used(120)) == "pending"
        passes(direct)
        await eventually(lambda: ledger.pending == 0)
        assert (await ledger.reserve(refused)).granted
        assert [charged(direct, subject=subject) for subject in SUBJECTS] == [420, 420, 420]
        assert open_reservations(direct) == 1


async def test_a_server_busy_with_a_script_is_away_until_that_ends(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with opened(store.url, deadline=0.2) as ledger:
        served, refused = asked(300), asked(300)
        await ledger.reserve(served)
        direct.config_set("lua-time-limit", 1)
        spinning = asyncio.create_task(asyncio.to_thread(_spin, store.url))
        await eventually(lambda: _is_busy(direct))
        with pytest.raises(LedgerAway):
            await asyncio.wait_for(ledger.reserve(refused), 2.0)
        assert await ledger.settle(served, used(120)) == "pending"
        direct.script_kill()
        await spinning
        await ledger.release(refused)
        await eventually(lambda: ledger.pending == 0)
        assert (charged(direct), open_reservations(direct)) == (120, 0)


async def test_a_server_that_loads_its_data_is_away_until_it_has(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    """And goes on with what it had: a restart is no reason to charge anew."""
    async with opened(store.url, deadline=5.0) as ledger:
        served, refused = asked(300), asked(300)
        await ledger.reserve(served)
        direct.config_set("rdbcompression", "no")  # a server looks up from its work every two megabytes
        direct.eval("for n = 1, 40 do redis.call('SET', n, string.rep('x', 1000000)) end", 0)
        direct.save()
        store.stop()
        store._options = ("--key-load-delay", "50000")
        store.start()
        with pytest.raises(LedgerAway, match=r"^LOADING$"):
            await ledger.reserve(refused)
        await ledger.release(refused)
        assert await ledger.settle(served, used(120)) == "pending"
        await eventually(lambda: ledger.pending == 0)
        assert (charged(direct), open_reservations(direct)) == (120, 0)


def _spin(url: str) -> None:
    with redis.Redis.from_url(url) as spinning, suppress(redis.RedisError):  # it is killed
        spinning.eval("while true do end", 0)


def _is_busy(direct: redis.Redis) -> bool:
    try:
        direct.ping()
    except redis.ResponseError:
        return True
    return False


async def test_a_server_that_pauses_its_clients_is_not_waited_for(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with opened(store.url) as ledger:
        reservation = asked(300)
        direct.client_pause(1_500)
        with pytest.raises(LedgerAway):
            await asyncio.wait_for(ledger.reserve(reservation), 1.2)
        await ledger.release(reservation)
        await eventually(lambda: ledger.pending == 0)
        assert (charged(direct), open_reservations(direct)) == (0, 0)


async def test_a_ledger_emptied_under_open_requests_is_told_what_they_used(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    """Once each; what is released, or was more than used, is not given back to those who came after."""
    async with opened(store.url, deadline=2.0) as ledger:
        early = [asked(50) for _ in range(10)]
        for reservation in early:
            await ledger.reserve(reservation)
        direct.flushall()
        late = asked(100)
        assert (await ledger.reserve(late)).charged == (100_000,)
        assert await ledger.release(early[0]) == "again"
        assert charged(direct) == 100
        for number, reservation in enumerate(early[1:], 1):
            assert await ledger.settle(reservation, used(20)) == "charged"
            assert charged(direct) == 100 + 20 * number
        await ledger.settle(late, used(30))
        assert charged(direct) == 210
        assert not (await ledger.reserve(asked(791))).granted
        assert (await ledger.reserve(asked(790))).granted


# -- under load -------------------------------------------------------------------------------------


async def test_a_server_that_stands_still_for_seconds_is_not_waited_for_and_charges_nothing_twice(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    """What it was told meanwhile waits in its sockets, and is carried out when it goes on."""
    async with opened(store.url, timeout=0.5, deadline=0.2) as ledger:
        served = [asked(10) for _ in range(10)]
        for reservation in served:
            await ledger.reserve(reservation)
        refused = 0

        async def ask() -> None:
            nonlocal refused
            while True:
                reservation = asked(20)
                try:
                    with pytest.raises(LedgerAway):
                        async with asyncio.timeout(2):
                            await ledger.reserve(reservation)
                finally:  # the last ones are cut off
                    await ledger.release(reservation)
                refused += 1
                await asyncio.sleep(0.01)  # where it is not asked at all, nobody waits

        with frozen(store), suppress(TimeoutError):
            settling = [ledger.settle(reservation, used(7)) for reservation in served]
            assert set(await asyncio.gather(*settling)) == {"pending"}
            async with asyncio.timeout(3):
                await asyncio.gather(*(ask() for _ in range(5)))
        assert refused > 5
        await eventually(lambda: ledger.pending == 0)
        await eventually(lambda: not open_reservations(direct))
        await eventually(lambda: ledger.breaker is State.CLOSED)
        assert (await ledger.reserve(asked(1))).charged == (71_000,)


async def test_over_a_long_way_50_at_once_are_granted_in_time_however_cold_the_connections(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    """60 ms there and back, and 250 ms to reserve; here four times both, as a machine has others to serve."""
    async with Wire(store.url) as wire:
        wire.slow = 0.24
        async with opened(wire.url, deadline=1.0) as ledger:
            for round in range(3):
                reservations = [asked(1) for _ in range(50)]
                verdicts = await asyncio.gather(*map(ledger.reserve, reservations))
                assert all(verdict.granted for verdict in verdicts), round
                direct.client_kill_filter(_type="normal", skipme=True)
            assert (charged(direct), open_reservations(direct)) == (150, 150)


async def test_a_server_that_came_back_empty_far_away_is_soon_found_again(store: EmbeddedStore) -> None:
    """No call waits for the connection, and for the scripts to be loaded; but what was begun goes on."""
    async with Wire(store.url) as wire:
        wire.slow = 0.06
        async with opened(wire.url, deadline=0.25) as ledger:
            store.stop()
            with pytest.raises(LedgerAway):
                await ledger.reserve(asked(1))
            store.start()

            async def ask() -> bool:
                try:
                    return (await ledger.reserve(asked(1))).granted
                except LedgerAway:
                    return False

            rounds = 1
            while not all(await asyncio.gather(*(ask() for _ in range(50)))):
                rounds += 1
                assert rounds < 100
                await asyncio.sleep(0.05)


async def test_scripts_flushed_under_load_are_nobodys_error(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with opened(store.url, deadline=5.0) as ledger:

        async def work(number: int) -> None:
            for _ in range(20):
                reservation = asked(2, subject=f"w1:{{{number % 5}}}")
                assert (await ledger.reserve(reservation)).granted
                assert await ledger.settle(reservation, used(1)) == "settled"

        working = asyncio.gather(*map(work, range(10)))
        while not working.done():
            direct.script_flush()
            await asyncio.sleep(0.01)
        await working
        assert sum(charged(direct, subject=f"w1:{{{number}}}") for number in range(5)) == 200


async def test_connections_killed_under_load_lose_and_double_nothing(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with opened(store.url, deadline=2.0) as ledger:
        expected = 0

        async def work() -> None:
            nonlocal expected
            for _ in range(20):
                reservation = asked(2)
                try:
                    granted = (await ledger.reserve(reservation)).granted
                except LedgerAway:
                    await ledger.release(reservation)
                else:
                    assert granted
                    await ledger.settle(reservation, used(3))
                    expected += 3

        working = asyncio.gather(*(work() for _ in range(10)))
        kills = 0
        while not working.done():
            direct.client_kill_filter(_type="normal", skipme=True)
            kills += 1
            await asyncio.sleep(0.005)
        await working
        await eventually(lambda: ledger.pending == 0)
        assert kills > 3
        assert (charged(direct), open_reservations(direct)) == (expected, 0)
