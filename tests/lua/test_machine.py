"""The scripts, driven at random on a real server, beside two oracles."""

import dataclasses
import re
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from service.adapters.ledger import scripts as lua
from service.domain import account as arithmetic
from service.domain.account import Algorithm
from service.domain.policy import Count, Policy
from tests.lua.calls import ask
from tests.lua.model import MARKER, Ledger, Part, Subject

START = 1_763_000_000_000
ALICE, EVERYONE = "w1:{alice}", "w1:{everyone}"
LEASE = 3_000

BUCKET = Policy(name="bucket", per=("user",), limit=10, window=7_000, burst=10)
WINDOW = Policy(
    name="window",
    per=("user",),
    limit=12,
    window=5_000,
    algorithm=Algorithm.FIXED_WINDOW,
    count=Count.COMPLETION,
)
CALLS = Policy(name="calls", per=("user",), limit=7, window=3_000, count=Count.REQUESTS)
STREAMS = Policy(
    name="streams", per=("user",), limit=3, window=0, algorithm=Algorithm.CONCURRENCY, count=Count.CONCURRENT
)
SHADOW = Policy(name="shadow", per=("user",), limit=2, window=4_000, enforce=False)
SHARED = Policy(name="shared", per=(), limit=25, window=9_000)

CASES = [
    (ALICE, BUCKET),
    (ALICE, WINDOW),
    (ALICE, CALLS),
    (ALICE, STREAMS),
    (ALICE, SHADOW),
    (EVERYONE, SHARED),
]


class Sent:
    """A call as it left, to be sent again, late or out of order."""

    def __init__(self, script: lua.Script, parts: list[Part], arguments: list[Any]) -> None:
        self.script, self.parts, self.arguments = script, parts, arguments

    def __repr__(self) -> str:
        return f"{self.script.name}{self.arguments}"


