"""Comparison: estimates beside what the API reported, in all, by category, by family, and at their worst."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from heapq import heappush, heappushpop
from typing import Any

from service.columns import cell, table
from service.count.spread import Case, Figures, Spread
from service.domain.tokens.families import Family

_HEAD = ("", "", "n", "exact", "within 1%", "off", "bias", "under", "over", "p5", "p50", "p95")
_WORST = ("line", "id", "category", "model", "estimate", "reported", "error", "share")
_READ = (
    "errors are estimate − reported, in tokens: the furthest under and over; what 5, 50, 95% are at most\n"
    "off: the mean of |error| ÷ reported; bias: all errors together ÷ all that was reported"
)
_LONGEST = 48  # characters of a name


class Comparison:
    """Cases as they come; it keeps their errors, and the `worst` of them whole.

    `skipped` lines have no known number; of `bounded` bodies not everything was counted within the budget.
    """

    def __init__(self, worst: int) -> None:
        self._most = worst
        self._worst: list[tuple[int, float, int, Case]] = []
        self._all = Spread()
        self._categories: defaultdict[str, Spread] = defaultdict(Spread)
        self._families: defaultdict[Family, Spread] = defaultdict(Spread)
        self._models: defaultdict[Family, set[str]] = defaultdict(set)
        self.compared = 0
        self.skipped = 0
        self.bounded = 0

    def add(self, case: Case, family: Family) -> None:
        """One case more, of a model of that family."""
        self.compared += 1
        self._models[family].add(case.model)
        for spread in (self._all, self._categories[case.category], self._families[family]):
            spread.add(case)
        if case.error and self._most:
            keep = heappush if len(self._worst) < self._most else heappushpop
            keep(self._worst, (abs(case.error), abs(case.share), -case.line, case))

    def whole(self) -> Figures:
        """Of all cases, of which there is at least one."""
        return self._all.figures()

    def categories(self) -> dict[str, Figures]:
        """By category, empty where none was said, in the order they came."""
        return {name: spread.figures() for name, spread in self._categories.items()}

    def families(self) -> list[tuple[list[str], Figures]]:
        """By models that count alike, in the order they came."""
        return [(sorted(self._models[one]), spread.figures()) for one, spread in self._families.items()]

    def worst(self) -> list[Case]:
        """Those that are furthest off, in tokens, then in share; the furthest first."""
        return [case for *_, case in sorted(self._worst, reverse=True)]


def for_people(comparison: Comparison) -> str:
    """Tables, and how to read them."""
    seen = f"compared {comparison.compared} bodies, skipped {comparison.skipped} without a known number"
    if comparison.bounded:
        seen += f"; {comparison.bounded} of them were not all counted within the budget"
    if not comparison.compared:
        return seen
    parts = [table([_HEAD, *_rows(comparison)]), _READ]
    if worst := comparison.worst():
        parts += ["", table([_WORST, *map(_case, worst)])]
    return "\n".join([seen, "", *parts])


def for_programs(comparison: Comparison) -> str:
    """The same as JSON; `all` is null where there was nothing to compare."""
    members = {
        "compared": comparison.compared,
        "skipped": comparison.skipped,
        "bounded": comparison.bounded,
        "all": asdict(comparison.whole()) if comparison.compared else None,
        "categories": {name: asdict(figures) for name, figures in comparison.categories().items()},
        "families": [{"models": models, **asdict(figures)} for models, figures in comparison.families()],
        "worst": [_members(case) for case in comparison.worst()],
    }
    return json.dumps(members, indent=2)


def _rows(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    yield "all", "", *_cells(comparison.whole())
    for name, figures in comparison.categories().items():
        yield "category", cell(name, _LONGEST) or "-", *_cells(figures)
    for models, figures in comparison.families():
        yield "family", cell(" ".join(models), _LONGEST), *_cells(figures)


def _cells(figures: Figures) -> Iterator[str]:
    """Counts bare, shares with their sign and %, errors with their sign."""
    yield str(figures.n)
    yield f"{figures.exact:.1f}%"
    yield f"{figures.within_1:.1f}%"
    yield f"{figures.off:.2f}%"
    yield f"{figures.bias:+.2f}%"
    yield from map(_signed, (figures.under, figures.over, figures.p5, figures.p50, figures.p95))


def _case(case: Case) -> tuple[str, ...]:
    names = [cell(name, _LONGEST) or "-" for name in (case.id, case.category, case.model)]
    numbers = str(case.estimate), str(case.reported), _signed(case.error), f"{case.share:+.1%}"
    return str(case.line), *names, *numbers


def _members(case: Case) -> dict[str, Any]:
    return {**case._asdict(), "error": case.error}


def _signed(tokens: int) -> str:
    return f"{tokens:+}" if tokens else "0"
