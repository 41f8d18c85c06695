"""Reckoning: what an exchange used, by how it ended and what was seen of the answer."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import pytest

from service.domain.chat import parse
from service.domain.exchange import Answer, Exchange
from service.domain.reckoning import LOOK, Produced, Reckoner, Run, unacceptable
from service.domain.stream import EventStream
from service.domain.tokens import Tokenizer
from service.domain.tokens.encodings import PATTERNS
from service.domain.usage import NOTHING, OUTCOMES, Estimate, Usage

T = TypeVar("T")

ESTIMATE = Estimate(prompt=11, completion=100)
RESERVED = Usage(prompt=11, completion=100, source="reservation")
PROVIDED = Usage(prompt=9, completion=7, source="provider")
SAID = b'{"choices":[{"message":{"content":"three short words"}}]}'
COUNTED = SAID[:-1] + b',"usage":{"prompt_tokens":9,"completion_tokens":7}}'


def words(text: str) -> int:
    return len(text.split())


WORDS = Tokenizer(dict.fromkeys(PATTERNS, lambda text: [0] * words(text)))


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


async def here(work: Callable[[], T], size: int) -> T:
    """Run work at once."""
    return work()


class Desk:
    """Runs work when it is let go; `sizes` are those that were asked for."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._gates: list[asyncio.Event] = []

    async def run(self, work: Callable[[], T], size: int) -> T:
        """Do the work when it is let go; its result is there by then, and may be late."""
        self.sizes.append(size)
        self._gates.append(gate := asyncio.Event())
        result = work()
        await gate.wait()
        return result

    def let(self, *numbers: int) -> None:
        """Let these go, by when they were asked for."""
        for number in numbers:
            self._gates[number].set()


async def used(made: Exchange) -> Usage:
    return await Reckoner(WORDS, here).reckon(made)


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
async def test_the_providers_numbers_count_or_else_what_was_seen(body: bytes, usage: Usage) -> None:
    assert await used(exchange(Answer(200, [], body))) == usage


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
async def test_an_answer_that_refuses_used_nothing_even_if_nobody_was_there_to_hear_it(status: int) -> None:
    assert await used(exchange(Answer(status, [], COUNTED), outcome="client_gone")) == NOTHING


async def test_a_stream_that_was_never_read_used_nothing_that_is_known() -> None:
    assert await used(exchange(Answer(200, [], pieces()))) == NOTHING


@pytest.mark.parametrize("outcome", ["rejected", "upstream_refused", "upstream_error"])
async def test_what_was_refused_is_free(outcome: str) -> None:
    assert await used(exchange(Answer(200, [], COUNTED), outcome=outcome)) == NOTHING


@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_what_was_not_sent_is_free(outcome: str) -> None:
    assert await used(exchange(outcome=outcome, sent=False)) == NOTHING


@pytest.mark.parametrize("outcome", ["upstream_broken", "timeout", "client_gone", "stopped", "failed"])
@pytest.mark.parametrize("answer", [None, Answer(502, [], b"{}", own=True)], ids=["none", "our own"])
async def test_of_what_was_sent_and_never_answered_the_reservation_stands(
    answer: Answer | None, outcome: str
) -> None:
    assert await used(exchange(answer, outcome=outcome)) == RESERVED


async def test_where_nothing_was_reserved_nothing_stands() -> None:
    assert await used(exchange(outcome="timeout", estimated=False)) == NOTHING


async def test_a_request_that_is_no_chat_is_free() -> None:
    made = exchange(Answer(200, [], COUNTED))
    made.chat = None
    assert await used(made) == NOTHING


# What a stream used -------------------------------------------------------------------------------


def following(run: Run, *, estimated: bool = True) -> tuple[Exchange, EventStream, Reckoner]:
    """An exchange that is answered by a stream, and what reckons it."""
    made = exchange(Answer(200, [], pieces()), outcome="client_gone", estimated=estimated)
    stream, reckoner = EventStream(hide_usage=False), Reckoner(WORDS, run)
    reckoner.follow(made, stream)
    return made, stream, reckoner


