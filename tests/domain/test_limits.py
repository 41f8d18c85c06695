"""Limits: which policies apply to whom, what reserves where nothing is declared, and what fits nobody."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.api import Api, DefinitionError, parse
from service.domain.chat import Chat
from service.domain.exchange import Exchange
from service.domain.limits import LimitOptions, Limits, claims, limits_by_plan, reserved
from service.domain.policy import Count, Policy, Reserve
from service.domain.usage import Estimate

DEFINITIONS = Path(__file__).parents[1] / "definitions" / "limits"
EXPECTED = "# expected "  # a bad definition ends with what must be said about it, a line each
REST = """
openapi: 3.1.0
info: {title: Chat, version: 1.0.0}
paths:
  /v1/chat/completions:
    post:
      requestBody:
        content: {application/json: {schema: {$ref: '#/components/schemas/Request'}}}
components: {schemas: {Request: {type: object}}}
"""


def read(text: str) -> Api:
    return decoded(text + REST)


def decoded(text: str) -> Api:
    return parse(text, file="weir.yaml", variables={}, steps={"rate-limit-ai-tokens": LimitOptions})


@pytest.mark.parametrize("path", sorted(DEFINITIONS.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_fits_nobody_is_refused_in_its_place(path: Path) -> None:
    text = path.read_text()
    expected = [line.removeprefix(EXPECTED) for line in text.splitlines() if line.startswith(EXPECTED)]
    with pytest.raises(DefinitionError) as refused:
        read(text)
    assert refused.value.errors == [f"weir.yaml:{line}" for line in expected]
    assert expected


# Plans --------------------------------------------------------------------------------------------

GOOD = """x-weir:
  lifecycle: AVAILABLE
  base-path: /v1
  timeout: 60s
  max-body: 32MB
  upstream: http://models.test/v1
  authentication: virtual-keys
  plans:
    pro:
      minute: {limit: 200, burst: 10%}
      extra: {per: [api], limit: 7, window: 1h}
      calls: null
      default-completion: 4096
    trial: {}
    team: {minute: {when: null}, default-completion: {"o3*": 8, "*": 4}}
    staff: {minute: null, calls: null, trials: null}
  flows:
    request:
      - rate-limit-ai-tokens:
          missing-user: refuse
          policies:
            - {name: minute, per: [user], limit: 20, window: 1m, when: {model: "gpt*"}}
            - {name: calls, per: [], limit: 5, window: 1m, count: requests}
            - {name: trials, per: [], limit: 1, window: 1d, when: {plan: "tr*"}}
    response: []
