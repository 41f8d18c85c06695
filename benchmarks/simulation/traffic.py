"""Traffic: many users at many workers over some days, in sessions, with rushes at the worst moments."""

import random
from dataclasses import dataclass

from benchmarks.simulation.audit import Audit, Member, Reservation
from benchmarks.simulation.clock import Clock, Story
from benchmarks.simulation.ledger import LEASE, MARKER
from service.domain.account import NEVER, Algorithm
from service.domain.calendar import Calendar, Unit
from service.domain.learning import Learner
from service.domain.policy import Count, Policy
from service.domain.usage import Estimate, Usage

SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000
PER_SESSION = 12  # exchanges, on average
PER_CREDENTIAL = 50  # users
TRIES = 6  # of a client that is refused
MODELS = ("gpt-4o", "gpt-4o-mini")


# Clocks in Berlin leap on the 29th at 01:00 UTC; the day there begins at 23:00 before and 22:00 after; the
# month, by UTC, ends with the 31st. All in ms.
MARCH_28 = 1_774_656_000_000
BEGIN, END = MARCH_28 + 12 * HOUR, MARCH_28 + 108 * HOUR
RUSHES = tuple(MARCH_28 + hours * HOUR for hours in (23, 25, 46, 60, 94, 96))

FIXED = Algorithm.FIXED_WINDOW


def policies(exchanges: int) -> dict[str, tuple[Policy, ...]]:
    """The policies, by whose they are; what all have together grows with the number of exchanges."""
    berlin, month = Calendar(Unit.DAY, "Europe/Berlin"), Calendar(Unit.MONTH)
    return {
        "user": (
            Policy("user-minute", ("user",), 6_000, MINUTE, burst=10),
            Policy("user-day", ("user",), 25_000, algorithm=FIXED, calendar=berlin),
            Policy("user-month", ("user",), 60_000, algorithm=FIXED, calendar=month),
            Policy("user-calls", ("user",), 12, MINUTE, count=Count.REQUESTS),
            Policy("user-streams", ("user",), 4, count=Count.CONCURRENT, algorithm=Algorithm.CONCURRENCY),
        ),
        "credential": (
            Policy("key-minute", ("credential",), 15_000, MINUTE, algorithm=Algorithm.SLIDING_WINDOW),
            Policy("key-written", ("credential",), 30_000, 10 * MINUTE, count=Count.COMPLETION),
        ),
        "all": (
            Policy("all-minute", (), 15_000 + 2 * exchanges, MINUTE, algorithm=FIXED),
            Policy("all-shadow", (), 1_000, MINUTE, enforce=False),
        ),
    }


@dataclass(frozen=True, slots=True)
class Plan:
    """What an exchange would be: its tokens, what it declares, ms that it takes, how it ends."""

    model: str
    prompt: int
    completion: int
    declared: int
    takes: int
    ends: str  # complete, repeated, released, crashed, or late


