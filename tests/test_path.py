"""The one path: what happens to a request, in which order, and where a refusal leaves and rejoins it."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from service.domain.errors import InvalidRequest
from service.domain.exchange import Exchange
from service.domain.tokens import Tokenizer
from tests.world import (
    CALLER,
    DONE,
    END,
    LIMITED,
    LOGGED,
    STREAM,
    Client,
    Model,
    Options,
    Words,
    World,
    becomes,
    piece,
    whole,
)

ASKED = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
JSON = json.dumps(ASKED).encode()
STREAMED = json.dumps({**ASKED, "stream": True}).encode()
CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'
EMPTY = (whole(b"{}"),)

Order = list[str]


def marking(order: Order, name: str) -> Options:
    """A step that says when it is asked, in either flow, and at the end."""

    async def ended() -> None:
        order.append(f"end {name}")

    async def request(exchange: Exchange) -> None:
        order.append(f"request {name}")
        exchange.at_end(ended)

    async def response(exchange: Exchange) -> None:
        order.append(f"response {name}")

    return Options(request=request, response=response)


def refusing(order: Order) -> Options:
    async def refuse(exchange: Exchange) -> None:
        order.append("refused")
        raise InvalidRequest("Not this one.", param="messages")

    return Options(request=refuse)


def watching(order: Order) -> Callable[[Client], bool]:
    def watch(client: Client) -> bool:
        order.append("head" if len(client.messages) == 1 else "last" if client.ended else "content")
        return False

    return watch


async def walked(
    order: Order,
    world: Callable[..., World],
    *,
    body: bytes = JSON,
    words: Words = EMPTY,
    request: Sequence[Any] = (),
    **how: Any,
) -> Client:
    """Send one request through steps that say when they are asked; the order fills."""
    flow = [marking(order, "a"), *request, marking(order, "b")]
    answers = [marking(order, "c"), marking(order, "d")]
    async with (
        Model(words, notice=lambda: order.append("forwarded")) as model,
        world(model.url, request=flow, response=answers) as built,
    ):
        client = await built.client(body, stalling=watching(order), **how).ask()
        await built.quiet()
    return client


@pytest.fixture
def world(store_url: str, tokenizer: Tokenizer) -> Callable[..., World]:
    def make(upstream: str, **how: Any) -> World:
        return World(store_url, tokenizer, upstream, **how)

    return make


@pytest.fixture
def order() -> Order:
    return []


THE_WAY_IN = ["request a", "request b", "forwarded"]
THE_WAY_OUT = ["response c", "response d", "head"]


async def test_a_request_goes_the_whole_path_in_the_definitions_order(
    order: Order, world: Callable[..., World]
) -> None:
    await walked(order, world)
    assert order == [*THE_WAY_IN, *THE_WAY_OUT, "last", "end a", "end b"]


async def test_a_stream_goes_the_same_path(order: Order, world: Callable[..., World]) -> None:
    await walked(order, world, body=STREAMED, words=[STREAM + piece(CHUNK + DONE) + END])
    assert order == [*THE_WAY_IN, *THE_WAY_OUT, "content", "last", "end a", "end b"]


async def test_the_list_of_models_goes_the_same_path(order: Order, world: Callable[..., World]) -> None:
    await walked(order, world, body=b"", method="GET", path="/v1/models")
    assert order == [*THE_WAY_IN, *THE_WAY_OUT, "last", "end a", "end b"]


async def test_a_refusal_leaves_where_it_is_raised_and_rejoins_at_the_response_flow(
    order: Order, world: Callable[..., World]
) -> None:
    client = await walked(order, world, request=[refusing(order)])
    assert order == ["request a", "refused", *THE_WAY_OUT, "last", "end a"]
    assert client.status == 400


async def test_upstreams_failure_rejoins_at_the_response_flow_too(
    order: Order, world: Callable[..., World]
) -> None:
    client = await walked(order, world, words=[whole(b"<html>", status=503, kind="text/html")])
    assert order == [*THE_WAY_IN, *THE_WAY_OUT, "last", "end a", "end b"]
    assert client.status == 502


async def test_who_has_no_key_is_not_listened_to(order: Order, world: Callable[..., World]) -> None:
    """Neither the body nor a step of the request flow is looked at before the caller is known."""
    client = await walked(order, world, headers=[(b"content-type", b"application/json")])
    assert order == [*THE_WAY_OUT, "last"]
    assert client.status == 401
    assert not client.listening


async def test_what_is_elsewhere_rejoins_at_the_response_flow(
    order: Order, world: Callable[..., World]
) -> None:
    client = await walked(order, world, path="/v1/embeddings")
    assert order == [*THE_WAY_OUT, "last"]
    assert client.status == 404


# The end ------------------------------------------------------------------------------------------


async def test_promises_are_kept_first_asked_first_and_a_broken_one_stops_none(
    order: Order, world: Callable[..., World]
) -> None:
    async def promise(exchange: Exchange) -> None:
        async def broken() -> None:
            order.append("broken")
            raise RuntimeError("a promise of a step")

        async def asks_for_more() -> None:
            order.append("more")
            exchange.at_end(late)

        async def late() -> None:
            order.append("late")

        exchange.at_end(broken)
        exchange.at_end(asks_for_more)

    await walked(order, world, request=[Options(request=promise)])
    assert order[-5:] == ["end a", "broken", "more", "end b", "late"]


async def test_the_end_is_settled_then_logged_then_counted(world: Callable[..., World]) -> None:
    seen: dict[str, Any] = {}

    async def look(exchange: Exchange) -> None:
        """Asked between the limiter and the log."""

        async def at_end() -> None:
            seen["open"] = built.reservations()
            seen["settled"] = exchange.notes["settled"]
            seen["counted"] = built.metric("weir_requests_total")
            seen["in flight"] = built.metric("weir_in_flight")
            seen["ended"] = client.ended

        exchange.at_end(at_end)

    async with (
        Model([whole(b"{}")]) as model,
        world(model.url, request=[LIMITED], response=[Options(response=look), LOGGED]) as built,
    ):
        client = built.client(JSON)
        await client.ask()
        await built.quiet()
        assert built.metric("weir_requests_total") == 1
        assert built.metric("weir_in_flight") == 0
    assert seen == {"open": [], "settled": "settled", "counted": 0, "in flight": 1, "ended": True}
    (record,) = built.records("exchange.response")
    assert record["settled"] == "settled"


@pytest.mark.parametrize("body", [JSON, STREAMED], ids=["json", "stream"])
async def test_one_call_reserves_before_it_is_forwarded_and_one_settles_when_it_is_answered(
    body: bytes, world: Callable[..., World]
) -> None:
    answered = asyncio.Event()
    stream = body == STREAMED
    words: Words = [answered, STREAM + piece(CHUNK + DONE) + END if stream else whole(b"{}")]

    def calls(built: World) -> dict[str, float]:
        names = ("reserve", "settle", "renew", "release")
        return {name: built.metric("weir_ledger_calls_total", call=name) for name in names}

    async with Model(words) as model, world(model.url) as built:
        client = built.client(body).start()
        await becomes(lambda: model.heard)
        assert calls(built) == {"reserve": 1, "settle": 0, "renew": 0, "release": 0}
        assert len(built.reservations()) == 1
        answered.set()
        await client.over()
        await built.quiet()
        assert calls(built) == {"reserve": 1, "settle": 1, "renew": 0, "release": 0}


async def test_the_list_of_models_asks_the_ledger_nothing(world: Callable[..., World]) -> None:
    async with Model([whole(b"{}")]) as model, world(model.url) as built:
        await built.client(method="GET", path="/v1/models").ask()
        await built.quiet()
        assert built.metric("weir_ledger_calls_total") == 0


async def test_who_leaves_during_the_response_flow_is_logged_by_the_rest_of_it(
    world: Callable[..., World],
) -> None:
    """The flow had begun, so what came after the step that was left was never asked."""
    there = asyncio.Event()

    async def wait(exchange: Exchange) -> None:
        there.set()
        await asyncio.Event().wait()

    flow = [Options(response=wait), LOGGED]
    async with Model([whole(b"{}")]) as model, world(model.url, response=flow) as built:
        client = built.client(JSON).start()
        await there.wait()
        client.leave()
        await client.over()
    (record,) = built.records("exchange.response")
    assert record["outcome"] == "client_gone"


async def test_what_the_request_flow_does_to_the_fields_is_what_upstream_hears(
    world: Callable[..., World],
) -> None:
    flow = [{"header": {"set": {"x-gateway": "weir-${model}"}, "remove": ["cookie"]}}]
    async with Model([whole(b"{}")]) as model, world(model.url, request=flow) as built:
        await built.client(JSON, headers=[*CALLER, (b"cookie", b"a=b")]).ask()
    names = dict(model.fields)
    assert names[b"x-gateway"] == b"weir-gpt-4o"
    assert b"cookie" not in names
