"""The step `log`: what the two records of an exchange say, and when the second is written."""

import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import ValidationError

from service.adapters.logs import Logs
from service.domain.api import Api
from service.domain.chat import Chat, parse
from service.domain.exchange import Answer, Credential, Exchange
from service.domain.trace import Trace
from service.domain.usage import Estimate, Usage
from service.interceptors import Tools
from service.interceptors.log import Log, Options

KEY = "weir_" + "aB3-_" * 8 + "xyz"


class Book:
    """A log to read in."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self.logs = Logs(self._stream)

    def records(self) -> list[dict[str, Any]]:
        self.logs.close()
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]


@pytest.fixture
def book() -> Book:
    return Book()


def step(book: Book, **options: Any) -> Log:
    api = Api(
        title="",
        version="",
        lifecycle="AVAILABLE",
        base_path="/v1",
        timeout=60.0,
        max_body=1000,
        upstream="",
        authentication="pass-through",
        deprecated=None,
        sunset=None,
        request=(),
        response=(),
        plans={},
        request_schema={},
        revision="",
    )
    tools = Tools(
        api=api, ledger=None, tokenizer=None, logs=book.logs, metrics=None, digest=lambda text: f"d({text})"
    )
    return Log(Options(**options), tools)


def exchange(body: bytes = b'{"model":"gpt-4o","messages":[],"user":"alice"}') -> Exchange:
    """Received at 100 s and answered whole: 10 ms of ours, 2 s of upstream's, 5 ms of ours again."""
    made = Exchange("POST", "/v1/chat/completions", b"", [], body=body, clock=lambda: 100.0, id="req_1")
    made.trace = Trace(id="ab" * 16, span="cd" * 8, parent="ef" * 8)
    made.route, made.chat, made.credential = "chat", parse(body), Credential("team-a")
    made.answer = Answer(200, [], b'{"id":"chatcmpl-1"}')
    made.times.sent, made.times.head = 100.01, 102.01
    made.times.first_byte, made.times.ended = 102.015, 102.02
    return made


async def test_a_request_is_logged_with_who_asks_for_what(book: Book) -> None:
    await step(book).on_request(exchange())
    (record,) = book.records()
    assert record.pop("timestamp")
    assert record == {
        "level": "info",
        "event": "exchange.request",
        "id": "req_1",
        "trace": "ab" * 16,
        "span": "cd" * 8,
        "parent": "ef" * 8,
        "method": "POST",
        "path": "/v1/chat/completions",
        "route": "chat",
        "credential": "team-a",
        "user": "d(alice)",
        "model": "gpt-4o",
        "stream": False,
        "body_bytes": 47,
    }


async def test_an_exchange_is_logged_when_it_is_over_with_all_that_is_known_then(book: Book) -> None:
    """What comes after the response flow, by promises made earlier, is in the record."""
    going = exchange()
    going.outcome = "open"

    async def settle() -> None:
        going.usage = Usage(prompt=9, completion=40, source="provider", cached=1, reasoning=2)
        going.notes["reserved"] = 110
        going.outcome = "complete"

    going.at_end(settle)
    await step(book).on_response(going)
    going.estimate = Estimate(prompt=10, completion=100)
    going.notes["policy"] = "user-minute"
    assert await going.end() == []
    (record,) = book.records()
    assert record.pop("timestamp")
    assert record == {
        "level": "info",
        "event": "exchange.response",
        "id": "req_1",
        "trace": "ab" * 16,
        "span": "cd" * 8,
        "parent": "ef" * 8,
        "route": "chat",
        "credential": "team-a",
        "user": "d(alice)",
        "model": "gpt-4o",
        "stream": False,
        "status": 200,
        "outcome": "complete",
        "estimate": {"prompt": 10, "completion": 100},
        "reserved": 110,
        "used": {"prompt": 9, "completion": 40, "cached": 1, "reasoning": 2},
        "source": "provider",
        "policy": "user-minute",
        "ms": {"total": 2020.0, "own": 15.0, "upstream": 2000.0, "first_byte": 2015.0},
    }


async def test_nothing_is_written_before_the_exchange_is_over(book: Book) -> None:
    going = exchange()
    await step(book).on_response(going)
    assert book.records() == []
    await going.end()


async def test_an_exchange_of_which_nothing_is_known_is_logged_too(book: Book) -> None:
    """Rejected before the request flow, or the client left before there was an answer."""
    unknown = Exchange("POST", "/v1/chat/completions", b"", [])
    unknown.outcome = "client_gone"
    log = step(book, bodies="full")
    await log.on_request(unknown)
    await log.on_response(unknown)
    assert await unknown.end() == []
    _, record = book.records()
    unsaid = ("credential", "user", "model", "stream", "status", "estimate", "used", "source")
    assert {record[name] for name in unsaid} == {None}
    assert record["ms"]["upstream"] is None
    assert record["outcome"] == "client_gone"


