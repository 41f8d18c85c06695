"""Endings: however an exchange ends, nothing stays open, the charge is right, and it is told once."""

import asyncio
import json
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis

from service.adapters.ledger.embedded import EmbeddedStore, server_program
from service.domain.exchange import Exchange
from service.domain.tokens import Tokenizer
from service.domain.usage import OUTCOMES
from service.settings import Secret, Settings
from tests.adapters.ledger.world import frozen
from tests.world import (
    CALLER,
    CALLS,
    CLOSE,
    CUT,
    DONE,
    END,
    LIMITED,
    LOGGED,
    STALL,
    STREAM,
    TOGETHER,
    TOKENS,
    VALIDATED,
    Client,
    Model,
    Options,
    Words,
    World,
    becomes,
    piece,
    whole,
)

PROMPT = 8  # tokens of "Hi": 3 for the message, 1 for its role, 1 for the text, 3 for the reply
RESERVED = PROMPT + 100  # with the cap that is declared
PROVIDED = 9 + 7  # what the model says that it was

SHORT = "50ms"  # a timeout that a test waits for

USAGE = b'"usage":{"prompt_tokens":9,"completion_tokens":7,"total_tokens":16}'
ANSWER = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"Hello there"}}],%b}' % USAGE
UNCOUNTED = ANSWER.replace(b"," + USAGE, b"")
HELLO = b'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'
THERE = b'data: {"choices":[{"index":0,"delta":{"content":" there"}}]}\n\n'
COUNTED = b'data: {"choices":[],%b}\n\n' % USAGE
FAULT = b'data: {"error":{"message":"overloaded","type":"server_error"}}\n\n'
ENVELOPE = b'{"error":{"message":"no","type":"server_error","param":null,"code":null}}'
WORDS_OF_ITS_LIMIT = "x-ratelimit-limit-tokens: 5\r\nretry-after: 7\r\n"


def asking(*, stream: bool, **members: Any) -> bytes:
    document = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100}
    return json.dumps({**document, "stream": stream, **members}).encode()


# What the client does -----------------------------------------------------------------------------

Act = Callable[[Client, Model], Awaitable[None]]


async def stays(client: Client, model: Model) -> None:
    """To the end, whatever comes."""


async def leaves_before_the_body_is_sent(client: Client, model: Model) -> None:
    await becomes(lambda: client.listening)
    client.leave()


async def leaves_before_the_head(client: Client, model: Model) -> None:
    await becomes(lambda: model.heard)
    client.leave()


async def leaves_mid_stream(client: Client, model: Model) -> None:
    await client.got(THERE)
    client.leave()


async def stalls_and_leaves(client: Client, model: Model) -> None:
    await becomes(lambda: client.stalled)
    client.leave()


def at_the_head(client: Client) -> bool:
    return True


def at_content(client: Client) -> bool:
    return bool(client.content)


def at_the_end(client: Client) -> bool:
    return client.ended


async def is_cancelled(client: Client, model: Model) -> None:
    """As a server does that has no time left."""
    await client.got(THERE)
    assert client.task is not None
    client.task.cancel()


async def is_cancelled_while_it_sends(client: Client, model: Model) -> None:
    await becomes(lambda: client.stalled)
    assert client.task is not None
    client.task.cancel()


async def fail(exchange: Exchange) -> None:
    raise RuntimeError("a step of ours is broken")


async def promise_to_fail(exchange: Exchange) -> None:
    async def broken() -> None:
        raise RuntimeError("a promise of ours is broken")

    exchange.at_end(broken)


# The table ----------------------------------------------------------------------------------------

TIGHT = [{"rate-limit-ai-tokens": {"policies": [{**TOKENS, "limit": 50}, CALLS, TOGETHER]}}]


@dataclass(frozen=True)
class Ending:
    """One way to end: what happens, what the client sees, and what is right afterwards."""

    name: str
    outcome: str
    status: int | None  # what the client sees; None where there is no head
    charge: int  # tokens
    source: str  # who said so
    words: Words = ()  # the model's
    act: Act = stays
    stream: bool = False
    calls: int = 1  # requests that stay charged
    connection: str = "kept"  # upstream's: kept, closed, or none
    tail: bytes | None = None  # how the content ends; None where it is unfinished
    stalling: Callable[[Client], bool] = lambda client: False  # where the client takes no more
    pieces: bool = False  # the client hesitates in the middle of its body
    timeout: str = "20s"
    members: dict[str, Any] = field(default_factory=dict)
    request: list[Any] = field(default_factory=lambda: [LIMITED])
    response: list[Any] = field(default_factory=lambda: [LOGGED])
    refused: bool = False  # nobody listens upstream
    complaints: int = 0  # lines of the log that tell of a fault of ours


