"""Condition: a policy applies where every member of its `when` holds."""

import json
from typing import Any

import pytest

from service.domain.condition import Condition, ConditionOptions, Facts
from service.domain.globs import Globs

FACTS = Facts("gpt-4o", "alice", True, [(b"x-team", b"red"), (b"x-team", b"blue"), (b"x-odd", b"\xe9\xff")])


def read(**options: Any) -> Condition:
    return ConditionOptions.model_validate_json(json.dumps(options), strict=True).condition()


def test_it_is_written_as_globs_or_lists_of_them() -> None:
    assert read(model="gpt*", plan=["pro", "team"], user="", stream=False, header={"X-Team": ["a", "b"]}) == (
        Condition(
            Globs(("gpt*",)), Globs(("pro", "team")), Globs(("",)), ((b"x-team", Globs(("a", "b"))),), False
        )
    )


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        ({"model": "gpt*"}, True),
        ({"model": ["o3*", "gpt-4?"]}, True),
        ({"model": "GPT*"}, False),
        ({"user": "a*"}, True),
        ({"user": ["", "bob"]}, False),
        ({"stream": True}, True),
        ({"stream": False}, False),
        ({"header": {"X-Team": "red, blue"}}, True),
        ({"header": {"x-team": "red"}}, False),
        ({"header": {"x-odd": "éÿ"}}, True),
        ({"header": {"x-none": ""}}, True),
        ({"header": {"x-none": "?*"}}, False),
        (
            {"model": "gpt*", "user": "alice", "stream": True, "header": {"x-team": "red*", "x-odd": "*"}},
            True,
        ),
        (
            {"model": "gpt*", "user": "alice", "stream": True, "header": {"x-team": "red*", "x-odd": ""}},
            False,
        ),
        ({"model": "gpt*", "user": "bob", "stream": True}, False),
        ({"model": "o3", "user": "alice", "stream": True}, False),
    ],
)
def test_all_its_members_must_hold(when: dict[str, Any], holds: bool) -> None:
    assert read(**when).holds(FACTS) is holds


@pytest.mark.parametrize(
    ("when", "plan", "admits"),
    [
        ({"model": "o3"}, "pro", True),
        ({"plan": "p*"}, "pro", True),
        ({"plan": "p*"}, "free", False),
        ({"plan": ["free", ""]}, "", True),
        ({"plan": "?*"}, "", False),
    ],
)
def test_a_plan_is_admitted_or_not_before_there_is_a_request(
    when: dict[str, Any], plan: str, admits: bool
) -> None:
    assert read(**when).admits(plan) is admits
