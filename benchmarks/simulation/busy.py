"""Busy: a user who always has one more request to make, and how much of a quota such a user really gets."""

import random
from collections.abc import Callable, Sequence
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
PARTS = 20  # in which a completion is taken to come, for what a minute sees of it

Draw = Callable[[random.Random], float]  # the tokens of a completion; 250 of them on average

SPREADS: dict[str, Draw] = {
    "all alike": lambda draw: 250,
    "sd 25": lambda draw: draw.gauss(250, 25),
    "sd 50": lambda draw: draw.gauss(250, 50),
    "lognormal": lambda draw: 250 * draw.lognormvariate(-0.125, 0.5),
    "exponential": lambda draw: draw.expovariate(1 / 250),
    "two sorts": lambda draw: 1_050 if draw.random() < 0.2 else 50,
}


@dataclass(frozen=True, slots=True)
class Utilisation:
    """What a busy user got of the limit, as a fraction; `faults` should be empty.

    `admitted` and `produced` are the most tokens that any minute really saw: of the requests admitted in it,
    and of prompts that went in and completions that came out in it, whenever they were admitted.
    """

    fraction: float
    admitted: int
    produced: int
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
        self._granted: list[tuple[int, int]] = []  # when, and the completion
        self._end = 0
        self._workers = [Learner() for _ in range(WORKERS)]
        for worker in self._workers if taught else []:
            for _ in range(200):
                worker.learn("key", "model", self._completion())

    def run(self, *, after: int, minutes: int) -> Utilisation:
        """What is used of the limit in so many minutes, those before `after` not counted.

        A request counts where it was admitted, with what it turns out to use.
        """
        begin = self._clock.now + after * MINUTE
        self._end = begin + minutes * MINUTE
        self._clock.begin(self._ask(), self._clock.now)
        self._clock.run()
        admitted = [(at, PROMPT + completion) for at, completion in self._granted if at >= begin]
        produced = [(at, tokens) for at, tokens in self._produced() if begin <= at < self._end]
        return Utilisation(
            fraction=sum(tokens for _, tokens in admitted) / (LIMIT * minutes),
            admitted=most_in_a_minute(admitted),
            produced=most_in_a_minute(produced),
            faults=[*self._audit.faults, *map(str, self._member.histories[0].breaches())],
        )

    def _produced(self) -> list[tuple[int, int]]:
        """When how many tokens went in or came out, in order."""
        pieces = [(at, PROMPT) for at, _ in self._granted]
        for at, completion in self._granted:
            there = [completion * part // PARTS for part in range(PARTS + 1)]
            pieces += [
                (at + self._seconds * 1000 * part // PARTS, there[part] - there[part - 1])
                for part in range(1, PARTS + 1)
            ]
        return sorted(pieces)

    def _completion(self) -> int:
        return max(1, min(round(self._spread(self._random)), DECLARED))

    def _ask(self) -> Story:
        completion = self._completion()
        while self._clock.now < self._end:
            worker = self._random.choice(self._workers)
            estimate = Estimate(PROMPT, DECLARED, worker.expect("key", "model", DECLARED))
            answer, reservation = self._audit.reserve(self._member, [self._policy.reserved(estimate)])
            if reservation:
                self._granted.append((self._clock.now, completion))
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


def most_in_a_minute(spent: Sequence[tuple[int, int]]) -> int:
    """The most tokens of any minute, by when how many were spent, in order."""
    most, inside, first = 0, 0, 0
    for at, tokens in spent:
        inside += tokens
        while spent[first][0] <= at - MINUTE:
            inside -= spent[first][1]
            first += 1
        most = max(most, inside)
    return most
