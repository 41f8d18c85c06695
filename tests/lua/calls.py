"""Calls: the scripts on a real server, with the time as an argument and the answer as a value."""

import dataclasses
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from typing import Any

import redis

from service.adapters.ledger import scripts as lua
from service.domain.policy import Policy

START = 1_763_000_040_000  # ms; the beginning of a minute
LEASE = 60_000
ALICE = "w1:{alice}"

Boundaries = Callable[[Policy], tuple[int, int, int]]


@dataclass(frozen=True)
class Part:
    """One policy of a call: whose, how much (in the ledger's units)."""

    subject: str
    policy: Policy
    amount: int


@dataclass(frozen=True)
class Answer:
    """What a script returns, as it numbers things: ms and the ledger's units.

    `entries` is what stands where reserve names the refusing policy, `blocked` where it tells the wait.
    """

    status: str
    now: int
    ended: int = 0
    refusing: int = 0
    wait: int = 0
    charged: tuple[int, ...] = ()
    limits: tuple[tuple[int, int, int], ...] = ()

    @property
    def tokens(self) -> tuple[float, ...]:
        return tuple(number / 1000 for number in self.charged)

    @property
    def entries(self) -> int:
        return self.refusing

    @property
    def blocked(self) -> int:
        return self.wait


def of(policy: Policy, tokens: float | Decimal, subject: str = ALICE) -> Part:
    """So many tokens of a policy, for a subject."""
    return Part(subject, policy, round(tokens * policy.unit))


def own_calendar(now: int) -> Boundaries:
    """The boundaries around now, of each policy's own calendar."""

    def boundaries(policy: Policy) -> tuple[int, int, int]:
        assert policy.calendar
        return policy.calendar.boundaries(now)

    return boundaries


def layout(parts: Sequence[Part], boundaries: Boundaries) -> tuple[list[str], list[Any]]:
    """The KEYS of a call, and what ends its ARGV: policies, amounts, names."""
    keys = list(dict.fromkeys(part.subject for part in parts))
    assert [key for key, _ in groupby(part.subject for part in parts)] == keys, "a subject's stand together"
    policies = b""
    for part in parts:
        policy, index = part.policy, keys.index(part.subject) + 1
        numbers = (policy.allowed, policy.capacity, policy.window)
        policies += struct.pack(">BBBddd", index, policy.kind, policy.enforce, *numbers)
    for part in parts:
        if part.policy.kind == 4:
            policies += struct.pack(">ddd", *boundaries(part.policy))
    amounts = b"".join(struct.pack(">d", part.amount) for part in parts)
    return keys, [policies, amounts, *(part.policy.account for part in parts)]


class Calls:
    """One method a script. A call carries its own deadline: `not_after` is five seconds on.

    `around` is where the caller believes the clock to be, when it works out a calendar's boundaries.
    """

    def __init__(self, server: redis.Redis, scripts: lua.Scripts | None = None) -> None:
        self.server = server
        self.scripts = scripts or lua.load()
        self.around: int | None = None
        for script in self.scripts:
            server.script_load(script.text)

    def run(self, script: lua.Script, parts: Sequence[Part], now: int | str, *arguments: Any) -> Answer:
        around = self.around or (now if isinstance(now, int) else START)
        keys, last = layout(parts, own_calendar(around))
        answer: Any = self.server.evalsha(script.sha, len(keys), *keys, now, *arguments, *last)
        seen, ended, refusing, wait = [*answer[1:5], 0, 0, 0][:4]
        charged, rules = answer[5 : 5 + len(parts)], iter(answer[5 + len(parts) :])
        limits = tuple(zip(rules, rules, rules, strict=True))
        return Answer(answer[0].decode(), seen, ended, refusing, wait, tuple(charged), limits)

    def reserve(
        self,
        now: int | str,
        rid: str,
        *parts: Part,
        lease: int = LEASE,
        undo: bool = False,
        not_after: int | None = None,
    ) -> Answer:
        late = _late(now, not_after)
        return self.run(self.scripts.reserve, parts, now, late, rid, lease, int(undo))

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
        """With what is charged afterwards, which the script does not tell."""
        flags = (verb, int(first), int(mark), forget)
        answer = self.run(self.scripts.settle, parts, now, _late(now, not_after), rid, *flags)
        return dataclasses.replace(answer, charged=self._charged(now, parts))

    def release(self, now: int | str, rid: str, *parts: Part, not_after: int | None = None) -> Answer:
        return self.settle(now, rid, *parts, verb="release", mark=True, not_after=not_after)

    def renew(
        self,
        now: int | str,
        rid: str,
        *parts: Part,
        lease: int = LEASE,
        undo: bool = False,
        not_after: int | None = None,
    ) -> Answer:
        """With what is charged afterwards, which the script does not tell."""
        late = _late(now, not_after)
        answer = self.run(self.scripts.renew, parts, now, late, rid, lease, int(undo))
        return dataclasses.replace(answer, charged=self._charged(now, parts))

    def peek(self, now: int | str, *parts: Part) -> Answer:
        return self.run(self.scripts.peek, parts, now)

    def reset(self, now: int | str, *parts: Part) -> Answer:
        return self.run(self.scripts.reset, parts, now)

    def override(self, now: int, policy: Policy, until: int, limit: int, *, subject: str = ALICE) -> str:
        """Another limit in the policy's place, in the ledger's units, without a burst; 0 takes it back."""
        return self._rule(subject, now, policy.account, until, limit, limit)

    def block(self, now: int, until: int, *, subject: str = ALICE) -> str:
        return self._rule(subject, now, "", until, 0, 0)

    def everything(self) -> tuple[dict[bytes, Any], int]:
        """Every key with all its fields, and how often the life of one has been set."""
        names: Any = self.server.keys("*")
        stats: Any = self.server.info("commandstats")
        lives_set = stats.get("cmdstat_pexpire", {"calls": 0})["calls"]
        return {name: self.server.hgetall(name) for name in names}, lives_set

    def _charged(self, now: int | str, parts: Iterable[Part]) -> tuple[int, ...]:
        grouped = groupby(parts, key=lambda part: part.subject)
        return tuple(number for _, mine in grouped for number in self.peek(now, *mine).charged)

    def _rule(self, subject: str, *arguments: Any) -> str:
        answer: Any = self.server.evalsha(self.scripts.rule.sha, 1, subject, *arguments)
        return str(answer[0].decode())


def _late(now: int | str, given: int | None) -> int:
    if given is not None:
        return given
    return now + 5_000 if isinstance(now, int) else 2**52