async def so_far(made: Exchange) -> Usage:
    assert made.produced is not None
    return await made.produced()


async def test_a_stream_is_counted_part_by_part_each_part_once() -> None:
    stream, asked = EventStream(hide_usage=False), list[str]()

    def count(text: str) -> int:
        asked.append(text)
        return words(text)

    produced = Produced(stream, lambda: count, here)
    assert await produced.tokens() == 0
    stream.feed(delta("one two th"))
    assert await produced.tokens() == await produced.tokens() == 3
    stream.feed(delta("ree four"))
    assert await produced.tokens() == 4
    assert asked == ["one two", " th", " three", " four"]
    assert stream.waiting == []


async def test_what_a_stream_did_not_keep_is_counted_in_proportion() -> None:
    line = delta(" one two")
    stream = EventStream(hide_usage=False, keep=2 * len(line))
    for _ in range(6):
        stream.feed(line)
    assert await Produced(stream, lambda: words, here).tokens() == 12


async def test_a_stream_says_what_was_used_so_far_until_it_is_reckoned() -> None:
    made, stream, reckoner = following(here)
    stream.feed(delta("Hello"))
    assert await so_far(made) == Usage(11, 1, "local")
    stream.feed(delta(" there"))
    assert await reckoner.reckon(made) == Usage(11, 2, "local")
    assert made.produced is None


async def test_a_stream_that_says_its_usage_is_believed() -> None:
    made, stream, reckoner = following(here)
    stream.feed(delta("Hello") + b"data: " + COUNTED + b"\n\n")
    assert await reckoner.reckon(made) == PROVIDED
    assert made.produced is None


async def test_what_was_reckoned_and_failed_is_not_counted_again() -> None:
    async def broken(work: Callable[[], T], size: int) -> T:
        raise RuntimeError("closed")

    made, stream, reckoner = following(broken)
    stream.feed(delta("Hello"))
    with pytest.raises(RuntimeError):
        await reckoner.reckon(made)
    assert await reckoner.reckon(made) == NOTHING


async def test_choices_are_counted_each_by_itself() -> None:
    made, stream, reckoner = following(here)
    for index in (0, 1):
        for text in ("a ", "word"):
            said = {"choices": [{"index": index, "delta": {"content": text}}]}
            stream.feed(b"data: %b\n\n" % json.dumps(said).encode())
    assert await reckoner.reckon(made) == Usage(11, 4, "local")


# Several who ask at a time ------------------------------------------------------------------------


async def test_what_is_counted_for_one_who_asks_is_not_counted_twice_for_another() -> None:
    desk = Desk()
    made, stream, reckoner = following(desk.run)
    stream.feed(delta("one two three"))
    renewal = asyncio.create_task(so_far(made))
    await asyncio.sleep(0)
    stream.feed(delta(" four"))
    ending = asyncio.create_task(reckoner.reckon(made))
    await asyncio.sleep(0)
    desk.let(0, 1)
    assert await renewal == Usage(11, 3, "local")
    assert await ending == Usage(11, 4, "local")