def ids(ending: Ending) -> str:
    return ending.name.replace(" ", "-")


# fmt: off
ENDINGS = [
    # It is complete.
    Ending("json", "complete", 200, PROVIDED, "provider", [whole(ANSWER)], tail=b"}"),
    Ending("json without usage", "complete", 200, PROMPT + 2, "local", [whole(UNCOUNTED)], tail=b"}"),
    Ending("stream", "complete", 200, PROVIDED, "provider",
           [STREAM, piece(HELLO), piece(COUNTED), piece(DONE), END], stream=True, tail=HELLO + DONE),
    Ending("stream without usage", "complete", 200, PROMPT + 2, "local",
           [STREAM, piece(HELLO), piece(THERE), piece(DONE), END], stream=True, tail=THERE + DONE),
    Ending("stream that says an error", "complete", 200, PROMPT + 1, "local",
           [STREAM, piece(HELLO), piece(FAULT), END], stream=True, tail=HELLO + FAULT),
    # The client leaves.
    Ending("left while sending", "client_gone", None, 0, "none",
           act=leaves_before_the_body_is_sent, pieces=True, calls=0, connection="none"),
    Ending("left before the head", "client_gone", None, RESERVED, "reservation", [STALL],
           act=leaves_before_the_head, connection="closed"),
    Ending("left before the head of a stream", "client_gone", None, RESERVED, "reservation", [STALL],
           act=leaves_before_the_head, stream=True, connection="closed"),
    Ending("left mid-stream", "client_gone", 200, PROMPT + 2, "local",
           [STREAM, piece(HELLO), piece(THERE), STALL],
           act=leaves_mid_stream, stream=True, connection="closed"),
    Ending("stalled mid-stream and left", "client_gone", 200, PROMPT + 2, "local",
           [STREAM + piece(HELLO) + piece(THERE), STALL],
           act=stalls_and_leaves, stalling=at_content, stream=True, connection="closed"),
    Ending("stalled at the head of a stream and left", "client_gone", 200, PROMPT, "local",
           [STREAM, piece(HELLO), STALL],
           act=stalls_and_leaves, stalling=at_the_head, stream=True, connection="closed"),
    Ending("stalled at the content of json and left", "client_gone", 200, PROVIDED, "provider",
           [whole(ANSWER)], act=stalls_and_leaves, stalling=at_the_end, tail=b"}"),
    Ending("stalled at a refusal and left", "rejected", 429, 0, "none",
           act=stalls_and_leaves, stalling=at_the_head, request=TIGHT, calls=0, connection="none"),
    Ending("stalled at the end of a stream cut short and left", "upstream_broken", 200, PROMPT + 1, "local",
           [STREAM, piece(HELLO), CUT], act=stalls_and_leaves, stalling=at_the_end, stream=True,
           tail=b'"code":null}}\n\n', connection="closed"),
    # The client stalls, and does not even leave.
    Ending("stalled mid-stream", "client_gone", 200, PROMPT + 2, "local",
           [STREAM + piece(HELLO) + piece(THERE), STALL],
           stalling=at_content, stream=True, timeout=SHORT, connection="closed"),
    Ending("stalled at the head of a stream", "client_gone", 200, PROMPT, "local",
           [STREAM, piece(HELLO), STALL],
           stalling=at_the_head, stream=True, timeout=SHORT, connection="closed"),
    Ending("stalled at the end of a stream", "client_gone", 200, PROVIDED, "provider",
           [STREAM, piece(COUNTED), piece(DONE), END],
           stalling=at_the_end, stream=True, timeout=SHORT, tail=DONE),
    Ending("stalled at the head of json", "client_gone", 200, PROVIDED, "provider", [whole(ANSWER)],
           stalling=at_the_head, timeout=SHORT),
    # Upstream does not do as it should.
    Ending("no listener", "upstream_refused", 502, 0, "none", refused=True, connection="none", tail=b"}"),
    Ending("500 in OpenAI's envelope", "upstream_error", 500, 0, "none", [whole(ENVELOPE, status=500)],
           tail=ENVELOPE),
    Ending("500 in HTML", "upstream_error", 502, 0, "none",
           [whole(b"<html>", status=500, kind="text/html")], tail=b"}"),
    Ending("a redirection", "upstream_error", 502, 0, "none",
           [whole(b"", status=302, fields="location: http://elsewhere/\r\n")], tail=b"}"),
    Ending("429 of its own", "upstream_error", 429, 0, "none",
           [whole(ENVELOPE, status=429, fields=WORDS_OF_ITS_LIMIT)], tail=ENVELOPE),
    Ending("not HTTP", "upstream_broken", 502, RESERVED, "reservation", [b"SSH-2.0-OpenSSH\r\n"],
           connection="closed", tail=b"}"),
    Ending("closed before the head", "upstream_broken", 502, RESERVED, "reservation", [CLOSE],
           connection="closed", tail=b"}"),
    Ending("json cut mid-body", "upstream_broken", 502, RESERVED, "reservation", [whole(ANSWER)[:-9], CUT],
           connection="closed", tail=b"}"),
    Ending("cut mid-stream", "upstream_broken", 200, PROMPT + 2, "local",
           [STREAM, piece(HELLO), piece(THERE), CUT], stream=True, tail=b'"code":null}}\n\n',
           connection="closed"),
    Ending("clean end without done", "upstream_broken", 200, PROMPT + 1, "local",
           [STREAM, piece(HELLO), END], stream=True, tail=b'"code":null}}\n\n'),
    Ending("clean end of a stream that said nothing", "upstream_broken", 200, PROMPT, "local",
           [STREAM, END], stream=True, tail=b'"code":null}}\n\n'),
    Ending("stall before the head", "timeout", 504, RESERVED, "reservation", [STALL], timeout=SHORT,
           connection="closed", tail=b"}"),
    Ending("stall mid-body", "timeout", 504, RESERVED, "reservation", [whole(ANSWER)[:-9], STALL],
           timeout=SHORT, connection="closed", tail=b"}"),
    Ending("stall mid-stream", "timeout", 200, PROMPT + 1, "local", [STREAM, piece(HELLO), STALL],
           stream=True, timeout=SHORT, connection="closed", tail=b'"code":"timeout"}}\n\n'),
    Ending("cut after all was said", "complete", 200, PROVIDED, "provider",
           [STREAM, piece(HELLO), piece(COUNTED), piece(DONE), CUT], stream=True, connection="closed",
           tail=DONE),
    Ending("stall after all was said", "complete", 200, PROVIDED, "provider",
           [STREAM, piece(HELLO), piece(COUNTED), piece(DONE), STALL], stream=True, timeout=SHORT,
           connection="closed", tail=DONE),
    # We refuse.
    Ending("refused by a policy", "rejected", 429, 0, "none", request=TIGHT, calls=0, connection="none",
           tail=b"}"),
    Ending("invalid before it was reserved", "rejected", 400, 0, "none", members={"temperature": "hot"},
           request=[VALIDATED, LIMITED], calls=0, connection="none", tail=b"}"),
    Ending("invalid after it was reserved", "rejected", 400, 0, "none", members={"temperature": "hot"},
           request=[LIMITED, VALIDATED], calls=0, connection="none", tail=b"}"),
    # We fail.
    Ending("a step fails before it is reserved", "failed", 500, 0, "none",
           request=[Options(request=fail), LIMITED], calls=0, connection="none", tail=b"}", complaints=1),
    Ending("a step fails after it is reserved", "failed", 500, 0, "none",
           request=[LIMITED, Options(request=fail)], connection="none", tail=b"}", complaints=1),
    Ending("a step fails at the answer", "failed", 500, PROVIDED, "provider", [whole(ANSWER)],
           response=[Options(response=fail), LOGGED], tail=b"}", complaints=1),
    Ending("a step fails at the answer of a stream", "failed", 500, PROMPT, "local",
           [STREAM, piece(HELLO), STALL], stream=True, response=[Options(response=fail), LOGGED],
           connection="closed", tail=b"}", complaints=1),
    Ending("a step fails at the answer nobody waits for", "client_gone", None, RESERVED, "reservation",
           [STALL], act=leaves_before_the_head, response=[Options(response=fail), LOGGED],
           connection="closed", complaints=1),
    Ending("a promise is broken", "complete", 200, PROVIDED, "provider", [whole(ANSWER)], tail=b"}",
           request=[Options(request=promise_to_fail), LIMITED], complaints=1),
    # The worker has to end.
    Ending("stopped while it refuses", "rejected", 429, 0, "none", act=is_cancelled_while_it_sends,
           stalling=at_the_head, request=TIGHT, calls=0, connection="none"),
    Ending("stopped mid-stream", "stopped", 200, PROMPT + 2, "local",
           [STREAM, piece(HELLO), piece(THERE), STALL], act=is_cancelled, stream=True, connection="closed"),
]
# fmt: on


