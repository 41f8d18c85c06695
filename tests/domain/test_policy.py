"""Policy: what a request is charged, what it is called in the ledger, and what a verdict says."""

import dataclasses
from decimal import Decimal

import pytest

from service.domain.account import Algorithm
from service.domain.calendar import DAY, Calendar, Unit
from service.domain.policy import (
    EXACT,
    MILLIONTHS,
    MOST,
    MOST_COST,
    UNIT,
    Claim,
    Count,
    Policy,
    Reserve,
    verdict_of,
)
from service.domain.usage import MOST_TOKENS, NOTHING, Estimate, Usage
from service.domain.weights import Weights

MINUTE = Policy(name="minute", per=("user",), limit=100, window=60_000)
STREAMS = Policy(
    name="streams", per=(), limit=2, window=0, algorithm=Algorithm.CONCURRENCY, count=Count.CONCURRENT
)
SHADOW = Policy(name="shadow", per=(), limit=10, window=60_000, enforce=False)
COST = Policy(
    name="cost",
    per=(),
    limit=Decimal("2.5"),
    window=60_000,
    count=Count.COST,
    weights=(
        ("gpt-4o-mini*", Weights(prompt=150_000, completion=600_000)),
        ("gpt-4o*", Weights(prompt=2_500_000, completion=10_000_000)),
        ("*", Weights(prompt=1, completion=2)),
    ),
)
ESTIMATE = Estimate(prompt=7, completion=20, learned=11)


def counting(count: Count, reserve: Reserve = Reserve.DECLARED) -> Policy:
    return dataclasses.replace(MINUTE, count=count, reserve=reserve, weights=COST.weights)


@pytest.mark.parametrize(
    ("count", "declared", "learned", "prompt_only", "used"),
    [
        (Count.TOTAL, 27_000, 18_000, 7_000, 12_000),
        (Count.PROMPT, 7_000, 7_000, 7_000, 8_000),
        (Count.COMPLETION, 20_000, 11_000, 0, 4_000),
        (Count.COST, 217_500_000, 127_500_000, 17_500_000, 60_000_000),
        (Count.REQUESTS, 1_000, 1_000, 1_000, 1_000),
        (Count.CONCURRENT, 1_000, 1_000, 1_000, 0),
    ],
)
def test_what_is_reserved_and_what_is_settled(
    count: Count, declared: int, learned: int, prompt_only: int, used: int
) -> None:
    policy = counting(count)
    assert policy.reserved(ESTIMATE, "gpt-4o") == declared
    assert counting(count, Reserve.LEARNED).reserved(ESTIMATE, "gpt-4o") == learned
    assert counting(count, Reserve.PROMPT_ONLY).reserved(ESTIMATE, "gpt-4o") == prompt_only
    claim = Claim(policy, "w1:{a}", declared, "gpt-4o")
    usage = Usage(prompt=8, completion=4, source="provider")
    assert claim.settled(usage) == used
    assert claim.so_far(usage) == (UNIT if count is Count.CONCURRENT else used)


def test_where_nothing_is_learned_yet_what_was_declared_is_reserved() -> None:
    assert MINUTE.reserve is Reserve.LEARNED
    assert MINUTE.reserved(Estimate(prompt=7, completion=20)) == 27_000
    assert MINUTE.reserved(Estimate(prompt=7, completion=20, learned=0)) == 7_000


@pytest.mark.parametrize(
    ("model", "amount"),
    [("gpt-4o-mini-2024", 750_000), ("gpt-4o", 12_500_000), ("GPT-4o", 3), ("o3", 3), ("", 3)],
)
def test_the_first_glob_that_fits_a_model_says_what_its_tokens_weigh(model: str, amount: int) -> None:
    assert COST.amount(Usage(1, 1, "provider"), model) == amount


@pytest.mark.parametrize(
    ("count", "cached", "counted"),
    [
        (Count.TOTAL, 6, 6_000),
        (Count.PROMPT, 6, 2_000),
        (Count.PROMPT, 9, 0),  # more than there are
        (Count.COMPLETION, 6, 4_000),
    ],
)
def test_cached_tokens_can_be_left_out_once_they_are_known(count: Count, cached: int, counted: int) -> None:
    policy = dataclasses.replace(counting(count), count_cached=False)
    usage = Usage(prompt=8, completion=4, source="provider", cached=cached)
    assert policy.amount(usage) == counted
    assert policy.reserved(ESTIMATE) == counting(count).reserved(ESTIMATE)
    assert counting(count).amount(usage) == counting(count).amount(dataclasses.replace(usage, cached=0))


def test_no_amount_is_more_than_a_script_can_add_and_such_a_one_never_fits() -> None:
    dear = dataclasses.replace(COST, weights=(("*", Weights(prompt=10**12, completion=10**12)),))
    assert dear.amount(Usage(MOST_TOKENS, MOST_TOKENS, "provider")) == EXACT
    assert dear.capacity < EXACT


@pytest.mark.parametrize("count", Count)
def test_where_nobody_knows_the_usage_the_reservation_stands(count: Count) -> None:
    claim = Claim(counting(count), "w1:{a}", 5_000)
    assert claim.settled(Usage(1, 1, source="reservation")) == (0 if count is Count.CONCURRENT else 5_000)


