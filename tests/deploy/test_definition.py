"""The default definition is valid OpenAPI, complete, and says what the gateway does."""

from pathlib import Path
from typing import Any

import openapi_spec_validator
import pytest
import yaml

from service import interceptors
from service.domain import errors
from service.domain.api import parse

PATH = Path(__file__).parents[2] / "deploy" / "OpenAI_Chat_Completions_API.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(PATH.read_text())
SCHEMAS = DOCUMENT["components"]["schemas"]
CHAT = DOCUMENT["paths"]["/v1/chat/completions"]["post"]

# The members of CreateChatCompletionRequest in openai/openai-openapi@f85dbe223d40 (2026-08).
MEMBERS = [
    *("audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs"),
    *("max_completion_tokens", "max_tokens", "messages", "metadata", "modalities", "model"),
    *("moderation", "n", "parallel_tool_calls", "prediction", "presence_penalty"),
    *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "reasoning_effort"),
    *("response_format", "safety_identifier", "seed", "service_tier", "stop", "store", "stream"),
    *("stream_options", "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user"),
    *("verbosity", "web_search_options"),
]
DEPRECATED = {"functions", "function_call", "max_tokens", "user", "seed", "prompt_cache_retention"}
# Keywords of JSON Schema that draft 7 lacks or reads otherwise than OpenAPI 3.1 does.
NOT_SHARED = {
    *("$defs", "definitions", "dependencies", "dependentRequired", "dependentSchemas", "prefixItems"),
    *(
        "additionalItems",
        "unevaluatedItems",
        "unevaluatedProperties",
        "minContains",
        "maxContains",
        "nullable",
    ),
}


def schemas(value: Any) -> list[dict[str, Any]]:
    """Every object below a value."""
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [
        *([value] if isinstance(value, dict) else []),
        *(inner for each in below for inner in schemas(each)),
    ]


def test_it_is_valid_openapi() -> None:
    openapi_spec_validator.validate(DOCUMENT)


def test_it_has_a_title_and_a_purpose() -> None:
    assert DOCUMENT["info"]["title"] == "OpenAI Chat Completions API"
    assert "Weir" in DOCUMENT["info"]["description"]


def test_a_request_has_all_members_of_the_official_one() -> None:
    assert sorted(SCHEMAS["ChatRequest"]["properties"]) == MEMBERS
    assert SCHEMAS["ChatRequest"]["required"] == ["model", "messages"]


def test_what_is_deprecated_is_marked() -> None:
    properties = {
        name: SCHEMAS[member["$ref"].rpartition("/")[2]] if "$ref" in member else member
        for name, member in SCHEMAS["ChatRequest"]["properties"].items()
    }

    assert {name for name, member in properties.items() if member.get("deprecated")} == DEPRECATED


def test_every_member_of_a_request_is_described() -> None:
    for name, member in SCHEMAS["ChatRequest"]["properties"].items():
        described = SCHEMAS[member["$ref"].rpartition("/")[2]] if "$ref" in member else member
        assert described.get("description"), name


def test_schemas_stay_within_what_openapi_and_draft_7_share() -> None:
    for schema in schemas(SCHEMAS):
        assert not NOT_SHARED & set(schema)
        assert "$ref" not in schema or len(schema) == 1, "draft 7 ignores what stands beside a reference"
        assert not isinstance(schema.get("exclusiveMinimum"), bool)


def test_a_union_of_objects_says_how_to_tell_them_apart() -> None:
    unions = [schema for schema in schemas(SCHEMAS) if "oneOf" in schema]

    assert len(unions) >= 8
    assert not [schema for schema in schemas(SCHEMAS) if "anyOf" in schema]
    for union in unions:
        targets = {each["$ref"] for each in union["oneOf"] if "$ref" in each}
        mapping = union.get("discriminator", {"mapping": {}})["mapping"]
        assert targets == set(mapping.values())
        for name, target in mapping.items():
            variant = SCHEMAS[target.rpartition("/")[2]]
            member = union["discriminator"]["propertyName"]
            assert variant["properties"][member]["enum"] == [name]
            assert member in variant["required"]


def test_every_schema_is_used() -> None:
    used = {schema["$ref"] for schema in schemas(DOCUMENT) if "$ref" in schema}

    assert {f"#/components/schemas/{name}" for name in SCHEMAS} - used == {
        "#/components/schemas/ChatCompletionChunk"
    }


@pytest.mark.parametrize(
    "error",
    [
        *(errors.InvalidRequest, errors.Unauthenticated, errors.Forbidden, errors.NotFound, errors.Gone),
        *(errors.TooLarge, errors.UnsupportedMedia, errors.RateLimited, errors.LimiterUnavailable),
        *(errors.UpstreamFailed, errors.UpstreamTimeout, errors.Rejection),
    ],
)
def test_every_refusal_of_ours_is_described(error: type[errors.Rejection]) -> None:
    name = CHAT["responses"][str(error.status)]["$ref"].rpartition("/")[2]

    assert DOCUMENT["components"]["responses"][name]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Error"
    }


def test_an_answer_has_an_id_choices_and_usage() -> None:
    answer, choice = SCHEMAS["ChatCompletion"], SCHEMAS["Choice"]

    assert {"id", "choices", "usage"} <= set(answer["properties"])
    assert {"message", "finish_reason"} <= set(choice["required"])
    assert {"application/json", "text/event-stream"} == set(
        DOCUMENT["components"]["responses"]["ChatCompletion"]["content"]
    )


def test_a_refusal_by_a_policy_has_the_headers_that_clients_wait_by() -> None:
    headers = DOCUMENT["components"]["responses"]["RateLimited"]["headers"]

    assert {"retry-after", "retry-after-ms", "x-should-retry", "ratelimit", "ratelimit-policy"} <= set(
        headers
    )
    assert {
        f"x-ratelimit-{what}-{of}"
        for what in ("limit", "remaining", "reset")
        for of in ("tokens", "requests")
    } <= set(headers)


def test_the_gateway_accepts_it_as_it_stands() -> None:
    api = parse(
        PATH.read_text(),
        file=PATH.name,
        variables={"UPSTREAM_URL": "http://models.test"},
        steps=interceptors.options(),
        phases=interceptors.phases(),
    )

    assert [step.name for step in api.response] == ["log"]


def test_callers_bring_a_bearer_token() -> None:
    assert DOCUMENT["security"] == [{"bearer": []}]
    assert DOCUMENT["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


def test_the_gateway_s_part_is_what_the_readme_promises() -> None:
    weir = DOCUMENT["x-weir"]
    steps = [next(iter(step)) for step in weir["flows"]["request"]]
    policies = weir["flows"]["request"][-1]["rate-limit-ai-tokens"]["policies"]

    assert (weir["lifecycle"], weir["base-path"], weir["timeout"]) == ("AVAILABLE", "/v1", "60s")
    assert steps == ["header", "log", "json-schema-validation", "rate-limit-ai-tokens"]
    assert weir["flows"]["response"] == [{"log": {}}]
    assert [policy["name"] for policy in policies] == [
        *("user-minute", "user-month", "user-calls", "user-streams", "key-minute", "everyone-minute")
    ]
    assert all("credential" in policy["per"] for policy in policies if "user" in policy["per"])
