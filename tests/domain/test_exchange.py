"""Exchange: what travels along the path, and the promises left with it."""

import re
from collections.abc import AsyncIterator

import pytest

from service.domain.chat import parse
from service.domain.exchange import Answer, Credential, Exchange


def exchange() -> Exchange:
    return Exchange("POST", "/v1/chat/completions", b"", [], clock=lambda: 7.0)


async def test_promises_are_kept_first_asked_first() -> None:
    going, kept = exchange(), []

    def promise(name: str) -> None:
        async def keep() -> None:
            kept.append(name)

        going.at_end(keep)

    for name in "abc":
        promise(name)
    assert await going.end() == []
    assert kept == ["a", "b", "c"]


async def test_a_broken_promise_stops_none_and_is_told() -> None:
    going, kept = exchange(), []
    fault = RuntimeError("broken")

    async def break_it() -> None:
        raise fault

    async def keep() -> None:
        kept.append("kept")

    for ending in (break_it, keep, break_it):
        going.at_end(ending)
    assert await going.end() == [fault, fault]
    assert kept == ["kept"]


async def test_a_promise_made_at_the_end_is_kept_too() -> None:
    going, kept = exchange(), []

    async def late() -> None:
        kept.append("late")

    async def early() -> None:
        going.at_end(late)
        kept.append("early")

    going.at_end(early)
    await going.end()
    assert kept == ["early", "late"]


async def test_each_promise_is_kept_once() -> None:
    going, kept = exchange(), []

    async def keep() -> None:
        kept.append("kept")

    going.at_end(keep)
    await going.end()
    await going.end()
    assert kept == ["kept"]


def test_an_exchange_that_is_dropped_with_promises_to_keep_says_so() -> None:
    async def never() -> None:
        raise AssertionError

    going = exchange()
    going.at_end(never)
    with pytest.warns(ResourceWarning, match=f"{going.id} was dropped with promises to keep"):
        del going


def test_its_id_is_ours_and_nobody_elses() -> None:
    ids = {exchange().id for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch("req_[0-9a-f]{32}", id) for id in ids)


def test_it_begins_when_it_is_received() -> None:
    times = exchange().times
    assert times.received == 7.0
    assert {times.sent, times.head, times.first_byte, times.ended} == {None}


def test_variables_say_who_asks_what() -> None:
    going = exchange()
    unknown = {"credential": "", "user": "", "model": ""}
    ids = {"request.id": going.id, "trace.id": going.trace.id, "trace.span": going.trace.span}
    assert going.variables() == unknown | ids
    going.chat = parse(b'{"model":"gpt-4o","user":"alice"}')
    going.credential = Credential("team-a")
    known = {"credential": "team-a", "user": "alice", "model": "gpt-4o"} | ids
    assert going.variables() == known
    going.user = "bob"
    assert going.variables() == {**known, "user": "bob"}


async def _pieces() -> AsyncIterator[bytes]:
    yield b""


def test_what_comes_piece_by_piece_is_a_stream() -> None:
    assert Answer(200, [], _pieces()).is_stream()
    assert not Answer(200, [], b"").is_stream()
