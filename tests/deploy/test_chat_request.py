"""The default definition's chat request is the official one, as the real API reads it."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service import interceptors
from service.domain.api import parse
from service.domain.chat import Chat
from service.domain.errors import InvalidRequest
from service.domain.exchange import Exchange
from service.interceptors.json_schema_validation import JsonSchemaValidation, Options

DEFINITION = Path(__file__).parents[2] / "deploy" / "OpenAI_Chat_Completions_API.yaml"
# A request that says everything there is to say: all 37 members, all roles, all kinds of parts.
EVERYTHING: dict[str, Any] = json.loads((Path(__file__).parent / "everything.json").read_text())
TEXT = {"type": "text", "text": "What is it?"}

# What the members of a request may be, from CreateChatCompletionRequest of openai/openai-openapi@f85dbe223d40
# (2026-08) and, marked *, from what the API is known to do beyond it: a cap is at least 1, and what its prose
# says of logit_bias and metadata. Ranges are inclusive, strings are counted in characters.
NUMBERS = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}
INTEGERS = {
    "n": (1, 128),
    "top_logprobs": (0, 20),
    "max_tokens": (1, 10**9),  # *
    "max_completion_tokens": (1, 10**9),  # *
    "seed": (-(2**63), 2**63 - 1),
}
BOOLEANS = ("stream", "logprobs", "store", "parallel_tool_calls")
STRINGS = ("user", "prompt_cache_key", "safety_identifier")
CHOICES = {
    "reasoning_effort": "none minimal low medium high xhigh max",
    "verbosity": "low medium high",
    "service_tier": "auto default flex scale priority fast",
    "prompt_cache_retention": "in_memory 24h",
    "tool_choice": "none auto required",
    "function_call": "none auto",
}
LISTS = ("tools", "functions", "modalities")
OBJECTS = (
    *("logit_bias", "metadata", "audio", "prediction", "response_format", "stream_options"),
    *("moderation", "prompt_cache_options", "web_search_options"),
)
OPTIONAL = [*NUMBERS, *INTEGERS, *BOOLEANS, *STRINGS, *CHOICES, *LISTS, *OBJECTS, "stop"]

API = parse(
    DEFINITION.read_text(),
    file=DEFINITION.name,
    variables={"UPSTREAM_URL": "http://models.test"},
    steps=interceptors.options(),
    phases=interceptors.phases(),
)
STEP = JsonSchemaValidation(
    Options(), interceptors.Tools(api=API, ledger=None, tokenizer=None, logs=None, metrics=None, digest=str)
)
JUDGE = jsonschema.Draft7Validator(API.request_schema)
LATER_JUDGE = jsonschema.Draft202012Validator(API.request_schema)


def chat(**members: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], **members}


def saying(**message: Any) -> dict[str, Any]:
    return chat(messages=[{"role": "user", "content": "hi"}, message])


async def refusal(document: dict[str, Any]) -> InvalidRequest | None:
    asked = Exchange("POST", "/v1/chat/completions", b"", [], chat=Chat(document=document, model="m"))
    try:
        await STEP.on_request(asked)
    except InvalidRequest as error:
        return error
    return None


async def test_a_request_may_say_everything_there_is_to_say() -> None:
    assert await refusal(EVERYTHING) is None
    assert len(EVERYTHING) == 37
    assert set(OPTIONAL) | {"model", "messages"} == set(EVERYTHING)
    assert set(API.request_schema["properties"]) == set(EVERYTHING)


@pytest.mark.parametrize("name", OPTIONAL)
async def test_null_for_an_optional_member_counts_as_omitted(name: str) -> None:
    assert await refusal(chat(**{name: None})) is None


@pytest.mark.parametrize(("name", "bounds"), [*NUMBERS.items(), *INTEGERS.items()])
async def test_a_number_has_its_bounds(name: str, bounds: tuple[int, int]) -> None:
    least, most = bounds
    kind = "integer" if name in INTEGERS else "decimal"
    assert await refusal(chat(**{name: least})) is None
    assert await refusal(chat(**{name: most})) is None
    below = await refusal(chat(**{name: least - 1}))
    assert below
    assert (below.param, below.code) == (name, f"{kind}_below_min_value")
    if not name.startswith("max_"):
        above = await refusal(chat(**{name: most + 1}))
        assert above
        assert (above.param, above.code) == (name, f"{kind}_above_max_value")


@pytest.mark.parametrize(("name", "choices"), CHOICES.items())
async def test_a_choice_is_among_few(name: str, choices: str) -> None:
    for choice in choices.split():
        assert await refusal(chat(**{name: choice})) is None
    other = await refusal(chat(**{name: "another"}))
    assert other
    assert (other.param, other.code) == (name, "invalid_value")
    assert all(f"'{choice}'" in other.message for choice in choices.split())


@pytest.mark.parametrize("name", OPTIONAL)
async def test_a_value_of_another_type_is_refused_by_its_name(name: str) -> None:
    wrong: Any = 7 if name not in (*NUMBERS, *INTEGERS) else "7"
    refused = await refusal(chat(**{name: wrong}))
    assert refused
    assert (refused.status, refused.param, refused.code) == (400, name, "invalid_type")
    assert refused.type == "invalid_request_error"


@pytest.mark.parametrize("name", INTEGERS)
async def test_neither_a_boolean_nor_half_a_number_is_an_integer(name: str) -> None:
    assert await refusal(chat(**{name: True}))
    assert await refusal(chat(**{name: 1.5}))


@pytest.mark.parametrize(
    "document",
    [
        chat(unknown={"a": [1]}),
        saying(role="user", content="hi", reasoning_content="hm"),
        saying(role="user", content=[]),
        saying(role="user", content=[{"type": "text", "text": "", "cache_control": {}}]),
        saying(role="user", content=[{"type": "image_url", "image_url": "https://a.test/b.png"}]),
        saying(role="assistant"),
        saying(role="assistant", content=None, tool_calls=None),
        chat(stop="a"),
        chat(tools=[]),
        chat(tool_choice={"type": "function", "function": {"name": "f"}}),
        chat(audio={"voice": "alloy", "format": "wav"}),
        chat(response_format={"type": "json_object", "schema": {}}),
        chat(logit_bias={}),
        chat(metadata={"k" * 64: "v" * 512}),
        chat(safety_identifier="s" * 64),
    ],
)
async def test_what_the_api_or_a_model_behind_it_takes_passes(document: dict[str, Any]) -> None:
    assert await refusal(document) is None


# What is asked, the path that is named, the code, and the message (as far as it says something of its own).


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value, but its root."""
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, member in members:
        yield (*path, key)
        yield from places(member, (*path, key))


