"""Account: the arithmetic of charging, draining and giving back, as tables."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.account import GRACE, MOST_LOWS, NEVER, Account, Algorithm, drained

MINUTE = 60_000
AT = 1_763_000_040_000  # the beginning of a minute


def bucket(limit: int = 60_000, window: int = MINUTE, charged: int = 0) -> Account:
    """Drains one a millisecond, unless told otherwise."""
    return Account(Algorithm.LEAKY_BUCKET, limit, window, AT, charged=charged)


def window(charged: int = 0) -> Account:
    return Account(Algorithm.FIXED_WINDOW, 60_000, MINUTE, AT, start=AT, charged=charged)


def sliding(charged: int = 0, before: int = 0) -> Account:
    return Account(Algorithm.SLIDING_WINDOW, 60_000, MINUTE, AT, start=AT, charged=charged, before=before)


def concurrency(charged: int = 0) -> Account:
    return Account(Algorithm.CONCURRENCY, 3_000, 0, AT, charged=charged)


def roll(account: Account, now: int) -> None:
    """Bring an account to now, in windows of the clock's minutes."""
    account.roll(now, now - now % MINUTE, MINUTE)


@given(
    limit=st.integers(1, 10**9),
    span=st.integers(1, 10**8),
    steps=st.lists(st.integers(0, 10**6), min_size=1, max_size=20),
)
def test_however_often_one_looks_the_same_drains(limit: int, span: int, steps: list[int]) -> None:
    looks, time = 0, AT
    for step in steps:
        looks += drained(limit, span, since=time, until=time + step)
        time += step
    assert looks == drained(limit, span, since=AT, until=time)


def test_a_whole_window_drains_the_limit_from_wherever_it_is_counted() -> None:
    for start in (AT, AT + 1, AT + 333, AT + 59_999):
        assert drained(7, 1_001, since=start, until=start + 1_001) == 7


@pytest.mark.parametrize(
    ("account", "after", "charged"),
    [
        (bucket(charged=500), 0, 500),
        (bucket(charged=500), 200, 300),
        (bucket(charged=500), 500, 0),
        (bucket(charged=500), 10**9, 0),
        (bucket(charged=500), -1, 500),  # a clock that goes back drains nothing
        (bucket(charged=500), -GRACE, 500),
        (window(charged=500), 59_999, 500),
        (window(charged=500), 60_000, 0),
        (window(charged=500), -GRACE, 500),
        (sliding(charged=500), 59_999, 500),
        (sliding(charged=500), 60_000, 500),
        (sliding(charged=500), 90_000, 250),
        (sliding(charged=500), 119_999, 1),  # a trifle counts in full
        (sliding(charged=500), 120_000, 0),
        (sliding(charged=70, before=500), 30_000, 320),
        (sliding(charged=70, before=500), 60_000, 70),
        (sliding(charged=500), -GRACE, 500),
        (concurrency(charged=2_000), 10**9, 2_000),
    ],
)
def test_time_passes(account: Account, after: int, charged: int) -> None:
    roll(account, AT + after)
    assert account.standing() == charged


@pytest.mark.parametrize("make", [bucket, window, sliding])
def test_a_stored_time_ahead_wins_for_a_minute_and_then_goes_back(make: Callable[..., Account]) -> None:
    account = make(charged=500)
    roll(account, AT - GRACE)
    assert account.time == AT
    roll(account, AT - GRACE - 1)
    assert (account.time, account.charged) == (AT - GRACE - 1, 500)


@pytest.mark.parametrize("make", [window, sliding])
def test_what_was_charged_before_the_clock_fell_back_gives_nothing_back_of_a_window(
    make: Callable[..., Account],
) -> None:
    account = make()
    at = account.charge(500, AT, remember=False)
    roll(account, AT - GRACE - 1)
    assert account.give_back(500, at) == 0


def test_what_was_charged_before_the_clock_fell_back_gives_back_what_a_bucket_held_then() -> None:
    account = bucket()
    at = account.charge(500, AT, remember=False)
    roll(account, AT - GRACE - 1)
    account.charge(100, AT - GRACE - 1, remember=True)
    assert account.give_back(600, at) == 500


def test_a_longer_window_is_waited_for_longer_before_the_clock_is_followed() -> None:
    day = 86_400_000
    account = Account(Algorithm.FIXED_WINDOW, 1_000, day, AT, start=AT, charged=500)
    account.roll(AT - day, AT - day, day)
    assert account.time == AT


@pytest.mark.parametrize(
    ("account", "amount", "capacity", "now", "wait"),
    [
        (bucket(charged=60_000), 1, 60_000, AT, 1),
        (bucket(charged=60_000), 60_000, 60_000, AT, 60_000),
        (bucket(charged=90_000), 0, 60_000, AT, 30_000),  # debt: even nothing waits
        (bucket(charged=60_000), 60_001, 60_000, AT, NEVER),
        (bucket(charged=60_000), 1, 60_000, AT - 10, 11),  # the account is ahead
        (bucket(limit=60, charged=60), 1, 60, AT, 1_000),
        (bucket(limit=7_000, charged=7_000), 1, 7_000, AT, 9),  # 8.57: rounded up
        (window(charged=60_000), 1, 60_000, AT + 1, 59_999),
        (window(charged=60_000), 60_001, 60_000, AT, NEVER),
        (sliding(charged=60_000), 60_000, 60_000, AT, 120_000),
        (sliding(charged=60_000), 1, 60_000, AT, 60_001),
        (sliding(charged=60_000), 30_000, 60_000, AT + 1, 89_999),
        (sliding(charged=1_000, before=60_000), 30_000, 60_000, AT, 31_000),
        (sliding(charged=60_000), 60_001, 60_000, AT, NEVER),
        (concurrency(charged=3_000), 1_000, 3_000, AT, 1_000),
        (concurrency(charged=3_000), 4_000, 3_000, AT, NEVER),
    ],
)
def test_the_wait(account: Account, amount: int, capacity: int, now: int, wait: int) -> None:
    assert account.waiting(amount, capacity, now) == wait


