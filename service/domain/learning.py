"""Learning: how long a completion will be, by what a model has lately produced for a credential.

What is expected is the greater of two. The *quantile* is what at most one in ONE_IN of the recent completions
exceeded. To be wrong about one of them costs little either way: what it takes beyond is charged in full once
known, and later requests wait for it; what it leaves is only out of use while the request is open. What
counts is the sum of those that are open, for of a quota only about used / reserved gets through where
requests take long. A high quantile would keep much from use as soon as lengths differ. But of completions of
two sorts, the long ones few, a low one knows the short ones only; hence the *mean*. What is reserved for many
completions together is then not below what as many recent ones took.

*Cold start*: of fewer than COLD completions nothing is learned yet, and what was declared is reserved.
*Decay*: what is remembered is halved every HALVING completions, so that the older count ever less. A model
that turns to longer completions is followed after at most 99 of them; to shorter ones by half of the
difference after at most 400, by nine tenths after 700.
*Memory*: each worker learns for itself. A pair of credential and model takes 2.0 kB (measured, with names of
40 characters), so 8 MB at the 4,096 pairs it remembers; with the longest names 4 kB. A model's name is the
client's to write, so long ones are not learned of, and the pair longest without a completion is forgotten
first: a flood of new names forgets only pairs that had none during it.
"""

from array import array
from bisect import bisect_left
from collections import OrderedDict
from operator import mul

from service.domain.usage import MOST_TOKENS

ONE_IN = 4  # one in so many may exceed the quantile, which is 0.75
COLD = 20  # of fewer, neither quantile nor mean says much
HALVING = 200  # completions; the memory is then of 200 to 400
LONGEST = 256  # characters of a credential, or of a model's name
_WEIGHT = 1 << 16  # of a completion: so fine that rounding down loses nothing that matters


def edges() -> tuple[int, ...]:
    """The highest length of each bucket: exact below 20 tokens, then within 5 % above the shortest in it."""
    highest = [0]
    while highest[-1] < MOST_TOKENS:
        highest.append((highest[-1] + 1) * 21 // 20)
    return (*highest[:-1], MOST_TOKENS)


class Recent:
    """A decaying histogram of lengths; `expected` is the greater of their quantile and their mean.

    A length counts as the highest of its bucket. The quantile's is `_high`: the lowest that at most 1/ONE_IN
    lies above.
    """

    __slots__ = ("_above", "_edges", "_high", "_tokens", "_total", "_weights", "expected", "seen")

    def __init__(self, edges: tuple[int, ...], first: int) -> None:
        self.seen = 0
        self.expected = 0
        self._edges = edges
        self._weights = array("I", bytes(4 * len(edges)))
        self._total = 0
        self._tokens = 0  # the lengths, each times its weight
        self._high = first
        self._above = 0  # of the total, what lies above `_high`

    def add(self, bucket: int) -> None:
        """Count one more; what it costs does not depend on how many there are."""
        self.seen += 1
        self._total += _WEIGHT
        self._tokens += _WEIGHT * self._edges[bucket]
        self._weights[bucket] += _WEIGHT
        if bucket > self._high:
            self._above += _WEIGHT
        if self.seen % HALVING == 0:
            self._halve()
        self._move()
        self.expected = max(self._edges[self._high], -(-self._tokens // self._total))

    def _halve(self) -> None:
        self._weights = array("I", [weight >> 1 for weight in self._weights])
        self._total = sum(self._weights)
        self._tokens = sum(map(mul, self._weights, self._edges))
        self._above = sum(self._weights[self._high + 1 :])

    def _move(self) -> None:
        """Bring `_high` to where it belongs: mostly it is there already, or next to it."""
        weights, high, above = self._weights, self._high, self._above
        while above * ONE_IN > self._total:
            high += 1
            above -= weights[high]
        while high and (above + weights[high]) * ONE_IN <= self._total:
            above += weights[high]
            high -= 1
        self._high, self._above = high, above


class Learner:
    """What is expected of completions, by credential and model, of the `most` pairs that last had one."""

    def __init__(self, *, most: int = 4096) -> None:
        self._most = most
        self._edges = edges()
        self._recent: OrderedDict[tuple[str, str], Recent] = OrderedDict()

    def expect(self, credential: str, model: str, declared: int) -> int | None:
        """The tokens to reserve for a completion, never above those declared; None in a cold start.

        It is at most 5 % above the greater of quantile and mean, and never below either.
        """
        recent = self._recent.get((credential, model))
        if recent is None or recent.seen < COLD:
            return None
        return min(declared, recent.expected)

    def learn(self, credential: str, model: str, completion: int) -> None:
        """Remember the tokens of a completion that came to its end; beyond MOST_TOKENS it counts as that."""
        if len(credential) > LONGEST or len(model) > LONGEST:
            return
        pair = credential, model
        bucket = bisect_left(self._edges, min(completion, MOST_TOKENS))
        recent = self._recent.get(pair)
        if recent is None:
            recent = self._recent[pair] = Recent(self._edges, bucket)
            if len(self._recent) > self._most:
                self._recent.popitem(last=False)
        self._recent.move_to_end(pair)
        recent.add(bucket)
