"""Subjects: what an operator sees of one, and tells the ledger about it."""

import pytest
import redis

from service.adapters.ledger import LedgerAway
from service.adapters.ledger.embedded import EmbeddedStore
from service.domain.policy import Claim
from tests.adapters.ledger.world import (
    ALICE,
    DAY,
    asked,
    charged,
    open_reservations,
    opened,
    operator,
    used,
)

HOUR = 3_600_000
CLAIMS = [Claim(DAY, ALICE, 0)]


async def test_a_look_changes_nothing(store: EmbeddedStore, direct: redis.Redis) -> None:
    async with opened(store.url, deadline=2.0) as ledger:
        subjects = operator(ledger)
        assert (await subjects.peek(CLAIMS)).standings[0].charged == 0
        assert not direct.exists(ALICE)
        await ledger.reserve(asked(300))
        before = direct.dump(ALICE)
        seen = await subjects.peek(CLAIMS)
        assert (seen.entries, seen.blocked_until, seen.standings[0].charged) == (1, 0, 300_000)
        assert abs(seen.now - ledger.now()) < 60_000
        assert direct.dump(ALICE) == before


async def test_a_reset_makes_charges_zero_and_leaves_what_is_open(
    store: EmbeddedStore, direct: redis.Redis
) -> None:
    async with opened(store.url, deadline=2.0) as ledger:
        reservation = asked(300)
        await ledger.reserve(reservation)
        await operator(ledger).reset(CLAIMS)
        assert (charged(direct), open_reservations(direct)) == (0, 1)
        assert await ledger.settle(reservation, used(350)) == "settled"
        assert charged(direct) == 50


async def test_a_block_holds_until_it_ends_or_is_taken_back(store: EmbeddedStore) -> None:
    async with opened(store.url, deadline=2.0) as ledger:
        subjects, until = operator(ledger), ledger.now() + HOUR
        await subjects.block(ALICE, until)
        verdict = await ledger.reserve(asked(1))
        assert (verdict.granted, verdict.blocked_until) == (False, until)
        assert (await subjects.peek(CLAIMS)).blocked_until == until
        assert (await ledger.reserve(asked(1, subject="w1:{bob}"))).granted
        await subjects.block(ALICE, ledger.now() - 1)
        assert (await ledger.reserve(asked(1))).granted
        await subjects.block(ALICE, until)
        await subjects.block(ALICE, 0)
        assert (await ledger.reserve(asked(1))).granted


async def test_another_limit_holds_until_it_is_taken_back(store: EmbeddedStore) -> None:
    async with opened(store.url, deadline=2.0) as ledger:
        subjects = operator(ledger)
        await subjects.allow(ALICE, DAY.account, ledger.now() + HOUR, limit=5_000_000, capacity=6_000_000)
        assert (await ledger.reserve(asked(6_000))).limits == {0: (5_000_000, 6_000_000)}
        (standing,) = (await subjects.peek(CLAIMS)).standings
        assert (standing.limit, standing.capacity) == (5_000_000, 6_000_000)
        await subjects.allow(ALICE, DAY.account, 0, limit=0, capacity=0)
        assert (await ledger.reserve(asked(1))).limits == {}


async def test_one_looks_at_one_subject_at_a_time(store: EmbeddedStore) -> None:
    async with opened(store.url) as ledger:
        with pytest.raises(ValueError, match="one subject"):
            await operator(ledger).peek([Claim(DAY, "w1:{a}", 0), Claim(DAY, "w1:{b}", 0)])


async def test_an_operator_is_told_that_the_ledger_is_away(store: EmbeddedStore) -> None:
    async with opened(store.url) as ledger:
        store.stop()
        for call in (operator(ledger).peek(CLAIMS), operator(ledger).block(ALICE, 1)):
            with pytest.raises(LedgerAway):
                await call
