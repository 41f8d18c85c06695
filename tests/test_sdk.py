"""The official SDK through `weir serve` to `weir simulate`: it cannot tell them from the real thing."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from openai import (
    APIError,
    APIStatusError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    OpenAI,
    RateLimitError,
)
from openai.types.chat import ChatCompletionToolParam

from service.adapters.ledger.embedded import EmbeddedStore
from tests.programs import Gateway, definition, open_reservations, serving, simulating, until

MODEL = "gpt-4o"
ASK: list[Any] = [{"role": "user", "content": "How deep is the river?"}]
LIMIT = 400
USER_TOKENS = {"name": "user-tokens", "per": ["credential", "user"], "limit": LIMIT, "window": "2s"}
USER_CALLS = {
    "name": "user-calls",
    "per": ["credential", "user"],
    "limit": 60,
    "window": "1m",
    "count": "requests",
}
LOOK: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "look_around", "parameters": {"type": "object"}},
}


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    with simulating() as url:
        yield url


@pytest.fixture(scope="module")
def store() -> Iterator[EmbeddedStore]:
    with EmbeddedStore() as store:
        yield store


@pytest.fixture(scope="module")
def gateway(model: str, store: EmbeddedStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    file = definition(tmp_path_factory.mktemp("sdk"), USER_TOKENS, USER_CALLS, default_completion=100)
    with serving("--definition", str(file), UPSTREAM_URL=model, REDIS_URL=store.url) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.url}/v1", api_key="sk-of-the-tests-own", max_retries=0) as client:
        yield client


@pytest.fixture
async def aclient(gateway: Gateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=f"{gateway.url}/v1", api_key="sk-of-the-tests-own", max_retries=0
    ) as client:
        yield client


def simulate(words: str) -> dict[str, str]:
    return {"x-simulate": words}


def stats(model: str) -> dict[str, int]:
    answer: dict[str, int] = httpx.get(model.removesuffix("/v1") + "/simulator/stats").json()
    return answer


def test_an_answer_is_an_answer(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=ASK, user="ann")
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 40


async def test_an_answer_is_an_answer_to_the_asynchronous_client_too(aclient: AsyncOpenAI) -> None:
    answer = await aclient.chat.completions.create(model=MODEL, messages=ASK, user="bea")
    assert answer.choices[0].message.content
    assert answer.usage is not None


def test_a_stream_has_the_words_of_the_answer_and_no_usage_that_nobody_asked_for(client: OpenAI) -> None:
    with client.chat.completions.create(model=MODEL, messages=ASK, user="cid", stream=True) as stream:
        chunks = list(stream)
    assert len("".join(chunk.choices[0].delta.content or "" for chunk in chunks).split()) == 40
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all("usage" not in chunk.model_fields_set for chunk in chunks)


async def test_a_stream_that_is_asked_for_its_usage_ends_with_it(aclient: AsyncOpenAI) -> None:
    stream = await aclient.chat.completions.create(
        model=MODEL, messages=ASK, user="dan", stream=True, stream_options={"include_usage": True}
    )
    async with stream:
        chunks = [chunk async for chunk in stream]
    *others, last = chunks
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 40
    assert all(chunk.choices and chunk.usage is None for chunk in others)


def test_the_call_of_a_tool_comes_back_whole_and_in_a_stream(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=ASK, user="eve", tools=[LOOK], tool_choice="required"
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    with client.chat.completions.stream(
        model=MODEL, messages=ASK, user="eve", tools=[LOOK], tool_choice="required"
    ) as stream:
        final = stream.get_final_completion()
    [streamed] = final.choices[0].message.tool_calls or []
    for function in (call.function, streamed.function):
        assert function.name == "look_around"
        assert function.arguments == '{"echo": "How deep is the river?"}'


def test_two_choices_are_two_and_both_are_paid_for(client: OpenAI, gateway: Gateway) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=ASK, user="fay", n=2, max_completion_tokens=50
    )
    answer = raw.parse()
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 80
    record = gateway.waiting_for("exchange.response", id=raw.headers["x-request-id"])
    assert record["estimate"]["completion"] == 100
    assert record["used"]["completion"] == 80


def test_the_headers_say_how_much_is_left_and_which_request_it_was(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=ASK, user="gil", max_completion_tokens=50
    )
    left = int(raw.headers["x-ratelimit-remaining-tokens"])
    assert LIMIT - 100 < left < LIMIT - 50
    assert raw.headers["x-ratelimit-limit-tokens"] == str(LIMIT)
    assert raw.headers["x-ratelimit-reset-tokens"].endswith("ms")
    assert raw.headers["x-ratelimit-limit-requests"] == "60"
    assert raw.headers["x-ratelimit-remaining-requests"] == "59"
    assert raw.headers["x-ratelimit-reset-requests"] == "1s"
    assert raw.headers["x-request-id"].startswith("req_")
    assert raw.parse()._request_id == raw.headers["x-request-id"]


def test_leaving_a_stream_ends_it_upstream_within_a_second_and_gives_back_what_was_reserved(
    client: OpenAI, gateway: Gateway, model: str, store: EmbeddedStore
) -> None:
    before = stats(model)["aborted"]
    stream = client.chat.completions.create(
        model=MODEL,
        messages=ASK,
        user="hal",
        stream=True,
        max_completion_tokens=300,
        extra_headers=simulate("tokens=300, rate=20"),
    )
    with stream:
        for _ in range(3):
            next(stream)
        assert open_reservations(store.url) == 1
        id = stream.response.headers["x-request-id"]
    until(lambda: stats(model)["aborted"] == before + 1, within=1.0)
    record = gateway.waiting_for("exchange.response", id=id)
    assert record["outcome"] == "client_gone"
    assert 0 < record["used"]["completion"] < 20
    assert open_reservations(store.url) == 0


async def test_leaving_a_stream_of_the_asynchronous_client_ends_it_upstream_too(
    aclient: AsyncOpenAI, gateway: Gateway, model: str
) -> None:
    before = stats(model)["aborted"]
    stream = await aclient.chat.completions.create(
        model=MODEL,
        messages=ASK,
        user="ida",
        stream=True,
        max_completion_tokens=300,
        extra_headers=simulate("tokens=300, stall=3"),
    )
    async for _ in stream:
        break
    await stream.close()
    until(lambda: stats(model)["aborted"] == before + 1, within=1.0)


def test_a_refused_request_is_tried_again_when_it_was_told_to_and_succeeds(
    client: OpenAI, gateway: Gateway
) -> None:
    patient = client.with_options(max_retries=1)

    def ask() -> Any:
        return patient.chat.completions.with_raw_response.create(
            model=MODEL,
            messages=ASK,
            user="jon",
            max_completion_tokens=300,
            extra_headers=simulate("tokens=300"),
        )

    assert ask().retries_taken == 0
    again = ask()  # 216 tokens too many drain in 1.08 s; after its own 0.5 s it would be refused again
    assert (again.retries_taken, again.status_code) == (1, 200)


def test_a_request_that_can_never_fit_is_refused_once_and_not_tried_again(
    client: OpenAI, gateway: Gateway, model: str
) -> None:
    before = stats(model)["requests"]
    with pytest.raises(RateLimitError, match="Request too large") as refused:
        client.with_options(max_retries=5).chat.completions.create(
            model="never-fits", messages=ASK, max_completion_tokens=5000
        )
    assert (refused.value.code, refused.value.type) == ("rate_limit_exceeded", "tokens")
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.value.response.headers
    gateway.waiting_for("exchange.response", model="never-fits")
    assert len(gateway.records("exchange.request", model="never-fits")) == 1
    assert stats(model)["requests"] == before


def test_our_errors_are_the_sdks_proper_classes(client: OpenAI) -> None:
    with pytest.raises(AuthenticationError) as unknown:
        client.models.list(extra_headers={"authorization": "Basic abc"})
    assert unknown.value.response.headers["www-authenticate"] == "Bearer"
    with pytest.raises(NotFoundError, match="Invalid URL"):
        client.embeddings.create(model=MODEL, input="hello")
    with pytest.raises(BadRequestError) as bad:
        client.chat.completions.create(model=MODEL, messages=ASK, temperature="hot")  # type: ignore[call-overload]
    assert (bad.value.param, bad.value.type) == ("temperature", "invalid_request_error")
    with pytest.raises(BadRequestError) as without:
        client.chat.completions.create(model=MODEL, messages=[])
    assert without.value.param == "messages"
    with pytest.raises(RateLimitError) as refused:
        client.chat.completions.create(model=MODEL, messages=ASK, max_completion_tokens=5000)
    assert refused.value.code == "rate_limit_exceeded"
    for error in (unknown, bad, without, refused):
        assert error.value.request_id is not None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (401, AuthenticationError),
        (404, NotFoundError),
        (429, RateLimitError),
        (500, InternalServerError),
        (502, InternalServerError),
        (504, InternalServerError),
    ],
)
def test_upstreams_errors_are_the_sdks_proper_classes(
    client: OpenAI, status: int, kind: type[APIStatusError]
) -> None:
    with pytest.raises(kind) as failed:
        client.chat.completions.create(
            model=MODEL, messages=ASK, user="kim", extra_headers=simulate(f"status={status}")
        )
    assert failed.value.status_code == (502 if status == 504 else status)  # a page of HTML is no answer
    assert failed.value.body is not None


def test_a_stream_that_upstream_breaks_is_an_error_and_no_short_answer(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=ASK, user="leo", stream=True, extra_headers=simulate("cut=5")
    )
    with stream, pytest.raises(APIError, match="upstream"):
        list(stream)


def test_without_its_ledger_the_gateway_is_an_unavailable_service(model: str) -> None:
    with (
        serving(UPSTREAM_URL=model, REDIS_URL="unix:///nowhere/s") as gateway,
        OpenAI(base_url=f"{gateway.url}/v1", api_key="sk-x", max_retries=0) as client,
    ):
        with pytest.raises(InternalServerError) as failed:
            client.chat.completions.create(model=MODEL, messages=ASK)
        assert (failed.value.status_code, failed.value.code) == (503, "rate_limiter_unavailable")
        assert failed.value.response.headers["retry-after"] == "1"


def test_the_models_are_listed(client: OpenAI) -> None:
    assert MODEL in [model.id for model in client.models.list()]
