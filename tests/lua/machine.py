"""Machine: every operation of the scripts, at random, on a real server beside two oracles."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from service.adapters.ledger import scripts as lua
from service.domain.account import Algorithm
from service.domain.calendar import Calendar, Unit
from service.domain.policy import Count, Policy
from service.domain.usage import Estimate
from service.domain.weights import Weights
from tests.lua.calls import ALICE, Part, layout
from tests.lua.model import MARKER, SLACK, Ledger, Stored, Subject

BEGIN = 1_763_000_000_000
EVERYONE = "w1:{everyone}"
LEASE = 3_000

BUCKET = Policy(name="bucket", per=("user",), limit=10, window=7_000, burst=10)
SLIDING = Policy(
    name="sliding", per=("user",), limit=14, window=4_000, algorithm=Algorithm.SLIDING_WINDOW, burst=5
)
WINDOW = Policy(
    name="window",
    per=("user",),
    limit=12,
    window=5_000,
    algorithm=Algorithm.FIXED_WINDOW,
    count=Count.COMPLETION,
)
DAY = Policy(
    name="day", per=("user",), limit=15, algorithm=Algorithm.FIXED_WINDOW, calendar=Calendar(Unit.DAY)
)
CALLS = Policy(name="calls", per=("user",), limit=7, window=3_000, count=Count.REQUESTS)
STREAMS = Policy(
    name="streams", per=("user",), limit=3, algorithm=Algorithm.CONCURRENCY, count=Count.CONCURRENT
)
SHADOW = Policy(
    name="shadow",
    per=("user",),
    limit=2,
    window=6_000,
    algorithm=Algorithm.SLIDING_WINDOW,
    count=Count.PROMPT,
    enforce=False,
)
SHARED = Policy(name="shared", per=(), limit=25, window=9_000)
WEIGHING = (("*", Weights(prompt=250_001, completion=1_000_003)),)
COST = Policy(
    name="cost",
    per=(),
    limit=Decimal("21.5"),
    algorithm=Algorithm.FIXED_WINDOW,
    count=Count.COST,
    calendar=Calendar(Unit.MONTH),
    weights=WEIGHING,
)
SPENT = Policy(name="spent", per=(), limit=Decimal("9.25"), window=8_000, count=Count.COST, weights=WEIGHING)

CASES = [
    *((ALICE, policy) for policy in (BUCKET, SLIDING, WINDOW, DAY, CALLS, STREAMS, SHADOW)),
    *((EVERYONE, policy) for policy in (SHARED, COST, SPENT)),
]
LENGTHS = {Unit.DAY: (4_600, 4_800, 5_000), Unit.MONTH: (6_200, 5_800, 5_600)}  # of windows, in turn

everywhere = st.sampled_from([ALICE, EVERYONE])
chosen = st.integers(1, 2 ** len(CASES) - 1)
steps = st.sampled_from([0, 0, 1, 7, 137, 999])
tokens = st.integers(0, 5)
ends = st.sampled_from([(LEASE, 0), (LEASE, 1), (10 * LEASE, 0)])  # of a lease: when, and what then
requests = st.tuples(chosen, tokens, tokens, ends, steps)


def boundaries(policy: Policy, around: int) -> tuple[int, int, int]:
    """Three successive ones, the first two around a moment, of windows that are not all as long."""
    assert policy.calendar
    lengths = LENGTHS[policy.calendar.unit]
    start = around - around % sum(lengths)
    turn = 0
    while start + lengths[turn] <= around:
        start, turn = start + lengths[turn], turn + 1
    end = start + lengths[turn]
    return start, end, end + lengths[(turn + 1) % len(lengths)]


def reserved(policy: Policy, prompt: int, completion: int) -> int:
    """What a request of so many tokens asks for."""
    match policy.count:
        case Count.TOTAL:
            return (prompt + completion) * 1000
        case Count.PROMPT:
            return prompt * 1000
        case Count.COMPLETION:
            return completion * 1000
        case Count.COST:
            return WEIGHING[0][1].cost(Estimate(prompt, completion))
    return 1000


def used(part: Part, thirds: int, more: int) -> int:
    """What it has really used."""
    if part.policy.count is Count.CONCURRENT:
        return 0
    if part.policy.count is Count.REQUESTS:
        return 1000
    return part.amount * thirds // 3 + (more if thirds else 0)


class Machine(RuleBasedStateMachine):
    """After each call, its answer and all fields must equal the model's, the accounts their history."""

    server: redis.Redis
    scripts: lua.Scripts

    def __init__(self) -> None:
        super().__init__()
        self.server.flushall()
        for script in self.scripts:
            self.server.script_load(script.text)
        self.ledger = Ledger(boundaries)
        self.now = BEGIN
        self.astray = 0  # ms that the callers believe the clock to be ahead
        self.cases = list(CASES)
        self.open: dict[str, list[Part]] = {}
        self.all: dict[str, list[Part]] = {}
        self.sent: list[tuple[str, list[Part], list[Any]]] = []
        self.count = 0

    # -- how a call is made and compared ---------------------------------------------------------

    def call(self, name: str, parts: list[Part], *arguments: Any) -> list[Any]:
        """Make a call at the present time; once more where the boundaries were not the right ones."""
        around = self.now + self.astray
        keys, last = layout(parts, lambda policy: boundaries(policy, around))
        expected = getattr(self.ledger, name)(self.now, *arguments, around=around, parts=parts)
        answer = self.ask(name, keys, [*arguments, *last], expected)
        if answer[0] == "stale":
            assert self.astray
            self.astray = 0
            return self.call(name, parts, *arguments)
        return answer

    def ask(self, name: str, keys: list[str], arguments: list[Any], expected: list[object]) -> list[Any]:
        with self.server.pipeline(transaction=False) as pipeline:
            pipeline.evalsha(getattr(self.scripts, name).sha, len(keys), *keys, self.now, *arguments)
            for key in (ALICE, EVERYONE):
                pipeline.hgetall(key)
                pipeline.pttl(key)
            answer, *found = pipeline.execute()
        answer = [answer[0].decode(), *answer[1:]]
        assert answer == expected
        for key, fields, lives in zip((ALICE, EVERYONE), found[::2], found[1::2], strict=True):
            subject = self.ledger.subject(key)
            assert fields == subject.fields()
            assert subject.lives - SLACK < lives <= subject.lives or lives == -2, "nothing lives for ever"
            self.compare(subject)
        return answer

    def compare(self, subject: Subject) -> None:
        """The accounts with what they would be, had everything been known."""
        for name, stored in subject.stored.items():
            then = max(self.now, stored.account.time)
            stands, truth = standing(stored, then), stored.history.level(then)
            if stored.history.exact:
                assert stands == truth, (name, "not as if known")
            else:
                assert stands >= truth, (name, "better than as if known")
            if not subject.entries:
                stored.history.heal(stored.account)

    def forget_gone(self) -> None:
        """What has ended by its lease is open no more."""
        records = {rid for subject in self.ledger.subjects.values() for rid in subject.records}
        self.open = {rid: parts for rid, parts in self.open.items() if rid in records}

    # -- operations --------------------------------------------------------------------------------

    @initialize(offset=st.integers(0, 20_000))
    def begin(self, offset: int) -> None:
        self.now += offset

    def parts(self, chosen: int, prompt: int, completion: int) -> list[Part]:
        """Some of the policies, by the bits of a number."""
        cases = [case for index, case in enumerate(self.cases) if chosen >> index & 1]
        cases.sort(key=lambda case: case[0])
        return [Part(key, policy, reserved(policy, prompt, completion)) for key, policy in cases]

    def name_one(self) -> str:
        self.count += 1
        return f"r{self.count}"

    @rule(requests=st.lists(requests, min_size=1, max_size=4))
    def some_are_reserved(self, requests: list[tuple[int, int, int, tuple[int, int], int]]) -> None:
        for chosen, prompt, completion, end, step in requests:
            self.now += step
            if parts := self.parts(chosen, prompt, completion):
                self.send_reserve(parts, [self.now + 5_000, self.name_one(), *end])

    def send_reserve(self, parts: list[Part], arguments: list[Any]) -> None:
        new = arguments[1] not in self.all
        status, _, _, _, _, *numbers = [*self.call("reserve", parts, *arguments), 0, 0, 0]
        charged, rules = numbers[: len(parts)], iter(numbers[len(parts) : -3])
        if status == "granted" and new:
            capacities = {index: capacity for index, _, capacity in zip(rules, rules, rules, strict=True)}
            for index, (part, stands) in enumerate(zip(parts, charged, strict=True), 1):
                capacity = capacities.get(index, part.policy.capacity)
                assert not part.policy.enforce or stands <= capacity, "overshoot at a grant"
        if status == "granted":
            self.open[arguments[1]] = self.all[arguments[1]] = parts
        self.sent.append(("reserve", parts, arguments))
        self.forget_gone()

    @rule(chosen=chosen, verb=st.sampled_from(["release", "settle"]))
    def it_is_over_before_it_came(self, chosen: int, verb: str) -> None:
        """A settle or release overtakes its reserve, which then arrives as a duplicate would."""
        rid = self.name_one()
        if parts := self.parts(chosen, 1, 2):
            self.call("settle", parts, self.now + 5_000, rid, verb, 0, 1, self.now + MARKER)
            self.sent.append(("reserve", parts, [self.now + 5_000, rid, LEASE, 0]))

    @precondition(lambda self: self.all)
    @rule(
        data=st.data(),
        thirds=st.integers(0, 5),
        more=st.integers(0, 900),
        verb=st.sampled_from(["settle", "settle", "release"]),
        first=st.integers(0, 1),
        mark=st.integers(0, 1),
        forget=st.sampled_from([-1, 1, MARKER]),
    )
    def settle(
        self, data: st.DataObject, thirds: int, more: int, verb: str, first: int, mark: int, forget: int
    ) -> None:
        among_open = data.draw(st.sampled_from([True, True, False]), label="open")
        pool = self.open if self.open and among_open else self.all
        rid = data.draw(st.sampled_from(sorted(pool)), label="rid")
        parts = [replace(part, amount=used(part, thirds, more)) for part in self.all[rid]]
        arguments = [self.now + 5_000, rid, verb, first, mark, self.now + forget]
        self.call("settle", parts, *arguments)
        self.sent.append(("settle", parts, arguments))
        self.forget_gone()

    @precondition(lambda self: self.all)
    @rule(data=st.data(), thirds=st.integers(0, 6), undo=st.sampled_from([0, 0, 1]))
    def renew(self, data: st.DataObject, thirds: int, undo: int) -> None:
        rid = data.draw(st.sampled_from(sorted(self.open or self.all)), label="rid")
        parts = [replace(part, amount=used(part, thirds, 0) or 1000) for part in self.all[rid]]
        arguments = [self.now + 5_000, rid, LEASE, undo]
        self.call("renew", parts, *arguments)
        self.sent.append(("renew", parts, arguments))
        self.forget_gone()

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def a_duplicate_arrives(self, data: st.DataObject) -> None:
        """Delayed, repeated, out of order: a call as it left, at the present time."""
        name, parts, arguments = data.draw(st.sampled_from(self.sent[-8:]), label="sent")
        if name == "reserve":
            self.send_reserve(parts, arguments)
        else:
            self.call(name, parts, *arguments)
        self.forget_gone()

    @rule(subject=everywhere, name=st.sampled_from(["peek", "reset"]))
    def somebody_looks_or_resets(self, subject: str, name: str) -> None:
        if parts := [Part(where, policy, 0) for where, policy in self.cases if where == subject]:
            self.call(name, parts)

    # -- operators -----------------------------------------------------------------------------------

    def put_rule(self, key: str, name: str, until: int, limit: int, capacity: int) -> None:
        expected = self.ledger.rule(self.now, key, name, until, limit, capacity)
        self.ask("rule", [key], [name, until, limit, capacity], expected)

    @rule(
        data=st.data(),
        what=st.sampled_from(["override", "override", "block", "take back"]),
        lasts=st.sampled_from([1, 500, 2_000, 20_000, 10**6]),
        tokens=st.integers(1, 30),
        burst=st.sampled_from([0, 20]),
    )
    def an_operator_acts(self, data: st.DataObject, what: str, lasts: int, tokens: int, burst: int) -> None:
        key, policy = data.draw(st.sampled_from(CASES), label="policy")
        if what == "override":
            limit = tokens * policy.unit
            self.put_rule(key, policy.account, self.now + lasts, limit, limit * (100 + burst) // 100)
        elif what == "block":
            self.put_rule(key, "", self.now + min(lasts, 2_000), 0, 0)
        else:
            names = sorted({"", *self.ledger.subject(key).rules})
            self.put_rule(key, data.draw(st.sampled_from(names), label="rule"), 0, 0, 0)

    # -- what happens besides --------------------------------------------------------------------------

    @rule(step=st.sampled_from([0, 1, 7, 137, 999, 1_000, 2_500, 6_001, 17_000, MARKER]))
    def time_passes(self, step: int) -> None:
        self.now += step

    @rule(data=st.data(), before=st.sampled_from([0, 1, 2]))
    def a_window_ends(self, data: st.DataObject, before: int) -> None:
        """Or is about to, in a millisecond or two."""
        _, policy = data.draw(st.sampled_from(self.cases or CASES), label="policy")
        if policy.calendar:
            self.now = boundaries(policy, self.now)[1] - before
        elif policy.window:
            self.now += policy.window - self.now % policy.window - before

    @rule(
        back=st.sampled_from([0, 1, 2, 400, 5_000, 59_000, 75_000]),
        astray=st.sampled_from([-20_000, -5_000, -1_000, 0, 1_000, 20_000]),
    )
    def a_clock_goes_wrong(self, back: int, astray: int) -> None:
        self.now -= back
        self.astray = astray

    @rule(data=st.data(), limit=st.integers(0, 30))
    def the_definition_changes(self, data: st.DataObject, limit: int) -> None:
        """A policy gets another limit; or it goes, and comes again."""
        index = data.draw(st.integers(0, len(self.cases)), label="policy")
        if index == len(self.cases):
            names = {policy.name for _, policy in self.cases}
            self.cases += [case for case in CASES if case[1].name not in names]
        elif limit:
            subject, policy = self.cases[index]
            self.cases[index] = (subject, replace(policy, limit=limit))
        else:
            self.cases.pop(index)


def standing(stored: Stored, now: int) -> int:
    """What stands charged then, whatever the clock said last."""
    looked = replace(stored.account, lows=list(stored.account.lows))
    start, end = stored.history.windows(now)
    looked.roll(now, start, end - start)
    return looked.standing()
