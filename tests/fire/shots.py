"""Shots: requests as bytes, sent over a connection of their own, and what their client heard."""

import asyncio
import json
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

WORDS = ("the", "river's", "deepest", "étude", "Wasser", "水門", ",", "1234", "def_weir(x):", "falls", "🌊")


@dataclass(frozen=True, slots=True)
class Shot:
    """A request, and when its client leaves: after so many seconds, or bytes of the answer, or never."""

    user: str
    content: bytes
    patience: float | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """What a client heard: the answer's status and its id, where there was a head; and whether it stayed.

    `body` is what came behind the head; None where it ended before the head said it would.
    """

    status: int | None
    id: str | None
    stayed: bool
    body: bytes | None = None


async def at_once() -> None:
    """Send it as soon as there is a connection."""


async def send(url: str, shot: Shot, when: Callable[[], Coroutine[Any, Any, object]] = at_once) -> Heard:
    """Connect, send it `when` that is over, and read until the answer ends or its client leaves."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    received = b""
    stayed = False
    try:
        await when()
        writer.write(shot.content)
        with suppress(TimeoutError, ConnectionResetError):
            async with asyncio.timeout(shot.patience):
                while shot.most is None or len(received) < shot.most:
                    piece = await reader.read(1 << 16)
                    received += piece
                    if not piece:
                        stayed = True
                        break
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    return _heard(received, stayed)


def message(chance: random.Random) -> dict[str, Any]:
    """Something to say, of up to 60 words."""
    text = " ".join(chance.choices(WORDS, k=chance.randint(0, 60)))
    return {"role": chance.choice(("user", "assistant", "system")), "content": text}


def content(asked: dict[str, Any], simulate: str) -> bytes:
    """A request to chat, on a connection that ends with it; `simulate` is what the model is asked to do."""
    body = json.dumps(asked).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n"
        "authorization: Bearer sk-of-the-tests-own\r\ncontent-type: application/json\r\n"
        f"x-simulate: {simulate}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _heard(received: bytes, stayed: bool) -> Heard:
    head, end, rest = received.partition(b"\r\n\r\n")
    if not end:
        return Heard(None, None, stayed)
    line, *fields = head.decode("latin-1").split("\r\n")
    named = dict(field.lower().split(": ", 1) for field in fields)
    return Heard(int(line.split()[1]), named.get("x-request-id"), stayed, _body(named, rest))


def _body(named: dict[str, str], rest: bytes) -> bytes | None:
    """An answer's body, without its frame; None where it is not whole."""
    if named.get("transfer-encoding") != "chunked":
        return rest if len(rest) == int(named.get("content-length", 0)) else None
    pieces: list[bytes] = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        if size == b"0":
            return b"".join(pieces)
        length = int(size or b"0", 16)
        pieces.append(rest[:length])
        rest = rest[length + 2 :]
    return None
