"""A chat request passes if the definition accepts it, and is refused in OpenAI's words if not."""

import contextlib
import copy
import json
import timeit
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from service.domain.api import Api, parse
from service.domain.chat import Chat
from service.domain.errors import InvalidRequest
from service.domain.exchange import Exchange
from service.interceptors import Tools
from service.interceptors.json_schema_validation import JsonSchemaValidation, Options

DEFINITION = Path(__file__).parents[2] / "deploy" / "OpenAI_Chat_Completions_API.yaml"

TEXT = {"type": "text", "text": "What is it?", "prompt_cache_breakpoint": {"mode": "explicit"}}
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}

# A request that says everything there is to say: all 37 members, all roles, all kinds of parts.
EVERYTHING: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [
        {"role": "developer", "content": "Be brief.", "name": "house"},
        {"role": "system", "content": [TEXT]},
        {
            "role": "user",
            "name": "ada",
            "content": [
                TEXT,
                {"type": "image_url", "image_url": {"url": "https://a.test/b.png", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "AA==", "file_id": "f1"}},
            ],
        },
        {
            "role": "assistant",
            "content": [TEXT, {"type": "refusal", "refusal": "No."}],
            "refusal": "No.",
            "name": "weir",
            "audio": {"id": "a1"},
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "2", "type": "custom", "custom": {"name": "g", "input": "x"}},
            ],
            "function_call": {"name": "f", "arguments": "{}"},
        },
        {"role": "tool", "tool_call_id": "1", "content": "done"},
        {"role": "function", "name": "f", "content": None},
    ],
    "max_completion_tokens": 100,
    "max_tokens": 100,
    "n": 2,
    "stream": True,
    "stream_options": {"include_usage": True, "include_obfuscation": False},
    "stop": ["a", "b"],
    "temperature": 0.5,
    "top_p": 1,
    "presence_penalty": -2,
    "frequency_penalty": 2,
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "top_logprobs": 20,
    "seed": -1,
    "user": "ada",
    "safety_identifier": "ada",
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "implicit", "ttl": "30m"},
    "prompt_cache_retention": "24h",
    "tools": [
        {"type": "function", "function": FUNCTION},
        {"type": "custom", "custom": {"name": "g", "format": {"type": "text"}}},
        {
            "type": "custom",
            "custom": {
                "name": "h",
                "description": "d",
                "format": {"type": "grammar", "grammar": {"definition": "x", "syntax": "lark"}},
            },
        },
    ],
    "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{}]}},
    "parallel_tool_calls": False,
    "functions": [FUNCTION],
    "function_call": {"name": "f"},
    "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}, "strict": None}},
    "modalities": ["text", "audio"],
    "audio": {"voice": {"id": "v"}, "format": "mp3"},
    "prediction": {"type": "content", "content": [TEXT]},
    "reasoning_effort": "high",
    "verbosity": "low",
    "service_tier": "flex",
    "store": False,
    "metadata": {"k": "v"},
    "moderation": {"model": "m", "policy": {"input": {"mode": "score"}, "output": {"mode": "block"}}},
    "web_search_options": {
        "search_context_size": "low",
        "user_location": {"type": "approximate", "approximate": {"country": "AT", "city": "Graz"}},
    },
}

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


class Anything(BaseModel, extra="allow"):
    pass


def tools(schema: dict[str, Any] | None = None) -> Tools:
    names = ("header", "log", "json-schema-validation", "rate-limit-ai-tokens")
    api = parse(
        DEFINITION.read_text(),
        file=DEFINITION.name,
        variables={"UPSTREAM_URL": "http://models.test"},
        steps=dict.fromkeys(names, Anything),
    )
    if schema is not None:
        api = Api(**{name: getattr(api, name) for name in Api.__slots__} | {"request_schema": schema})
    return Tools(api=api, ledger=None, tokenizer=None, logs=None, metrics=None, digest=str)


TOOLS = tools()
STEP = JsonSchemaValidation(Options(), TOOLS)
JUDGE = jsonschema.Draft7Validator(TOOLS.api.request_schema)
LATER_JUDGE = jsonschema.Draft202012Validator(TOOLS.api.request_schema)


def asking(document: dict[str, Any]) -> Exchange:
    return Exchange(
        method="POST",
        path="/v1/chat/completions",
        query=b"",
        headers=[],
        chat=Chat(document=document, model="m"),
    )