async def _nobody() -> str:
    """An address where nobody listens."""
    async with Model() as gone:
        return gone.url


@pytest.mark.parametrize("ending", ENDINGS, ids=ids)
async def test_however_it_ends_it_is_accounted_for(
    ending: Ending, store_url: str, tokenizer: Tokenizer
) -> None:
    body = asking(stream=ending.stream, **ending.members)
    async with Model(ending.words) as model:
        upstream = await _nobody() if ending.refused else model.url
        world = World(
            store_url,
            tokenizer,
            upstream,
            request=ending.request,
            response=ending.response,
            timeout=ending.timeout,
        )
        async with world:
            pieces = [body[:20], None] if ending.pieces else body
            client = world.client(pieces, stalling=ending.stalling).start()
            await ending.act(client, model)
            await client.over()
            await world.quiet()

            assert client.status == ending.status
            assert client.ended is (ending.tail is not None)
            assert client.content.endswith(ending.tail or b"")
            assert world.reservations() == []
            charged = {"tokens": ending.charge, "calls": ending.calls, "together": 0}
            assert await world.charged() == charged
            await becomes(lambda: model.open == (ending.connection == "kept"), "upstream's connection")
            assert model.connections == (ending.connection != "none")
            assert world.metric("weir_requests_total") == 1
            assert world.metric("weir_requests_total", route="chat", outcome=ending.outcome) == 1
            assert world.metric("weir_usage_total", source=ending.source) == 1
            assert world.metric("weir_in_flight") == 0
            assert world.metric("weir_tokens_held") == 0

    (record,) = world.records("exchange.response")
    assert record["outcome"] == ending.outcome
    assert record["source"] == ending.source
    assert record["used"]["prompt"] + record["used"]["completion"] == ending.charge
    complaints = [*world.records("exchange.failed"), *world.records("exchange.ending")]
    assert len(complaints) == ending.complaints
    assert len(world.records()) == 3 + ending.complaints  # worker.ready, worker.stopped, and the exchange


