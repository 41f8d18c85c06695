"""Relay: the client listened to, the answer sent, and work that nobody can interrupt."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.domain.errors import Rejection, TooLarge
from service.domain.exchange import Answer, Exchange
from service.domain.stream import EventStream
from service.relay import Caller, relay, uninterrupted

NEVER = 30.0  # s; a timeout that no test waits for
SOON = 0.01  # s; one that a test does wait for


def exchange() -> Exchange:
    return Exchange("POST", "/v1/chat/completions", b"", [])


class Line:
    """The client's end of the line: what it sends is in `say`, and nothing more comes."""

    def __init__(self, *say: tuple[bytes, bool] | None) -> None:
        self._say = list(say)
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if self._say and (said := self._say.pop(0)):
            return {"type": "http.request", "body": said[0], "more_body": said[1]}
        await self.gone.wait()
        return {"type": "http.disconnect"}


# The body -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "body"),
    [
        ([(b"", False)], b""),
        ([(b"abc", False)], b"abc"),
        ([(b"a", True), (b"", True), (b"bc", True), (b"", False)], b"abc"),
    ],
)
async def test_a_body_is_all_its_pieces(said: list[tuple[bytes, bool]], body: bytes) -> None:
    with Caller(Line(*said).receive, exchange()) as caller:
        assert await caller.body(most=3, timeout=NEVER) == body


async def test_a_body_that_is_too_long_is_not_read_to_its_end() -> None:
    line = Line((b"abc", True), (b"d", True))
    with Caller(line.receive, exchange()) as caller, pytest.raises(TooLarge) as refused:
        await caller.body(most=3, timeout=NEVER)
    assert refused.value.headers == [(b"connection", b"close")]


async def test_a_body_that_does_not_come_in_time_is_not_waited_for() -> None:
    with Caller(Line((b"abc", True)).receive, exchange()) as caller, pytest.raises(Rejection) as refused:
        await caller.body(most=10, timeout=SOON)
    assert refused.value.status == 408
    assert refused.value.headers == [(b"connection", b"close")]


async def test_who_leaves_while_sending_leaves_the_block() -> None:
    going, line = exchange(), Line((b"abc", True))
    line.gone.set()
    reached = False
    with Caller(line.receive, going) as caller:
        await caller.body(most=10, timeout=NEVER)
        reached = True
    assert not reached
    assert going.outcome == "client_gone"


# Leaving ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("decided", "outcome"), [("open", "client_gone"), ("rejected", "rejected")])
async def test_who_leaves_ends_what_is_under_way_and_not_what_is_decided(decided: str, outcome: str) -> None:
    """A refusal on its way to a client that had left was waited for as long as the server liked."""
    going, line = exchange(), Line((b"", False))
    with Caller(line.receive, going) as caller:
        await caller.body(most=10, timeout=NEVER)
        going.outcome = decided
        line.gone.set()
        await asyncio.Event().wait()
    assert going.outcome == outcome
    await asyncio.sleep(0)  # nothing of the cancellation is left over


async def test_who_stays_is_not_listened_to_any_more_behind_the_block() -> None:
    going, line = exchange(), Line((b"", False))
    with Caller(line.receive, going) as caller:
        await caller.body(most=10, timeout=NEVER)
    line.gone.set()
    await asyncio.sleep(0)
    assert going.outcome == "open"
    assert len(asyncio.all_tasks()) == 1


async def test_an_error_leaves_the_block_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError), Caller(Line().receive, exchange()):
        raise ZeroDivisionError


# The answer ---------------------------------------------------------------------------------------


def streaming(*chunks: bytes) -> Exchange:
    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    going = exchange()
    going.stream = EventStream(hide_usage=True)
    going.answer = Answer(200, [(b"x", b"y")], body())
    return going


async def sent(going: Exchange) -> list[Any]:
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    await relay(going, send, timeout=NEVER)
    return messages


async def test_a_whole_answer_is_sent_with_its_length() -> None:
    going = exchange()
    going.answer = Answer(201, [(b"x", b"y")], b"abc")
    fields = [(b"x", b"y"), (b"content-length", b"3")]
    assert await sent(going) == [
        {"type": "http.response.start", "status": 201, "headers": fields},
        {"type": "http.response.body", "body": b"abc"},
    ]
    assert going.started
    assert going.outcome == "complete"
    assert going.times.first_byte is not None


async def test_nothing_is_sent_for_a_piece_that_is_held_back() -> None:
    going = streaming(b"data: {", b"}\n", b"\ndata: [DONE]\n\n")
    messages = await sent(going)
    assert [message.get("body") for message in messages[1:]] == [
        b"data: {}\n",
        b"\ndata: [DONE]\n\n",
        b"",
    ]
    assert going.outcome == "complete"


async def test_a_stream_may_take_long_as_long_as_no_wait_does(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    async def body() -> AsyncIterator[bytes]:
        nonlocal now
        for chunk in (b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n", b"data: [DONE]\n\n"):
            now += 0.6 * NEVER
            await asyncio.sleep(0)  # where a timeout arrives
            yield chunk

    going = streaming()
    assert going.answer is not None
    going.answer.body = body()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    await sent(going)
    assert going.outcome == "complete"


async def test_the_error_of_a_stream_that_is_cut_within_a_line_is_an_event_of_its_own() -> None:
    going = streaming(b'data: {"choi')
    going.stream = EventStream(hide_usage=False)
    messages = await sent(going)
    half, event, rest = b"".join(message["body"] for message in messages[1:]).split(b"\n\n")
    assert (half, rest) == (b'data: {"choi', b"")
    error = json.loads(event.removeprefix(b"data: "))["error"]
    assert error["type"] == "server_error"
    assert error["message"] == "The upstream ended the stream before it was complete."


@pytest.mark.parametrize(("status", "outcome"), [(200, "upstream_broken"), (429, "upstream_error")])
async def test_a_refusal_in_a_stream_needs_no_done(status: int, outcome: str) -> None:
    going = streaming(b": busy\n\n")
    assert going.answer is not None
    going.answer.status = status
    messages = await sent(going)
    assert (b"error" in messages[-1]["body"]) is (status == 200)
    assert going.outcome == outcome


async def test_what_was_decided_before_stays() -> None:
    going = exchange()
    going.answer, going.outcome = Answer(429, [], b"{}", own=True), "rejected"
    await sent(going)
    assert going.outcome == "rejected"


async def test_a_client_that_takes_nothing_is_not_waited_for() -> None:
    async def send(message: Any) -> None:
        await asyncio.Event().wait()

    for going in (streaming(b"data: {}\n\n"), exchange()):
        going.answer = going.answer or Answer(200, [], b"{}")
        await relay(going, send, timeout=SOON)
        assert going.outcome == "client_gone"
        assert "stalled" in going.notes


# Work that nobody can interrupt -------------------------------------------------------------------


async def test_work_is_done_to_its_end_however_often_it_is_cancelled() -> None:
    go_on, done = asyncio.Event(), []

    async def work() -> None:
        await go_on.wait()
        done.append("done")

    task = asyncio.create_task(uninterrupted(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    await asyncio.wait([task])
    assert done == ["done"]
    assert task.cancelled()


async def test_an_error_in_the_work_is_the_callers() -> None:
    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await uninterrupted(work())
