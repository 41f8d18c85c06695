"""Transparency: what the gateway does not need to change passes byte for byte, both ways."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from service.domain.tokens import Tokenizer
from tests.world import (
    CALLER,
    DONE,
    END,
    KEY,
    LIMITED,
    LOGGED,
    STREAM,
    VALIDATED,
    Client,
    Model,
    World,
    piece,
    whole,
)

# Unknown members, odd white space, escapes of every kind, and numbers that no float or int64 holds.
ODD = (
    b'\r\n\t{"model" : "gpt-4o",\t"messages":[ {"role":"user","content":"\\u0048i \\/ \\ud83d\\ude00'
    b' \xf0\x9f\x8c\x8a" ,"x-unknown":{"deep":[1,[2,{"n":null}]]}} ] , "seed":1180591620717411303424,'
    b'"temperature":1.0000000000000001,"huge":1e400,"tiny":-0.0e-5,"ex":1E+2,"empty":{ },'
    b'"metadata":{"\\u00e9":"\\t"},"user":"al\\u0069ce"}\n'
)

Built = Callable[..., World]


@pytest.fixture
def world(store_url: str, tokenizer: Tokenizer) -> Built:
    def make(upstream: str, request: Sequence[Any] = (VALIDATED, LIMITED), **how: Any) -> World:
        return World(store_url, tokenizer, upstream, request=request, **how)

    return make


async def passed(world: Built, words: Sequence[Any], body: bytes = ODD, **how: Any) -> tuple[Client, Model]:
    """One request and its answer."""
    async with Model(words) as model, world(model.url) as built:
        return await built.client(body, **how).ask(), model


# The request --------------------------------------------------------------------------------------


async def test_a_request_reaches_upstream_byte_for_byte(world: Built) -> None:
    client, model = await passed(world, [whole(b"{}")])
    assert client.status == 200
    assert model.body == ODD


async def test_a_request_may_come_in_whatever_pieces(world: Built) -> None:
    async with Model([whole(b"{}")]) as model, world(model.url) as built:
        await built.client([ODD[:1], b"", ODD[1:77], ODD[77:]]).ask()
    assert model.body == ODD


async def test_a_long_request_reaches_upstream_byte_for_byte(world: Built) -> None:
    """Longer than what is handed to the connection at a time."""
    body = b'{"model":"gpt-4o","messages":[{"role":"user","content":"' + b"weir " * 500_000 + b'"}]}'
    async with Model([whole(b"{}")]) as model, world(model.url, request=[], max_body="4MB") as built:
        client = await built.client(body).ask()
    assert client.status == 200
    assert model.body == body


REST = b',"model":"gpt-4o","messages":[{"role":"user","content":"\\u0048i"}],"x":[1e400 , 2]}'


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (b'{ "stream":true', b'{"stream_options":{"include_usage":true}, "stream":true'),
        (
            b'{"stream":true ,"stream_options" : null ',
            b'{"stream":true ,"stream_options" : {"include_usage":true} ',
        ),
        (b'{"stream":true,"stream_options":{}', b'{"stream":true,"stream_options":{"include_usage":true}'),
        (
            b'{"stream":true,"stream_options":{ "include_usage" : false }',
            b'{"stream":true,"stream_options":{ "include_usage" : true }',
        ),
        (
            b'{"stream":true,"stream_options":{ "include_obfuscation":false}',
            b'{"stream":true,"stream_options":{"include_usage":true, "include_obfuscation":false}',
        ),
        (
            b'{"stream":true,"stream_\\u006fptions":{"include_usage":null}',
            b'{"stream":true,"stream_\\u006fptions":{"include_usage":true}',
        ),
    ],
    ids=["absent", "null", "empty", "false", "others", "escaped"],
)
async def test_a_stream_without_usage_is_asked_for_it_by_a_splice_and_by_nothing_else(
    said: bytes, heard: bytes, world: Built
) -> None:
    _, model = await passed(world, [STREAM + piece(DONE) + END], said + REST)
    assert model.body == heard + REST


@pytest.mark.parametrize(
    "said",
    [b'{"stream":true,"stream_options":{"include_usage" :true}', b'{"stream":false', b'{"stream" : null'],
    ids=["usage asked for", "no stream", "null"],
)
async def test_what_needs_no_splice_gets_none(said: bytes, world: Built) -> None:
    words = [STREAM + piece(DONE) + END] if b"options" in said else [whole(b"{}")]
    _, model = await passed(world, words, said + REST)
    assert model.body == said + REST


async def test_fields_pass_but_for_those_of_the_connection(world: Built) -> None:
    passing = [
        (b"authorization", b"Bearer " + KEY.encode()),
        (b"content-type", b"application/json; charset=utf-8"),
        (b"user-agent", b"OpenAI/Python 3.1"),
        (b"accept", b"application/json"),
        (b"x-stainless-retry-count", b"0"),
        (b"openai-organization", b"org-1"),
        (b"x-unknown", b'one, "two";q=0.5'),
        (b"cookie", b"a=b"),
        (b"idempotency-key", b"k"),
    ]
    staying = [
        (b"host", b"weir.example"),
        (b"connection", b"keep-alive, X-Of-This-Hop"),
        (b"x-of-this-hop", b"1"),
        (b"keep-alive", b"timeout=5"),
        (b"te", b"trailers"),
        (b"trailer", b"x-sum"),
        (b"upgrade", b"h2c"),
        (b"proxy-authorization", b"Basic eA=="),
        (b"expect", b"100-continue"),
        (b"accept-encoding", b"gzip, br"),
        (b"content-length", b"%d" % len(ODD)),
    ]
    _, model = await passed(world, [whole(b"{}")], headers=[*staying, *passing])
    host = model.url.removeprefix("http://").removesuffix("/v1").encode()
    ours = [(b"host", host), (b"accept-encoding", b"identity"), (b"content-length", b"%d" % len(ODD))]
    heard = [field for field in model.fields if field[0] != b"traceparent"]
    assert sorted(heard) == sorted([*passing, *ours])
    assert len(heard) == len(model.fields) - 1


async def test_a_field_that_is_there_twice_travels_twice_in_the_same_order(world: Built) -> None:
    twice = [(b"x-unknown", b"one"), (b"x-unknown", b"two")]
    _, model = await passed(world, [whole(b"{}")], headers=[*CALLER, *twice])
    assert [field for field in model.fields if field in twice] == twice


# The trace ----------------------------------------------------------------------------------------

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACED = [
    (b"traceparent", f"00-{TRACE}-{SPAN}-01".encode()),
    (b"tracestate", b"rojo=1 , congo=t61"),
    (b"tracestate", b"b=2"),
]
BOTH = {"request": [LOGGED], "response": [LOGGED]}


def told(model: Model) -> list[str]:
    """The four parts of the one traceparent that upstream heard."""
    (value,) = [value for name, value in model.fields if name == b"traceparent"]
    return value.decode().split("-")


async def traced(world: Built, fields: Sequence[Any], **how: Any) -> tuple[Client, Model, World]:
    """One request with these fields, logged at both ends."""
    async with Model([whole(b"{}")]) as model, world(model.url, **{**BOTH, **how}) as built:
        client = await built.client(ODD, headers=[*CALLER, *fields]).ask()
    return client, model, built


async def test_a_trace_goes_on_upstream_with_a_span_of_our_own_that_the_log_knows(world: Built) -> None:
    _, model, built = await traced(world, TRACED)
    version, trace, span, flags = told(model)
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert span != SPAN
    assert [field for field in model.fields if field[0] == b"tracestate"] == TRACED[1:]
    records = [*built.records("exchange.request"), *built.records("exchange.response")]
    known = [(record["trace"], record["span"], record["parent"]) for record in records]
    assert known == [(TRACE, span, SPAN)] * 2


@pytest.mark.parametrize(
    "fields",
    [[], TRACED[1:], [(b"traceparent", b"00-none")], [TRACED[0], *TRACED]],
    ids=["none", "no parent", "invalid", "twice"],
)
async def test_without_one_valid_trace_a_new_one_begins(fields: list[Any], world: Built) -> None:
    _, model, built = await traced(world, fields)
    _, trace, span, flags = told(model)
    assert trace != TRACE
    assert flags == "00"
    assert b"tracestate" not in dict(model.fields)
    (record,) = built.records("exchange.response")
    assert (record["trace"], record["span"], record["parent"]) == (trace, span, None)


async def test_a_client_hears_nothing_of_the_trace(world: Built) -> None:
    client, model, _ = await traced(world, TRACED)
    assert told(model)[2] not in repr(client.fields)
    assert TRACE not in repr(client.fields)
    assert {b"traceparent", b"tracestate", b"traceresponse"} & dict(client.fields).keys() == set()


async def test_a_refusal_is_logged_in_the_trace_too(world: Built) -> None:
    async with Model() as model, world(model.url, response=[LOGGED]) as built:
        await built.client(ODD, headers=TRACED).ask()
    (record,) = built.records("exchange.response")
    assert (record["status"], record["trace"], record["parent"]) == (401, TRACE, SPAN)


@pytest.mark.parametrize("fields", [[], TRACED], ids=["none", "traced"])
async def test_who_removes_the_fields_of_the_trace_sends_none(fields: list[Any], world: Built) -> None:
    """And the log goes on knowing it."""
    flow = [{"header": {"remove": ["traceparent", "tracestate"]}}, LOGGED]
    _, model, built = await traced(world, fields, request=flow)
    assert {b"traceparent", b"tracestate"} & dict(model.fields).keys() == set()
    (record,) = built.records("exchange.response")
    assert (record["trace"] == TRACE) == bool(fields)


async def test_the_header_step_may_tell_the_trace_in_other_words(world: Built) -> None:
    flow = [{"header": {"set": {"traceparent": "00-${trace.id}-${trace.span}-01"}}}, LOGGED]
    _, model, built = await traced(world, [], request=flow)
    (record,) = built.records("exchange.response")
    assert told(model) == ["00", record["trace"], record["span"], "01"]


# The place ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [b"", b"api-version=2024-10-21&x=%20+%C3%A9&&y", b"a=b?c"])
async def test_the_query_passes_as_it_is(query: bytes, world: Built) -> None:
    _, model = await passed(world, [whole(b"{}")], query=query)
    target = b"/v1/chat/completions" + (b"?" + query if query else b"")
    assert model.line == b"POST " + target + b" HTTP/1.1"


async def test_the_list_of_models_passes_with_its_query_and_its_fields(world: Built) -> None:
    listed = b'{ "object":"list" ,"data":[ ]}\n'
    client, model = await passed(
        world, [whole(listed)], b"", method="GET", path="/v1/models", query=b"after=x&limit=2"
    )
    assert model.line == b"GET /v1/models?after=x&limit=2 HTTP/1.1"
    assert dict(model.fields)[b"authorization"] == b"Bearer " + KEY.encode()
    assert model.body == b""
    assert client.content == listed


# The answer ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        b'\n { "id":\t"x" , "choices":[],"unknown":{"a":1e400,"b":"\\u00e9\\/"},"usage":null }\r\n',
        b'{"usage":{"prompt_tokens":true,"total_tokens":"many"}}',
        b"{ broken",
        b"",
        b"\xff\xfe\x00",
        b"[1,2]",
    ],
    ids=["odd", "odd usage", "broken", "empty", "no text", "no object"],
)
async def test_an_answer_passes_byte_for_byte(answer: bytes, world: Built) -> None:
    client, _ = await passed(world, [whole(answer, kind="application/json; charset=utf-8; x=y")])
    assert client.content == answer
    assert client.field("content-type") == "application/json; charset=utf-8; x=y"
    assert client.field("content-length") == str(len(answer))


async def test_an_answers_fields_pass_but_for_those_of_the_connection_and_those_that_are_ours(
    world: Built,
) -> None:
    said = (
        "openai-version: 2020-10-01\r\nx-unknown: one\r\nx-unknown: two\r\nset-cookie: a=b; Path=/\r\n"
        "x-request-id: req_theirs\r\nx-ratelimit-remaining-tokens: 3\r\nserver: cloudflare\r\n"
        "connection: keep-alive, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n"
    )
    client, _ = await passed(world, [whole(b"{}", fields=said)])
    names = {name for name, _ in client.fields}
    assert [value for name, value in client.fields if name == b"x-unknown"] == [b"one", b"two"]
    assert client.field("openai-version") == "2020-10-01"
    assert client.field("set-cookie") == "a=b; Path=/"
    assert client.field("x-upstream-request-id") == "req_theirs"
    assert client.field("x-upstream-ratelimit-remaining-tokens") == "3"
    assert (client.field("x-request-id") or "").startswith("req_")
    assert client.field("x-request-id") != "req_theirs"
    assert not names & {b"server", b"connection", b"x-hop", b"keep-alive", b"transfer-encoding"}


# A stream of events with everything that a server may send: comments, unknown fields, all ends of lines.
EVENTS = (
    b": keep-alive\n\n"
    b'event: chunk\nid: 7\ndata: {"choices":[{"index":0,"delta":{"content":"H\\u00e9"}}] ,"x":1e400}\n\n'
    b'data:{"choices":[],"obfuscation":"abc"}\r\n\r\n'
    b"retry: 10\r\n\r\n"
    b'data: {"choices":[{"index":0,"delta":{"content":"\xf0\x9f\x8c\x8a"}}]}\r\r'
    b"x-unknown: y\n\n"
    b"data: [DONE]\n\n"
)
ASKING = b'{"model":"gpt-4o","messages":[{"role":"user","content":"Hi"}],"stream":true%b}'
WITH, WITHOUT = ASKING % b',"stream_options":{"include_usage":true}', ASKING % b""

COUNTED = (
    b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}],"usage":null}\n\n'
    b'data: {"usage":null,"choices":[{"index":0,"delta":{}}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}\n\n'
    b"data: [DONE]\n\n"
)
UNCOUNTED = (
    b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{}}]}\n\n'
    b"data: [DONE]\n\n"
)


def slowly(content: bytes) -> list[bytes]:
    """A stream of one byte at a time."""
    return [STREAM, *(piece(content[at : at + 1]) for at in range(len(content))), END]


@pytest.mark.parametrize("request_body", [WITH, WITHOUT], ids=["with usage", "without"])
@pytest.mark.parametrize("words", [[STREAM + piece(EVENTS) + END], slowly(EVENTS)], ids=["whole", "bytes"])
async def test_a_stream_passes_byte_for_byte(words: list[bytes], request_body: bytes, world: Built) -> None:
    client, _ = await passed(world, words, request_body)
    assert client.content == EVENTS
    assert client.field("content-type") == "text/event-stream"
    assert client.field("content-length") is None


@pytest.mark.parametrize("words", [[STREAM + piece(COUNTED) + END], slowly(COUNTED)], ids=["whole", "bytes"])
async def test_who_asked_for_usage_gets_all_of_it(words: list[bytes], world: Built) -> None:
    client, _ = await passed(world, words, WITH)
    assert client.content == COUNTED


@pytest.mark.parametrize("words", [[STREAM + piece(COUNTED) + END], slowly(COUNTED)], ids=["whole", "bytes"])
async def test_who_did_not_ask_for_usage_sees_none(words: list[bytes], world: Built) -> None:
    client, _ = await passed(world, words, WITHOUT)
    assert client.content == UNCOUNTED
    assert b"usage" not in client.content


async def test_each_byte_of_a_stream_is_relayed_as_it_comes(world: Built) -> None:
    """The model says the next byte only when the client has the one before."""
    arrived = [asyncio.Event() for _ in EVENTS]
    words: list[Any] = [STREAM]
    for at, event in enumerate(arrived):
        words += [piece(EVENTS[at : at + 1]), event]

    def tell(client: Client) -> bool:
        for event in arrived[: len(client.content)]:
            event.set()
        return False

    client, _ = await passed(world, [*words, END], WITH, stalling=tell)
    assert client.content == EVENTS
    assert len(client.messages) == len(EVENTS) + 2  # a head, each byte, an end


async def test_each_event_is_relayed_as_it_ends_where_usage_is_hidden(world: Built) -> None:
    first, second = b'data: {"choices":[],"n":1}\n\n', b'data: {"choices":[],"n":2,"usage":null}\n\n'
    arrived = asyncio.Event()

    def tell(client: Client) -> bool:
        if client.content == first:
            arrived.set()
        return False

    words = [STREAM, piece(first), arrived, piece(second + DONE), END]
    client, _ = await passed(world, words, WITHOUT, stalling=tell)
    assert client.content == first + second.replace(b',"usage":null', b"") + DONE


async def test_a_whole_answer_to_who_asked_for_a_stream_passes(world: Built) -> None:
    answer = b'{"choices":[], "usage":null}'
    client, _ = await passed(world, [whole(answer)], WITHOUT)
    assert client.content == answer


async def test_a_refusal_of_upstreams_passes_byte_for_byte(world: Built) -> None:
    refusal = (
        b'{ "error":{"message":"no such model","type":"invalid_request_error","code":"model_not_found"}}'
    )
    client, _ = await passed(world, [whole(refusal, status=404)], headers=CALLER)
    assert client.status == 404
    assert client.content == refusal
