"""Ledger: over clocks that leap, windows that end under way, and subjects in which something else stands.

What may befall a store, and where it is tested that the ledger does as it must:

| what befalls                               | where                                                        |
| ------------------------------------------ | ------------------------------------------------------------ |
| answers to a reserve, or a settle, lost    | test_lost_answers: however many; in part                     |
| a reserve cancelled at each of its moments | test_lost_answers; test_split; test_endings, with a client   |
| a release before its reserve               | test_lost_answers; tests/lua/test_settle                     |
| nobody listens                             | test_outages; test_endings, with a client                    |
| the server stands still                    | test_lost_answers; test_outages, for seconds                 |
| nothing is carried                         | test_lost_answers                                            |
| a long way, cold connections               | test_outages; test_link                                      |
| connections killed under load              | test_outages; test_link                                      |
| a server that comes back empty             | test_outages; test_standby                                   |
| scripts flushed under load                 | test_outages; test_link                                      |
| OOM, READONLY, NOREPLICAS, LOADING, BUSY   | test_outages; test_link; test_breaker                        |
| clients paused                             | test_outages                                                 |
| other types, and what cannot be read       | here                                                         |
| a ledger emptied under way                 | test_outages; test_ledger, for leases                        |
| a failover                                 | test_sentinel; test_cluster                                  |
| slots that move                            | test_cluster; test_split, for calls that fail in part        |
| the ledger's clock leaps                   | here; test_ledger; tests/lua/test_time                       |
| a worker's clock is wrong                  | here                                                         |
| a window ends under way                    | here; tests/lua/test_faults_of_others                        |
| days, weeks, months of a calendar          | here, by the ledger's clock; tests/domain/test_calendar      |
| a reset under way                          | here; tests/lua/test_machine                                 |
"""

import random
import struct
from dataclasses import replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import redis

from service.adapters.ledger import LedgerAway, Reservation
from service.adapters.ledger import scripts as lua
from service.adapters.ledger.breaker import State
from service.adapters.ledger.embedded import EmbeddedStore
from service.adapters.ledger.link import Link
from service.adapters.ledger.subjects import Subjects
from service.domain.account import Algorithm
from service.domain.calendar import Calendar, Unit
from service.domain.policy import Claim, Policy
from tests.adapters.ledger.world import (
    ALICE,
    DAY,
    STREAMS,
    Clocked,
    asked,
    charged,
    end_lease,
    eventually,
    open_reservations,
    opened,
    operator,
    running,
    used,
)

START = 1_763_000_040_000  # ms; the beginning of a minute
MINUTE, HOUR = 60_000, 3_600_000
WINDOW = Policy(name="window", per=(), limit=1_000, window=MINUTE, algorithm=Algorithm.FIXED_WINDOW)
SLIDING = replace(WINDOW, name="sliding", algorithm=Algorithm.SLIDING_WINDOW)
BUCKET = replace(WINDOW, name="bucket", algorithm=Algorithm.LEAKY_BUCKET)
MONTH = replace(WINDOW, name="month", calendar=Calendar(Unit.MONTH))
MANY = replace(STREAMS, limit=1_000)
EVERY = (WINDOW, SLIDING, BUCKET, MONTH, MANY)


# -- what stands in a subject -----------------------------------------------------------------------

NONSENSE = [b"", b"what is this", b"\xff" * 33, b"\xff" * 49, b"\x01" * 65]
nonsense = pytest.mark.parametrize("nonsense", NONSENSE, ids=["nothing", "words", "33", "49", "65"])


@nonsense
async def test_an_account_nobody_can_read_is_begun_anew(
    store: EmbeddedStore, direct: redis.Redis, nonsense: bytes
) -> None:
    async with opened(store.url, deadline=2.0) as ledger:
        reservation = asked(300)
        await ledger.reserve(reservation)
        direct.hset(ALICE, DAY.account, nonsense)
        assert (await ledger.reserve(asked(100))).charged == (100_000,)
        assert await ledger.settle(reservation, used(350)) == "settled"
        assert charged(direct) == 150