class Traffic:
    """Some exchanges between BEGIN and END, all drawn from one seed."""

    def __init__(
        self, audit: Audit, clock: Clock, *, seed: int, exchanges: int, users: int, workers: int
    ) -> None:
        self._audit, self._clock = audit, clock
        self._random = random.Random(seed)
        self._workers = [Learner() for _ in range(workers)]
        self._policies = policies(exchanges)
        self.members: dict[int, Member] = {}
        self._users = users
        self._left = exchanges
        self.tokens = 0  # used by exchanges that were settled

    def begin(self) -> None:
        """Let all sessions begin, each in its time."""
        while self._left > 0:
            size = min(self._left, max(1, round(self._random.expovariate(1 / PER_SESSION))))
            self._left -= size
            self._clock.begin(self._session(size), self._start())

    def _start(self) -> int:
        if self._random.random() < 0.5:
            return self._random.randrange(BEGIN, END)
        return self._random.choice(RUSHES) + self._random.randrange(-3 * MINUTE, 3 * MINUTE)

    def _session(self, size: int) -> Story:
        """One user asks again and again, without waiting for the answers; some users ask often."""
        user = int(self._users ** self._random.uniform(0.4, 1)) - 1
        member, credential = self._member(user), f"key{user // PER_CREDENTIAL}"
        pace = self._random.choice((500, 5 * SECOND, 30 * SECOND))
        for _ in range(size):
            self._clock.begin(self._exchange(member, credential, self._plan()), self._clock.now)
            yield self._clock.now + round(self._random.expovariate(1 / pace))

    def _member(self, user: int) -> Member:
        if user not in self.members:
            keys = {"user": f"u{user}", "credential": f"k{user // PER_CREDENTIAL}", "all": "all"}
            self.members[user] = self._audit.member(
                {f"w1:{{{key}}}": self._policies[whose] for whose, key in keys.items()}
            )
        return self.members[user]

    def _plan(self) -> Plan:
        draw = self._random
        declared = draw.choice((256, 1024, 4096))
        completion = min(round(draw.lognormvariate(5.5, 0.7)), declared)
        if draw.random() < 0.05:
            completion = declared * 5 // 4  # the model does not keep to the cap
        ends = draw.choices(("complete", "repeated", "released", "crashed", "late"), (84, 4, 4, 4, 4))[0]
        takes = round(min(draw.lognormvariate(1.6, 1.2), 400) * SECOND) + 1
        prompt = round(draw.lognormvariate(4.5, 1))
        return Plan(draw.choice(MODELS), prompt, completion, declared, takes, ends)

    def _exchange(self, member: Member, credential: str, plan: Plan) -> Story:
        """Ask, and again where refused for a time one can wait; then stream, and settle somehow."""
        draw = self._random
        for _ in range(TRIES):
            worker = draw.choice(self._workers)
            learned = worker.expect(credential, plan.model, plan.declared)
            estimate = Estimate(plan.prompt, plan.declared, learned)
            amounts = [policy.reserved(estimate, plan.model) for policy in member.policies]
            answer, reservation = self._audit.reserve(member, amounts, undo=draw.random() < 0.3)
            if reservation:
                yield from self._stream(reservation, plan)
                if plan.ends in ("complete", "repeated"):
                    worker.learn(credential, plan.model, plan.completion)
                return
            if answer.wait == NEVER or draw.random() < (0.7 if answer.wait > HOUR else 0.1):
                return
            yield self._clock.now + answer.wait + draw.choice((0, 0, 1, 300))

    def _stream(self, reservation: Reservation, plan: Plan) -> Story:
        begun = self._clock.now
        broken = plan.ends in ("crashed", "late")
        until = begun + (round(plan.takes * self._random.random()) if broken else plan.takes)
        while self._clock.now + LEASE // 3 < until:
            yield self._clock.now + LEASE // 3
            part = (self._clock.now - begun) / plan.takes
            self._audit.renew(reservation, _amounts(reservation, plan, round(plan.completion * part)))
        yield until
        if broken:
            self._clock.begin(self._audit.lose(reservation), self._clock.now)
        yield from self._end(reservation, plan)

    def _end(self, reservation: Reservation, plan: Plan) -> Story:
        used = _amounts(reservation, plan, plan.completion, over=True)
        match plan.ends:
            case "released":
                self._audit.release(reservation)
                return
            case "crashed":
                yield reservation.ends + 2 * SECOND
                self._audit.forget(reservation)
                return
            case "late":
                yield reservation.ends + self._random.randrange(MARKER * 3 // 2)
        self._audit.settle(reservation, used)
        self.tokens += plan.prompt + plan.completion
        if plan.ends == "repeated":
            yield self._clock.now + 250
            self._audit.settle_again(reservation, used)


def _amounts(reservation: Reservation, plan: Plan, completion: int, *, over: bool = False) -> list[int]:
    """What is used when so much of the completion is there; of concurrency nothing when it is over."""
    usage = Usage(plan.prompt, completion, "provider")
    return [
        0 if over and policy.count is Count.CONCURRENT else policy.amount(usage, plan.model)
        for policy in reservation.member.policies
    ]