"""


def limits() -> dict[str, Limits]:
    api = read(GOOD)
    (step,) = api.request
    assert isinstance(step.options, LimitOptions)
    return limits_by_plan(step.options, api.plans)


def names(policies: Any) -> list[str]:
    return [policy.name for policy in policies]


@pytest.mark.parametrize(
    ("plan", "policies"),
    [
        ("", ["minute", "calls"]),
        ("pro", ["minute", "extra"]),
        ("trial", ["minute", "calls", "trials"]),
        ("team", ["minute", "calls"]),
        ("staff", []),
    ],
)
def test_a_plan_changes_adds_and_removes_policies(plan: str, policies: list[str]) -> None:
    assert names(limits()[plan].policies) == policies


def test_what_a_plan_does_not_say_stays_as_the_step_says_it() -> None:
    own, changed = limits()[""].policies[0], limits()["pro"].policies[0]
    assert (changed.limit, changed.burst) == (200, 10)
    assert (changed.per, changed.window, changed.when) == (own.per, own.window, own.when)
    assert changed.account == own.account
    assert limits()["team"].policies[0].when is None
    options = read(GOOD).plans["pro"]
    assert isinstance(options, LimitOptions)
    assert options.missing_user == "refuse"


def test_a_plan_may_have_a_cap_of_its_own() -> None:
    found = {plan: (one.caps.of("o3-mini"), one.caps.of("gpt-4o")) for plan, one in limits().items()}
    assert found == {
        "": (1024, 1024),
        "pro": (4096, 4096),
        "trial": (1024, 1024),
        "team": (8, 4),
        "staff": (1024, 1024),
    }


def test_what_is_wrong_with_a_plan_as_a_whole_is_said_of_the_plan() -> None:
    added = ", ".join(f"p{index}: {{per: [], limit: 1, window: 1m}}" for index in range(62))
    text = GOOD.replace("trial: {}", f"trial: {{{added}}}").replace(
        "missing-user: refuse", "missing-user: no"
    )
    with pytest.raises(DefinitionError) as refused:
        read(text)
    assert refused.value.errors == [
        "weir.yaml:14:12: x-weir.plans.trial: expected to have at most 64 items after validation, not 65",
        "weir.yaml:20:25: x-weir.flows.request[0].rate-limit-ai-tokens.missing-user: "
        "expected 'share' or 'refuse', not false",
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from(["minute", "pro", "gpt*", "1m", ""]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["name", "when", "plan", "limit", "user", "minute"]), inner, max_size=3
        )
    ),
    max_leaves=4,
)


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_whatever_stands_where_in_a_definition_it_is_good_or_told(data: st.DataObject) -> None:
    document = yaml.safe_load(GOOD + REST)
    node = document["x-weir"]
    while True:
        key = data.draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.integers(0, 5)) == 0:
            break
        node = node[key]
    node[key] = data.draw(JSON)
    errors = []
    try:
        decoded(json.dumps(document))
    except DefinitionError as refused:
        errors = refused.errors
    assert all(re.match(r"weir.yaml:\d+:\d+: .*expected ", error) for error in errors)


# What applies -------------------------------------------------------------------------------------


def exchange(user: str | None = None) -> Exchange:
    return Exchange("POST", "/v1/chat/completions", b"", [(b"x-team", b"red")], user=user)


def options(*policies: dict[str, Any], **others: Any) -> LimitOptions:
    least = {"per": [], "limit": 5, "window": "1m"}
    named = [{"name": f"p{index}", **least, **policy} for index, policy in enumerate(policies)]
    return LimitOptions.model_validate({"policies": named, **others})


def test_policies_without_a_condition_always_apply() -> None:
    (plain,) = limits_by_plan(options({}, {}), {}).values()
    assert plain.applying(exchange(), Chat({}, "gpt-4o")) is plain.policies


@pytest.mark.parametrize(
    ("when", "user", "chat", "applies"),
    [
        ({"model": "gpt*"}, None, Chat({}, "gpt-4o"), True),
        ({"model": "gpt*"}, None, Chat({}, "o3"), False),
        ({"user": ""}, None, Chat({}, "o3"), True),
        ({"user": ""}, "alice", Chat({}, "o3"), False),
        ({"stream": True}, None, Chat({}, "o3", stream=True), True),
        ({"stream": True}, None, Chat({}, "o3"), False),
        ({"header": {"X-Team": "red"}}, None, Chat({}, "o3"), True),
        ({"header": {"X-Team": "blue"}}, None, Chat({}, "o3"), False),
    ],
)
def test_a_policy_applies_where_its_condition_holds(
    when: dict[str, Any], user: str | None, chat: Chat, applies: bool
) -> None:
    (made,) = limits_by_plan(options({"when": when}, {}), {}).values()
    assert names(made.applying(exchange(user), chat)) == ["p0", "p1"][not applies :]


# What is reserved ---------------------------------------------------------------------------------

ESTIMATE = Estimate(prompt=10, completion=100, learned=30)


def test_a_cap_that_goes_upstream_is_what_is_reserved() -> None:
    for cap_completion, expected in ((False, Reserve.LEARNED), (True, Reserve.DECLARED)):
        (made,) = limits_by_plan(
            options(
                {},
                {"count": "cost", "weights": {"*": {"prompt": 1, "completion": 1}}},
                **{"cap-completion": cap_completion},
            ),
            {},
        ).values()
        assert {policy.reserve for policy in made.policies} == {expected}


def test_a_claim_is_for_a_subject_and_a_model() -> None:
    policy = Policy("a", ("user",), 5, 60_000)
    (claim,) = claims([policy], {("user",): "w1:{alice}"}, ESTIMATE, "gpt-4o")
    assert (claim.policy, claim.subject, claim.model) == (policy, "w1:{alice}", "gpt-4o")
    assert claim.amount == 40_000


@pytest.mark.parametrize(
    ("policies", "tokens"),
    [
        ([{"reserve": Reserve.PROMPT_ONLY}], 10),
        ([{"reserve": Reserve.PROMPT_ONLY}, {"reserve": Reserve.LEARNED}], 40),
        ([{"reserve": Reserve.LEARNED}, {"reserve": Reserve.DECLARED}, {"count": Count.REQUESTS}], 110),
        ([{"count": Count.REQUESTS}], 110),
    ],
)
def test_what_a_request_reserves_is_the_most_that_one_policy_counts(
    policies: list[dict[str, Any]], tokens: int
) -> None:
    made = [Policy("a", (), 5, 60_000, **policy) for policy in policies]
    assert reserved(claims(made, {(): "w1:{all}"}, ESTIMATE, "gpt-4o"), ESTIMATE) == tokens