@nonsense
async def test_a_hint_nobody_can_read_is_found_out_anew(
    store: EmbeddedStore, direct: redis.Redis, nonsense: bytes
) -> None:
    """Who is open, whose lease has ended, which rules there are, and how long the key lives."""
    async with opened(store.url, deadline=2.0) as ledger:
        subjects = operator(ledger)
        await subjects.allow(ALICE, DAY.account, ledger.now() + HOUR, limit=500_000, capacity=500_000)
        dead, alive = asked(300), asked(100)
        await ledger.reserve(dead)
        await ledger.reserve(alive)
        end_lease(direct, dead)
        lives = direct.pttl(ALICE)
        direct.hset(ALICE, "~", nonsense)
        assert (await ledger.reserve(asked(101))).limits == {0: (500_000, 500_000)}
        assert ledger.lost == 1
        assert await ledger.settle(alive, used(10)) == "settled"
        assert await ledger.settle(dead, used(20)) == "corrected"
        seen = await subjects.peek(dead.claims)
        assert (seen.entries, seen.standings[0].charged) == (
            1,
            30_000,
        )  # the marker is looked at till it ends
        assert direct.pttl(ALICE) > lives - MINUTE


@nonsense
async def test_a_reservation_nobody_can_read_stays_charged_and_ends(
    store: EmbeddedStore, direct: redis.Redis, nonsense: bytes
) -> None:
    async with opened(store.url, deadline=2.0) as ledger:
        settled, renewed, lost = asked(100), asked(200), asked(400)
        for reservation in (settled, renewed, lost):
            await ledger.reserve(reservation)
            direct.hset(ALICE, f"~{reservation.id}", nonsense)
        assert await ledger.settle(settled, used(10)) == "settled"
        assert await ledger._leases._renewed(renewed)
        direct.hset(ALICE, "~", b"")
        assert (await ledger.reserve(asked(1))).charged == (701_000,)
        assert (ledger.lost, open_reservations(direct)) == (1, 2)
        assert await ledger.settle(lost, used(10)) == "again"
        assert charged(direct) == 701


@pytest.mark.parametrize("field", ["=", f"={DAY.account}"])
@nonsense
async def test_a_rule_nobody_can_read_is_none(
    store: EmbeddedStore, direct: redis.Redis, nonsense: bytes, field: str
) -> None:
    async with opened(store.url, deadline=2.0) as ledger:
        subjects = operator(ledger)
        await subjects.block(ALICE, ledger.now() + HOUR)
        await subjects.allow(ALICE, DAY.account, ledger.now() + HOUR, limit=1, capacity=1)
        direct.hdel(ALICE, "=", f"={DAY.account}")
        direct.hset(ALICE, field, nonsense)
        assert (await ledger.reserve(asked(300))).granted


