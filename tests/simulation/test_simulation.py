"""Days of traffic break no promise, and a busy user gets what the limit says."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from benchmarks.simulation.busy import LENGTHS, LIMIT, SPREADS, Busy, most_in_a_minute
from benchmarks.simulation.days import Days, simulated
from benchmarks.simulation.ledger import Ledger
from service.adapters.ledger import scripts as lua
from service.domain.account import Algorithm
from service.domain.policy import Reserve

Spoil = Callable[[str, str, str], lua.Scripts]

# A line of account.lua, and what would be wrong: each breaks a promise that the days must notice.
WRONG = {
    "a bucket gives back what has drained": ("back = min(back, lows[first].level)", "back = back"),
    "a window gives back what another had": (
        "at < account.start - account.window then return",
        "false then return",
    ),
    "a sliding window forgets the one before": (
        "account.before = kind == SLIDING and now < stop + length and account.charged or 0",
        "account.before = 0",
    ),
    "nobody looks for ended leases": (
        "if subject.due == 0 or now < subject.due then return end",
        "do return end",
    ),
    "each day has 24 hours": ("window = (now < two and two or three) - start", "window = window"),
    "an ended lease keeps its place": ("record.undo == 1 or account.kind == OPEN", "record.undo == 1"),
}


def days(ledger: Ledger, exchanges: int) -> Days:
    return simulated(ledger, seed=20_000, exchanges=exchanges, users=1_000, workers=10)


@pytest.fixture
def spoil(tmp_path: Path) -> Spoil:
    """The scripts with one thing wrong."""

    def spoiled(name: str, right: str, wrong: str) -> lua.Scripts:
        for path in lua.folder().glob("*.lua"):
            text = path.read_text()
            if path.name == name:
                assert text.count(right) == 1
                text = text.replace(right, wrong)
            (tmp_path / path.name).write_text(text)
        return lua.load(tmp_path)

    return spoiled


def test_days_of_traffic_break_no_promise(ledger: Ledger) -> None:
    seen = days(ledger, 3_000)
    assert seen.faults == []
    assert seen.compared > 50_000


def test_everything_happens_in_these_days(ledger: Ledger) -> None:
    seen = days(ledger, 1_000)
    calls = ("reserve granted", "reserve refused", "renew renewed", "settle settled", "settle corrected")
    rare = ("settle forgotten", "release settled", "repetition again")
    assert {call for call in (*calls, *rare) if seen.said[call] < 5} == set()


@pytest.mark.parametrize("what", WRONG)
def test_the_days_notice_that(what: str, client: redis.Redis, spoil: Spoil) -> None:
    assert days(Ledger(client, spoil("account.lua", *WRONG[what])), 1_000).faults


def test_the_days_notice_that_capacity_is_exceeded(client: redis.Redis, spoil: Spoil) -> None:
    scripts = spoil(
        "reserve.lua", "account.amount > account.capacity then", "account.amount > 2 * account.capacity then"
    )
    assert any(re.search("granted, with", fault) for fault in days(Ledger(client, scripts), 1_000).faults)


@pytest.mark.parametrize("spread", ["all alike", "sd 50"])
@pytest.mark.parametrize("seconds", LENGTHS)
def test_a_busy_user_gets_the_quota_however_long_requests_take(
    ledger: Ledger, seconds: int, spread: str
) -> None:
    seen = Busy(ledger, seconds=seconds, spread=SPREADS[spread]).run(after=10, minutes=10)
    assert seen.faults == []
    assert seen.fraction >= 0.97
    assert seen.produced <= LIMIT * 1.05


def test_the_fullest_minute_may_begin_at_any_time() -> None:
    spent = [(0, 5), (59_999, 7), (60_000, 1), (119_998, 2), (180_000, 9), (200_000, 0)]
    assert most_in_a_minute(spent[:2]) == 12
    assert most_in_a_minute(spent[1:]) == 10
    assert most_in_a_minute(spent) == 12
    assert most_in_a_minute([]) == 0


def test_declared_reservations_leave_most_of_the_quota_to_waiting(ledger: Ledger) -> None:
    busy = Busy(ledger, seconds=120, spread=SPREADS["sd 25"], reserve=Reserve.DECLARED)
    seen = busy.run(after=10, minutes=10)
    assert seen.faults == []
    assert seen.fraction < 0.2


@pytest.mark.parametrize("algorithm", [Algorithm.SLIDING_WINDOW, Algorithm.FIXED_WINDOW])
def test_no_window_is_above_its_bound(ledger: Ledger, algorithm: Algorithm) -> None:
    busy = Busy(ledger, seconds=30, spread=SPREADS["exponential"], algorithm=algorithm)
    assert busy.run(after=2, minutes=10).faults == []


def test_levels_lowered_one_below_the_other_become_the_lower(ledger: Ledger) -> None:
    """What was given back had made a later low level the lower one, and merging took the higher."""
    assert Busy(ledger, seconds=30, spread=SPREADS["exponential"]).run(after=0, minutes=10).faults == []