def chat(**members: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], **members}


def saying(**message: Any) -> dict[str, Any]:
    return chat(messages=[{"role": "user", "content": "hi"}, message])


async def refusal(document: dict[str, Any], step: JsonSchemaValidation = STEP) -> InvalidRequest | None:
    before = copy.deepcopy(document)
    try:
        await step.on_request(asking(document))
    except InvalidRequest as error:
        return error
    finally:
        assert document == before
    return None


async def test_a_request_may_say_everything_there_is_to_say() -> None:
    assert await refusal(EVERYTHING) is None
    assert len(EVERYTHING) == 37
    assert set(OPTIONAL) | {"model", "messages"} == set(EVERYTHING)
    assert set(TOOLS.api.request_schema["properties"]) == set(EVERYTHING)


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
REFUSED = [
    (
        chat(messages=[]),
        "messages",
        "empty_array",
        "Invalid 'messages': empty array. "
        "Expected an array with minimum length 1, but got an empty array instead.",
    ),
    ({"model": "m"}, "messages", "missing_required_parameter", "Missing required parameter: 'messages'."),
    (
        chat(messages="hi"),
        "messages",
        "invalid_type",
        "Invalid type for 'messages': expected an array, but got a string instead.",
    ),
    (
        chat(messages=["hi"]),
        "messages[0]",
        "invalid_type",
        "Invalid type for 'messages[0]': expected an object, but got a string instead.",
    ),
    (saying(content="hi"), "messages[1].role", "missing_required_parameter", None),
    (
        saying(role="robot", content="hi"),
        "messages[1].role",
        "invalid_value",
        "Invalid value: 'robot'. Supported values are: "
        "'developer', 'system', 'user', 'assistant', 'tool', and 'function'.",
    ),
    (saying(role=None, content="hi"), "messages[1].role", "invalid_type", None),
    (saying(role="user"), "messages[1].content", "missing_required_parameter", None),
    (
        saying(role="user", content=7),
        "messages[1].content",
        "invalid_type",
        "Invalid type for 'messages[1].content': "
        "expected one of a string or array, but got an integer instead.",
    ),
    (saying(role="user", content=None), "messages[1].content", "invalid_type", None),
    (saying(role="user", content=["hi"]), "messages[1].content[0]", "invalid_type", None),
    (saying(role="user", content=[TEXT, {"type": "text"}]), "messages[1].content[1].text", None, None),
    (
        saying(role="user", content=[{"type": "image"}]),
        "messages[1].content[0].type",
        "invalid_value",
        "Invalid value: 'image'. Supported values are: 'text', 'image_url', 'input_audio', and 'file'.",
    ),
    (
        saying(role="system", content=[{"type": "file", "text": ""}]),
        "messages[1].content[0].type",
        "invalid_value",
        "Invalid value: 'file'. Supported values are: 'text'.",
    ),
    (saying(role="tool", content="hi"), "messages[1].tool_call_id", "missing_required_parameter", None),
    (saying(role="assistant", tool_calls=[]), "messages[1].tool_calls", "empty_array", None),
    (
        saying(role="assistant", tool_calls=[{"type": "function", "id": "1", "function": {"name": "f"}}]),
        "messages[1].tool_calls[0].function.arguments",
        "missing_required_parameter",
        None,
    ),
    (
        chat(n=0),
        "n",
        "integer_below_min_value",
        "Invalid 'n': integer below minimum value. Expected a value >= 1, but got 0 instead.",
    ),
    (
        chat(temperature=2.5),
        "temperature",
        "decimal_above_max_value",
        "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 2.5 instead.",
    ),
    (
        chat(stop=list("abcde")),
        "stop",
        "array_above_max_length",
        "Invalid 'stop': array too long. "
        "Expected an array with maximum length 4, but got an array with length 5 instead.",
    ),
    (chat(stop=[1]), "stop[0]", "invalid_type", None),
    (chat(logit_bias={"50256": 101}), "logit_bias.50256", "integer_above_max_value", None),
    (chat(logit_bias={"{x}": 0.5}), "logit_bias.{x}", "invalid_type", None),
    (chat(functions=[]), "functions", "empty_array", None),
    (
        chat(safety_identifier="s" * 65),
        "safety_identifier",
        "string_above_max_length",
        "Invalid 'safety_identifier': string too long. "
        "Expected a string with maximum length 64, but got a string with length 65 instead.",
    ),
    (
        chat(model=""),
        "model",
        "empty_string",
        "Invalid 'model': empty string. "
        "Expected a string with minimum length 1, but got an empty string instead.",
    ),
    (chat(metadata={str(k): "" for k in range(17)}), "metadata", "object_above_max_properties", None),
    (chat(metadata={"k" * 65: ""}), "metadata", "invalid_value", None),
    (chat(metadata={"k": "v" * 513}), "metadata.k", "string_above_max_length", None),
    (
        chat(tool_choice=7),
        "tool_choice",
        "invalid_type",
        "Invalid type for 'tool_choice': expected one of a string or object, but got an integer instead.",
    ),
    (chat(tool_choice="maybe"), "tool_choice", "invalid_value", None),
    (chat(tool_choice={"type": "function"}), "tool_choice.function", "missing_required_parameter", None),
    (chat(tool_choice={}), "tool_choice.type", "missing_required_parameter", None),
    (chat(function_call={}), "function_call.name", "missing_required_parameter", None),
    (chat(response_format={"type": "xml"}), "response_format.type", "invalid_value", None),
    (chat(response_format={"type": "json_schema"}), "response_format.json_schema", None, None),
    (chat(tools=[{"type": "function", "function": {}}]), "tools[0].function.name", None, None),
    (
        chat(tools=[{"type": "custom", "custom": {"name": "g", "format": {"type": "grammar"}}}]),
        "tools[0].custom.format.grammar",
        "missing_required_parameter",
        None,
    ),
    (chat(audio={"voice": {}, "format": "wav"}), "audio.voice.id", "missing_required_parameter", None),
]