@pytest.mark.parametrize(
    ("stream", "asked", "charge", "done"),
    [
        (False, "tokens=40", PROMPT + 40, "completed"),
        (True, "tokens=40", PROMPT + 40, "completed"),
        (False, "stall-head", RESERVED, "aborted"),
        (True, "stall=4", PROMPT + 3, "aborted"),  # an opening, and three words
    ],
    ids=["json", "stream", "left before the head", "left mid-stream"],
)
async def test_the_simulated_model_sees_it_end_as_it_did(
    stream: bool, asked: str, charge: int, done: str, store_url: str, simulated: str, tokenizer: Tokenizer
) -> None:
    def stats() -> dict[str, int]:
        with urllib.request.urlopen(f"{simulated}/simulator/stats", timeout=5) as answer:
            told: dict[str, int] = json.load(answer)
        return told

    before = stats()
    async with World(store_url, tokenizer, f"{simulated}/v1") as world:
        headers = [*CALLER, (b"x-simulate", asked.encode())]
        client = world.client(asking(stream=stream), headers=headers).start()
        if done == "aborted":
            await becomes(lambda: client.content.count(b"content") == 4 if stream else stats()["open"])
            client.leave()
        await client.over()
        await world.quiet()
        await becomes(lambda: not stats()["open"], "the model's end")
        after = stats()
        assert after[done] == before[done] + 1
        assert after["requests"] == before["requests"] + 1
        assert world.reservations() == []
        assert (await world.charged())["tokens"] == charge


async def test_a_connection_that_was_not_broken_carries_the_next_exchange(
    store_url: str, tokenizer: Tokenizer
) -> None:
    async with Model([whole(ANSWER)]) as model, World(store_url, tokenizer, model.url) as world:
        for _ in range(3):
            await world.client(asking(stream=False)).ask()
        assert len(model.heard) == 3
        assert model.connections == 1


