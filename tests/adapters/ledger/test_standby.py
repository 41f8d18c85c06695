"""Standby: what a worker lets pass by itself while the ledger is away, and what the ledger hears of it."""

import asyncio
from contextlib import suppress

import pytest
import redis

from service.adapters.ledger import Ledger, LedgerAway, Reservation
from service.adapters.ledger.breaker import State
from service.adapters.ledger.embedded import EmbeddedStore
from service.adapters.ledger.heartbeat import WORKERS
from service.domain.account import Algorithm
from service.domain.policy import Claim, OnLedgerFailure, Policy, Verdict
from service.domain.usage import Usage
from tests.adapters.ledger.world import ALICE, charged, eventually, open_reservations, opened, used

LOCAL = Policy(
    name="day",
    per=(),
    limit=1_000,
    window=86_400_000,
    algorithm=Algorithm.FIXED_WINDOW,
    on_ledger_failure=OnLedgerFailure.LOCAL,
)
BRIEF = Policy(name="brief", per=(), limit=1_000, window=10, on_ledger_failure=OnLedgerFailure.ALLOW)


def asked(tokens: int, *policies: Policy) -> Reservation:
    return Reservation([Claim(policy, ALICE, tokens * 1000) for policy in policies or (LOCAL,)])


async def alone(ledger: Ledger, reservation: Reservation) -> Verdict | None:
    """What the worker says, as the ledger says nothing."""
    with pytest.raises(LedgerAway):
        await ledger.reserve(reservation)
    return ledger.stand_in(reservation)


async def opens(ledger: Ledger) -> None:
    """Ask until the breaker is open."""
    while ledger.breaker is State.CLOSED:
        with pytest.raises(LedgerAway):
            await ledger.reserve(asked(1))


async def test_a_worker_decides_by_its_share_and_tells_the_ledger_what_was_used(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    store.stop()
    async with opened(store.url, workers=2) as ledger:
        first, second, third = asked(300), asked(300), asked(200)
        verdict = await alone(ledger, first)
        assert verdict is not None
        assert verdict.granted
        assert verdict.limits == {0: (500_000, 500_000)}
        assert first.granted
        verdict = await alone(ledger, second)
        assert verdict is not None
        assert verdict.refusing == second.claims[0]
        assert not second.granted
        assert await ledger.settle(first, used(100)) == "pending"
        verdict = await alone(ledger, third)
        assert verdict is not None
        assert verdict.charged == (300_000,)
        assert await ledger.release(third) == "again"  # the ledger has nothing to give back
        assert ledger.pending == 1
        store.start()
        await eventually(lambda: ledger.pending == 0)
        assert (charged(direct, policy=LOCAL), open_reservations(direct)) == (100, 0)


async def test_when_the_ledger_is_back_it_decides_and_knows_what_passed_meanwhile(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with opened(store.url) as ledger:
        assert (await ledger.reserve(asked(1))).granted
        store.stop()
        await opens(ledger)
        reservation = asked(900)
        assert await alone(ledger, reservation)
        store.start()
        assert await ledger.settle(reservation, used(900)) in ("pending", "charged")
        await eventually(lambda: ledger.pending == 0 and ledger.breaker is State.CLOSED)
        assert charged(direct, policy=LOCAL) == 900
        assert not (await ledger.reserve(asked(101))).granted
        assert (await ledger.reserve(asked(100))).granted


async def test_where_no_policy_is_local_nobody_is_asked(store: EmbeddedStore) -> None:
    store.stop()
    async with opened(store.url) as ledger:
        reservation = asked(10**6, BRIEF)
        assert await alone(ledger, reservation) is None
        assert reservation.granted
        await ledger.release(reservation)


async def test_what_an_account_would_have_forgotten_is_not_charged_when_the_ledger_is_back(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    """A debt of an hour would be waited for, by who used it hours ago."""
    async with opened(store.url) as ledger:
        assert (await ledger.reserve(asked(1))).granted
        store.stop()
        await opens(ledger)
        reservation = asked(300, BRIEF, LOCAL)
        await alone(ledger, reservation)
        assert await ledger.settle(reservation, used(300)) == "pending"
        until = ledger.now() + 20
        await eventually(lambda: ledger.now() > until)
        store.start()
        await eventually(lambda: ledger.pending == 0)
        assert charged(direct, policy=LOCAL) == 300
        assert charged(direct, policy=BRIEF) == 0


async def test_while_the_breaker_is_open_a_call_fails_at_once_and_is_not_made(store: EmbeddedStore) -> None:
    heard: list[tuple[str, str]] = []
    async with opened(store.url, observe=lambda call, result, _: heard.append((call, result))) as ledger:
        store.stop()
        await opens(ledger)
        heard.clear()
        reservation = asked(1)
        with pytest.raises(LedgerAway, match="breaker open"):
            await ledger.reserve(reservation)
        assert not reservation.uncertain
        assert heard == []
        assert not await ledger.check()


async def test_a_worker_nobody_asks_finds_the_ledger_again(store: EmbeddedStore) -> None:
    async with opened(store.url) as ledger:
        store.stop()
        await opens(ledger)
        store.start()
        await eventually(lambda: ledger.breaker is State.HALF_OPEN)
        await ledger.check()
        assert ledger.breaker is State.CLOSED
        assert await ledger.check()


async def test_what_is_pending_goes_before_what_is_asked(store: EmbeddedStore, direct: redis.Redis) -> None:
    async with opened(store.url) as ledger:
        store.stop()
        await opens(ledger)
        reservation = asked(600)
        await alone(ledger, reservation)
        assert await ledger.settle(reservation, used(600)) == "pending"
        store.start()
        answers: list[Verdict] = []
        while not answers:  # until then every try could be the first that the ledger hears
            await asyncio.sleep(0)
            with suppress(LedgerAway):
                answers.append(await ledger.reserve(asked(600)))
        assert [answer.granted for answer in answers] == [False]


async def test_a_settle_that_may_have_been_counted_and_was_forgotten_is_counted(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with opened(store.url) as ledger:
        reservation = asked(300)
        assert (await ledger.reserve(reservation)).granted
        direct.flushall()
        reservation.ends -= 3_600_000  # an hour has passed
        assert await ledger.settle(reservation, Usage(0, 300, "provider")) == "forgotten"
        assert ledger.forgotten == 1
        assert charged(direct, policy=LOCAL) == 0


async def test_workers_know_of_each_other_until_they_leave(store: EmbeddedStore, direct: redis.Redis) -> None:
    async with opened(store.url) as one:
        await eventually(lambda: direct.zcard(WORKERS) == 1)
        async with opened(store.url) as other:
            await eventually(lambda: other.workers == 2)
        assert direct.zcard(WORKERS) == 1
        assert one.workers >= 1
    assert direct.zcard(WORKERS) == 0
