"""Policies: what the definition may say of one, and the policy it becomes."""

from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import BaseModel

from service.domain.account import Algorithm
from service.domain.calendar import Calendar, Unit
from service.domain.decoding import decode
from service.domain.marks import Document
from service.domain.policies import PolicyOptions
from service.domain.policy import MOST, Count, OnLedgerFailure, Policy, Reserve
from service.domain.weights import Weights

DEFINITIONS = Path(__file__).parents[1] / "definitions" / "policies"
EXPECTED = "# expected "  # a bad definition ends with what must be said about it, a line each


class Policies(BaseModel):
    policies: tuple[PolicyOptions, ...]


def decoded(document: Document) -> tuple[PolicyOptions, ...]:
    read = decode(document, (), Policies)
    return read.policies if read else ()


def read(options: str, per: str = "[user]") -> Policy:
    """What `{name: minute, per: [user], …}` becomes."""
    document = Document(f"policies: [{{name: minute, per: {per}, {options}}}]", file="weir.yaml")
    policies = decoded(document)
    assert document.errors() == []
    return policies[0].policy()


def test_the_least_one_can_say() -> None:
    assert read("limit: 5, window: 1m") == Policy(name="minute", per=("user",), limit=5, window=60_000)


def test_the_most_one_can_say_of_tokens() -> None:
    policy = read(
        "limit: 5, window: 1m, count: total-tokens, algorithm: sliding-window, burst: 10%, enforce: false, "
        "reserve: prompt-only, on-ledger-failure: local, count-cached: false",
        per="[user, credential, model, user]",
    )
    assert policy == Policy(
        name="minute",
        per=("credential", "model", "user"),  # once each, in an order that does not matter
        limit=5,
        window=60_000,
        count=Count.TOTAL,
        algorithm=Algorithm.SLIDING_WINDOW,
        burst=10,
        enforce=False,
        reserve=Reserve.PROMPT_ONLY,
        on_ledger_failure=OnLedgerFailure.LOCAL,
        count_cached=False,
    )


def test_the_most_one_can_say_of_costs_is_read_exactly() -> None:
    policy = read(
        "limit: 999999999.999999, window: month, timezone: Europe/Berlin, starts: 31, count: cost, weights: "
        '{"gpt-4o*": {prompt: 2.5, cached: 1.25, completion: 10, reasoning: 0.1, audio: 0.000001}, '
        '"*": {prompt: 1.1, completion: 1000000}}'
    )
    assert policy == Policy(
        name="minute",
        per=("user",),
        limit=Decimal("999999999.999999"),
        count=Count.COST,
        algorithm=Algorithm.FIXED_WINDOW,
        calendar=Calendar(Unit.MONTH, "Europe/Berlin", "31"),
        weights=(
            ("gpt-4o*", Weights(2_500_000, 10_000_000, cached=1_250_000, reasoning=100_000, audio=1)),
            ("*", Weights(1_100_000, 10**12)),
        ),
    )


@pytest.mark.parametrize(
    ("written", "window", "algorithm"),
    [
        ("30s", 30_000, Algorithm.LEAKY_BUCKET),
        ("1m", 60_000, Algorithm.LEAKY_BUCKET),
        ("24h, algorithm: fixed-window", 86_400_000, Algorithm.FIXED_WINDOW),
        ("3650d, algorithm: sliding-window", 3_650 * 86_400_000, Algorithm.SLIDING_WINDOW),
    ],
)
def test_a_window_has_a_length(written: str, window: int, algorithm: Algorithm) -> None:
    policy = read(f"limit: 5, window: {written}")
    assert (policy.window, policy.algorithm, policy.calendar) == (window, algorithm, None)


@pytest.mark.parametrize(
    ("written", "calendar"),
    [
        ("day", Calendar(Unit.DAY)),
        ('day, starts: "06:30", timezone: America/New_York', Calendar(Unit.DAY, "America/New_York", "06:30")),
        ("week, starts: thursday", Calendar(Unit.WEEK, "UTC", "thursday")),
        ('month, starts: "5"', Calendar(Unit.MONTH, "UTC", "5")),
        ("month, starts: 5", Calendar(Unit.MONTH, "UTC", "5")),
        ("year, starts: 04-01, algorithm: fixed-window", Calendar(Unit.YEAR, "UTC", "04-01")),
        ("year, starts: null, timezone: null", Calendar(Unit.YEAR)),
    ],
)
def test_or_it_is_of_the_calendar(written: str, calendar: Calendar) -> None:
    policy = read(f"limit: 5, window: {written}")
    assert (policy.calendar, policy.window) == (calendar, calendar.length)
    assert policy.algorithm is Algorithm.FIXED_WINDOW


def test_concurrency_has_neither_window_nor_algorithm() -> None:
    policy = read("limit: 3, count: concurrent-requests, window: null, algorithm: null")
    assert (policy.algorithm, policy.window, policy.kind) == (Algorithm.CONCURRENCY, 0, 5)


def test_the_highest_limit_still_has_room_for_a_burst() -> None:
    assert read(f"limit: {MOST}, window: 1m, burst: 350%").allowed == MOST * 1000


@pytest.mark.parametrize("path", sorted(DEFINITIONS.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_it_may_not_say_is_refused_in_its_place(path: Path) -> None:
    text = path.read_text()
    document = Document(text, file="weir.yaml")
    expected = [line.removeprefix(EXPECTED) for line in text.splitlines() if line.startswith(EXPECTED)]

    assert decoded(document) == ()
    assert document.errors() == [f"weir.yaml:{line}" for line in expected]
    assert expected


@pytest.mark.parametrize("name", ["Minute", "~minute", "a b", "m" * 33, "", "1"])
def test_a_name_is_a_word_that_no_record_of_the_ledger_has(name: str) -> None:
    document = Document(f'policies: [{{name: "{name}", per: [], limit: 1, window: 1m}}]', file="weir.yaml")
    assert decoded(document) == ()
    assert "policies[0].name" in document.errors()[0]
