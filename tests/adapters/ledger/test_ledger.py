"""Ledger: over a real server that is well; its leases, and its clock."""

import asyncio
import struct
import time
from collections import Counter

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
    asked,
    charged,
    end_lease,
    eventually,
    frozen,
    open_reservations,
    opened,
    used,
)


async def test_what_was_reserved_becomes_what_was_used(store: EmbeddedStore, direct: redis.Redis) -> None:
    async with opened(store.url) as ledger:
        reservation = asked(300)
        verdict = await ledger.reserve(reservation)
        assert (verdict.granted, verdict.charged, ledger.reservations) == (True, (300_000,), 1)
        assert charged(direct) == 300
        assert await ledger.settle(reservation, used(120)) == "settled"
        assert (charged(direct), ledger.reservations) == (120, 0)


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


# -- leases -----------------------------------------------------------------------------------------


async def test_while_a_stream_flows_its_lease_goes_on_and_what_it_produces_is_charged(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with opened(store.url, lease=0.3) as ledger:
        reservation = Reservation([Claim(DAY, ALICE, 10_000), Claim(STREAMS, ALICE, 1_000)])
        produced = 5

        async def so_far() -> Usage:
            return used(produced)

        reservation.produced = so_far
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


async def test_a_lease_does_not_wait_for_what_takes_long_to_count(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with opened(store.url, lease=0.6) as ledger:
        reservation, counting = asked(10), asyncio.Event()

        async def so_far() -> Usage:
            await counting.wait()
            return used(55)

        reservation.produced = so_far
        await ledger.reserve(reservation)
        first = reservation.ends
        await eventually(lambda: reservation.ends > first + 1_000)
        assert charged(direct) == 10
        counting.set()
        await eventually(lambda: charged(direct) == 55)
        assert await ledger.settle(reservation, used(40)) == "settled"


async def test_what_ends_while_it_is_counted_what_it_produced_is_not_renewed(store: EmbeddedStore) -> None:
    heard: list[str] = []
    async with opened(
        store.url, lease=60, observe=lambda call, result, seconds: heard.append(call)
    ) as ledger:
        reservation, asking, counting = asked(10), asyncio.Event(), asyncio.Event()

        async def so_far() -> Usage:
            asking.set()
            await counting.wait()
            return used(55)

        reservation.produced = so_far
        await ledger.reserve(reservation)
        renewal = asyncio.create_task(ledger._leases._renewed(reservation))
        await asking.wait()
        await ledger.settle(reservation, used(40))
        counting.set()
        assert await renewal is False
        assert heard == ["reserve", "settle"]


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
        end_lease(direct, reservation)
        await awake.reserve(asked(1))
        assert open_reservations(direct) == 1
        assert await asleep.settle(reservation, used(120)) == "corrected"
        assert await asleep.settle(reservation, used(120)) == "again"
        assert charged(direct) == 121


# -- clocks -----------------------------------------------------------------------------------------


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
    link = Link(store.url, lua.load())
    ledger = Ledger(link)  # as if it had been opened while the server was away
    reservation = asked(1, policy=STREAMS)
    await ledger.release(reservation)
    marker = direct.hget(ALICE, f"!{reservation.id}")
    assert isinstance(marker, bytes)
    assert 0 < struct.unpack_from(">d", marker)[0] - ledger.now() < 6_000
    assert 0 < direct.pttl(ALICE) < 120_000
    await link.close()


async def test_a_worker_knows_the_time_before_its_first_request(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with opened(store.url) as ledger:
        assert abs(ledger.now() - direct.time()[0] * 1000) < 60_000


async def test_a_lease_that_ended_is_counted_by_who_finds_it(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with opened(store.url, lease=0.1) as dying:
        assert (await dying.reserve(asked(300))).granted
        for task in dying._tasks:  # as if its worker had died: nobody renews
            task.cancel()
        async with opened(store.url, lease=60) as other:
            while not other.lost:
                assert (await other.reserve(asked(0))).granted
            assert other.lost == 1


async def test_a_lease_the_ledger_knows_no_more_is_renewed_no_more_and_does_not_move_on(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    """Else the time until which the unknown is charged would move with it, and it be charged twice."""
    async with opened(store.url, lease=0.3) as ledger:
        reservation = asked(300)
        assert (await ledger.reserve(reservation)).granted
        ends = reservation.ends
        direct.flushall()
        await eventually(lambda: ledger.reservations == 0)
        assert reservation.ends == ends


async def test_whether_the_ledger_is_there_is_asked_where_it_says_nothing(store: EmbeddedStore) -> None:
    async with opened(store.url) as ledger:
        assert await ledger.check(silence=0)
        store.stop()
        assert not await ledger.check(silence=0)
        store.start()
        assert await ledger.check(silence=0)
