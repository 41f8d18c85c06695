"""Calls: the scripts on a real server, with the time as an argument and the answer as a value."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from service.adapters.ledger import scripts as lua
from service.domain.policy import Policy
from tests.lua.model import Part

START = 1_763_000_040_000  # ms; the beginning of a minute
LEASE = 60_000


@dataclass(frozen=True)
class Answer:
    """What a script returns; `wait` and `charged` as it numbers them (ms, thousandths)."""

    status: str
    now: int
    refusing: int = 0
    wait: int = 0
    charged: tuple[int, ...] = ()

    @property
    def tokens(self) -> tuple[float, ...]:
        return tuple(number / 1000 for number in self.charged)


def ask(server: redis.Redis, script: lua.Script, parts: Sequence[Part], *arguments: Any) -> list[Any]:
    """Run a script; its answer as it came."""
    keys = list(dict.fromkeys(part.subject for part in parts))
    flat: list[Any] = []
    for part in parts:
        policy = part.policy
        flat += [keys.index(part.subject) + 1, policy.account, str(policy.algorithm), policy.limit * 1000]
        flat += [policy.capacity, policy.window, part.amount, int(policy.enforce)]
    answer = server.evalsha(script.sha, len(keys), *keys, *arguments, *flat)
    assert isinstance(answer, list)
    return answer


class Calls:
    """One method a script. A call carries its own deadline: `not_after` is five seconds on."""

    def __init__(self, server: redis.Redis, scripts: lua.Scripts | None = None) -> None:
        self.server = server
        self.scripts = scripts or lua.load()
        for script in self.scripts:
            server.script_load(script.text)

    def run(self, script: lua.Script, parts: tuple[Part, ...], *arguments: Any) -> Answer:
        answer = ask(self.server, script, parts, *arguments)
        now, _, refusing, wait, *charged = [*map(int, answer[1:]), 0, 0, 0][: max(4, len(answer) - 1)]
        return Answer(answer[0].decode(), now, refusing, wait, tuple(charged))

    def reserve(
        self,
        now: int | str,
        rid: str,
        *parts: Part,
        lease: int = LEASE,
        lost: str = "k",
        not_after: int | None = None,
    ) -> Answer:
        return self.run(self.scripts.reserve, parts, now, _late(now, not_after), rid, lease, lost)

    def settle(
        self,
        now: int | str,
        rid: str,
        *parts: Part,
        verb: str = "settle",
        first: bool = True,
        mark: bool = False,
        forget: int = 2**52,
        not_after: int | None = None,
    ) -> Answer:
        flags = (int(first), int(mark), forget)
        return self.run(self.scripts.settle, parts, now, _late(now, not_after), rid, verb, *flags)

    def release(self, now: int | str, rid: str, *parts: Part, not_after: int | None = None) -> Answer:
        return self.settle(now, rid, *parts, verb="release", mark=True, not_after=not_after)

    def renew(
        self,
        now: int | str,
        rid: str,
        *parts: Part,
        lease: int = LEASE,
        lost: str = "k",
        not_after: int | None = None,
    ) -> Answer:
        return self.run(self.scripts.renew, parts, now, _late(now, not_after), rid, lease, lost)

    def peek(self, now: int | str, *parts: Part) -> Answer:
        return self.run(self.scripts.peek, parts, now)

    def reset(self, now: int | str, *parts: Part) -> Answer:
        return self.run(self.scripts.reset, parts, now)

    def everything(self) -> dict[bytes, Any]:
        """Every key: all its fields, and when it ends."""
        names: Any = self.server.keys("*")
        return {name: (self.server.hgetall(name), self.server.pexpiretime(name)) for name in names}


def of(policy: Policy, tokens: float, subject: str = "w1:{alice}") -> Part:
    """So many tokens of a policy, for a subject."""
    return Part(subject, policy, round(tokens * 1000))


def _late(now: int | str, given: int | None) -> int:
    if given is not None:
        return given
    return now + 5_000 if isinstance(now, int) else 2**52
