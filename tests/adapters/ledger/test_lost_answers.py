"""Ledger: over a server that is frozen, or whose answers get lost, and callers who leave."""

import asyncio

import pytest
import redis

from service.adapters.ledger import Ledger, LedgerAway
from service.adapters.ledger import scripts as lua
from service.adapters.ledger.embedded import EmbeddedStore
from service.adapters.ledger.link import Link
from tests.adapters.ledger.world import (
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
    async with Wire(store.url) as wire, opened(wire.url) as ledger:
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
    async with Wire(store.url) as wire, opened(wire.url) as ledger:
        reservation = asked(300)
        await ledger.reserve(reservation)
        wire.lose = lost
        assert await ledger.settle(reservation, used(450)) == ("again" if lost == 1 else "pending")
        await eventually(lambda: ledger.pending == 0)
        assert (charged(direct), open_reservations(direct)) == (450, 0)


async def test_a_wire_that_carries_nothing_is_not_waited_for(store: EmbeddedStore) -> None:
    async with Wire(store.url) as wire:
        wire.silent = True
        link = Link(wire.url, lua.load(), timeout=0.2)
        ledger = Ledger(link)
        with pytest.raises(LedgerAway):
            await asyncio.wait_for(ledger.reserve(asked(1)), 2.0)
        await link.close()


async def test_a_cancelled_reserve_is_undone(store: EmbeddedStore, direct: redis.Redis) -> None:
    """At whatever moment the client leaves: nothing stays charged once the release is delivered."""
    async with opened(store.url) as ledger:
        for turns in range(12):
            reservation = asked(10)
            task = asyncio.create_task(ledger.reserve(reservation))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await ledger.release(reservation)
        await eventually(lambda: not open_reservations(direct))
        assert charged(direct) == 0
        assert ledger.available  # a client that leaves says nothing about the ledger


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