def test_a_charge_counts_for_the_later_of_now_and_the_account() -> None:
    assert bucket().charge(1, AT + 5, remember=False) == AT + 5
    assert bucket().charge(1, AT - 5, remember=False) == AT


def test_with_nobody_open_no_low_level_is_remembered() -> None:
    account = bucket()
    account.charge(10, AT, remember=True)
    assert account.lows == [(AT, 0)]
    account.charge(10, AT, remember=False)
    assert account.lows == []


def test_a_charge_of_nothing_and_a_charge_to_a_window_remember_nothing() -> None:
    for account, amount in [(bucket(), 0), (window(), 10), (sliding(), 10), (concurrency(), 1_000)]:
        account.charge(amount, AT, remember=True)
        assert account.lows == []


def test_a_lower_level_makes_those_before_it_useless() -> None:
    account = bucket()
    for after, amount in [(0, 500), (100, 500), (800, 50), (900, 5)]:
        roll(account, AT + after)
        account.charge(amount, AT + after, remember=True)
    assert account.lows == [(AT, 0), (AT + 900, 150)]


def test_of_two_charges_at_one_moment_the_level_before_the_first_is_remembered() -> None:
    account = bucket()
    account.charge(10, AT, remember=True)
    account.charge(10, AT, remember=True)
    assert account.lows == [(AT, 0)]


@pytest.mark.parametrize(
    ("amount", "before", "after", "back"),
    [
        (50, 50, 0, 50),
        (50, 50, 20, 30),  # of 50, 20 have drained
        (50, 50, 60, 0),
        (30, 50, 0, 30),
    ],
)
def test_a_bucket_gives_back_what_has_not_drained(amount: int, before: int, after: int, back: int) -> None:
    account = bucket()
    at = account.charge(before, AT, remember=False)
    roll(account, AT + after)
    assert account.give_back(amount, at) == back


def test_a_bucket_gives_back_no_more_than_the_lowest_level_since_and_lowers_it() -> None:
    account = bucket()
    first = account.charge(50, AT, remember=False)
    roll(account, AT + 20)
    second = account.charge(40, AT + 20, remember=True)
    assert account.give_back(50, first) == 30
    assert account.lows == [(AT + 20, 0)]
    assert account.give_back(50, first) == 0
    assert account.give_back(50, second) == 40


def test_what_a_window_gives_back_reaches_the_window_of_admission_alone() -> None:
    account = window()
    at = account.charge(500, AT, remember=False)
    roll(account, AT + 59_999)
    assert account.give_back(200, at) == 200
    roll(account, AT + 60_000)
    account.charge(500, AT + 60_000, remember=True)
    assert account.give_back(300, at) == 0
    assert account.charged == 500


def test_what_a_sliding_window_gives_back_reaches_the_window_of_admission_and_the_next() -> None:
    account = sliding()
    at = account.charge(600, AT, remember=False)
    roll(account, AT + MINUTE)
    later = account.charge(100, AT + MINUTE, remember=True)
    assert account.give_back(200, at) == 200
    assert (account.before, account.charged) == (400, 100)
    assert account.give_back(100, later) == 100
    roll(account, AT + 2 * MINUTE)
    assert account.give_back(400, at) == 0


def test_outside_its_own_window_an_account_of_unknown_windows_is_left_as_it_is() -> None:
    """A calendar's, when only its lease is met. Else it would lie where nobody knows a window begins."""
    for now in (AT - 10**9, AT + MINUTE, AT + 10**9):
        account = window(charged=500)
        account.roll(now, None, 0)
        assert account == window(charged=500)
    account.roll(AT + 5, None, 0)
    assert (account.time, account.charged) == (AT + 5, 500)


def test_windows_of_a_calendar_are_as_long_as_they_are() -> None:
    account = Account(Algorithm.FIXED_WINDOW, 60_000, 23, AT, start=AT, charged=500)
    account.roll(AT + 22, AT, 23)
    assert account.charged == 500
    account.roll(AT + 23, AT + 23, 25)
    assert (account.charged, account.start, account.end) == (0, AT + 23, AT + 48)


def test_nothing_becomes_better_than_untouched() -> None:
    account = concurrency(charged=1_000)
    assert account.give_back(5_000, AT) == 1_000
    assert account.charged == 0


@pytest.mark.parametrize("make", [bucket, window, sliding])
def test_after_a_reset_what_came_before_gives_nothing_back(make: Callable[..., Account]) -> None:
    account = make()
    at = account.charge(500, AT, remember=False)
    account.reset(AT)
    assert account.charged == 0
    account.charge(70, AT, remember=True)
    assert account.give_back(500, at) == 0
    assert account.charged == 70


def test_a_reset_leaves_what_is_open() -> None:
    account = concurrency(charged=2_000)
    account.reset(AT)
    assert account.charged == 2_000


def test_too_many_lows_are_merged_to_the_safe_side() -> None:
    """The two nearest become one: the lower level, the later time. So no account is ever better for it."""
    account = bucket(limit=1, window=MINUTE)
    for number in range(MOST_LOWS + 1):
        time = AT + number
        account.time = time
        account.charge(100 if number != 7 else 3, time, remember=True)
    assert len(account.lows) == MOST_LOWS
    assert (AT + 8, 700) in account.lows  # of (+7, 700) and (+8, 703)
    assert all(time != AT + 7 for time, _ in account.lows)
