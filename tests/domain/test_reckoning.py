"""Reckoning: what an exchange used, by how it ended and what was seen of the answer."""

import json
from collections.abc import AsyncIterator

import pytest

from service.domain.chat import parse
from service.domain.exchange import Answer, Exchange
from service.domain.reckoning import INLINE, Produced, Reckoner, is_long, reckon, unacceptable
from service.domain.stream import EventStream
from service.domain.tokens import Tokenizer
from service.domain.usage import NOTHING, OUTCOMES, Estimate, Usage

ESTIMATE = Estimate(prompt=11, completion=100)
RESERVED = Usage(prompt=11, completion=100, source="reservation")
PROVIDED = Usage(prompt=9, completion=7, source="provider")
SAID = b'{"choices":[{"message":{"content":"three short words"}}]}'
COUNTED = SAID[:-1] + b',"usage":{"prompt_tokens":9,"completion_tokens":7}}'


def words(text: str) -> int:
    return len(text.split())


def delta(text: str) -> bytes:
    return b"data: %b\n\n" % json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode()


async def pieces() -> AsyncIterator[bytes]:
    yield b""


def exchange(
    answer: Answer | None = None, *, outcome: str = "complete", sent: bool = True, estimated: bool = True
) -> Exchange:
    """A chat request, sent upstream and answered so."""
    made = Exchange("POST", "/v1/chat/completions", b"", [])
    made.chat = parse(b'{"model":"gpt-4o","messages":[{"role":"user","content":"Hi"}]}')
    made.estimate = ESTIMATE if estimated else None
    made.times.sent = 1.0 if sent else None
    made.answer, made.outcome = answer, outcome
    return made


def used(made: Exchange) -> Usage:
    return reckon(made, streamed=None, prompt=lambda: 11, count=words)


# What an answer used ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (COUNTED, PROVIDED),
        (SAID, Usage(11, 3, "local")),
        (SAID[:-1] + b',"usage":{"prompt_tokens":-1,"completion_tokens":"many"}}', Usage(11, 3, "local")),
        (b"{ broken", Usage(11, 0, "local")),
        (b"[" * 100_000, Usage(11, 0, "local")),
        (b"[]", Usage(11, 0, "local")),
        (b"\xff", Usage(11, 0, "local")),
        (b"", Usage(11, 0, "local")),
    ],
    ids=["provided", "counted", "incredible", "broken", "too deep", "no object", "no text", "nothing"],
)
def test_the_providers_numbers_count_or_else_what_was_seen(body: bytes, usage: Usage) -> None:
    assert used(exchange(Answer(200, [], body))) == usage


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_an_answer_that_refuses_used_nothing_even_if_nobody_was_there_to_hear_it(status: int) -> None:
    assert used(exchange(Answer(status, [], COUNTED), outcome="client_gone")) == NOTHING


def test_a_stream_that_was_never_read_used_nothing_that_is_known() -> None:
    assert used(exchange(Answer(200, [], pieces()))) == NOTHING


@pytest.mark.parametrize("outcome", ["rejected", "upstream_refused", "upstream_error"])
def test_what_was_refused_is_free(outcome: str) -> None:
    assert used(exchange(Answer(200, [], COUNTED), outcome=outcome)) == NOTHING


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_what_was_not_sent_is_free(outcome: str) -> None:
    assert used(exchange(outcome=outcome, sent=False)) == NOTHING


@pytest.mark.parametrize("outcome", ["upstream_broken", "timeout", "client_gone", "stopped", "failed"])
@pytest.mark.parametrize("answer", [None, Answer(502, [], b"{}", own=True)], ids=["none", "our own"])
def test_of_what_was_sent_and_never_answered_the_reservation_stands(
    answer: Answer | None, outcome: str
) -> None:
    assert used(exchange(answer, outcome=outcome)) == RESERVED


def test_where_nothing_was_reserved_nothing_stands() -> None:
    assert used(exchange(outcome="timeout", estimated=False)) == NOTHING


def test_a_request_that_is_no_chat_is_free() -> None:
    made = exchange(Answer(200, [], COUNTED))
    made.chat = None
    assert used(made) == NOTHING


# What a stream used -------------------------------------------------------------------------------


def test_a_stream_is_counted_part_by_part_each_part_once() -> None:
    stream = EventStream(hide_usage=False)
    asked: list[str] = []

    def count(text: str) -> int:
        asked.append(text)
        return words(text)

    produced = Produced(stream, count)
    assert produced.tokens() == 0
    stream.feed(delta("one two "))
    assert produced.tokens() == produced.tokens() == 2
    stream.feed(delta("three"))
    assert produced.tokens() == 3
    assert asked == ["one two ", "three"]