async def test_its_own_429_tells_upstreams_limits_as_upstreams(store_url: str, tokenizer: Tokenizer) -> None:
    words = [whole(ENVELOPE, status=429, fields=WORDS_OF_ITS_LIMIT)]
    async with Model(words) as model, World(store_url, tokenizer, model.url) as world:
        client = await world.client(asking(stream=False)).ask()
    assert client.field("x-upstream-ratelimit-limit-tokens") == "5"
    assert client.field("x-ratelimit-limit-tokens") == "1000000"
    assert client.field("retry-after") == "7"


async def test_a_failure_of_ours_is_told_with_its_trace_in_the_log_and_with_nothing_to_the_client(
    store_url: str, tokenizer: Tokenizer
) -> None:
    async with World(store_url, tokenizer, "http://x", request=[Options(request=fail)]) as world:
        client = await world.client(asking(stream=False)).ask()
    assert client.error == {
        "message": "The gateway had an internal error.",
        "type": "server_error",
        "param": None,
        "code": None,
    }
    (record,) = world.records("exchange.failed")
    assert record["id"] == client.field("x-request-id")
    assert "a step of ours is broken" in json.dumps(record)


async def test_a_failure_after_the_head_ends_the_content_unfinished(
    store_url: str, tokenizer: Tokenizer
) -> None:
    """The connection is all that is left to say it with."""
    async with (
        Model([STREAM, piece(HELLO), piece(THERE), STALL]) as model,
        World(store_url, tokenizer, model.url) as world,
    ):
        client = world.client(asking(stream=True))
        taken = client._send

        async def break_down(message: Any) -> None:
            await taken(message)
            if THERE in client.content:
                raise RuntimeError("the server is broken")

        client._send = break_down  # type: ignore[method-assign]
        await client.start().over()
        await world.quiet()
        assert not client.ended
        assert world.metric("weir_requests_total", outcome="failed") == 1
        assert await world.charged() == {"tokens": PROMPT + 2, "calls": 1, "together": 0}
        assert world.reservations() == []


# Stopped while it ends ----------------------------------------------------------------------------


async def test_an_exchange_that_is_stopped_while_it_ends_is_settled_all_the_same(
    store_url: str, tokenizer: Tokenizer
) -> None:
    """Cancelled within its ending, an exchange was neither settled nor logged nor counted."""
    settling, go_on = asyncio.Event(), asyncio.Event()

    async def promise_to_wait(exchange: Exchange) -> None:
        async def wait() -> None:
            settling.set()
            await go_on.wait()

        exchange.at_end(wait)

    flow = [Options(request=promise_to_wait), LIMITED]
    async with Model([whole(ANSWER)]) as model, World(store_url, tokenizer, model.url, request=flow) as world:
        client = world.client(asking(stream=False)).start()
        await settling.wait()
        assert client.task is not None
        for _ in range(2):
            client.task.cancel()
            await asyncio.sleep(0)
        go_on.set()
        await client.over()
        await world.quiet()
        assert client.task.cancelled()
        assert await world.charged() == {"tokens": PROVIDED, "calls": 1, "together": 0}
        assert world.reservations() == []
        assert world.metric("weir_requests_total", outcome="complete") == 1
        assert world.metric("weir_in_flight") == 0
    assert len(world.records("exchange.response")) == 1


# The ledger is away -------------------------------------------------------------------------------

ALLOWING = [{**policy, "on-ledger-failure": "allow"} for policy in (TOKENS, CALLS, TOGETHER)]


async def test_without_its_ledger_a_policy_that_refuses_refuses(tokenizer: Tokenizer) -> None:
    async with Model() as model, World("unix:///nowhere/at/all", tokenizer, model.url) as world:
        client = await world.client(asking(stream=False)).ask()
        assert client.status == 503
        assert client.error["code"] == "rate_limiter_unavailable"
        assert client.error["type"] == "server_error"
        assert client.field("retry-after") == "1"
        assert model.heard == []
        assert world.metric("weir_requests_total", outcome="rejected", status="503") == 1
        assert world.metric("weir_refusals_total", policy="tokens", reason="ledger", enforced="true") == 1
        assert world.metric("weir_in_flight") == 0
    (record,) = world.records("exchange.response")
    assert record["policy"] == "tokens"
    assert record["outcome"] == "rejected"


