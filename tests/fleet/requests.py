"""Requests: a mixed load, the same for a seed, of which it is known what each may cost and how it may end."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.fire.shots import Shot, content, message

MANY = 5000
LIMIT, CALLS, PLENTY = 4_000, 30, 10**8  # tokens, requests, and more than anybody asks for
FOR_EVER = {
    "window": "3650d",
    "algorithm": "fixed-window",
}  # neither drains nor ends: accounts are plain sums

# Kinds of users: how many there are, and the only policy that concerns them.
KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "small": (8, {"limit": LIMIT, "on-ledger-failure": "refuse"}),
    "calls": (6, {"limit": CALLS, "count": "requests", "on-ledger-failure": "refuse"}),
    "large": (10, {"limit": PLENTY, "on-ledger-failure": "refuse"}),
    "early": (4, {"limit": PLENTY, "on-ledger-failure": "refuse"}),  # ask only in the beginning
    "open": (5, {"limit": PLENTY, "on-ledger-failure": "allow"}),
    "share": (5, {"limit": PLENTY, "on-ledger-failure": "local"}),
}
EARLY = MANY // 5  # requests among which the early ones are
TRUE = ("gpt-4o", "gpt-4o-mini")  # models of which all usage is told by the provider, and known to the client
FAULTS = ("status=400", "status=429", "status=500", "status=503", "status=502", "cut=0", "cut=3")
UNTOLD = ("no-usage", "usage-bad")
LONGEST = 60  # tokens of an answer


@dataclass(frozen=True, slots=True)
class Request:
    """A shot, and what is asked in it."""

    shot: Shot
    asked: dict[str, Any]

    @property
    def kind(self) -> str:
        """The kind of its user, which is also the name of the policy that concerns it."""
        return self.shot.user.partition("-")[0]

    @property
    def leaves(self) -> bool:
        """Whether its client does not wait for the end."""
        return self.shot.most is not None


def policies() -> list[dict[str, Any]]:
    """One policy for each kind of users, named after it."""
    return [
        {
            "name": kind,
            "per": ["credential", "user"],
            "when": {"user": [f"{kind}-*"]},
            **({} if "count" in options else {"reserve": "declared"}),
            **FOR_EVER,
            **options,
        }
        for kind, (_, options) in KINDS.items()
    ]


def requests(seed: int) -> list[Request]:
    """MANY of them."""
    return list(_requests(random.Random(seed)))


def _requests(chance: random.Random) -> Iterator[Request]:
    users = [f"{kind}-{number}" for kind, (count, _) in KINDS.items() for number in range(count)]
    later = [user for user in users if not user.startswith("early")]
    for index in range(MANY):
        yield _request(chance, chance.choice(users if index < EARLY else later))


def stalled(count: int) -> list[Shot]:
    """Requests that a model never answers: their clients have to leave."""
    asked = {"model": "o3", "user": "open-0", "messages": [{"role": "user", "content": "?"}], "max_tokens": 9}
    return [Shot("open-0", content(asked, "stall-head"))] * count


def _request(chance: random.Random, user: str) -> Request:
    asked: dict[str, Any] = {
        "model": chance.choice(TRUE),
        "user": user,
        "messages": [message(chance)],
        "max_tokens": LONGEST,
        "stream": chance.random() < 0.45,
    }
    if asked["stream"] and chance.random() < 0.5:
        asked["stream_options"] = {"include_usage": True}
    words, most = [f"tokens={chance.randint(1, LONGEST)}"], None
    words += [f"latency={chance.uniform(0.001, 0.1):.3f}", f"rate={chance.randint(100, 2000)}"]
    how = chance.random()
    if how < 0.03:
        words[2] = "rate=20"  # a slow stream, which is there while things happen
    elif how < 0.10:
        asked["temperature"] = 7
    elif how < 0.18:
        asked["model"] = "gpt-4.1"
        words.append(chance.choice(FAULTS))
    elif how < 0.22:
        asked["model"] = "gpt-5"
        words.append(chance.choice(UNTOLD))
    elif how < 0.27:
        asked |= {"model": "gpt-4.1-mini", "stream": True}
        words[2], most = "rate=100", chance.randint(1300, 3000)  # bytes, of which the head is less than 1200
    elif how < 0.30:
        asked["model"] = f"nobody-knows-{chance.randint(1, 10**9)}"
    return Request(Shot(user, content(asked, ", ".join(words)), most=most), asked)
