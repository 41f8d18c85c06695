"""Ledger: over a server that dies, comes back empty, is full, or is interrupted under load."""

import asyncio
import os
import signal

import pytest
import redis

from service.adapters.ledger import LedgerAway
from service.adapters.ledger.embedded import EmbeddedStore
from tests.adapters.ledger.world import (
    Wire,
    asked,
    charged,
    eventually,
    open_reservations,
    opened,
    used,
)


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
        assert (reservation.uncertain, reservation.tried) == (True, False)
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


async def test_with_memory_full_a_settle_passes_and_a_reserve_is_known_to_have_failed(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with opened(store.url) as ledger:
        reservation = asked(300)
        await ledger.reserve(reservation)
        direct.config_set("maxmemory", "1")
        other = asked(1)
        with pytest.raises(LedgerAway):
            await ledger.reserve(other)
        assert not other.uncertain
        assert await ledger.settle(reservation, used(120)) == "settled"
        assert charged(direct) == 120


async def test_a_server_that_became_a_replica_is_away_until_it_is_none(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with opened(store.url) as ledger:
        await ledger.reserve(asked(1))
        direct.replicaof("127.0.0.1", "1")
        with pytest.raises(LedgerAway):
            await ledger.reserve(asked(1))
        direct.replicaof("NO", "ONE")
        assert (await ledger.reserve(asked(1))).granted


async def test_a_server_without_its_replicas_is_away_and_has_done_nothing(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with opened(store.url) as ledger:
        direct.config_set("min-replicas-to-write", 1)
        reservation = asked(1)
        with pytest.raises(LedgerAway):
            await ledger.reserve(reservation)
        assert not reservation.uncertain
        direct.config_set("min-replicas-to-write", 0)
        assert (await ledger.reserve(reservation)).charged == (1_000,)


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
    async with opened(store.url) as ledger:
        reservations = [asked(50) for _ in range(10)]
        for reservation in reservations:
            await ledger.reserve(reservation)
        direct.flushall()
        statuses = [await ledger.settle(reservation, used(20)) for reservation in reservations]
        assert set(statuses) == {"charged"}
        assert charged(direct) == 200
        assert not (await ledger.reserve(asked(801))).granted


# -- under load -------------------------------------------------------------------------------------


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
