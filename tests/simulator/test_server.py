import re
from collections.abc import Callable
from typing import Any

import pytest

from service.domain.tokens import Tokenizer
from tests.simulator.conftest import Client

ASK: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "How deep is the river?"}]}
STREAM = ASK | {"stream": True}
LOOK = {"type": "function", "function": {"name": "look_around", "parameters": {"type": "object"}}}
NAMED = {"type": "function", "function": {"name": "look_around"}}


async def test_a_plain_answer_has_openais_shape(client: Client, tokenizer: Tokenizer) -> None:
    answer = await client.send(ASK)
    assert answer.status == 200
    assert answer.ended
    assert answer.headers[b"content-type"] == b"application/json"
    assert answer.headers[b"content-length"] == b"%d" % len(answer.body)
    assert answer.headers[b"openai-version"] == b"2020-10-01"
    assert re.fullmatch(rb"req_[0-9a-f]{32}", answer.headers[b"x-request-id"])
    assert answer.headers[b"openai-processing-ms"].isdigit()
    document = answer.json
    assert (document["object"], document["model"], document["created"]) == (
        "chat.completion",
        "gpt-4o",
        1_700_000_000,
    )
    [choice] = document["choices"]
    assert (choice["index"], choice["finish_reason"], choice["message"]["role"]) == (0, "stop", "assistant")
    usage = document["usage"]
    assert usage["prompt_tokens"] == tokenizer.prompt(ASK, "gpt-4o").tokens
    assert usage["completion_tokens"] == tokenizer.count(choice["message"]["content"], "gpt-4o") == 40
    assert usage["total_tokens"] == usage["prompt_tokens"] + 40


async def test_the_same_request_gets_the_same_text_and_another_one_another(client: Client) -> None:
    first, again = await client.send(ASK), await client.send(ASK)
    other = await client.send(ASK | {"user": "ann"})
    assert first.json["choices"] == again.json["choices"] != other.json["choices"]
    assert first.json["id"] != again.json["id"]


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4"])
@pytest.mark.parametrize("length", [0, 1, 7, 500])
async def test_an_answer_is_as_long_as_it_is_asked_to_be(
    client: Client, tokenizer: Tokenizer, model: str, length: int
) -> None:
    answer = await client.send(ASK | {"model": model}, headers={"x-simulate-tokens": str(length)})
    content = answer.json["choices"][0]["message"]["content"]
    assert answer.json["usage"]["completion_tokens"] == tokenizer.count(content, model) == length


@pytest.mark.parametrize("cap", [{"max_tokens": 5}, {"max_completion_tokens": 5}])
async def test_a_cap_cuts_the_answer_to_the_token(client: Client, cap: dict[str, int]) -> None:
    answer = await client.send(ASK | cap | {"n": 3})
    assert [choice["finish_reason"] for choice in answer.json["choices"]] == ["length"] * 3
    assert answer.json["usage"]["completion_tokens"] == 15