async def test_what_passes_without_the_ledger_is_marked_and_charged_when_it_is_back(
    tokenizer: Tokenizer,
) -> None:
    flow = [{"rate-limit-ai-tokens": {"policies": ALLOWING}}]
    with EmbeddedStore(server_program()) as store:
        store.stop()
        async with (
            Model([whole(ANSWER)]) as model,
            World(store.url, tokenizer, model.url, request=flow) as world,
        ):
            client = await world.client(asking(stream=False)).ask()
            assert client.status == 200
            assert client.field("x-weir-degraded") == "tokens, calls, together"
            await world.quiet()
            assert world.tools.ledger.pending == 1
            store.start()
            await becomes(lambda: not world.tools.ledger.pending, "the delivery")
            await becomes(lambda: world.tools.ledger.available, "the ledger")
            assert (await world.charged(*ALLOWING))["tokens"] == PROVIDED
            assert world.reservations() == []
            again = await world.client(asking(stream=False)).ask()
            assert again.field("x-weir-degraded") is None


async def test_a_reservation_whose_fate_is_unknown_is_released(
    embedded: EmbeddedStore, tokenizer: Tokenizer
) -> None:
    """The store hears the reserve, and answers when nobody waits for it any more."""
    with redis.Redis.from_url(embedded.url) as direct:
        direct.flushall()
        async with Model() as model, World(embedded.url, tokenizer, model.url) as world:
            with frozen(embedded):
                client = await world.client(asking(stream=False)).ask()
            assert client.status == 503
            await world.quiet()
            await becomes(lambda: not world.tools.ledger.pending, "the release")
            await becomes(lambda: not world.reservations(), "the end of the reservation")
            assert await world.charged() == {"tokens": 0, "calls": 0, "together": 0}


async def test_a_client_that_leaves_while_it_is_reserved_leaves_nothing_behind(
    embedded: EmbeddedStore, tokenizer: Tokenizer
) -> None:
    with redis.Redis.from_url(embedded.url) as direct:
        direct.flushall()
        async with Model() as model, World(embedded.url, tokenizer, model.url) as world:
            with frozen(embedded):
                client = world.client(asking(stream=False)).start()
                await becomes(lambda: client.listening)
                client.leave()
                await client.over()
            await world.quiet()
            await becomes(lambda: not world.tools.ledger.pending, "the release")
            await becomes(lambda: not world.reservations(), "the end of the reservation")
            assert model.heard == []
            assert (await world.charged())["tokens"] == 0
            assert world.metric("weir_requests_total", outcome="client_gone") == 1


def test_every_outcome_there_is_stands_in_the_table() -> None:
    assert {ending.outcome for ending in ENDINGS} == set(OUTCOMES)


async def test_a_client_that_leaves_while_a_request_is_refused_is_charged_nothing(
    embedded: EmbeddedStore, tokenizer: Tokenizer
) -> None:
    """The ledger refuses when nobody listens any more: that is released, not settled."""
    once = {**CALLS, "limit": 1}
    flow = [{"rate-limit-ai-tokens": {"policies": [once]}}]
    with redis.Redis.from_url(embedded.url) as direct:
        direct.flushall()
        async with (
            Model([whole(ANSWER)]) as model,
            World(embedded.url, tokenizer, model.url, request=flow) as world,
        ):
            assert (await world.client(asking(stream=False)).ask()).status == 200
            await world.quiet()
            with frozen(embedded):
                client = world.client(asking(stream=False)).start()
                await becomes(lambda: client.listening)
                client.leave()
                await client.over()
            await world.quiet()
            await becomes(lambda: not world.tools.ledger.pending, "the release")
            assert await world.charged(once) == {"calls": 1}


async def test_who_leaves_while_waiting_for_a_connection_has_used_nothing(
    store_url: str, tokenizer: Tokenizer
) -> None:
    one = Settings(digest_key=Secret("a digest key of the tests"), upstream_connections=1)
    async with Model([STALL]) as model, World(store_url, tokenizer, model.url, settings=one) as world:
        first = world.client(asking(stream=False)).start()
        await becomes(lambda: len(model.heard) == 1, "the first request")
        second = world.client(asking(stream=False)).start()
        await becomes(lambda: len(world.reservations()) == 2, "the second reservation")
        second.leave()
        await second.over()
        assert (await world.charged())["tokens"] == RESERVED
        first.leave()
        await first.over()
        await world.quiet()
        assert len(model.heard) == 1
        assert (await world.charged())["tokens"] == RESERVED
