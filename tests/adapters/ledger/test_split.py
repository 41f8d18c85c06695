"""A ledger that is split: one call for each subject, all granted or none, tentative until it is confirmed."""

import asyncio
import time
from collections.abc import Sequence

import pytest
import redis

from service.adapters.ledger import LedgerAway, Reservation
from service.adapters.ledger.calls import Answer, verdict
from service.adapters.ledger.embedded import EmbeddedStore
from service.adapters.ledger.heartbeat import WORKERS
from service.adapters.ledger.link import Argument
from service.adapters.ledger.reservation import layout
from service.adapters.ledger.scripts import Script
from service.domain.account import NEVER
from service.domain.policy import Claim
from tests.adapters.ledger.world import (
    DAY,
    STREAMS,
    Split,
    asked,
    charged,
    end_lease,
    eventually,
    open_reservations,
    running,
    used,
)

A, B, C = SUBJECTS = ("w1:{a}", "w1:{b}", "w1:{c}")
NOT_DONE = LedgerAway("ConnectionError", unknown=False)
PERHAPS_DONE = LedgerAway("TimeoutError", unknown=True)


def several(tokens: int) -> Reservation:
    return Reservation([*(Claim(DAY, name, tokens * 1000) for name in SUBJECTS), Claim(STREAMS, A, 1_000)])


def state(direct: redis.Redis) -> list[tuple[float, int]]:
    """What is charged, and how many are open, of each subject."""
    return [(charged(direct, subject=name), open_reservations(direct, name)) for name in SUBJECTS]


def tentative(direct: redis.Redis, reservation: Reservation) -> list[bool]:
    """Whether an ended lease would undo it, of each subject that has it."""
    records = [direct.hget(name, f"~{reservation.id}") for name in SUBJECTS]
    return [record[8] == 1 for record in records if isinstance(record, bytes)]


async def test_a_verdict_of_several_calls_is_that_of_one(store: EmbeddedStore) -> None:
    async with running(Split(store.url), deadline=2.0) as ledger:
        for subject, tokens in ((B, 100), (C, 990)):
            await ledger.reserve(asked(tokens, subject=subject))
        granted, refused = several(10), several(980)
        assert (await ledger.reserve(granted)).charged == (10_000, 1_000, 110_000, 1_000_000)
        verdict = await ledger.reserve(refused)
        assert verdict.refusing in (refused.claims[2], refused.claims[3])
        assert verdict.charged == (10_000 + 980_000, 2_000, 110_000, 1_000_000)
        never = several(1_001)
        assert (await ledger.reserve(never)).wait is None


