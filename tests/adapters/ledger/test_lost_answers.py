"""Ledger: over a server that is frozen, or whose answers get lost, and callers who leave."""

import asyncio

import pytest
import redis

from service.adapters.ledger import LedgerAway
from service.adapters.ledger.breaker import State
from service.adapters.ledger.embedded import EmbeddedStore
from tests.adapters.ledger.world import (
    ALICE,
    Wire,
    asked,
    charged,
    eventually,
    frozen,
    open_reservations,
    opened,
    used,
)


async def test_while_the_server_is_frozen_a_reserve_ends_within_its_deadline(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    """And once it thaws, what it carried out all the same is undone."""
    async with opened(store.url, timeout=0.3) as ledger:
        await ledger.reserve(asked(1, subject="w1:{warm}"))
        reservation = asked(300)
        with frozen(store):
            with pytest.raises(LedgerAway):
                await asyncio.wait_for(ledger.reserve(reservation), 2.0)
            assert reservation.uncertain
            assert await ledger.release(reservation) == "pending"
            assert ledger.pending == 1
        await eventually(lambda: ledger.pending == 0)
        await eventually(lambda: not open_reservations(direct))
        assert charged(direct) == 0
        assert (await ledger.reserve(asked(1_000))).granted


@pytest.mark.parametrize("lost", [1, 2, 5])
async def test_however_many_answers_of_a_reserve_are_lost_it_charges_once(
    store: EmbeddedStore, direct: redis.Redis, lost: int
) -> None:
    async with Wire(store.url) as wire, opened(wire.url, deadline=2.0) as ledger:
        await ledger.reserve(asked(1, subject="w1:{warm}"))
        wire.lose = lost
        reservation = asked(300)
        if lost == 1:
            assert (await ledger.reserve(reservation)).charged == (300_000,)
        else:
            with pytest.raises(LedgerAway):
                await ledger.reserve(reservation)
        assert reservation.uncertain
        assert charged(direct) == 300
        await ledger.release(reservation)
        await eventually(lambda: ledger.pending == 0)
        assert (charged(direct), open_reservations(direct)) == (0, 0)


@pytest.mark.parametrize("lost", [1, 2, 5])
async def test_however_many_answers_of_a_settle_are_lost_it_settles_once(
    store: EmbeddedStore, direct: redis.Redis, lost: int
) -> None:
    async with Wire(store.url) as wire, opened(wire.url, deadline=2.0) as ledger:
        reservation = asked(300)
        await ledger.reserve(reservation)
        wire.lose = lost
        assert await ledger.settle(reservation, used(450)) == ("again" if lost == 1 else "pending")
        await eventually(lambda: ledger.pending == 0)
        assert (charged(direct), open_reservations(direct)) == (450, 0)


@pytest.mark.parametrize("bytes_before", [0, 1, 7, 30])
async def test_an_answer_that_comes_in_part_is_none(
    store: EmbeddedStore, direct: redis.Redis, bytes_before: int
) -> None:
    async with Wire(store.url) as wire, opened(wire.url, deadline=2.0) as ledger:
        await ledger.reserve(asked(1, subject="w1:{warm}"))
        reservation = asked(300)
        wire.cut = bytes_before
        with pytest.raises(LedgerAway):
            await ledger.reserve(reservation)
        wire.cut = None
        assert reservation.uncertain
        await ledger.release(reservation)
        await eventually(lambda: ledger.pending == 0)
        assert (charged(direct), open_reservations(direct)) == (0, 0)


async def test_a_wire_that_carries_nothing_is_not_waited_for_and_recovers(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    """The connections stay up, and nothing comes over them: a host that is gone looks like that."""
    async with Wire(store.url) as wire, opened(wire.url, timeout=0.2, deadline=0.1) as ledger:
        served, lost = asked(300), asked(300)
        await ledger.reserve(served)
        wire.silent = True
        for _ in range(3):
            with pytest.raises(LedgerAway):
                await asyncio.wait_for(ledger.reserve(lost), 2.0)
        assert await ledger.settle(served, used(120)) == "pending"
        await ledger.release(lost)
        wire.silent = False
        await eventually(lambda: ledger.pending == 0)
        await eventually(lambda: ledger.breaker is State.CLOSED)
        assert (await ledger.reserve(asked(1))).charged == (121_000,)
        assert charged(direct) == 121


async def test_a_reserve_that_is_cancelled_wherever_it_waits_is_undone_at_once(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    """At whatever moment the client leaves: once the release is answered, nothing is there, or comes."""
    async with opened(store.url, deadline=2.0) as ledger:
        turns, whole = 0, False
        while not whole:  # until it has gone through all its moments
            reservation = asked(10)
            task = asyncio.create_task(ledger.reserve(reservation))
            for _ in range(turns):
                await asyncio.sleep(0)
            whole, turns = task.done(), turns + 1
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await ledger.release(reservation) in ("settled", "again")
            assert (charged(direct), open_reservations(direct)) == (0, 0)
        assert turns > 3
        assert ledger.available  # a client that leaves says nothing about the ledger
    assert (charged(direct), open_reservations(direct)) == (0, 0)  # all that was on its way has come


@pytest.mark.parametrize("leaves", [True, False], ids=["the client left", "the time was up"])
async def test_a_release_that_overtakes_its_reserve_ends_it(
    store: EmbeddedStore, direct: redis.Redis, leaves: bool
) -> None:
    async with Wire(store.url) as wire, opened(wire.url, deadline=0.4) as ledger:
        await ledger.reserve(asked(1, subject="w1:{warm}"))
        arrives = wire.late[ledger._scripts.reserve.sha.encode()] = asyncio.Event()
        reservation, before = asked(300), wire.writes
        task = asyncio.create_task(ledger.reserve(reservation))
        if leaves:
            await eventually(lambda: wire.writes > before)
            task.cancel()
        with pytest.raises(asyncio.CancelledError if leaves else LedgerAway):
            await task
        wire.late.clear()
        await ledger.release(reservation)
        await eventually(lambda: ledger.pending == 0)
        arrives.set()
    assert (charged(direct), open_reservations(direct)) == (0, 0)
    marker = direct.hget(ALICE, f"!{reservation.id}")
    assert marker  # which refused it


async def test_a_cancelled_settle_is_delivered_all_the_same(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with opened(store.url) as ledger:
        reservation = asked(300)
        await ledger.reserve(reservation)
        with frozen(store):
            task = asyncio.create_task(ledger.settle(reservation, used(120)))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert ledger.pending == 1
        await eventually(lambda: ledger.pending == 0)
        assert (charged(direct), open_reservations(direct)) == (120, 0)