def test_what_a_stream_did_not_keep_is_counted_in_proportion() -> None:
    line = delta("one two")
    stream = EventStream(hide_usage=False, keep=2 * len(line))
    for _ in range(6):
        stream.feed(line)
    assert Produced(stream, lambda text: 2 * text.count("one")).tokens() == 12


def test_a_stream_says_what_was_used_so_far_until_it_is_reckoned(tokenizer: Tokenizer) -> None:
    made, stream = exchange(Answer(200, [], pieces()), outcome="client_gone"), EventStream(hide_usage=False)
    reckoner = Reckoner(tokenizer)
    reckoner.follow(made, stream)
    stream.feed(delta("Hello"))
    assert made.produced is not None
    assert made.produced() == Usage(11, 1, "local")
    stream.feed(delta(" there"))
    reckoned = reckoner.reckoning(made)
    assert made.produced is None
    assert reckoned() == Usage(11, 2, "local")


def test_a_stream_that_says_its_usage_is_believed(tokenizer: Tokenizer) -> None:
    made, stream = exchange(Answer(200, [], pieces())), EventStream(hide_usage=False)
    reckoner = Reckoner(tokenizer)
    reckoner.follow(made, stream)
    stream.feed(delta("Hello") + b"data: " + COUNTED + b"\n\n")
    assert reckoner.reckoning(made)() == PROVIDED


def test_a_prompt_that_nobody_estimated_is_counted_when_it_is_asked_for(tokenizer: Tokenizer) -> None:
    """Without a rate limiter: 3 for the message, 1 for its role, 1 for its text, 3 for the reply."""
    made = exchange(Answer(200, [], SAID), estimated=False)
    assert Reckoner(tokenizer).reckoning(made)() == Usage(8, 3, "local")


def test_a_stream_that_answers_no_chat_has_no_prompt(tokenizer: Tokenizer) -> None:
    made = exchange(Answer(200, [], pieces()), estimated=False)
    made.chat = None
    Reckoner(tokenizer).follow(made, EventStream(hide_usage=False))
    assert made.produced is not None
    assert made.produced() == Usage(0, 0, "local")


def test_only_what_is_long_is_counted_elsewhere() -> None:
    assert not is_long(exchange())
    assert not is_long(exchange(Answer(200, [], b"x" * 1000)))
    assert is_long(exchange(Answer(200, [], b"x" * 100_000)))
    made, stream = exchange(Answer(200, [], pieces())), EventStream(hide_usage=False)
    made.stream = stream
    assert not is_long(made)
    stream.feed(delta("x" * INLINE))
    assert is_long(made)
    stream.feed(b"data: " + COUNTED + b"\n\n")
    assert not is_long(made)


# What a client may see ----------------------------------------------------------------------------

SPOKEN = b'{"error":{"message":"overloaded"}}'


@pytest.mark.parametrize(
    ("status", "body", "ours", "why"),
    [
        (200, b"", False, None),
        (204, b"", False, None),
        (400, b"<html>", False, None),
        (429, b"", True, None),
        (401, SPOKEN, False, None),
        (401, SPOKEN, True, "The upstream refused the gateway's key."),
        (403, SPOKEN, True, "The upstream refused the gateway's key."),
        (301, b"", False, "The upstream answered 301."),
        (500, SPOKEN, False, None),
        (503, SPOKEN, True, None),
        (500, b"", False, "The upstream answered 500."),
        (502, b"<html>", False, "The upstream answered 502."),
        (500, b'{"error":"down"}', False, "The upstream answered 500."),
        (500, b'{"error":{"message":1}}', False, "The upstream answered 500."),
        (500, b'{"detail":"down"}', False, "The upstream answered 500."),
        (500, b'["error"]', False, "The upstream answered 500."),
    ],
)
def test_a_client_may_see_what_speaks_openai_and_is_not_about_our_key(
    status: int, body: bytes, ours: bool, why: str | None
) -> None:
    refusal = unacceptable(Answer(status, [], body), our_key=ours)
    assert (refusal.message if refusal else None) == why
    assert refusal is None or refusal.status == 502


def test_an_error_that_comes_as_a_stream_is_not_shown() -> None:
    refusal = unacceptable(Answer(500, [], pieces()), our_key=False)
    assert refusal is not None