async def test_a_trace_that_begins_here_has_no_parent_in_the_log(book: Book) -> None:
    alone = exchange()
    alone.trace = Trace(id="ab" * 16, span="cd" * 8)
    await step(book).on_request(alone)
    (record,) = book.records()
    assert (record["trace"], record["span"], record["parent"]) == ("ab" * 16, "cd" * 8, None)


async def test_a_note_never_replaces_a_fact(book: Book) -> None:
    ended = exchange()
    ended.notes.update(status=999, event="forged", id="req_2")
    await step(book).on_response(ended)
    assert await ended.end() == []
    (record,) = book.records()
    assert (record["status"], record["event"], record["id"]) == (200, "exchange.response", "req_1")


async def test_a_user_is_shown_in_clear_only_where_the_operator_says_so(book: Book) -> None:
    await step(book, user="clear").on_request(exchange())
    ours = exchange()
    ours.user = "bob"
    await step(book).on_request(ours)
    assert [record["user"] for record in book.records()] == ["alice", "d(bob)"]


async def test_a_long_name_is_cut(book: Book) -> None:
    long = exchange()
    long.chat = Chat(document={}, model="m" * 10_000, user="u" * 10_000)
    long.path = "/" * 10_000
    await step(book, user="clear").on_request(long)
    (record,) = book.records()
    assert {len(record[name]) for name in ("model", "user", "path")} == {256}


async def test_bodies_are_not_logged_unless_asked_for(book: Book) -> None:
    both = exchange()
    log = step(book)
    await log.on_request(both)
    await log.on_response(both)
    both.notes["kept"] = "what a model said"
    await both.end()
    assert [{"body", "body_truncated", "kept"} & set(record) for record in book.records()] == [set(), set()]


async def test_full_bodies_are_logged_whole_but_for_secrets(book: Book) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "é" * 5000 + KEY}]}).encode()
    full = exchange(body)
    log = step(book, bodies="full")
    await log.on_request(full)
    await log.on_response(full)
    await full.end()
    request, response = book.records()
    assert request["body"] == body.decode().replace(KEY, "weir_****")
    assert response["body"] == '{"id":"chatcmpl-1"}'


@pytest.mark.parametrize(("length", "cut"), [(2048, False), (2049, True), (50_000, True)])
async def test_truncated_bodies_say_whether_something_is_missing(book: Book, length: int, cut: bool) -> None:
    body = '{"model":"m"}'.ljust(length, " ").encode()
    await step(book, bodies="truncated").on_request(exchange(body))
    (record,) = book.records()
    assert (len(record["body"]), record["body_truncated"]) == (2048, cut)


async def test_a_truncated_body_is_cut_between_characters(book: Book) -> None:
    text = "\N{GRINNING FACE}" * 5000
    answered = exchange()
    answered.answer = Answer(200, [], text.encode())
    await step(book, bodies="truncated").on_response(answered)
    await answered.end()
    (record,) = book.records()
    assert (record["body"], record["body_truncated"]) == (text[:2048], True)


@pytest.mark.parametrize(
    ("bodies", "body"),
    [("full", "data: a\n\ndata: b\n\n"), ("truncated", "data: a\n\ndata: b\n\n"), ("none", None)],
)
async def test_of_a_stream_what_upstream_sent_is_logged(book: Book, bodies: str, body: str | None) -> None:
    going = streaming(b"data: a\n\n", b"data: b\n\n")
    await step(book, bodies=bodies).on_response(going)
    assert going.answer
    assert not isinstance(going.answer.body, bytes)
    assert [chunk async for chunk in going.answer.body] == [b"data: a\n\n", b"data: b\n\n"]
    assert await going.end() == []
    assert book.records()[-1].get("body") == body


async def test_of_a_long_stream_the_beginning_is_logged(book: Book) -> None:
    going = streaming(*[b"x" * 1000] * 20)
    await step(book, bodies="truncated").on_response(going)
    assert going.answer
    assert not isinstance(going.answer.body, bytes)
    assert len([chunk async for chunk in going.answer.body]) == 20
    assert await going.end() == []
    record = book.records()[-1]
    assert (record["body"], record["body_truncated"]) == ("x" * 2048, True)


def streaming(*chunks: bytes) -> Exchange:
    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    going = exchange()
    going.answer = Answer(200, [], body())
    return going


@pytest.mark.parametrize("options", [{"bodies": "all"}, {"user": "hidden"}, {"body": "none"}])
def test_unknown_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Options(**options)
