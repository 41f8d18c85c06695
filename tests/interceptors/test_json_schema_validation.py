"""A chat request that the definition does not accept is refused: what is wrong, where, in OpenAI's words."""

import copy
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service import interceptors
from service.domain.api import Api, parse
from service.domain.chat import Chat
from service.domain.errors import InvalidRequest
from service.domain.exchange import Exchange
from service.interceptors.json_schema_validation import JsonSchemaValidation, Options

DEFINITION = Path(__file__).parents[2] / "deploy" / "OpenAI_Chat_Completions_API.yaml"


def tools(**changed: Any) -> interceptors.Tools:
    api = parse(
        DEFINITION.read_text(),
        file=DEFINITION.name,
        variables={"UPSTREAM_URL": "http://models.test"},
        steps=interceptors.options(),
    )
    api = Api(**{name: getattr(api, name) for name in Api.__slots__} | changed)
    return interceptors.Tools(api=api, ledger=None, tokenizer=None, logs=None, metrics=None, digest=str)


TOOLS = tools()
STEP = JsonSchemaValidation(Options(), TOOLS)


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


TEXT = {"type": "text", "text": "What is it?"}

# What is asked, the path that is named, and the code.
REFUSED = [
    (chat(messages=[]), "messages", "empty_array"),
    ({"model": "m"}, "messages", "missing_required_parameter"),
    (chat(messages="hi"), "messages", "invalid_type"),
    (chat(messages=["hi"]), "messages[0]", "invalid_type"),
    (saying(content="hi"), "messages[1].role", "missing_required_parameter"),
    (saying(role="robot", content="hi"), "messages[1].role", "invalid_value"),
    (saying(role=None, content="hi"), "messages[1].role", "invalid_type"),
    (saying(role="user"), "messages[1].content", "missing_required_parameter"),
    (saying(role="user", content=7), "messages[1].content", "invalid_type"),
    (saying(role="user", content=None), "messages[1].content", "invalid_type"),
    (saying(role="user", content=["hi"]), "messages[1].content[0]", "invalid_type"),
    (
        saying(role="user", content=[TEXT, {"type": "text"}]),
        "messages[1].content[1].text",
        "missing_required_parameter",
    ),
    (saying(role="user", content=[{"type": "image"}]), "messages[1].content[0].type", "invalid_value"),
    (
        saying(role="system", content=[{"type": "file", "text": ""}]),
        "messages[1].content[0].type",
        "invalid_value",
    ),
    (saying(role="tool", content="hi"), "messages[1].tool_call_id", "missing_required_parameter"),
    (saying(role="assistant", tool_calls=[]), "messages[1].tool_calls", "empty_array"),
    (
        saying(role="assistant", tool_calls=[{"type": "function", "id": "1", "function": {"name": "f"}}]),
        "messages[1].tool_calls[0].function.arguments",
        "missing_required_parameter",
    ),
    (chat(n=0), "n", "integer_below_min_value"),
    (chat(temperature=2.5), "temperature", "decimal_above_max_value"),
    (chat(stop=list("abcde")), "stop", "array_above_max_length"),
    (chat(stop=[1]), "stop[0]", "invalid_type"),
    (chat(logit_bias={"50256": 101}), "logit_bias.50256", "integer_above_max_value"),
    (chat(logit_bias={"{x}": 0.5}), "logit_bias.{x}", "invalid_type"),
    (chat(functions=[]), "functions", "empty_array"),
    (chat(safety_identifier="s" * 65), "safety_identifier", "string_above_max_length"),
    (chat(model=""), "model", "empty_string"),
    (chat(metadata={str(k): "" for k in range(17)}), "metadata", "object_above_max_properties"),
    (chat(metadata={"k" * 65: ""}), "metadata", "invalid_value"),
    (chat(metadata={"k": "v" * 513}), "metadata.k", "string_above_max_length"),
    (chat(tool_choice=7), "tool_choice", "invalid_type"),
    (chat(tool_choice="maybe"), "tool_choice", "invalid_value"),
    (chat(tool_choice={"type": "function"}), "tool_choice.function", "missing_required_parameter"),
    (chat(tool_choice={}), "tool_choice.type", "missing_required_parameter"),
    (chat(function_call={}), "function_call.name", "missing_required_parameter"),
    (chat(response_format={"type": "xml"}), "response_format.type", "invalid_value"),
    (
        chat(response_format={"type": "json_schema"}),
        "response_format.json_schema",
        "missing_required_parameter",
    ),
    (
        chat(tools=[{"type": "function", "function": {}}]),
        "tools[0].function.name",
        "missing_required_parameter",
    ),
    (
        chat(tools=[{"type": "custom", "custom": {"name": "g", "format": {"type": "grammar"}}}]),
        "tools[0].custom.format.grammar",
        "missing_required_parameter",
    ),
    (chat(audio={"voice": {}, "format": "wav"}), "audio.voice.id", "missing_required_parameter"),
]


@pytest.mark.parametrize(("document", "path", "code"), REFUSED)
async def test_a_refusal_names_the_path_of_what_is_wrong(
    document: dict[str, Any], path: str, code: str
) -> None:
    refused = await refusal(document)

    assert refused
    assert (refused.status, refused.type) == (400, "invalid_request_error")
    assert (refused.param, refused.code) == (path, code)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"model": "m"}, "Missing required parameter: 'messages'."),
        (
            saying(role="robot", content="hi"),
            "Invalid value: 'robot'. Supported values are: "
            "'developer', 'system', 'user', 'assistant', 'tool', and 'function'.",
        ),
        (
            saying(role="user", content=7),
            "Invalid type for 'messages[1].content': "
            "expected one of a string or array, but got an integer instead.",
        ),
        (
            chat(n=0),
            "Invalid 'n': integer below minimum value. Expected a value >= 1, but got 0 instead.",
        ),
        (
            chat(temperature=2.5),
            "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 2.5 instead.",
        ),
    ],
)
async def test_a_refusal_says_what_is_wrong_as_openai_does(document: dict[str, Any], message: str) -> None:
    refused = await refusal(document)

    assert refused
    assert refused.message == message


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
        JsonSchemaValidation(Options(), tools(request_schema={"type": "nonsense", "components": {}}))