async def test_the_end_waits_for_nobody_who_asked_before() -> None:
    desk = Desk()
    made, stream, reckoner = following(desk.run)
    stream.feed(delta("one two three"))
    renewal = asyncio.create_task(so_far(made))
    await asyncio.sleep(0)
    stream.feed(delta(" four"))
    ending = asyncio.create_task(reckoner.reckon(made))
    await asyncio.sleep(0)
    desk.let(1)
    assert await ending == Usage(11, 4, "local")
    assert not renewal.done()
    desk.let(0)
    assert await renewal == Usage(11, 3, "local")
    assert stream.waiting == []


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_whoever_is_answered_first_nothing_is_lost_and_nothing_counted_twice(
    order: tuple[int, int],
) -> None:
    desk, stream = Desk(), EventStream(hide_usage=False)
    produced = Produced(stream, lambda: words, desk.run)
    stream.feed(delta("one two"))
    asking = [asyncio.create_task(produced.tokens())]
    await asyncio.sleep(0)
    stream.feed(delta(" three"))
    asking.append(asyncio.create_task(produced.tokens()))
    await asyncio.sleep(0)
    for number in order:
        desk.let(number)
        assert await asking[number] == (2, 3)[number]
    stream.feed(delta(" four"))
    last = asyncio.create_task(produced.tokens())
    await asyncio.sleep(0)
    desk.let(2)
    assert await last == 4


async def test_who_asked_and_went_away_leaves_nothing_half_counted() -> None:
    desk = Desk()
    made, stream, reckoner = following(desk.run)
    stream.feed(delta("one two three"))
    renewal = asyncio.create_task(so_far(made))
    await asyncio.sleep(0)
    renewal.cancel()
    await asyncio.wait([renewal])
    ending = asyncio.create_task(reckoner.reckon(made))
    await asyncio.sleep(0)
    desk.let(1)
    assert await ending == Usage(11, 3, "local")


# What may be long ---------------------------------------------------------------------------------


async def sizes(made: Exchange) -> list[int]:
    """How long they said it might be who had something counted."""
    desk = Desk()
    reckoning = asyncio.create_task(Reckoner(WORDS, desk.run).reckon(made))
    while not reckoning.done():
        desk.let(*range(len(desk.sizes)))
        await asyncio.sleep(0)
    await reckoning
    return desk.sizes


async def test_an_answer_is_as_long_as_its_texts_where_it_is_soon_read() -> None:
    text = "three short words"
    body = json.dumps({"padding": "x" * 1000, "choices": [{"message": {"content": text}}] * 2}).encode()
    assert await sizes(exchange(Answer(200, [], body))) == [2 * len(text)]


async def test_an_answer_that_is_not_soon_read_is_as_long_as_it_is_and_then_as_its_texts() -> None:
    text = "three short words"
    body = json.dumps({"padding": "x" * LOOK, "choices": [{"message": {"content": text}}]}).encode()
    assert await sizes(exchange(Answer(200, [], body))) == [len(body), len(text)]


async def test_nothing_of_an_answer_is_counted_where_the_provider_says_it() -> None:
    assert await sizes(exchange(Answer(200, [], COUNTED))) == []


async def test_a_prompt_that_nobody_estimated_is_as_long_as_its_body() -> None:
    made = exchange(Answer(200, [], SAID), estimated=False)
    made.body = b" " * 123
    assert await sizes(made) == [17, 123]


async def test_what_a_stream_brings_is_as_long_as_its_lines_and_what_is_counted_with_them() -> None:
    seen: list[int] = []

    async def noting(work: Callable[[], T], size: int) -> T:
        seen.append(size)
        return work()

    stream = EventStream(hide_usage=False)
    produced = Produced(stream, lambda: words, noting)
    for text in ("one two three", " four"):
        stream.feed(delta(text))
        await produced.tokens()
    await produced.tokens()
    assert seen == [len(delta("one two three")) - 2, len(delta(" four")) - 2 + len(" three")]


async def test_a_prompt_that_nobody_estimated_is_counted_when_it_is_asked_for(tokenizer: Tokenizer) -> None:
    """Without a rate limiter: 3 for the message, 1 for its role, 1 for its text, 3 for the reply."""
    made = exchange(Answer(200, [], SAID), estimated=False)
    assert await Reckoner(tokenizer, here).reckon(made) == Usage(8, 3, "local")


async def test_a_stream_that_answers_no_chat_has_no_prompt() -> None:
    made, _, _ = following(here, estimated=False)
    made.chat = None
    assert await so_far(made) == Usage(0, 0, "local")


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