def test_a_request_that_used_nothing_is_a_request_all_the_same() -> None:
    assert Claim(counting(Count.REQUESTS), "w1:{a}", UNIT).settled(NOTHING) == UNIT
    assert Claim(MINUTE, "w1:{a}", 5_000).settled(NOTHING) == 0


@pytest.mark.parametrize(
    ("limit", "burst", "capacity"),
    [
        (100, 0, 100_000),
        (100, 10, 110_000),
        (1, 50, 1_500),
        (3, 33, 3_990),
        (MOST, 350, 9 * MOST * UNIT // 2),
    ],
)
def test_the_burst_is_a_percentage_beyond_the_limit(limit: int, burst: int, capacity: int) -> None:
    policy = dataclasses.replace(MINUTE, limit=limit, burst=burst)
    assert (policy.allowed, policy.capacity) == (limit * UNIT, capacity)


@pytest.mark.parametrize(
    ("limit", "allowed"),
    [("0.000001", 1), ("0.1", 100_000), ("2.5", 2_500_000), ("999999999.999999", 10**15 - 1)],
)
def test_a_cost_is_counted_in_millionths_and_none_is_lost(limit: str, allowed: int) -> None:
    policy = dataclasses.replace(COST, limit=Decimal(limit))
    assert (policy.unit, policy.allowed, policy.capacity) == (MILLIONTHS, allowed, allowed)


def test_the_highest_limit_stays_below_what_a_script_can_count() -> None:
    assert MOST * UNIT < EXACT
    assert MOST_COST * MILLIONTHS < EXACT
    assert 2 * EXACT <= 2**53  # an account that is full, and a request on top


MONTH = dataclasses.replace(
    MINUTE, algorithm=Algorithm.FIXED_WINDOW, calendar=Calendar(Unit.MONTH, "Europe/Berlin", "5")
)


def test_another_limit_is_the_same_account() -> None:
    for policy in (MINUTE, MONTH):
        other = dataclasses.replace(policy, limit=7, burst=3, enforce=False, reserve=Reserve.DECLARED)
        assert other.account == policy.account
    heavier = dataclasses.replace(COST, weights=(("*", Weights(prompt=3, completion=4)),))
    assert heavier.account == COST.account


def test_another_window_algorithm_count_or_calendar_is_another_account() -> None:
    fixed = dataclasses.replace(MINUTE, algorithm=Algorithm.FIXED_WINDOW, window=30 * DAY)
    policies = [
        *(dataclasses.replace(MINUTE, count=count) for count in Count),
        *(dataclasses.replace(MINUTE, algorithm=one) for one in Algorithm if one is not MINUTE.algorithm),
        dataclasses.replace(MINUTE, window=60_001),
        dataclasses.replace(MINUTE, name="other"),
        fixed,
        MONTH,
        dataclasses.replace(MONTH, calendar=Calendar(Unit.MONTH, "Europe/Berlin", "6")),
        dataclasses.replace(MONTH, calendar=Calendar(Unit.MONTH, "Europe/Paris", "5")),
        dataclasses.replace(MONTH, calendar=Calendar(Unit.YEAR, "Europe/Berlin")),
    ]
    assert len({policy.account for policy in policies}) == len(policies)


def test_the_name_of_an_account_does_not_change_from_one_version_to_the_next() -> None:
    accounts = [MINUTE.account, STREAMS.account, MONTH.account]
    assert accounts == ["minute:VjO2", "streams:rSLL", "minute:QpeA"]


def test_the_scripts_know_each_way_to_forget_by_its_number() -> None:
    kinds = [dataclasses.replace(MINUTE, algorithm=algorithm).kind for algorithm in Algorithm]
    assert kinds == [1, 2, 3, 5]
    assert MONTH.kind == 4


def test_a_calendar_has_a_nominal_window() -> None:
    assert (MONTH.window, MONTH.is_quota) == (30 * DAY, True)


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


def test_a_verdict_knows_whom_an_operator_gave_another_limit() -> None:
    verdict = verdict_of(CLAIMS, [5, 0, 0, 60_000, 4_000, 1_000, 1, 7_000, 7_700, 3, 9_000, 9_000])
    assert verdict.charged == (60_000, 4_000, 1_000)
    assert verdict.limits == {0: (7_000, 7_700), 2: (9_000, 9_000)}
    assert [(one.claim, one.limit, one.capacity) for one in verdict.standings()] == [
        (CLAIMS[0], 7_000, 7_700),
        (CLAIMS[1], 10_000, 10_000),
        (CLAIMS[2], 9_000, 9_000),
    ]


def test_a_verdict_on_whom_an_operator_blocked_says_until_when() -> None:
    verdict = verdict_of(CLAIMS, [5, 2, 9_999, 0, 0, 0], blocked=True)
    assert (verdict.granted, verdict.refusing) == (False, CLAIMS[1])
    assert (verdict.blocked_until, verdict.wait) == (9_999, None)
    assert verdict_of(CLAIMS, [5, 2, 9_999, 0, 0, 0]).blocked_until is None


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


def test_a_shadow_policy_would_refuse_by_the_limit_that_an_operator_gave() -> None:
    assert verdict_of(CLAIMS, [5, 0, 0, 0, 10_001, 0, 2, 10_000, 11_000]).in_shadow() == []
    assert verdict_of(CLAIMS, [5, 0, 0, 0, 9_000, 0, 2, 8_000, 8_000]).in_shadow() == [CLAIMS[1]]
