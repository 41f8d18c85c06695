"""Engine: a store of our own with the scripts in it, and the calls that users make."""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import redis

from service.adapters.ledger import scripts as lua
from service.adapters.ledger.embedded import EmbeddedStore, server_program
from service.adapters.ledger.reservation import layout
from service.domain.account import Algorithm
from service.domain.calendar import Calendar, Unit
from service.domain.policy import Claim, Count, Policy

BATCH = 16  # commands a write, as the link of a busy worker gathers them
CALLS = ("reserve", "renew", "peek", "settle")  # in this order one reservation of a subject is open at a time

RESERVED, USED = 500, 300  # tokens
LEASE = 60_000  # ms
EVER = 2**52

MINUTE = Policy("user-minute", ("user",), 10**9, 60_000)
FOUR = (
    MINUTE,
    Policy("user-month", ("user",), 10**9, algorithm=Algorithm.FIXED_WINDOW, calendar=Calendar(Unit.MONTH)),
    Policy("user-calls", ("user",), 10**9, 60_000, count=Count.REQUESTS),
    Policy("user-streams", ("user",), 10**9, count=Count.CONCURRENT, algorithm=Algorithm.CONCURRENCY),
)


def programs() -> list[Path]:
    """The servers there are: the embedded one, and a redis-server on PATH."""
    on_path = shutil.which("redis-server")
    return [server_program(), *([Path(on_path)] if on_path else [])]


def subject(number: int) -> str:
    """The key of a user, as long as one with a digest."""
    return f"w1:{{{number:022}}}"


def tokens(policy: Policy, number: int) -> int:
    """So many tokens, in units of the policy's account; one where it counts something else."""
    return number * policy.unit if policy.count.is_tokens else policy.unit


class Engine:
    """A running store, spoken to directly."""

    def __init__(self, store: EmbeddedStore) -> None:
        self.client = redis.Redis.from_url(store.url)
        self.scripts = lua.load()
        for script in self.scripts:
            self.client.script_load(script.text)

    @property
    def name(self) -> str:
        """What it is, and which."""
        facts: Mapping[str, Any] = self.client.info("server")
        return f"{facts.get('server_name', 'redis')} {facts.get('valkey_version', facts['redis_version'])}"

    def cpu(self) -> float:
        """Seconds of the processor it has used."""
        facts: Mapping[str, float] = self.client.info("cpu")
        return facts["used_cpu_user"] + facts["used_cpu_sys"]

    def commands(self) -> dict[str, int]:
        """How often it has carried out each command, those of scripts included."""
        stats: Mapping[str, Mapping[str, int]] = self.client.info("commandstats")
        return {name.removeprefix("cmdstat_"): facts["calls"] for name, facts in stats.items()}

    def memory(self, key: str) -> int:
        """Bytes that a key takes."""
        return int(self.client.memory_usage(key, samples=0) or 0)

    def run(self, calls: Sequence[Sequence[Any]]) -> list[Any]:
        """The answers to EVALSHAs, a batch of them at a time."""
        answers: list[Any] = []
        for begin in range(0, len(calls), BATCH):
            pipeline = self.client.pipeline(transaction=False)
            for call in calls[begin : begin + BATCH]:
                pipeline.evalsha(*call)
            answers += pipeline.execute()
        return answers

    def call(self, name: str, policies: Sequence[Policy], key: str, rid: str) -> list[Any]:
        """One of CALLS for a subject, as the arguments of EVALSHA."""
        used = USED if name == "settle" else RESERVED
        claims = [Claim(policy, key, tokens(policy, used)) for policy in policies]
        amounts = [
            0 if name == "settle" and one.policy.count is Count.CONCURRENT else one.amount for one in claims
        ]
        own: dict[str, list[Any]] = {
            "reserve": [EVER, rid, LEASE, 0],
            "renew": [EVER, rid, LEASE, 0],
            "peek": [],
            "settle": [EVER, rid, "settle", 1, 0, EVER],
        }
        arguments = layout(claims).arguments(amounts, round(time.time() * 1000))
        return [getattr(self.scripts, name).sha, 1, key, "", *own[name], *arguments]