@pytest.mark.parametrize(("document", "path", "code", "message"), REFUSED)
async def test_a_refusal_names_the_path_and_says_why_as_openai_does(
    document: dict[str, Any], path: str, code: str | None, message: str | None
) -> None:
    refused = await refusal(document)
    assert refused
    assert refused.param == path
    assert code is None or refused.code == code
    assert message is None or refused.message == message


async def test_what_a_client_wrote_is_not_echoed_without_end() -> None:
    refused = await refusal(chat(verbosity="x" * 10_000))
    assert refused
    assert len(refused.message) < 250


async def test_the_status_may_be_417() -> None:
    refused = await refusal(chat(n=0), JsonSchemaValidation(Options(status=417), TOOLS))
    assert refused
    assert (refused.status, refused.code) == (417, "integer_below_min_value")


def test_no_other_status_is_an_option() -> None:
    with pytest.raises(ValidationError):
        Options.model_validate({"status": 422})


async def test_an_exchange_without_a_chat_is_none_of_its_business() -> None:
    exchange = asking({})
    exchange.chat = None

    await STEP.on_request(exchange)


def test_a_schema_that_is_none_is_refused_when_the_step_is_built() -> None:
    with pytest.raises(ValueError, match="not a JSON Schema of draft 7"):
        JsonSchemaValidation(Options(), tools({"type": "nonsense", "components": {}}))


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


def microseconds(run: Callable[[], object]) -> float:
    """What one run costs: the best of several hundred, taken together."""
    return min(timeit.repeat(run, number=100, repeat=7)) / 100 * 1e6


TURN = "Some words of a turn that is neither long nor short. " * 5


@pytest.mark.parametrize(
    ("document", "bound"),
    [
        (chat(max_completion_tokens=100), 40),
        (
            chat(messages=[{"role": ("user", "assistant")[turn % 2], "content": TURN} for turn in range(40)]),
            400,
        ),
    ],
    ids=["short", "40 turns"],
)
def test_validation_is_as_fast_as_promised(document: dict[str, Any], bound: float) -> None:
    """Bounds in microseconds; what json.loads of the same body costs is printed beside it."""
    exchange, text = asking(document), json.dumps(document)

    def validate() -> None:
        with contextlib.suppress(StopIteration):
            STEP.on_request(exchange).send(None)

    cost, loads = microseconds(validate), microseconds(lambda: json.loads(text))

    print(f"validation {cost:.1f} us, json.loads {loads:.1f} us")
    assert cost <= bound
