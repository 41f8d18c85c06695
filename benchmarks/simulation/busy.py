"""Busy: a user who always has one more request to make, and how much of a quota such a user really gets."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.simulation.audit import Audit, Reservation
from benchmarks.simulation.clock import Clock, Story
from benchmarks.simulation.ledger import LEASE, Ledger
from service.domain.account import Algorithm
from service.domain.learning import Learner
from service.domain.policy import Policy, Reserve
from service.domain.usage import Estimate, Usage

LIMIT, MINUTE = 20_000, 60_000  # tokens, ms
PROMPT, DECLARED = 50, 4_096  # tokens
LENGTHS = (5, 30, 120, 300)  # s that a request takes
WORKERS = 10

Draw = Callable[[random.Random], float]  # the tokens of a completion; 250 of them on average

SPREADS: dict[str, Draw] = {
    "all alike": lambda draw: 250,
    "narrow": lambda draw: draw.gauss(250, 25),
    "normal": lambda draw: draw.gauss(250, 50),
    "lognormal": lambda draw: 250 * draw.lognormvariate(-0.125, 0.5),
    "exponential": lambda draw: draw.expovariate(1 / 250),
}


@dataclass(frozen=True, slots=True)
class Utilisation:
    """What a busy user got of the limit, as a fraction; `faults` should be empty."""

    fraction: float
    faults: list[str]


class Busy:
    """One user's requests, one after the other at the door, as many as are granted inside at a time.

    Each takes `seconds` and uses PROMPT and a completion of `spread`. Refused, it is asked again after the
    time told. Any of the WORKERS may be asked; `taught` ones have seen this model's completions before.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        seconds: int,
        spread: Draw,
        algorithm: Algorithm = Algorithm.LEAKY_BUCKET,
        reserve: Reserve = Reserve.LEARNED,
        taught: bool = True,
        seed: int = 1,
    ) -> None:
        self._clock = Clock(10 * MINUTE)
        self._random = random.Random(seed)
        self._seconds, self._spread = seconds, spread
        self._policy = Policy("user-minute", ("user",), LIMIT, MINUTE, algorithm=algorithm, reserve=reserve)
        self._audit = Audit(ledger, self._clock)
        self._member = self._audit.member({"w1:{busy}": [self._policy]})
        self._workers = [Learner() for _ in range(WORKERS)]
        for worker in self._workers if taught else []:
            for _ in range(200):
                worker.learn("key", "model", self._completion())

    def run(self, *, after: int, minutes: int) -> Utilisation:
        """What is used of the limit in so many minutes, those before `after` not counted."""
        begin = self._clock.now + after * MINUTE
        end = begin + minutes * MINUTE
        self._clock.begin(self._ask(), self._clock.now)
        self._clock.run(end)
        history = self._member.histories[0]
        granted = {change.share for change in history.changes if change.granted and change.at >= begin}
        used = sum(share.total for share in granted)
        faults = [*self._audit.faults, *map(str, history.breaches())]
        return Utilisation(used / (LIMIT * 1000 * minutes), faults)

    def _completion(self) -> int:
        return max(1, min(round(self._spread(self._random)), DECLARED))

    def _ask(self) -> Story:
        completion = self._completion()
        while True:
            worker = self._random.choice(self._workers)
            estimate = Estimate(PROMPT, DECLARED, worker.expect("key", "model", DECLARED))
            answer, reservation = self._audit.reserve(self._member, [self._policy.reserved(estimate)])
            if reservation:
                self._clock.begin(self._stream(reservation, worker, completion), self._clock.now)
                completion = self._completion()
            else:
                yield self._clock.now + answer.wait

    def _stream(self, reservation: Reservation, worker: Learner, completion: int) -> Story:
        begun = self._clock.now
        until = begun + self._seconds * 1000
        while self._clock.now + LEASE // 3 < until:
            yield self._clock.now + LEASE // 3
            part = (self._clock.now - begun) / (until - begun)
            self._audit.renew(reservation, [self._used(round(completion * part))])
        yield until
        self._audit.settle(reservation, [self._used(completion)])
        worker.learn("key", "model", completion)

    def _used(self, completion: int) -> int:
        return self._policy.amount(Usage(PROMPT, completion, "provider"))
