"""Local: what a worker's share lets pass while the ledger is away, and what it keeps in mind."""

from decimal import Decimal

import pytest

from service.domain.account import Algorithm
from service.domain.calendar import Calendar, Unit
from service.domain.local import AGAIN, Shares, needing_ledger, outlived, share, window_at, without_ledger
from service.domain.policy import Claim, Count, OnLedgerFailure, Policy
from service.domain.usage import Usage
from service.domain.weights import Weights

AT = 1_763_000_040_000  # the beginning of a minute, on 13 November 2025
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000

BUCKET = Policy(name="minute", per=(), limit=1_000, window=MINUTE)
WINDOW = Policy(name="window", per=(), limit=1_000, window=MINUTE, algorithm=Algorithm.FIXED_WINDOW)
SLIDING = Policy(name="sliding", per=(), limit=1_000, window=MINUTE, algorithm=Algorithm.SLIDING_WINDOW)
MONTH = Policy(
    name="month",
    per=(),
    limit=1_000,
    algorithm=Algorithm.FIXED_WINDOW,
    calendar=Calendar(Unit.MONTH, "Europe/Berlin"),
)
CALLS = Policy(name="calls", per=(), limit=60, window=MINUTE, count=Count.REQUESTS)
STREAMS = Policy(name="streams", per=(), limit=4, count=Count.CONCURRENT, algorithm=Algorithm.CONCURRENCY)
SHADOW = Policy(name="shadow", per=(), limit=10, window=MINUTE, enforce=False)


def claim(tokens: int, policy: Policy = BUCKET, subject: str = "alice") -> Claim:
    return Claim(policy, subject, tokens * 1000)


def used(tokens: int) -> Usage:
    return Usage(prompt=0, completion=tokens, source="provider")


def granted(
    shares: Shares, id: str, tokens: int, now: int = AT, workers: int = 1, policy: Policy = BUCKET
) -> bool:
    return shares.reserve(id, [claim(tokens, policy)], now, workers).granted


# -- what a policy says -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "enforce", "becomes"),
    [
        ("refuse", True, "refuse"),
        ("allow", True, "allow"),
        ("local", True, "local"),
        ("refuse", False, "allow"),
        ("allow", False, "allow"),
        ("local", False, "local"),
    ],
)
def test_without_a_ledger_a_policy_in_shadow_refuses_nothing(mode: str, enforce: bool, becomes: str) -> None:
    policy = Policy("any", (), 1, MINUTE, enforce=enforce, on_ledger_failure=OnLedgerFailure(mode))
    assert without_ledger(policy) == becomes
    assert (needing_ledger([claim(1, policy)]) is not None) == (becomes == "refuse")


def test_it_is_the_first_policy_that_refuses_which_is_told() -> None:
    allows = Policy("allows", (), 1, MINUTE, on_ledger_failure=OnLedgerFailure.ALLOW)
    found = needing_ledger([claim(1, SHADOW), claim(1, allows), claim(1, WINDOW), claim(1, BUCKET)])
    assert found == claim(1, WINDOW)


# -- the share --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "workers", "parts"),
    [
        (BUCKET, 1, (1_000_000, 1_000_000)),
        (BUCKET, 3, (333_333, 333_333)),
        (Policy("burst", (), 1_000, MINUTE, burst=10), 3, (333_333, 366_666)),
        (Policy("tiny", (), 1, MINUTE), 2_000, (1, 1)),
        (CALLS, 8, (7_500, 7_500)),
        (CALLS, 100, (1_000, 1_000)),
        (STREAMS, 3, (1_333, 1_333)),
        (STREAMS, 5, (1_000, 1_000)),
        (
            Policy("cost", (), Decimal("0.5"), MINUTE, count=Count.COST, weights=(("*", Weights(1, 1)),)),
            2,
            (250_000, 250_000),
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Policy) else str(value),
)
def test_a_share_is_a_workers_part_rounded_down_and_never_nothing(
    policy: Policy, workers: int, parts: tuple[int, int]
) -> None:
    assert share(policy, workers) == parts


