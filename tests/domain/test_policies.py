"""Policies: what the definition may say of one, and the policy it becomes."""

import pytest
from pydantic import ValidationError

from service.domain.account import Algorithm
from service.domain.api import kebab
from service.domain.policies import PolicyOptions
from service.domain.policy import MOST, Count, OnLedgerFailure, Policy, Reserve

LEAST = {"name": "minute", "per": ["user"], "limit": 5, "window": "1m"}


def read(**options: object) -> Policy:
    return PolicyOptions.model_validate({**LEAST, **options}).policy()


def test_the_least_one_can_say() -> None:
    assert read() == Policy(name="minute", per=("user",), limit=5, window=60_000)


def test_the_most_one_can_say() -> None:
    options = {
        "per": ["user", "credential", "model", "user"],
        "count": "completion-tokens",
        "algorithm": "fixed-window",
        "burst": "10%",
        "enforce": False,
        "reserve": "prompt-only",
        "on-ledger-failure": "allow",
    }
    assert read(**options) == Policy(
        name="minute",
        per=("credential", "model", "user"),  # once each, in an order that does not matter
        limit=5,
        window=60_000,
        count=Count.COMPLETION,
        algorithm=Algorithm.FIXED_WINDOW,
        burst=10,
        enforce=False,
        reserve=Reserve.PROMPT_ONLY,
        on_ledger_failure=OnLedgerFailure.ALLOW,
    )


def test_concurrency_has_neither_window_nor_algorithm() -> None:
    policy = PolicyOptions.model_validate(
        {"name": "streams", "per": [], "limit": 3, "count": "concurrent-requests"}
    ).policy()
    assert (policy.algorithm, policy.window, policy.per) == (Algorithm.CONCURRENCY, 0, ())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"window": None}, "expected a window such as 1m"),
        ({"count": "concurrent-requests"}, "expected neither window nor algorithm"),
        ({"count": "concurrent-requests", "window": None, "algorithm": "fixed-window"}, "neither window nor"),
        ({"limit": 0}, "greater than or equal to 1"),
        ({"limit": MOST + 1}, "less than or equal to"),
        ({"name": "Minute"}, "match pattern"),
        ({"name": "~minute"}, "match pattern"),
        ({"name": "a b"}, "match pattern"),
        ({"name": "m" * 33}, "match pattern"),
        ({"per": ["ip"]}, "credential"),
        ({"algorithm": "concurrency"}, "leaky-bucket"),
        ({"count": "tokens"}, "total-tokens"),
        ({"burst": "1001%"}, "less than or equal to 1000"),
        ({"unknown": 1}, "Extra inputs"),
    ],
)
def test_what_it_may_not_say(options: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        read(**options)


def test_members_are_written_with_hyphens() -> None:
    assert kebab("on_ledger_failure") == "on-ledger-failure"
