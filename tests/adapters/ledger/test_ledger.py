"""Ledger: over a real server that is well, frozen, killed, emptied, or whose answers get lost."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from service.adapters.ledger import Ledger, LedgerAway, Reservation
from service.adapters.ledger import scripts as lua
from service.adapters.ledger.embedded import EmbeddedStore
from service.adapters.ledger.link import Link
from service.domain.policy import Claim
from service.domain.usage import Usage
from tests.adapters.ledger.world import (
    ALICE,
    DAY,
    STREAMS,
    Wire,
    asked,
    charged,
    eventually,
    open_reservations,
    opened,
    used,
)


@contextmanager
def frozen(store: EmbeddedStore) -> Iterator[None]:
    os.kill(store.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(store.pid, signal.SIGCONT)


# -- when all is well ----------------------------------------------------------------------------


async def test_what_was_reserved_becomes_what_was_used(store: EmbeddedStore, direct: redis.Redis) -> None:
    async with opened(store.url) as ledger:
        reservation = asked(300)
        verdict = await ledger.reserve(reservation)
        assert (verdict.granted, verdict.charged, ledger.reservations) == (True, (300_000,), 1)
        assert charged(direct) == 300
        assert await ledger.settle(reservation, used(120)) == "settled"
        assert (charged(direct), ledger.reservations) == (120, 0)
        assert await ledger.peek(reservation.claims) == (0, {DAY.name: 120_000})


async def test_a_refusal_names_the_claim_and_the_wait(store: EmbeddedStore) -> None:
    async with opened(store.url) as ledger:
        await ledger.reserve(asked(900))
        other = asked(200)
        verdict = await ledger.reserve(other)
        assert verdict.refusing == other.claims[0]
        assert verdict.wait is not None
        assert 0 < verdict.wait <= DAY.window
        never = await ledger.reserve(asked(1_001))
        assert (never.granted, never.wait) == (False, None)
        assert ledger.reservations == 1


async def test_claims_of_many_subjects_keep_their_places(store: EmbeddedStore, direct: redis.Redis) -> None:
    """The ledger sorts them by subject; the verdict still names the right one."""
    async with opened(store.url) as ledger:
        await ledger.reserve(asked(995, subject="w1:{b}"))
        claims = [Claim(DAY, f"w1:{{{name}}}", 10_000) for name in "cba"]
        claims.append(Claim(STREAMS, "w1:{c}", 1_000))
        verdict = await ledger.reserve(Reservation(claims))
        assert verdict.refusing == claims[1]
        assert [charged(direct, subject=f"w1:{{{name}}}") for name in "abc"] == [0, 995, 0]


async def test_a_release_gives_all_back(store: EmbeddedStore, direct: redis.Redis) -> None:
    async with opened(store.url) as ledger:
        reservation = asked(300)
        await ledger.reserve(reservation)
        assert await ledger.release(reservation) == "settled"
        assert (charged(direct), open_reservations(direct)) == (0, 0)


async def test_usage_nobody_knows_leaves_what_was_reserved(store: EmbeddedStore, direct: redis.Redis) -> None:
    async with opened(store.url) as ledger:
        reservation = asked(300)
        await ledger.reserve(reservation)
        await ledger.settle(reservation, Usage(1, 2, source="reservation"))
        assert charged(direct) == 300


async def test_a_reset_makes_charges_zero_and_leaves_what_is_open(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with opened(store.url) as ledger:
        reservation = asked(300)
        await ledger.reserve(reservation)
        await ledger.reset(reservation.claims)
        assert (charged(direct), open_reservations(direct)) == (0, 1)


async def test_one_looks_at_one_subject_at_a_time(store: EmbeddedStore) -> None:
    async with opened(store.url) as ledger:
        with pytest.raises(ValueError, match="one subject"):
            await ledger.peek([Claim(DAY, "w1:{a}", 0), Claim(DAY, "w1:{b}", 0)])


async def test_what_the_server_does_when_full_can_be_asked(store: EmbeddedStore) -> None:
    async with opened(store.url) as ledger:
        assert await ledger.maxmemory_policy() == "noeviction"


async def test_every_call_is_heard_of(store: EmbeddedStore) -> None:
    heard: Counter[tuple[str, str]] = Counter()
    async with opened(store.url, observe=lambda call, result, _: heard.update([(call, result)])) as ledger:
        reservation = asked(1)
        await ledger.reserve(reservation)
        await ledger.settle(reservation, used(1))
        store.stop()
        with pytest.raises(LedgerAway):
            await ledger.reserve(asked(1))
        assert heard == {("reserve", "ok"): 1, ("settle", "ok"): 1, ("reserve", "error"): 2}
        assert not ledger.available


# -- when answers do not come --------------------------------------------------------------------


async def test_while_the_server_is_frozen_a_reserve_ends_within_its_deadline(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    """And once it thaws, what it carried out all the same is undone."""
    async with opened(store.url, timeout=0.3) as ledger:
        await ledger.reserve(asked(1, subject="w1:{warm}"))
        reservation = asked(300)
        with frozen(store):
            began = time.monotonic()
            with pytest.raises(LedgerAway):
                await ledger.reserve(reservation)
            assert 0.2 < time.monotonic() - began < 1.0
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
        began = time.monotonic()
        reservation = asked(1)
        with pytest.raises(LedgerAway):
            await ledger.reserve(reservation)
        assert time.monotonic() - began < 1.0
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


# -- when the server goes ------------------------------------------------------------------------


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
        began = time.monotonic()
        with pytest.raises(LedgerAway):
            await ledger.reserve(reservation)
        assert time.monotonic() - began < 1.0
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


async def test_an_account_nobody_can_read_is_the_ledger_away_and_no_more(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with opened(store.url) as ledger:
        await ledger.reserve(asked(1))
        direct.hset(ALICE, DAY.account, "what is this")
        with pytest.raises(LedgerAway):
            await ledger.reserve(asked(1))
        assert (await ledger.reserve(asked(1, subject="w1:{bob}"))).granted


# -- under load ----------------------------------------------------------------------------------


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


# -- leases --------------------------------------------------------------------------------------


async def test_while_a_stream_flows_its_lease_goes_on_and_what_it_produces_is_charged(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with opened(store.url, lease=0.3) as ledger:
        reservation = Reservation([Claim(DAY, ALICE, 10_000), Claim(STREAMS, ALICE, 1_000)])
        produced = 5
        reservation.produced = lambda: used(produced)
        await ledger.reserve(reservation)
        first = reservation.ends
        await eventually(lambda: reservation.ends > first + 500)
        assert charged(direct) == 10
        produced = 55
        await eventually(lambda: charged(direct) == 55)
        assert (await ledger.reserve(asked(1, policy=STREAMS))).granted
        assert not (await ledger.reserve(asked(1, policy=STREAMS))).granted  # it still has its place
        assert await ledger.settle(reservation, used(40)) == "settled"
        assert charged(direct) == 40


async def test_a_renewal_that_fails_is_tried_again(store: EmbeddedStore) -> None:
    async with opened(store.url, lease=0.6, deadline=0.05) as ledger:
        reservation = asked(10)
        await ledger.reserve(reservation)
        with frozen(store):
            await eventually(lambda: not ledger.available)
        until = reservation.ends
        await eventually(lambda: reservation.ends > until)


async def test_a_lease_that_ended_is_corrected_by_a_late_settle(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    """A worker that stood still longer than its lease settles once, by the marker."""
    async with opened(store.url) as asleep, opened(store.url) as awake:
        reservation = asked(300)
        await asleep.reserve(reservation)
        record = direct.hget(ALICE, f"~{reservation.id}")
        assert isinstance(record, bytes)
        past = asleep.now() - 1_000
        direct.hset(ALICE, f"~{reservation.id}", b" ".join([str(past).encode(), *record.split()[1:]]))
        direct.hset(ALICE, "~", f"{past} 1 {past + 10**7}")
        await awake.reserve(asked(1))
        assert open_reservations(direct) == 1
        assert await asleep.settle(reservation, used(120)) == "corrected"
        assert await asleep.settle(reservation, used(120)) == "again"
        assert charged(direct) == 121


# -- clocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-1, 1], ids=["ahead of ours", "behind ours"])
async def test_a_ledgers_clock_that_leaps_costs_a_second_try_and_no_more(
    store: EmbeddedStore, direct: redis.Redis, hours: int
) -> None:
    leap = 0.0
    heard: Counter[tuple[str, str]] = Counter()
    async with opened(
        store.url,
        clock=lambda: time.monotonic() + leap,
        observe=lambda call, result, _: heard.update([(call, result)]),
    ) as ledger:
        reservation = asked(300)
        await ledger.reserve(reservation)
        leap = hours * 3_600.0
        assert (await ledger.reserve(asked(100))).granted
        assert await ledger.settle(reservation, used(120)) == "settled"
        assert charged(direct) == 220
        assert heard == {("reserve", "ok"): 2, ("settle", "ok"): 1}


async def test_a_clock_that_never_agrees_is_the_ledger_away(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    looks = 0

    def falling() -> float:
        nonlocal looks
        looks += 1
        return -60.0 * looks

    heard: Counter[tuple[str, str]] = Counter()
    link = Link(store.url, lua.load())
    ledger = Ledger(
        link, clock=falling, deadline=10**6, observe=lambda call, result, _: heard.update([(call, result)])
    )
    reservation = asked(300)
    with pytest.raises(LedgerAway, match="late"):
        await ledger.reserve(reservation)
    assert (reservation.uncertain, ledger.available, heard) == (False, True, {("reserve", "late"): 2})
    assert not direct.exists(ALICE)
    await link.close()


async def test_a_reservation_that_was_released_is_not_reserved_again(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with opened(store.url) as ledger:
        reservation = asked(300)
        await ledger.release(reservation)
        with pytest.raises(LedgerAway, match="aborted"):
            await ledger.reserve(reservation)
        assert (charged(direct), ledger.reservations) == (0, 0)


async def test_a_worker_that_does_not_know_the_time_yet_leaves_no_marker_for_ever(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    """Its first call has a deadline like every other: a marker lives for as long as a call may straggle."""
    async with opened(store.url) as ledger:
        reservation = asked(300)
        await ledger.release(reservation)
        marker = direct.hget(ALICE, f"!{reservation.id}")
        assert isinstance(marker, bytes)
        assert 0 < int(marker.split()[0]) - ledger.now() < 6_000
        assert 0 < direct.pttl(ALICE) < 120_000