async def test_all_granted_is_tentative_until_a_renewal_confirms_it(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    wire = Split(store.url)
    async with running(wire, deadline=2.0) as ledger:
        reservation = several(300)
        assert (await ledger.reserve(reservation)).granted
        assert tentative(direct, reservation) == [True, True, True]
        ends = reservation.ends
        await eventually(lambda: tentative(direct, reservation) == [False, False, False])
        await eventually(lambda: reservation.ends > ends + 30_000)
        assert [script for script, _ in wire.asked if script != "heartbeat"] == ["reserve"] * 3 + [
            "renew"
        ] * 3
        assert await ledger.settle(reservation, used(120)) == "settled"
        assert state(direct) == [(120, 0)] * 3


async def test_what_one_subject_refuses_the_others_have_given_back_when_that_is_said(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with running(Split(store.url), deadline=2.0) as ledger:
        await ledger.reserve(asked(900, subject=B))
        reservation = several(300)
        assert not (await ledger.reserve(reservation)).granted
        assert state(direct) == [(0, 0), (900, 1), (0, 0)]
        assert charged(direct, subject=A, policy=STREAMS) == 0
        assert (reservation.granted, reservation.uncertain, ledger.reservations) == (False, False, 1)


async def test_what_cannot_be_given_back_at_once_is_when_that_can_be_told(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    wire = Split(store.url)
    async with running(wire, deadline=2.0) as ledger:
        await ledger.reserve(asked(900, subject=B))
        wire.failing["settle", A] = [NOT_DONE, PERHAPS_DONE]
        assert not (await ledger.reserve(several(300))).granted
        await eventually(lambda: ledger.pending == 0)
        assert state(direct) == [(0, 0), (900, 1), (0, 0)]


@pytest.mark.parametrize("fault", [NOT_DONE, PERHAPS_DONE], ids=["not done", "perhaps done"])
async def test_what_fails_once_is_asked_again_and_charged_once(
    store: EmbeddedStore, direct: redis.Redis, fault: LedgerAway
) -> None:
    wire = Split(store.url)
    async with running(wire, deadline=2.0) as ledger:
        reservation = several(300)
        wire.failing["reserve", B] = [fault]
        assert (await ledger.reserve(reservation)).granted
        assert state(direct) == [(300, 1)] * 3
        assert await ledger.settle(reservation, used(120)) == "settled"
        assert state(direct) == [(120, 0)] * 3


@pytest.mark.parametrize("faults", [[NOT_DONE] * 2, [PERHAPS_DONE] * 2, [NOT_DONE, PERHAPS_DONE]])
async def test_what_fails_for_one_subject_is_in_doubt_for_all_and_released(
    store: EmbeddedStore, direct: redis.Redis, faults: list[LedgerAway]
) -> None:
    wire = Split(store.url)
    async with running(wire, deadline=2.0) as ledger:
        reservation = several(300)
        wire.failing["reserve", B] = [*faults]
        with pytest.raises(LedgerAway) as away:
            await ledger.reserve(reservation)
        assert (away.value.unknown, reservation.uncertain) == (True, True)
        assert await ledger.release(reservation) in ("settled", "again")
        assert state(direct) == [(0, 0)] * 3


async def test_where_one_was_not_asked_and_another_may_have_done_it_it_is_in_doubt(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    """Whichever failed first: else the one that did it would not be told that all is off."""
    wire = Split(store.url)
    async with running(wire, deadline=2.0) as ledger:
        for name, fault in zip(SUBJECTS, (NOT_DONE, PERHAPS_DONE, NOT_DONE), strict=True):
            wire.failing["reserve", name] = [fault] * 2
        reservation = several(300)
        with pytest.raises(LedgerAway):
            await ledger.reserve(reservation)
        assert reservation.uncertain
        await ledger.release(reservation)
        assert state(direct) == [(0, 0)] * 3


async def test_where_nobody_was_asked_nothing_is_in_doubt(store: EmbeddedStore) -> None:
    wire = Split(store.url)
    async with running(wire, deadline=2.0) as ledger:
        for name in SUBJECTS:
            wire.failing["reserve", name] = [NOT_DONE] * 2
        reservation = several(300)
        with pytest.raises(LedgerAway) as away:
            await ledger.reserve(reservation)
        assert (away.value.unknown, reservation.uncertain) == (False, False)


async def test_a_settle_that_reaches_some_is_told_to_the_others_and_charged_once(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    wire = Split(store.url)
    async with running(wire, deadline=2.0) as ledger:
        reservation = several(300)
        await ledger.reserve(reservation)
        for name, fault in zip(SUBJECTS, (NOT_DONE, PERHAPS_DONE, NOT_DONE), strict=True):
            wire.failing["settle", name] = [fault] * 3
        assert await ledger.settle(reservation, used(450)) == "pending"
        await eventually(lambda: ledger.pending == 0)
        assert state(direct) == [(450, 0)] * 3


@pytest.mark.parametrize("reached", [(), (A,)], ids=["nobody", "one"])
async def test_what_was_let_pass_is_charged_to_a_subject_that_is_back_later_than_the_others(
    store: EmbeddedStore, direct: redis.Redis, reached: tuple[str, ...]
) -> None:
    """Told to the others before, it was taken for a repetition there, and never charged."""
    wire = Split(store.url)
    async with running(wire, deadline=2.0) as ledger:
        reservation = several(300)
        for name in set(SUBJECTS) - set(reached):
            wire.failing["reserve", name] = [NOT_DONE] * 2
        with pytest.raises(LedgerAway):
            await ledger.reserve(reservation)
        assert ledger.stand_in(reservation) is None
        wire.failing["settle", A] = [PERHAPS_DONE]
        wire.failing["settle", B] = [NOT_DONE] * 4
        assert await ledger.settle(reservation, used(450)) == "pending"
        await eventually(lambda: ledger.pending == 0)
        assert state(direct) == [(450, 0)] * 3


async def test_where_one_lease_ended_and_another_was_renewed_the_one_is_not_charged_again(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    """A renewal of the others let a settle charge it anew once its marker was gone."""
    async with running(Split(store.url), deadline=2.0) as ledger:
        reservation = several(300)
        await ledger.reserve(reservation)
        await eventually(lambda: tentative(direct, reservation) == [False, False, False])
        await eventually(lambda: not ledger._leases._confirming)
        ends = reservation.ends
        end_lease(direct, reservation, subject=B)
        await ledger.reserve(asked(1, subject=B))  # which finds it ended
        assert await ledger._leases._renewed(reservation)
        assert reservation.ends == ends


async def test_a_cancelled_reserve_leaves_nothing_with_any_of_them(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with running(Split(store.url), deadline=2.0) as ledger:
        turns, whole = 0, False
        while not whole:
            reservation = several(10)
            task = asyncio.create_task(ledger.reserve(reservation))
            for _ in range(turns):
                await asyncio.sleep(0)
            whole, turns = task.done(), turns + 1
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await ledger.release(reservation)
        await eventually(lambda: ledger.pending == 0)
    assert state(direct) == [(0, 0)] * 3
    assert charged(direct, subject=A, policy=STREAMS) == 0


class Skewed(Split):
    """Several servers whose clocks are an hour apart."""

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument], *, deadline: float
    ) -> tuple[str, list[int]]:
        ahead = 3_600_000 * [*SUBJECTS, WORKERS].index(keys[0])
        now = round(time.time() * 1000) + ahead
        return await super().run(script, keys, [str(now), *arguments[1:]], deadline=deadline)


async def test_servers_whose_clocks_differ_grant_however_many_ask_at_once(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with running(Skewed(store.url), deadline=10.0) as ledger:
        reservations = [several(1) for _ in range(2)] + [asked(1, subject=name) for name in SUBJECTS * 50]
        verdicts = await asyncio.gather(*map(ledger.reserve, reservations))
        assert all(verdict.granted for verdict in verdicts)
        await asyncio.gather(*(ledger.settle(one, used(2)) for one in reservations))
        assert ledger.pending == 0
    assert state(direct) == [(104, 0)] * 3


def test_a_block_is_told_though_another_subjects_limit_is_below_what_is_asked() -> None:
    """What can never fit had hidden it, and was said to be until 1970."""
    layouts = [layout([Claim(DAY, name, 1_000)], first) for first, name in enumerate((A, B))]
    until = 1_763_000_100_000
    answers = [
        Answer(layouts[0], "refused", 1, [1, NEVER, 0]),
        Answer(layouts[1], "blocked", 1, [1, until, 0]),
    ]
    for order in (answers, answers[::-1]):
        said = verdict(tuple(one.claims[0] for one in layouts), order)
        assert said.blocked_until == until
        assert said.refusing is layouts[1].claims[0]


# -- confirming -------------------------------------------------------------------------------------


async def test_a_confirmation_that_gets_lost_is_insisted_on(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    wire = Split(store.url)
    async with running(wire, deadline=2.0) as ledger:
        reservation = several(300)
        wire.failing["renew", A] = [NOT_DONE]
        wire.failing["renew", B] = [PERHAPS_DONE, NOT_DONE]
        await ledger.reserve(reservation)
        await eventually(lambda: tentative(direct, reservation) == [False, False, False])
        assert not wire.failing["renew", B]


async def test_what_was_settled_meanwhile_is_not_confirmed(store: EmbeddedStore, direct: redis.Redis) -> None:
    wire = Split(store.url)
    async with running(wire, deadline=2.0) as ledger:
        reservation = several(300)
        wire.failing["renew", C] = [NOT_DONE]
        await ledger.reserve(reservation)
        await eventually(lambda: not wire.failing["renew", C])
        before = wire.asked.count(("renew", C))
        await ledger.settle(reservation, used(120))
        await eventually(lambda: not ledger._leases._confirming)
        assert wire.asked.count(("renew", C)) == before
        assert state(direct) == [(120, 0)] * 3


async def test_what_nobody_confirmed_ends_soon_and_is_undone_and_a_late_settle_corrects_it_once(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    """As when its worker stood still, or died, with some of the calls carried out."""
    wire = Split(store.url)
    async with running(wire, deadline=2.0) as ledger, running(Split(store.url), deadline=2.0) as other:
        reservation = several(300)
        for name in SUBJECTS:
            wire.failing["renew", name] = [NOT_DONE] * 9
        verdict = await ledger.reserve(reservation)
        assert reservation.ends - verdict.now == 5_000
        end_lease(direct, reservation, subject=A)
        end_lease(direct, reservation, subject=B)
        looking = Reservation([Claim(DAY, A, 0), Claim(DAY, B, 0)])
        assert (await other.reserve(looking)).charged == (0, 0)
        assert charged(direct, subject=A, policy=STREAMS) == 0
        assert charged(direct, subject=C) == 300
        assert await ledger.settle(reservation, used(120)) == "corrected"
        assert [charged(direct, subject=name) for name in SUBJECTS] == [120, 120, 120]
        assert await ledger.settle(reservation, used(120)) == "again"
        assert [charged(direct, subject=name) for name in SUBJECTS] == [120, 120, 120]


async def test_one_subject_alone_needs_no_confirmation(store: EmbeddedStore, direct: redis.Redis) -> None:
    wire = Split(store.url)
    async with running(wire, deadline=2.0) as ledger:
        reservation = Reservation([Claim(DAY, A, 10_000), Claim(STREAMS, A, 1_000)])
        await ledger.reserve(reservation)
        assert tentative(direct, reservation) == [False]
        assert not ledger._leases._confirming