class Machine(RuleBasedStateMachine):
    """Every operation on two subjects; after each, answer and fields must equal the first oracle's."""

    server: redis.Redis
    scripts: lua.Scripts

    def __init__(self) -> None:
        super().__init__()
        self.server.flushall()
        for script in self.scripts:
            self.server.script_load(script.text)
        self.ledger = Ledger()
        self.now = START
        self.cases = list(CASES)
        self.open: dict[str, list[Part]] = {}
        self.all: dict[str, list[Part]] = {}
        self.sent: list[Sent] = []
        self.count = 0

    # -- how a call is made and compared ---------------------------------------------------------

    def call(self, script: lua.Script, parts: list[Part], *arguments: Any) -> list[Any]:
        answer = ask(self.server, script, parts, *arguments)
        return [answer[0].decode(), *(int(number) for number in answer[1:])]

    def agree(self, answer: list[Any], expected: list[Any]) -> None:
        assert answer == expected
        for key in (ALICE, EVERYONE):
            raw: Any = self.server.hgetall(key)
            fields = {name.decode(): value.decode() for name, value in raw.items()}
            assert fields == self.ledger.subjects.get(key, Subject()).fields()
        self.check_promises()

    def expected(self, name: str, arguments: list[Any], parts: list[Part]) -> list[object]:
        now, not_after, rid, lease, lost = arguments
        call = self.ledger.reserve if name == "reserve" else self.ledger.renew
        return call(now, not_after, rid, lease, lost, parts)

    def check_promises(self) -> None:
        for subject in self.ledger.subjects.values():
            for name, one in subject.accounts.items():
                history = subject.histories[name]
                looked = dataclasses.replace(one, lows=list(one.lows))
                looked.roll(max(self.now, one.time))
                truth = history.level(max(self.now, one.time))
                if history.exact:
                    assert looked.charged == truth, (name, "not as if known")
                else:
                    assert looked.charged >= truth, (name, "better than as if known")
        for key in self.server.keys("*"):  # nothing lives for ever
            assert self.server.pttl(key) > 0

    def is_ahead(self, part: Part) -> bool:
        """Whether the account is too far ahead of the clock: it goes back, and that is written."""
        one = self.ledger.subjects.get(part.subject, Subject()).accounts.get(part.policy.account)
        if one is None or one.algorithm is Algorithm.CONCURRENCY:
            return False
        return one.time - self.now > max(arithmetic.GRACE, one.window)

    def dumps(self) -> dict[bytes, Any]:
        keys: Any = self.server.keys("*")
        return {key: self.server.dump(key) for key in keys}

    def forget_gone(self) -> None:
        """What has ended by its lease is open no more."""
        records: set[str] = set()
        for subject in self.ledger.subjects.values():
            records |= subject.records.keys()
        self.open = {rid: parts for rid, parts in self.open.items() if rid in records}

    # -- operations --------------------------------------------------------------------------------

    @initialize(offset=st.integers(0, 20_000))
    def begin(self, offset: int) -> None:
        self.now += offset

    @rule(
        prompt=st.integers(0, 6),
        completion=st.integers(0, 7),
        chosen=st.sets(st.integers(0, 5), min_size=1),
        lost=st.sampled_from("kku"),
    )
    def reserve(self, prompt: int, completion: int, chosen: set[int], lost: str) -> None:
        self.count += 1
        rid = f"r{self.count}"
        tokens = {Count.TOTAL: prompt + completion, Count.COMPLETION: completion}
        parts = [
            Part(subject, policy, tokens.get(policy.count, 1) * 1000)
            for index, (subject, policy) in enumerate(self.cases)
            if index in chosen
        ]
        if not parts:
            return
        due = {key: one.due for key, one in self.ledger.subjects.items()}
        ended = any(due.get(part.subject) and self.now >= due[part.subject] for part in parts)
        fell = any(self.is_ahead(part) for part in parts)
        before = self.dumps()
        arguments = [self.now, self.now + 5_000, rid, LEASE, lost]
        answer = self.call(self.scripts.reserve, parts, *arguments)
        self.agree(answer, self.expected("reserve", arguments, parts))
        if answer[0] == "granted":
            for part, charged in zip(parts, answer[5:], strict=True):
                assert not part.policy.enforce or charged <= part.policy.capacity, "overshoot at a grant"
            self.open[rid] = self.all[rid] = parts
        elif not ended and not fell:
            assert self.dumps() == before, "a refusal wrote"
        self.sent.append(Sent(self.scripts.reserve, parts, arguments))
        self.forget_gone()

    @precondition(lambda self: self.all)
    @rule(data=st.data(), factor=st.integers(0, 5), verb=st.sampled_from(["settle", "settle", "release"]))
    def settle(self, data: st.DataObject, factor: int, verb: str) -> None:
        among_open: bool = data.draw(st.booleans(), label="open")
        pool = self.open if self.open and among_open else self.all
        rid = data.draw(st.sampled_from(sorted(pool)), label="rid")
        first, mark = data.draw(st.booleans(), label="first"), data.draw(st.booleans(), label="mark")
        spread = data.draw(st.integers(0, 900), label="spread")
        parts = [dataclasses.replace(part, amount=self.used(part, factor, spread)) for part in self.all[rid]]
        arguments = [self.now, self.now + 5_000, rid, verb, int(first), int(mark), self.now + 1]
        self.send_settle(arguments, parts)
        self.sent.append(Sent(self.scripts.settle, parts, arguments))
        self.forget_gone()

    def send_settle(self, arguments: list[Any], parts: list[Part]) -> None:
        answer = self.call(self.scripts.settle, parts, *arguments)
        now, not_after, rid, verb, first, mark, forget = arguments
        expected = self.ledger.settle(
            now, not_after, rid, verb, parts, first=bool(first), mark=bool(mark), forget=forget
        )
        self.agree(answer, expected)

    @staticmethod
    def used(part: Part, factor: int, spread: int) -> int:
        if part.policy.count is Count.CONCURRENT:
            return 0
        if part.policy.count is Count.REQUESTS:
            return 1000
        return part.amount * factor // 3 + (spread if factor else 0)

    @precondition(lambda self: self.all)
    @rule(data=st.data(), factor=st.integers(0, 6), lost=st.sampled_from("kku"))
    def renew(self, data: st.DataObject, factor: int, lost: str) -> None:
        rid = data.draw(st.sampled_from(sorted(self.open or self.all)), label="rid")
        parts = [dataclasses.replace(part, amount=self.used(part, factor, 0)) for part in self.all[rid]]
        parts = [
            dataclasses.replace(part, amount=1000) if part.policy.count is Count.CONCURRENT else part
            for part in parts
        ]
        arguments = [self.now, self.now + 5_000, rid, LEASE, lost]
        answer = self.call(self.scripts.renew, parts, *arguments)
        self.agree(answer, self.expected("renew", arguments, parts))
        self.sent.append(Sent(self.scripts.renew, parts, arguments))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def a_duplicate_arrives(self, data: st.DataObject) -> None:
        """Delayed, repeated, out of order: a call as it left, at the present time."""
        sent = data.draw(st.sampled_from(self.sent[-8:]), label="sent")
        arguments = [self.now, *sent.arguments[1:]]
        if sent.script.name == "settle":
            self.send_settle(arguments, sent.parts)
        else:
            answer = self.call(sent.script, sent.parts, *arguments)
            self.agree(answer, self.expected(sent.script.name, arguments, sent.parts))
        self.forget_gone()

    @rule(subject=st.sampled_from([ALICE, EVERYONE]))
    def reset(self, subject: str) -> None:
        parts = [Part(where, policy, 0) for where, policy in self.cases if where == subject]
        if parts:
            answer = self.call(self.scripts.reset, parts, self.now)
            self.agree(answer, self.ledger.reset(self.now, parts))

    @rule(subject=st.sampled_from([ALICE, EVERYONE]))
    def peek(self, subject: str) -> None:
        parts = [Part(where, policy, 0) for where, policy in self.cases if where == subject]
        if parts:
            before = self.dumps()
            answer = self.call(self.scripts.peek, parts, self.now)
            self.agree(answer, self.ledger.peek(self.now, parts))
            assert self.dumps() == before

    @rule(step=st.sampled_from([0, 1, 7, 137, 999, 1_000, 2_500, 6_001, 17_000, MARKER]))
    def time_passes(self, step: int) -> None:
        self.now += step

    @rule(step=st.sampled_from([1, 400, 5_000, 59_000, 75_000]))
    def the_clock_goes_back(self, step: int) -> None:
        self.now -= step

    @rule(data=st.data(), limit=st.integers(1, 30), window=st.sampled_from([None, 2_000, 11_000]))
    def a_limit_changes(self, data: st.DataObject, limit: int, window: int | None) -> None:
        index = data.draw(st.integers(0, len(self.cases) - 1), label="policy")
        subject, policy = self.cases[index]
        if window and policy.window:
            policy = dataclasses.replace(policy, window=window)
        self.cases[index] = (subject, dataclasses.replace(policy, limit=limit))

    @rule(data=st.data())
    def a_policy_comes_or_goes(self, data: st.DataObject) -> None:
        if len(self.cases) < len(CASES):
            names = {policy.name for _, policy in self.cases}
            self.cases.append(next(case for case in CASES if case[1].name not in names))
        else:
            self.cases.pop(data.draw(st.integers(0, len(self.cases) - 1), label="policy"))


@pytest.fixture
def few_lows(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(arithmetic, "MOST_LOWS", 3)
    return 3


@pytest.fixture
def shortened(few_lows: int) -> lua.Scripts:
    """The scripts with a list of lows so short that it is cut."""
    whole = lua.load()
    texts = {
        script.name: re.sub(r"local LOWS = \d+", f"local LOWS = {few_lows}", script.text) for script in whole
    }
    return lua.Scripts(**{name: lua._script(name, text) for name, text in texts.items()})


def drive(scripts: lua.Scripts, server: redis.Redis, examples: int) -> None:
    server.config_set("hash-max-listpack-value", 100_000)  # else DUMP gives the fields in changing order
    server.config_set("hash-max-listpack-entries", 100_000)
    machine = type("Driven", (Machine,), {"scripts": scripts, "server": server})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        ),
    )


def test_the_scripts_equal_both_oracles(server: redis.Redis) -> None:
    drive(lua.load(), server, EXAMPLES)


def test_with_a_list_of_lows_cut_short_an_account_is_never_better(
    server: redis.Redis, shortened: lua.Scripts
) -> None:
    drive(shortened, server, EXAMPLES // 2)


EXAMPLES = 60
