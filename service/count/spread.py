"""Spread: how far estimates of prompts lie from what the API reported."""

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple


class Case(NamedTuple):
    """A body, by the number of its line, and its prompt in tokens: reported by the API, and estimated."""

    line: int
    id: str
    category: str
    model: str
    reported: int
    estimate: int

    @property
    def error(self) -> int:
        """Tokens too many, or below 0 too few."""
        return self.estimate - self.reported

    @property
    def share(self) -> float:
        """The error as a part of what was reported."""
        return self.error / self.reported


@dataclass(frozen=True, slots=True)
class Figures:
    """What a spread looks like.

    `exact` and `within_1` (not off by more than one per cent) are per cent of `n`; `off` is the mean of
    |error| ÷ reported and `bias` the sum of errors ÷ the sum of what was reported, in per cent; the others
    are tokens: the errors furthest below and above 0, and those that so many per cent do not exceed.
    """

    n: int
    exact: float
    within_1: float
    off: float
    bias: float
    under: int
    over: int
    p5: int
    p50: int
    p95: int


class Spread:
    """Cases, of which only the errors are kept, each with how often it was made."""

    def __init__(self) -> None:
        self._errors: Counter[int] = Counter()
        self._near = 0
        self._shares = 0.0
        self._reported = 0

    def add(self, case: Case) -> None:
        """One case more."""
        self._errors[case.error] += 1
        self._near += abs(case.error) * 100 <= case.reported
        self._shares += abs(case.share)
        self._reported += case.reported

    def figures(self) -> Figures:
        """What it looks like, of one case at least."""
        errors, n = self._errors, self._errors.total()
        return Figures(
            n=n,
            exact=100 * errors[0] / n,
            within_1=100 * self._near / n,
            off=100 * self._shares / n,
            bias=100 * sum(error * times for error, times in errors.items()) / self._reported,
            under=min(0, *errors),
            over=max(0, *errors),
            p5=self._exceeded_by_all_but(5),
            p50=self._exceeded_by_all_but(50),
            p95=self._exceeded_by_all_but(95),
        )

    def _exceeded_by_all_but(self, percent: int) -> int:
        """The least error that at least so many per cent do not exceed."""
        missing = self._errors.total() * percent
        for error in sorted(self._errors):
            missing -= 100 * self._errors[error]
            if missing <= 0:
                break
        return error