@pytest.mark.parametrize("policy", [BUCKET, WINDOW, SLIDING, MONTH], ids=lambda policy: policy.name)
@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_all_workers_together_let_no_more_pass_than_the_limit(policy: Policy, workers: int) -> None:
    passed = 0
    for shares in [Shares() for _ in range(workers)]:
        while granted(shares, str(passed), 10, workers=workers, policy=policy):
            passed += 10
    assert 1_000 - 10 * workers < passed <= 1_000


def test_of_requests_at_a_time_each_worker_lets_its_whole_part_pass() -> None:
    shares = Shares()
    assert [granted(shares, str(n), 1, workers=2, policy=STREAMS) for n in range(3)] == [True, True, False]
    shares.settle("0", used(5), AT)
    assert granted(shares, "3", 1, workers=2, policy=STREAMS)


def test_when_more_workers_are_alive_the_share_is_smaller_at_once() -> None:
    shares = Shares()
    assert granted(shares, "a", 400, workers=1)
    assert not granted(shares, "b", 200, workers=2)
    assert granted(shares, "b", 100, workers=2)
    assert granted(shares, "c", 500, workers=1)


# -- the verdict ------------------------------------------------------------------------------------


def test_a_verdict_tells_the_share_as_the_limit() -> None:
    verdict = Shares().reserve("a", [claim(100), claim(1, CALLS)], AT, 4)
    assert verdict.granted
    assert verdict.now == AT
    assert [(one.limit, one.capacity, one.charged) for one in verdict.standings()] == [
        (250_000, 250_000, 100_000),
        (15_000, 15_000, 1_000),
    ]


def test_a_refusal_says_who_and_how_long_and_charges_nothing() -> None:
    shares = Shares()
    assert granted(shares, "a", 200, workers=4)
    verdict = shares.reserve("b", [claim(1, CALLS), claim(100)], AT, 4)
    assert verdict.refusing == claim(100)
    assert verdict.wait == 12_000  # 50 too much, of which 250 a minute drain
    assert verdict.charged == (0, 200_000)
    assert len(shares) == 1  # what was refused is not kept in mind
    shares.settle("b", used(900), AT)
    assert granted(shares, "c", 50, workers=4)


def test_of_several_that_refuse_the_longest_wait_is_told() -> None:
    shares = Shares()
    shares.reserve("a", [claim(1_000, MONTH), claim(1_000), claim(1_000, WINDOW)], AT, 1)
    verdict = shares.reserve("b", [claim(500), claim(500, MONTH), claim(500, WINDOW)], AT, 1)
    assert verdict.refusing == claim(500, MONTH)
    verdict = shares.reserve("c", [claim(500, MONTH), claim(1_001)], AT, 1)
    assert (verdict.refusing, verdict.wait) == (claim(1_001), None)


def test_what_fits_into_no_share_but_into_the_limit_is_asked_to_come_again() -> None:
    verdict = Shares().reserve("a", [claim(600)], AT, 2)
    assert (verdict.granted, verdict.wait) == (False, AGAIN)


def test_in_shadow_nothing_is_refused_and_what_would_be_is_told() -> None:
    verdict = Shares().reserve("a", [claim(100, SHADOW)], AT, 1)
    assert verdict.granted
    assert verdict.in_shadow() == [claim(100, SHADOW)]


# -- as if known ------------------------------------------------------------------------------------


def test_what_was_not_used_is_given_back_and_what_was_beyond_is_charged() -> None:
    shares = Shares()
    for id, tokens in (("a", 500), ("b", 100)):
        assert granted(shares, id, tokens)
    shares.settle("a", used(100), AT)
    shares.settle("b", used(300), AT)
    verdict = shares.reserve("c", [claim(601)], AT, 1)
    assert (verdict.granted, verdict.charged) == (False, (400_000,))


def test_only_the_lowest_level_since_is_given_back_of_a_bucket() -> None:
    """As in the ledger: 500 of the 600 had drained when the second came, so 100 can come back."""
    shares = Shares()
    assert granted(shares, "a", 600)
    assert granted(shares, "b", 100, now=AT + 30_000)
    shares.settle("a", used(0), AT + 30_000)
    assert shares.reserve("c", [claim(1)], AT + 30_000, 1).charged == (101_000,)


