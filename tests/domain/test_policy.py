"""Policy: what a request is charged, what it is called in the ledger, and what a verdict says."""

import dataclasses

import pytest

from service.domain.account import Algorithm
from service.domain.policy import MOST, UNIT, Claim, Count, Policy, Reserve, verdict_of
from service.domain.usage import NOTHING, Estimate, Usage

MINUTE = Policy(name="minute", per=("user",), limit=100, window=60_000)
STREAMS = Policy(
    name="streams", per=(), limit=2, window=0, algorithm=Algorithm.CONCURRENCY, count=Count.CONCURRENT
)
SHADOW = Policy(name="shadow", per=(), limit=10, window=60_000, enforce=False)
ESTIMATE = Estimate(prompt=7, completion=20)


def counting(count: Count, reserve: Reserve = Reserve.DECLARED) -> Policy:
    return dataclasses.replace(MINUTE, count=count, reserve=reserve)


@pytest.mark.parametrize(
    ("count", "declared", "prompt_only", "used"),
    [
        (Count.TOTAL, 27_000, 7_000, 12_000),
        (Count.PROMPT, 7_000, 7_000, 8_000),
        (Count.COMPLETION, 20_000, 0, 4_000),
        (Count.REQUESTS, 1_000, 1_000, 1_000),
        (Count.CONCURRENT, 1_000, 1_000, 0),
    ],
)
def test_what_is_reserved_and_what_is_settled(
    count: Count, declared: int, prompt_only: int, used: int
) -> None:
    policy = counting(count)
    assert policy.reserved(ESTIMATE) == declared
    assert counting(count, Reserve.PROMPT_ONLY).reserved(ESTIMATE) == prompt_only
    claim = Claim(policy, "w1:{a}", policy.reserved(ESTIMATE))
    assert claim.settled(Usage(prompt=8, completion=4, source="provider")) == used


@pytest.mark.parametrize("count", Count)
def test_where_nobody_knows_the_usage_the_reservation_stands(count: Count) -> None:
    claim = Claim(counting(count), "w1:{a}", 5_000)
    assert claim.settled(Usage(1, 1, source="reservation")) == (0 if count is Count.CONCURRENT else 5_000)


def test_a_request_that_used_nothing_is_a_request_all_the_same() -> None:
    assert Claim(counting(Count.REQUESTS), "w1:{a}", UNIT).settled(NOTHING) == UNIT
    assert Claim(MINUTE, "w1:{a}", 5_000).settled(NOTHING) == 0


@pytest.mark.parametrize(
    ("limit", "burst", "capacity"),
    [(100, 0, 100_000), (100, 10, 110_000), (1, 50, 1_500), (3, 33, 3_990), (MOST, 1_000, 11 * MOST * UNIT)],
)
def test_the_burst_is_a_percentage_beyond_the_limit(limit: int, burst: int, capacity: int) -> None:
    assert dataclasses.replace(MINUTE, limit=limit, burst=burst).capacity == capacity


def test_the_highest_limit_stays_below_what_a_script_can_count() -> None:
    assert MOST * UNIT < 2**53


def test_another_algorithm_or_count_is_another_account_and_another_limit_is_not() -> None:
    kinds = [
        dataclasses.replace(MINUTE, count=count, algorithm=algorithm)
        for count in Count
        for algorithm in Algorithm
        if (count is Count.CONCURRENT) == (algorithm is Algorithm.CONCURRENCY)
    ]
    assert len({policy.account for policy in kinds}) == len(kinds)
    other = dataclasses.replace(MINUTE, limit=7, burst=3, window=5, enforce=False)
    assert other.account == MINUTE.account


def test_an_accounts_name_is_one_word_and_no_record() -> None:
    for policy in (MINUTE, STREAMS):
        assert " " not in policy.account
        assert policy.account[0] not in "~!"


@pytest.mark.parametrize(("window", "quota"), [(60_000, False), (86_399_999, False), (86_400_000, True)])
def test_a_budget_of_a_day_or_longer_is_a_quota(window: int, quota: bool) -> None:
    assert dataclasses.replace(MINUTE, window=window).is_quota is quota


CLAIMS = (Claim(MINUTE, "w1:{a}", 60_000), Claim(SHADOW, "w1:{b}", 4_000), Claim(STREAMS, "w1:{a}", 1_000))


def test_a_granted_verdict_refuses_nobody() -> None:
    verdict = verdict_of(CLAIMS, [5, 0, 0, 60_000, 4_000, 1_000])
    assert (verdict.granted, verdict.now, verdict.refusing, verdict.wait) == (True, 5, None, None)
    assert verdict.charged == (60_000, 4_000, 1_000)


@pytest.mark.parametrize(("told", "wait"), [(250, 250), (-1, None)])
def test_a_refusing_verdict_names_the_claim_and_the_wait(told: int, wait: int | None) -> None:
    verdict = verdict_of(CLAIMS, [5, 3, told, 60_000, 4_000, 2_000])
    assert (verdict.granted, verdict.refusing, verdict.wait) == (False, CLAIMS[2], wait)


@pytest.mark.parametrize(
    ("refusing", "charged", "shadowed"),
    [
        (0, 10_000, False),  # granted: its amount is within the charge, which is just full
        (0, 10_001, True),
        (1, 6_000, False),  # refused: its amount would come on top
        (1, 6_001, True),
    ],
)
def test_a_shadow_policy_says_what_it_would_have_refused(refusing: int, charged: int, shadowed: bool) -> None:
    verdict = verdict_of(CLAIMS, [5, refusing, 1, 10**9, charged, 10**9])
    assert verdict.in_shadow() == ([CLAIMS[1]] if shadowed else [])
