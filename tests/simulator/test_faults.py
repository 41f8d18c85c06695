import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import uvicorn

from service.domain.tokens import Tokenizer
from service.simulator import application
from tests.simulator.conftest import Client

ASK: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "How deep is the river?"}]}
STREAM = ASK | {"stream": True}


@pytest.mark.parametrize(
    ("status", "type_"), [(400, "invalid_request_error"), (429, "tokens"), (503, "server_error")]
)
async def test_a_status_can_be_asked_for(client: Client, status: int, type_: str) -> None:
    answer = await client.send(STREAM, headers={"x-simulate": f"status={status}"})
    assert (answer.status, answer.json["error"]["type"]) == (status, type_)
    assert (answer.headers.get(b"retry-after") == b"1") == (status == 429)


async def test_a_bad_gateway_is_a_page_of_html(client: Client) -> None:
    answer = await client.send(ASK | {"model": "simulated-status-502"})
    assert (answer.status, answer.headers[b"content-type"]) == (502, b"text/html; charset=UTF-8")


async def test_a_cut_leaves_the_answer_unfinished(client: Client) -> None:
    for request in (STREAM, ASK):
        answer = await client.send(request, headers={"x-simulate": "cut=5"})
        assert (answer.status, len(answer.chunks), answer.ended) == (200, 5, False)
        assert b"content-length" not in answer.headers
    assert (await client.stats())["aborted"] == 2


async def test_an_early_end_looks_like_a_good_one(client: Client) -> None:
    answer = await client.send(STREAM, headers={"x-simulate": "end=5"})
    assert (len(answer.chunks), answer.ended) == (5, True)
    assert "[DONE]" not in answer.events


async def test_usage_can_be_missing_or_absurd(client: Client) -> None:
    wanted = STREAM | {"stream_options": {"include_usage": True}}
    assert "usage" not in (await client.send(ASK, headers={"x-simulate": "no-usage"})).json
    stream = await client.send(wanted, headers={"x-simulate": "no-usage"})
    assert all(event["usage"] is None for event in stream.events[:-1])
    bad = (await client.send(ASK, headers={"x-simulate": "usage=bad"})).json["usage"]
    assert bad == {"prompt_tokens": "many", "completion_tokens": -1, "total_tokens": True}
    stream = await client.send(wanted, headers={"x-simulate": "usage=bad"})
    assert stream.events[-2]["usage"] == bad


async def test_json_can_be_broken(client: Client) -> None:
    plain = await client.send(ASK, headers={"x-simulate": "malformed"})
    assert plain.ended
    with pytest.raises(ValueError, match=r"."):
        _ = plain.json
    stream = await client.send(STREAM, headers={"x-simulate": "malformed"})
    assert stream.chunks[-1] == b"data: [DONE]\n\n"
    broken = [chunk for chunk in stream.chunks if not chunk.endswith((b"}\n\n", b"[DONE]\n\n"))]
    assert broken == [stream.chunks[2]]


async def test_a_stalled_answer_ends_when_the_client_leaves(client: Client) -> None:
    answer = await client.send(STREAM, headers={"x-simulate": "stall=3"}, leave_after=3)
    assert (len(answer.chunks), answer.ended) == (3, False)
    answer = await client.send(ASK, headers={"x-simulate": "stall-head"}, leave_after=-1)
    assert answer.status == 0
    stats = await client.stats()
    assert (stats["requests"], stats["aborted"], stats["open"], stats["completed"]) == (2, 2, 0, 0)


async def test_nothing_more_is_produced_for_a_client_that_left(client: Client) -> None:
    answer = await client.send(STREAM, headers={"x-simulate-tokens": "1000"}, leave_after=11)
    assert len(answer.chunks) < 20
    stats = await client.stats()
    assert stats["aborted"] == 1
    assert stats["completion_tokens"] == len(answer.chunks) - 1


@pytest.fixture
async def url(tokenizer: Tokenizer) -> AsyncIterator[str]:
    """The address of a simulator behind a real socket."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(application(tokenizer), log_level="critical", lifespan="on")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    await serving


async def test_a_cut_is_a_broken_connection_on_a_real_socket(url: str) -> None:
    headers = {"authorization": "Bearer sk-test", "x-simulate": "cut=5"}
    received: list[bytes] = []

    async def read(answer: httpx.Response) -> None:
        async for chunk in answer.aiter_raw():
            received.append(chunk)

    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
        async with client.stream("POST", "/v1/chat/completions", json=STREAM) as answer:
            with pytest.raises(httpx.RemoteProtocolError):
                await read(answer)
        assert b"".join(received).count(b"\n\n") == 5
        stats = (await client.get("/simulator/stats")).json()
    assert (stats["requests"], stats["aborted"], stats["open"]) == (1, 1, 0)


async def test_a_client_that_leaves_a_real_socket_is_noticed(url: str) -> None:
    headers = {"authorization": "Bearer sk-test", "x-simulate": "stall=3"}
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
        async with client.stream("POST", "/v1/chat/completions", json=STREAM) as answer:
            await anext(answer.aiter_raw())
        async with asyncio.timeout(5):
            while (stats := (await client.get("/simulator/stats")).json())["open"]:
                pass
    assert stats["aborted"] == 1