async def test_a_key_of_another_type_is_the_ledger_away_for_that_subject_alone(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    """Whose it is nobody knows, so it stays; when it is gone, what is pending is delivered."""
    async with opened(store.url, deadline=2.0) as ledger:
        reservation = Reservation([Claim(DAY, "w1:{bob}", 300_000), Claim(DAY, ALICE, 300_000)])
        await ledger.reserve(reservation)
        direct.set(ALICE, "what is this")
        for _ in range(10):
            both = Reservation([Claim(DAY, "w1:{bob}", 1_000), Claim(DAY, ALICE, 1_000)])
            with pytest.raises(LedgerAway, match=r"^(WRONGTYPE|ResponseError)$"):
                await ledger.reserve(both)
            assert not both.uncertain
            assert (await ledger.reserve(asked(1, subject="w1:{carol}"))).granted
        assert ledger.breaker is State.CLOSED
        assert charged(direct, subject="w1:{bob}") == 300  # of what failed, nothing was written
        assert await ledger.settle(reservation, used(120)) == "pending"
        assert direct.get(ALICE) == b"what is this"
        direct.delete(ALICE)
        await eventually(lambda: ledger.pending == 0)
        assert charged(direct, subject="w1:{bob}") == 120


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_stands_in_a_subject_every_call_is_answered_and_an_operator_can_mend_it(
    store: EmbeddedStore, direct: redis.Redis, seed: int
) -> None:
    chance = random.Random(seed)
    link = Link(store.url, lua.load())
    subjects, claims = Subjects(link), [Claim(policy, ALICE, 1_000) for policy in EVERY]
    async with running(link, deadline=2.0) as ledger:
        for _ in range(25):
            direct.flushall()
            alive, dead, gone, new = (Reservation(claims, keep_lost=chance.random() < 0.5) for _ in "1234")
            for number, reservation in enumerate((alive, dead, gone, new)):
                reservation.id = f"r{number}"
            await subjects.allow(ALICE, WINDOW.account, ledger.now() + HOUR, limit=9_000, capacity=9_000)
            await ledger.reserve(alive)
            await ledger.reserve(dead)
            await ledger.release(gone)
            end_lease(direct, dead)
            fields: Any = direct.hgetall(ALICE)
            for name in chance.sample(sorted(fields), chance.randint(1, len(fields))):
                direct.hset(ALICE, name, damaged(chance, fields[name]))
            verdict = await ledger.reserve(new)
            assert all(number >= 0 for number in verdict.charged)
            assert verdict.wait is None or verdict.wait >= 0
            await ledger._leases._renewed(alive)
            for reservation in (alive, dead, gone, new):
                assert await ledger.settle(reservation, used(2)) != "pending"
            await subjects.block(ALICE, 0)
            await subjects.allow(ALICE, WINDOW.account, 0, limit=0, capacity=0)
            await subjects.reset(claims)
            seen = await subjects.peek(claims)
            assert [standing.charged for standing in seen.standings[:-1]] == [0] * (len(EVERY) - 1)
            assert (await ledger.reserve(Reservation(claims[:-1]))).granted


def damaged(chance: random.Random, text: bytes) -> bytes:
    """Something else than the text, perhaps much like it."""
    at = chance.randrange(len(text) + 1)
    number = chance.choice([float("nan"), float("inf"), -1.0, 0.5, 1e300, 0.0, 2.0**52])
    offset = 1 + 8 * chance.randrange(1 + len(text) // 8)
    return chance.choice(
        [
            chance.randbytes(chance.randrange(100)),
            chance.randbytes(len(text)),
            text[:at],
            text + chance.randbytes(16),
            text[:at] + chance.randbytes(1) + text[at + 1 :],
            text[:offset] + struct.pack(">d", number) + text[offset + 8 :],
        ]
    )


# -- clocks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("leap", [-HOUR, HOUR], ids=["back", "forward"])
@pytest.mark.parametrize("policy", [BUCKET, SLIDING, replace(WINDOW, window=24 * HOUR)], ids=lambda p: p.name)
async def test_a_clock_that_leaps_an_hour_loses_no_settle_and_reopens_nothing(
    store: EmbeddedStore, direct: redis.Redis, policy: Policy, leap: int
) -> None:
    wire = Clocked(store.url, START)
    async with running(wire, deadline=2.0) as ledger:
        reservation = asked(900, policy=policy)
        assert (await ledger.reserve(reservation)).granted
        wire.now += leap
        fresh = leap > 0 and policy.window < HOUR
        assert (await ledger.reserve(asked(200, policy=policy))).granted is fresh
        assert await ledger.settle(reservation, used(950)) == ("corrected" if leap > 0 else "settled")
        assert charged(direct, policy=policy) == (250 if fresh else 950)
        assert ledger.now() - wire.now < MINUTE
        wire.now += HOUR
        assert (await ledger.reserve(asked(40, policy=policy))).granted


async def test_a_workers_clock_that_is_hours_wrong_decides_nothing(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async def history(wrong: float) -> list[object]:
        """What came of the same requests at the same times, and what stands in the ledger then."""
        direct.flushall()
        wire, seen = Clocked(store.url, START), list[object]()
        async with running(wire, deadline=2.0, clock=lambda: wire.now / 1000 + wrong) as ledger:
            for number in range(40):
                reservation = Reservation([Claim(policy, ALICE, 90_000) for policy in EVERY])
                reservation.id = f"r{number}"
                verdict = await ledger.reserve(reservation)
                seen += [verdict.granted, verdict.charged, verdict.wait, verdict.now]
                if verdict.granted and number % 3:
                    seen.append(await ledger.settle(reservation, used(30 + number)))
                wire.now += 3_777
        fields: Any = direct.hgetall(ALICE)
        return [*seen, *sorted(fields.items())]

    right = await history(0.0)
    assert {True, False} <= {one for one in right if isinstance(one, bool)}
    for hours in (-2, 2):
        assert await history(hours * 3_600.0) == right


# -- windows ----------------------------------------------------------------------------------------


async def test_a_window_that_ends_under_way_takes_no_refund_along_and_all_of_an_overrun(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    wire = Clocked(store.url, START + MINUTE - 1)
    async with running(wire, deadline=2.0) as ledger:
        over, under = asked(600, policy=WINDOW), asked(300, policy=WINDOW)
        for reservation in (over, under):
            assert (await ledger.reserve(reservation)).granted
        wire.now += 1
        assert (await ledger.reserve(asked(500, policy=WINDOW))).charged == (500_000,)
        await ledger.settle(under, used(100))
        assert charged(direct, policy=WINDOW) == 500
        await ledger.settle(over, used(1_400))
        assert charged(direct, policy=WINDOW) == 1_300
        refused = await ledger.reserve(asked(1, policy=WINDOW))
        assert (refused.granted, refused.wait) == (False, MINUTE)


@pytest.mark.parametrize(
    ("unit", "zone", "first", "following"),
    [
        (Unit.DAY, "America/New_York", "2025-03-09 00:00", "2025-03-10 00:00"),  # of 23 hours
        (Unit.DAY, "America/New_York", "2025-11-02 00:00", "2025-11-03 00:00"),  # of 25
        (Unit.DAY, "America/Santiago", "2025-09-07 01:00", "2025-09-08 00:00"),  # midnight is skipped
        (Unit.MONTH, "Europe/Berlin", "2025-02-01 00:00", "2025-03-01 00:00"),
        (Unit.WEEK, "UTC", "2025-12-29 00:00", "2026-01-05 00:00"),
    ],
)
async def test_a_calendars_window_is_that_of_the_ledgers_clock(
    store: EmbeddedStore, direct: redis.Redis, unit: Unit, zone: str, first: str, following: str
) -> None:
    start, end = (_moment(text, zone) for text in (first, following))
    policy = replace(MONTH, name="calendar", calendar=Calendar(unit, zone))
    wire = Clocked(store.url, start - 1)
    async with running(wire, deadline=2.0) as ledger:
        for now in (start - 1, start):  # a millisecond apart, another window
            wire.now = now
            assert (await ledger.reserve(asked(1_000, policy=policy))).granted
        for now in (start + 1, start + 22 * HOUR, end - 1):
            wire.now = now
            refused = await ledger.reserve(asked(1, policy=policy))
            assert (refused.granted, refused.wait) == (False, end - now)
        wire.now = end
        assert (await ledger.reserve(asked(1_000, policy=policy))).charged == (1_000_000,)


async def test_a_worker_that_is_months_behind_or_ahead_asks_again_with_the_right_boundaries(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    wire = Clocked(store.url, START)
    async with running(wire, deadline=2.0) as ledger:
        for leap, doubted in ((-100 * 24 * HOUR, "stale"), (300 * 24 * HOUR, "late")):
            wire.now += leap
            wire.answers.clear()
            reservation = asked(10, policy=MONTH, subject=f"w1:{{{leap}}}")
            assert (await ledger.reserve(reservation)).charged == (10_000,)
            assert await ledger.settle(reservation, used(4)) == "settled"
            assert wire.answers == [doubted, "granted", "settled"]
            assert charged(direct, policy=MONTH, subject=f"w1:{{{leap}}}") == 4


@pytest.mark.parametrize("policy", [WINDOW, SLIDING, BUCKET, MONTH], ids=lambda policy: policy.name)
@pytest.mark.parametrize(("actual", "stands"), [(50, 100), (300, 100), (400, 200)])
async def test_what_was_admitted_before_a_reset_gives_nothing_back_to_what_came_after(
    store: EmbeddedStore, direct: redis.Redis, policy: Policy, actual: int, stands: int
) -> None:
    wire = Clocked(store.url, START)
    async with running(wire, deadline=2.0) as ledger:
        before = asked(300, policy=policy)
        await ledger.reserve(before)
        wire.now += 10
        await operator(ledger).reset(before.claims)
        assert charged(direct, policy=policy) == 0
        assert open_reservations(direct) == 1
        wire.now += 1
        await ledger.reserve(asked(100, policy=policy))
        assert await ledger.settle(before, used(actual)) == "settled"
        assert charged(direct, policy=policy) == stands


def _moment(text: str, zone: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)
