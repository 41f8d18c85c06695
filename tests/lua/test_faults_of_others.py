"""Faults that other gateways' limiters were seen to make, as sequences: here each comes out right.

Every limit is 1,000 tokens a minute, every sequence was run against the limiter that has the fault, and
what it did there is said in each test's first sentence.
"""

import pytest

from service.domain.account import Algorithm
from service.domain.policy import Policy
from tests.lua.calls import START, Calls, of

MINUTE = 60_000  # ms
LIMIT = 1000
WINDOW = Policy(name="minute", per=(), limit=LIMIT, window=MINUTE, algorithm=Algorithm.FIXED_WINDOW)
BUCKET = Policy(name="minute", per=(), limit=LIMIT, window=MINUTE)

either = pytest.mark.parametrize("policy", [WINDOW, BUCKET], ids=lambda policy: str(policy.algorithm))


@either
def test_what_is_given_back_after_the_window_has_rolled_is_nobody_elses(calls: Calls, policy: Policy) -> None:
    """A refund that outlived its window lowered the next window's counter: 1,900 admitted of 1,000."""
    assert calls.reserve(START, "a", of(policy, 950), lease=3 * MINUTE).status == "granted"
    later = START + MINUTE
    assert calls.reserve(later, "b", of(policy, 1000)).status == "granted"
    assert calls.reserve(later, "c", of(policy, 900)).status == "refused"
    settled = calls.settle(later, "a", of(policy, 50))
    assert settled.status == "settled"
    assert settled.tokens == (1000,)
    assert calls.reserve(later, "c", of(policy, 900)).status == "refused"
    assert calls.peek(later, of(policy, 0)).tokens == (1000,)


@either
def test_what_is_given_back_to_a_window_nobody_used_makes_no_credit(calls: Calls, policy: Policy) -> None:
    """A refund to a counter that had expired made it negative: a credit of 900 that nobody had paid for."""
    calls.reserve(START, "a", of(policy, 950), lease=3 * MINUTE)
    later = START + MINUTE
    assert calls.settle(later, "a", of(policy, 50)).tokens == (0,)
    assert calls.reserve(later, "b", of(policy, 1000)).status == "granted"
    assert calls.reserve(later, "c", of(policy, 1)).status == "refused"


@either
def test_an_overrun_beyond_what_is_left_is_charged_all_the_same(calls: Calls, policy: Policy) -> None:
    """An overrun that did not fit went uncharged, all or nothing of it: 1,600 used of 1,000."""
    calls.reserve(START, "a", of(policy, 300))
    calls.reserve(START, "b", of(policy, 600))
    assert calls.settle(START, "a", of(policy, 900)).tokens == (1500,)
    refused = calls.reserve(START, "c", of(policy, 100))
    assert refused.status == "refused"
    assert refused.tokens == (1500,)


@either
def test_what_is_given_back_after_a_refill_is_not_added_to_it(calls: Calls, policy: Policy) -> None:
    """A bucket that had refilled took the refund on top: 1,900 admitted within one interval."""
    calls.reserve(START, "a", of(policy, 950), lease=3 * MINUTE)
    later = START + MINUTE
    assert calls.reserve(later, "b", of(policy, 1000)).status == "granted"
    calls.settle(later, "a", of(policy, 50))
    assert calls.reserve(later, "d", of(policy, 900)).status == "refused"
    calls.settle(later, "b", of(policy, 1000))
    assert calls.peek(later, of(policy, 0)).tokens == (1000,)


@either
def test_what_is_used_beyond_the_limit_is_recorded_each_time(calls: Calls, policy: Policy) -> None:
    """Once a counter stood above its limit, nothing more was recorded: 1,600 tokens were never counted."""
    for rid, used in [("a", 900), ("b", 800), ("c", 800), ("d", 800)]:
        calls.settle(START, rid, of(policy, used))  # unknown to the ledger: it has been used all the same
    assert calls.peek(START, of(policy, 0)).tokens == (3300,)
    refused = calls.reserve(START, "e", of(policy, 1))
    assert refused.status == "refused"
    assert refused.wait > 0