async def test_a_stream_says_what_the_plain_answer_says_a_token_at_a_time(
    client: Client, tokenizer: Tokenizer
) -> None:
    answer = await client.send(STREAM)
    assert answer.headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert b"content-length" not in answer.headers
    *events, done = answer.events
    assert done == "[DONE]"
    assert answer.chunks[-1] == b"data: [DONE]\n\n"
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert all(event["choices"][0]["finish_reason"] is None for event in events[:-1])
    assert events[-1]["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]
    assert len({(event["id"], event["created"], event["object"]) for event in events}) == 1
    assert all("usage" not in event for event in events)
    pieces = [event["choices"][0]["delta"]["content"] for event in events[1:-1]]
    assert {tokenizer.count(piece, "gpt-4o") for piece in pieces} == {1}
    assert tokenizer.count("".join(pieces), "gpt-4o") == len(pieces) == 40


async def test_the_choices_of_a_stream_take_turns(client: Client) -> None:
    answer = await client.send(STREAM | {"n": 2, "max_tokens": 2})
    indexes = [choice["index"] for event in answer.events[:-1] for choice in event["choices"]]
    assert indexes == [0, 1, 0, 1, 0, 1, 0, 1]


async def test_usage_comes_last_where_it_is_wanted_and_is_null_before(
    client: Client, tokenizer: Tokenizer
) -> None:
    request = STREAM | {"stream_options": {"include_usage": True}, "n": 2}
    *events, last, done = (await client.send(request)).events
    assert all(event["usage"] is None for event in events)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 80
    assert last["usage"]["prompt_tokens"] == tokenizer.prompt(request, "gpt-4o").tokens
    assert done == "[DONE]"


@pytest.mark.parametrize("choice", ["required", NAMED])
async def test_a_tool_that_must_be_called_is_called_with_an_echo(
    client: Client, tokenizer: Tokenizer, choice: object
) -> None:
    answer = await client.send(ASK | {"tools": [LOOK], "tool_choice": choice})
    [only] = answer.json["choices"]
    assert only["finish_reason"] == "tool_calls"
    assert only["message"]["content"] is None
    [call] = only["message"]["tool_calls"]
    arguments = '{"echo": "How deep is the river?"}'
    assert call["function"] == {"name": "look_around", "arguments": arguments}
    expected = tokenizer.count("look_around", "gpt-4o") + tokenizer.count(arguments, "gpt-4o")
    assert answer.json["usage"]["completion_tokens"] == expected


async def test_a_tool_that_may_be_called_is_not(client: Client) -> None:
    for choice in ("auto", "none", None):
        answer = await client.send(ASK | {"tools": [LOOK], "tool_choice": choice})
        assert answer.json["choices"][0]["finish_reason"] == "stop"
    assert (await client.send(ASK | {"tool_choice": "required"})).json["choices"][0][
        "finish_reason"
    ] == "stop"


async def test_a_call_is_streamed_by_its_arguments(client: Client) -> None:
    answer = await client.send(STREAM | {"tools": [LOOK], "tool_choice": "required"})
    deltas = [event["choices"][0]["delta"] for event in answer.events[:-1]]
    [first] = deltas[0]["tool_calls"]
    assert first["function"] == {"name": "look_around", "arguments": ""}
    assert first["id"].startswith("call_")
    rest = [delta["tool_calls"][0] for delta in deltas[1:-1]]
    assert "".join(call["function"]["arguments"] for call in rest) == '{"echo": "How deep is the river?"}'


@pytest.mark.parametrize("cap", range(1, 12))
async def test_a_cap_cuts_a_call_too(client: Client, cap: int) -> None:
    answer = await client.send(ASK | {"tools": [LOOK], "tool_choice": NAMED, "max_tokens": cap})
    assert answer.json["usage"]["completion_tokens"] <= cap
    assert answer.json["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("request_", "headers", "status", "code", "param"),
    [
        (ASK, {"authorization": ""}, 401, None, None),
        (ASK, {"authorization": "Basic eDp5"}, 401, None, None),
        (ASK | {"model": "unknown-model"}, {}, 404, "model_not_found", None),
        ({"messages": []}, {}, 400, None, None),
        ({"model": "gpt-4o"}, {}, 400, "missing_required_parameter", "messages"),
        (ASK | {"stream_options": {"include_usage": True}}, {}, 400, None, "stream_options"),
        (ASK | {"n": 129}, {}, 400, "integer_above_max_value", "n"),
        (ASK, {"x-simulate": "dance"}, 400, None, None),
        (ASK | {"model": "simulated-dance"}, {}, 400, None, None),
    ],
)
async def test_what_is_wrong_is_said_in_openais_envelope(
    client: Client,
    request_: object,
    headers: dict[str, str],
    status: int,
    code: str | None,
    param: str | None,
) -> None:
    answer = await client.send(request_, headers=headers)
    error = answer.json["error"]
    assert (answer.status, error["code"], error["param"]) == (status, code, param)
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert b"x-request-id" in answer.headers


async def test_the_models_are_listed_and_nothing_else_is_found(client: Client) -> None:
    models = await client.send(method="GET", path="/v1/models")
    assert {"id", "object", "created", "owned_by"} <= set(models.json["data"][0])
    assert "gpt-4o" in {model["id"] for model in models.json["data"]}
    assert (await client.send(method="GET", path="/v1/models", headers={"authorization": ""})).status == 401
    missing = await client.send(method="GET", path="/v1/engines")
    assert (missing.status, missing.json["error"]["message"]) == (404, "Invalid URL (GET /v1/engines)")


async def test_a_client_that_leaves_before_its_request_is_whole_is_counted(client: Client) -> None:
    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(_: object) -> None:
        raise AssertionError

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}
    await client.app(scope, receive, send)
    assert (await client.stats())["aborted"] == 1


async def test_the_counters_add_up(client: Client, tokenizer: Tokenizer) -> None:
    await client.send(ASK)
    await client.send(STREAM)
    await client.send(ASK, headers={"authorization": ""})
    prompt = tokenizer.prompt(ASK, "gpt-4o").tokens
    assert await client.stats() == {
        "requests": 3,
        "open": 0,
        "completed": 3,
        "aborted": 0,
        "prompt_tokens": 2 * prompt,
        "completion_tokens": 80,
    }


async def test_it_takes_the_time_it_is_told_to_take(simulated: Callable[..., Client]) -> None:
    client = simulated(latency=0.5, rate=10.0)
    await client.send(STREAM | {"max_tokens": 3})
    assert client.waited == [0.5, 0.1, 0.1, 0.1]
    client.waited.clear()
    await client.send(ASK, headers={"x-simulate": "latency=2"})
    assert client.waited == [2, 4.0]


async def test_without_counting_the_usage_is_fixed(simulated: Callable[..., Client]) -> None:
    fixed = (await simulated(count=False).send(ASK)).json["usage"]
    assert (fixed["prompt_tokens"], fixed["completion_tokens"]) == (10, 40)
    fast = await simulated().send(ASK, headers={"x-simulate": "fast"})
    assert fast.json["usage"] == fixed


async def test_it_starts_and_stops_with_its_server(client: Client) -> None:
    received = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent = []

    async def receive() -> dict[str, str]:
        return next(received)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await client.app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