PLACES = list(places(EVERYTHING))
ODDITIES = st.one_of(
    st.sampled_from([None, True, 0, 1, -1, 129, 1.0, 0.5, "", "text", "auto", "function", "user", [], {}]),
    st.sampled_from(
        [[""], [None], [{}], [[]], {"type": "text"}, {"role": "user"}, {"name": 1}, {"mode": None}]
    ),
    st.sampled_from([EVERYTHING["messages"][2], EVERYTHING["tools"][0], TEXT, EVERYTHING["tool_choice"]]),
)


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """The request that says everything, with a few of its values gone, or replaced by something odd."""
    document = copy.deepcopy(EVERYTHING)
    for path in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=3)):
        *way, last = path
        target: Any = document
        try:
            for part in way:
                target = target[part]
            if draw(st.booleans()):
                target[last] = draw(ODDITIES)
            else:
                del target[last]
        except (LookupError, TypeError):  # an earlier change took the place away
            continue
    return document


@settings(max_examples=400, deadline=None)
@given(mutated())
async def test_an_independent_judge_of_the_same_document_agrees(document: dict[str, Any]) -> None:
    accepted = await refusal(document) is None

    assert accepted == JUDGE.is_valid(document) == LATER_JUDGE.is_valid(document)


@pytest.mark.parametrize("path", PLACES, ids=str)
async def test_the_judge_agrees_wherever_one_value_is_gone_or_null(path: tuple[Any, ...]) -> None:
    for change in ("gone", "null"):
        document = copy.deepcopy(EVERYTHING)
        target: Any = document
        for part in path[:-1]:
            target = target[part]
        if change == "gone":
            del target[path[-1]]
        else:
            target[path[-1]] = None
        assert (await refusal(document) is None) == JUDGE.is_valid(document), change