def test_a_settle_counts_once_and_a_release_gives_all_back() -> None:
    shares = Shares()
    for id in ("a", "b"):
        assert granted(shares, id, 400)
    for _ in range(2):
        shares.settle("a", used(300), AT)
        shares.release("b", AT)
        shares.settle("b", used(400), AT)
    assert shares.reserve("c", [claim(1)], AT, 1).charged == (301_000,)


def test_who_was_never_let_pass_has_nothing_to_settle() -> None:
    shares = Shares()
    shares.settle("nobody", used(500), AT)
    shares.release("nobody", AT)
    assert len(shares) == 0


def test_time_passes() -> None:
    shares = Shares()
    assert granted(shares, "a", 1_000, policy=MONTH)
    assert not granted(shares, "b", 1, policy=MONTH, now=AT + 17 * DAY)
    assert granted(shares, "b", 1, policy=MONTH, now=AT + 18 * DAY)


# -- how much is kept in mind -----------------------------------------------------------------------


def test_more_accounts_than_there_is_room_for_are_never_kept() -> None:
    shares = Shares(most=100)
    for number in range(1_000):
        assert shares.reserve(str(number), [claim(1, subject=str(number))], AT, 1).granted
        shares.settle(str(number), used(1), AT)
    assert len(shares) == 100


def test_an_account_that_many_others_pushed_out_begins_anew() -> None:
    shares = Shares(most=2)
    first = shares.reserve("a", [claim(1_000)], AT, 1)
    assert first.granted
    for name in ("bob", "carol"):
        assert shares.reserve(name, [claim(1, subject=name)], AT, 1).granted
    assert granted(shares, "b", 1_000)
    shares.settle("a", used(0), AT)  # of the account before, and the new one does not get it
    assert not granted(shares, "c", 1)


def test_who_goes_on_asking_is_not_forgotten_though_he_is_refused() -> None:
    shares = Shares(most=2)
    assert granted(shares, "a", 1_000)
    for number in range(10):
        assert shares.reserve(str(number), [claim(1, subject=str(number))], AT, 1).granted
        assert not granted(shares, "b", 1)


def test_an_account_for_everyone_bounds_those_who_invent_users() -> None:
    shares, everyone = Shares(most=10), Policy("all", (), 500, MINUTE)
    passed = 0
    for number in range(1_000):
        claims = [claim(1, subject=str(number)), claim(1, everyone, "everyone")]
        passed += shares.reserve(str(number), claims, AT, 1).granted
    assert passed == 500


# -- what the ledger would have forgotten -----------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "start", "length"),
    [
        (BUCKET, 0, MINUTE),
        (STREAMS, 0, 0),
        (WINDOW, AT, MINUTE),
        (SLIDING, AT, MINUTE),
        (MONTH, 1_761_951_600_000, 30 * DAY),  # November, from midnight in Berlin
    ],
    ids=lambda value: value.name if isinstance(value, Policy) else "",
)
def test_the_window_that_a_moment_lies_in(policy: Policy, start: int, length: int) -> None:
    assert window_at(policy, AT + 12_345) == (start, length)


@pytest.mark.parametrize(
    ("policy", "at", "now", "forgotten"),
    [
        (BUCKET, AT, AT + MINUTE - 1, False),
        (BUCKET, AT, AT + MINUTE, True),
        (Policy("burst", (), 1_000, MINUTE, burst=50), AT, AT + MINUTE + 29_999, False),
        (Policy("burst", (), 1_000, MINUTE, burst=50), AT, AT + MINUTE + 30_000, True),
        (WINDOW, AT + 59_999, AT + 59_999, False),
        (WINDOW, AT + 59_999, AT + 60_000, True),
        (SLIDING, AT, AT + 2 * MINUTE - 1, False),
        (SLIDING, AT, AT + 2 * MINUTE, True),
        (MONTH, AT, AT + 17 * DAY, False),
        (MONTH, AT, AT + 18 * DAY, True),
        (STREAMS, AT, AT + DAY, False),
        (WINDOW, AT + HOUR, AT, False),  # the clock went back
    ],
)
def test_what_an_account_has_forgotten_is_not_charged_later(
    policy: Policy, at: int, now: int, forgotten: bool
) -> None:
    assert outlived(policy, at, now) is forgotten
