"""rule: an operator's limit in place of a policy's own, and a block, until they end or are taken back."""

from collections.abc import Callable
from typing import Any

from service.domain.account import NEVER, Algorithm
from service.domain.policy import Count, Policy
from tests.lua.calls import ALICE, START, Calls, of

BUCKET = Policy(name="bucket", per=(), limit=100, window=10_000)  # drains ten a second
WINDOW = Policy(name="window", per=(), limit=100, window=10_000, algorithm=Algorithm.FIXED_WINDOW)
STREAMS = Policy(
    name="streams", per=(), limit=2, window=0, algorithm=Algorithm.CONCURRENCY, count=Count.CONCURRENT
)
BOB = "w1:{bob}"
LATER = START + 5_000


def test_another_limit_holds_from_now_until_its_end(calls: Calls) -> None:
    calls.override(START, WINDOW, LATER, 10_000)
    assert calls.reserve(START, "a", of(WINDOW, 11)).wait == NEVER
    assert calls.reserve(START, "b", of(WINDOW, 10)).limits == ((1, 10_000, 10_000),)
    assert calls.reserve(LATER - 1, "c", of(WINDOW, 1)).status == "refused"
    granted = calls.reserve(LATER, "d", of(WINDOW, 90))
    assert (granted.status, granted.tokens, granted.limits) == ("granted", (100,), ())


def test_asked_again_the_limits_it_was_granted_by_are_told_again(calls: Calls) -> None:
    """They were not, so that more was charged than the policy's own seemed to let pass."""
    calls.override(START, WINDOW, LATER, 500_000)
    first, again = (calls.reserve(START, "a", of(WINDOW, 400)) for _ in range(2))
    assert again == first
    assert again.limits == ((1, 500_000, 500_000),)


def test_another_limit_of_a_bucket_is_another_pace(calls: Calls) -> None:
    calls.override(START, BUCKET, LATER, 1_000_000)
    calls.reserve(START, "a", of(BUCKET, 1_000))
    assert calls.peek(START + 1_000, of(BUCKET, 0)).tokens == (900,)
    assert calls.reserve(START + 1_000, "b", of(BUCKET, 101)).wait == 10


def test_each_policy_of_each_subject_has_rules_of_its_own(calls: Calls) -> None:
    calls.override(START, WINDOW, LATER, 500_000)
    calls.override(START, STREAMS, LATER, 1_000, subject=BOB)
    parts = [of(BUCKET, 1), of(WINDOW, 200), of(WINDOW, 1, BOB), of(STREAMS, 1, BOB)]
    granted = calls.reserve(START, "a", *parts)
    assert (granted.status, granted.limits) == ("granted", ((2, 500_000, 500_000), (4, 1_000, 1_000)))
    refused = calls.reserve(START, "b", *parts)
    assert (refused.status, refused.refusing, refused.limits) == ("refused", 4, granted.limits)


def test_a_limit_that_is_taken_back_is_the_policys_own_again(calls: Calls) -> None:
    calls.override(START, WINDOW, LATER, 10_000)
    calls.override(START, WINDOW, 0, 0)
    assert calls.peek(START, of(WINDOW, 0)).limits == ()
    assert calls.reserve(START, "a", of(WINDOW, 100)).status == "granted"


def test_a_peek_tells_the_rules_in_force(calls: Calls) -> None:
    calls.override(START, WINDOW, LATER, 10_000)
    calls.block(START, LATER - 1)
    seen = calls.peek(START, of(BUCKET, 0), of(WINDOW, 0))
    assert (seen.limits, seen.blocked, seen.entries) == (((2, 10_000, 10_000),), LATER - 1, 0)
    assert calls.peek(LATER - 1, of(WINDOW, 0)).blocked == 0


def test_a_blocked_subject_is_told_until_when_and_charged_nothing(calls: Calls) -> None:
    calls.reserve(START, "open", of(BUCKET, 10), of(BUCKET, 10, BOB))
    calls.block(START, LATER, subject=BOB)
    before = calls.everything()
    for now in (START, LATER - 1):
        blocked = calls.reserve(now, "a", of(BUCKET, 1), of(WINDOW, 1), of(BUCKET, 1, BOB))
        assert (blocked.status, blocked.refusing, blocked.wait) == ("blocked", 3, LATER)
    assert calls.everything() == before
    assert calls.reserve(LATER, "a", of(BUCKET, 1, BOB)).status == "granted"


def test_of_two_blocks_the_longer_is_told(calls: Calls) -> None:
    calls.block(START, LATER)
    calls.block(START, LATER + 1, subject=BOB)
    alices, bobs = of(BUCKET, 1), of(BUCKET, 1, BOB)
    for parts, index in [((alices, bobs), 2), ((bobs, alices), 1)]:
        blocked = calls.reserve(START, "a", *parts)
        assert (blocked.refusing, blocked.wait) == (index, LATER + 1)


def test_a_block_that_is_taken_back_lets_pass(calls: Calls) -> None:
    calls.block(START, LATER)
    calls.block(START, 0)
    assert calls.reserve(START, "a", of(BUCKET, 1)).status == "granted"


def test_what_is_open_is_settled_renewed_and_told_again_whoever_is_blocked(calls: Calls) -> None:
    calls.reserve(START, "open", of(WINDOW, 10))
    calls.block(START, LATER)
    assert calls.reserve(START, "open", of(WINDOW, 10)).status == "granted"
    assert calls.renew(START, "open", of(WINDOW, 20)).tokens == (20,)
    assert calls.settle(START, "open", of(WINDOW, 15)).tokens == (15,)


def test_a_rule_of_nobody_lives_until_its_end_and_what_is_taken_back_makes_nobody(calls: Calls) -> None:
    calls.block(START, 0)
    assert calls.everything()[0] == {}
    calls.block(START, START + 10**8)
    lives: Any = calls.server.pttl(ALICE)
    assert lives > 10**8
    calls.reserve(START, "a", of(BUCKET, 1))
    assert calls.server.pttl(ALICE) > 10**8


def test_a_rule_outlives_a_shorter_one_that_came_later(calls: Calls) -> None:
    calls.override(START, WINDOW, LATER, 10_000)
    calls.block(START, LATER - 1_000)
    assert calls.reserve(LATER - 1, "a", of(WINDOW, 11)).status == "refused"


def test_a_rule_keeps_what_is_open(calls: Calls) -> None:
    calls.reserve(START, "r", of(STREAMS, 2), lease=3_000)
    calls.override(START, STREAMS, START + 4_000, 5_000)
    assert calls.peek(START, of(STREAMS, 0)).entries == 1
    ended = calls.reserve(START + 4_000, "s", of(STREAMS, 1))
    assert (ended.status, ended.ended, ended.tokens) == ("granted", 1, (1,))


def test_where_there_is_no_rule_none_is_looked_for(calls: Calls) -> None:
    def looked(call: Callable[[], object]) -> int:
        calls.server.config_resetstat()
        call()
        counted: Any = calls.server.info("commandstats")
        return int(counted.get("cmdstat_hget", {"calls": 0})["calls"])

    parts = [of(BUCKET, 1), of(WINDOW, 1), of(WINDOW, 1, BOB)]
    assert looked(lambda: calls.reserve(START, "a", *parts)) == 0
    calls.override(START, WINDOW, LATER, 10_000)
    assert looked(lambda: calls.reserve(START, "b", *parts)) == 4  # for two policies of one subject
    assert looked(lambda: calls.reserve(LATER, "c", *parts)) == 0
