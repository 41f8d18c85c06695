"""Volley: requests of random sizes, streams and abortions, the same for a seed, sent at one moment."""

import asyncio
import random
from collections.abc import Sequence

from tests.fire.shots import Heard, Shot, content, message, send

EACH = 14  # requests of a user; at most 16, as an account remembers so many low levels before it rounds
MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-3.5-turbo")
LONGEST_CAP = 300  # tokens
FAULTS = (
    *("status=400", "status=429", "status=500", "status=503", "cut=0", "cut=3", "end=4"),
    *("malformed", "no-usage", "usage-bad", "close", "stall=2", "stall-head"),
)


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
        return await asyncio.gather(*(send(url, shot, all_there.wait) for shot in shots))


def _shot(chance: random.Random, user: str) -> Shot:
    cap, stream = chance.randint(1, LONGEST_CAP), chance.random() < 0.5
    asked = {
        "model": chance.choice(MODELS),
        "user": user,
        "messages": [message(chance) for _ in range(chance.choice((1, 1, 2, 5)))],
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
    return Shot(user, content(asked, ", ".join(words)), patience, most)


def _leaving(chance: random.Random, *, endless: bool) -> tuple[float | None, int | None]:
    """After how many seconds, or bytes, the client leaves; it does where the answer is `endless`."""
    how = chance.random()
    if how < 0.15 or endless:
        return chance.uniform(0, 2.5), None
    return (None, chance.randint(1, 8000)) if how < 0.25 else (None, None)
