"""What nobody can read in a subject counts as not there, and is written anew: no call fails for it."""

import math
import struct

import pytest

from service.domain.account import Algorithm
from service.domain.policy import Count, Policy
from tests.lua.calls import ALICE, START, Calls, of

BUCKET = Policy(name="bucket", per=(), limit=100, window=10_000)
WINDOW = Policy(name="window", per=(), limit=100, window=10_000, algorithm=Algorithm.FIXED_WINDOW)
STREAMS = Policy(
    name="streams", per=(), limit=2, window=0, algorithm=Algorithm.CONCURRENCY, count=Count.CONCURRENT
)
PARTS = [of(BUCKET, 1), of(WINDOW, 1), of(STREAMS, 1)]
NAN, INF = math.nan, math.inf


def account(kind: int = 3, charged: float = 5, time: float = START, window: float = 10_000) -> bytes:
    return struct.pack(">Bdddddd", kind, charged, time, 100_000, window, START, 0)


GARBAGE = [b"", b"what is this", b"\xff" * 49, b"\0" * 49, account(charged=NAN), account(charged=-1)]
ACCOUNTS = [*GARBAGE, account(time=INF), account(window=0), account(kind=9), account() + b"\xff" * 16]
HINTS = [b"", b"what is this", b"\xff" * 49, struct.pack(">dddd", 1, -1, START, START) + b"0"]
CURSORS = [b"-1", b"not a cursor", b"9" * 40]
RECORDS = [*GARBAGE, struct.pack(">dB", INF, 0), struct.pack(">dB", START, 0) + b"and so on"]


def every_call_is_answered(calls: Calls, now: int) -> None:
    for rid in ("open", "new"):
        assert calls.renew(now, rid, *PARTS).status in ("renewed", "gone")
        assert calls.reserve(now, rid, *PARTS).status in ("granted", "refused", "aborted")
        assert calls.settle(now, rid, *PARTS).status in ("settled", "corrected", "charged", "again")
    assert calls.peek(now, *PARTS).status == "seen"
    assert calls.reset(now, *PARTS).status == "reset"
    assert calls.override(now, WINDOW, now + 1, 1_000) == "ruled"


@pytest.mark.parametrize("text", ACCOUNTS)
def test_an_account(calls: Calls, text: bytes) -> None:
    calls.reserve(START, "open", *PARTS)
    calls.server.hset(ALICE, WINDOW.account, text)
    assert calls.reserve(START, "new", of(WINDOW, 100)).tokens == (100,)
    calls.server.hset(ALICE, WINDOW.account, text)
    every_call_is_answered(calls, START)


def test_an_account_of_another_kind(calls: Calls) -> None:
    calls.server.hset(ALICE, WINDOW.account, account(kind=1))
    assert calls.reserve(START, "new", of(WINDOW, 100)).tokens == (100,)


@pytest.mark.parametrize("text", HINTS)
def test_a_hint(calls: Calls, text: bytes) -> None:
    """What it says of leases and rules is found out again."""
    calls.reserve(START, "open", *PARTS, lease=1_000)
    calls.block(START, START + 2_000)
    calls.server.hset(ALICE, "~", text)
    assert calls.reserve(START + 1_999, "new", *PARTS).status == "blocked"
    assert calls.peek(START + 1_999, of(STREAMS, 0)).tokens == (0,)
    calls.server.hset(ALICE, "~", text)
    every_call_is_answered(calls, START + 2_000)
    assert calls.server.pttl(ALICE) > 0


@pytest.mark.parametrize("cursor", CURSORS)
def test_where_the_next_look_begins(calls: Calls, cursor: bytes) -> None:
    calls.reserve(START, "open", *PARTS, lease=1_000)
    calls.server.hset(ALICE, "~", struct.pack(">dddd", START + 1_000, 1, START + 10**6, 0) + cursor)
    assert calls.reserve(START + 1_000, "new", *PARTS).ended == 1
    every_call_is_answered(calls, START + 2_000)


@pytest.mark.parametrize("sort", ["~", "!"])
@pytest.mark.parametrize("text", RECORDS)
def test_a_record(calls: Calls, sort: str, text: bytes) -> None:
    calls.reserve(START, "other", of(WINDOW, 1), lease=1_000)
    calls.server.hset(ALICE, f"{sort}open", text)
    every_call_is_answered(calls, START + 1_000)
    calls.server.hset(ALICE, f"{sort}never", text)
    every_call_is_answered(calls, START + 5_000)


@pytest.mark.parametrize("text", [b"", b"!", struct.pack(">ddd", START + 10**6, NAN, NAN)])
def test_a_rule(calls: Calls, text: bytes) -> None:
    calls.override(START, WINDOW, START + 10**6, 1_000)
    calls.server.hset(ALICE, f"={WINDOW.account}", text)
    assert calls.reserve(START, "r", of(WINDOW, 100)).limits == ()
    every_call_is_answered(calls, START)
