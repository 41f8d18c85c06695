"""Volley: requests of random sizes, streams and abortions, the same for a seed, sent at one moment."""

import asyncio
import json
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

EACH = 14  # requests of a user; at most 16, as an account remembers so many low levels before it rounds
MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-3.5-turbo")
LONGEST_CAP = 300  # tokens
WORDS = ("the", "river's", "deepest", "étude", "Wasser", "水門", ",", "1234", "def_weir(x):", "falls", "🌊")
FAULTS = (
    *("status=400", "status=429", "status=500", "status=503", "cut=0", "cut=3", "end=4"),
    *("malformed", "no-usage", "usage-bad", "close", "stall=2", "stall-head"),
)


@dataclass(frozen=True, slots=True)
class Shot:
    """A request, and when its client leaves: after so many seconds, or bytes of the answer, or never."""

    user: str
    content: bytes
    patience: float | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """What a client heard: the answer's status and its id, where there was a head; and whether it stayed."""

    status: int | None
    id: str | None
    stayed: bool


def volley(seed: int, users: Sequence[str]) -> list[Shot]:
    """The requests of all these users, in a random order."""
    chance = random.Random(seed)
    shots = [_shot(chance, user) for user in users for _ in range(EACH)]
    chance.shuffle(shots)
    return shots


async def fire(url: str, shots: Sequence[Shot], *, within: float) -> list[Heard]:
    """Send all at once, when all are connected; what each heard. Raises TimeoutError."""
    all_there = asyncio.Barrier(len(shots))
    async with asyncio.timeout(within):
        return await asyncio.gather(*(_send(url, shot, all_there) for shot in shots))


async def _send(url: str, shot: Shot, all_there: asyncio.Barrier) -> Heard:
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    received = b""
    stayed = False
    try:
        await all_there.wait()
        writer.write(shot.content)
        with suppress(TimeoutError):
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


def _heard(received: bytes, stayed: bool) -> Heard:
    head, end, _ = received.partition(b"\r\n\r\n")
    if not end:
        return Heard(None, None, stayed)
    line, *fields = head.decode("latin-1").split("\r\n")
    named = dict(field.lower().split(": ", 1) for field in fields)
    return Heard(int(line.split()[1]), named["x-request-id"], stayed)


def _shot(chance: random.Random, user: str) -> Shot:
    cap, stream = chance.randint(1, LONGEST_CAP), chance.random() < 0.5
    asked = {
        "model": chance.choice(MODELS),
        "user": user,
        "messages": [_message(chance) for _ in range(chance.choice((1, 1, 2, 5)))],
        chance.choice(("max_tokens", "max_completion_tokens")): cap,
        "stream": stream,
    }
    if stream and chance.random() < 0.3:
        asked["stream_options"] = {"include_usage": True}
    if chance.random() < 0.1:
        asked["n"] = 2
    words = [f"tokens={chance.randint(0, LONGEST_CAP)}", f"latency={chance.uniform(0, 0.5):.3f}"]
    words.append(f"rate={chance.randint(200, 3000)}")
    if fault := chance.choice(FAULTS) if chance.random() < 0.2 else "":
        words.append(fault)
    patience, most = _leaving(chance, endless=fault.startswith("stall"))
    return Shot(user, _content(asked, ", ".join(words)), patience, most)


def _leaving(chance: random.Random, *, endless: bool) -> tuple[float | None, int | None]:
    """After how many seconds, or bytes, the client leaves; it does where the answer is `endless`."""
    how = chance.random()
    if how < 0.15 or endless:
        return chance.uniform(0, 2.5), None
    return (None, chance.randint(1, 8000)) if how < 0.25 else (None, None)


def _message(chance: random.Random) -> dict[str, Any]:
    text = " ".join(chance.choices(WORDS, k=chance.randint(0, 60)))
    return {"role": chance.choice(("user", "assistant", "system")), "content": text}


def _content(asked: dict[str, Any], simulate: str) -> bytes:
    body = json.dumps(asked).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n"
        "authorization: Bearer sk-of-the-tests-own\r\ncontent-type: application/json\r\n"
        f"x-simulate: {simulate}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
