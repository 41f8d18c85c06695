"""Table: what was measured, a line for each target, and how it compares."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.load import Heard
from benchmarks.targets import BARE, TITLES, WEIR

_COLUMNS = "{:<36}{:>12}{:>9}{:>9}{:>12}{:>10}{:>9}{:>10}"
_HEAD = ("", "requests/s", "p50 ms", "p99 ms", "CPU-s/1000", "peak MB", "non-2xx", "vs bare")


@dataclass(frozen=True, slots=True)
class Round:
    """One round of one target: what the load heard, CPU seconds per 1000 requests, MB at most."""

    heard: Heard
    cpu: float | None
    peak: float | None


Results = Mapping[str, Sequence[Round]]


def table(results: Results) -> str:
    """The medians of the rounds, in one table, with what they are relative to the bare pass-through."""
    lines = [_COLUMNS.format(*_HEAD)]
    lines += [_line(name, rounds, ratios(results, name)) for name, rounds in results.items()]
    if each := ratios(results, WEIR):
        shown = ", ".join(f"{ratio:.1f}" for ratio in each)
        lines += [
            "",
            f"Weir / bare pass-through, requests/s of each round: {shown}; median {median(each):.1f}",
        ]
    return "\n".join(line.rstrip() for line in lines)


def ratios(results: Results, name: str) -> list[float]:
    """The rate of a target in each round over that of the bare pass-through; none where one is missing."""
    pairs = zip(results.get(name, ()), results.get(BARE, ()), strict=False)
    return [one.heard.rate / bare.heard.rate for one, bare in pairs if bare.heard.rate]


def faults(results: Results) -> list[str]:
    """What must not be: answers that were no success, requests without one, no answers at all."""
    said = []
    for name, rounds in results.items():
        answers, refused, lost = (
            sum(getattr(one.heard, fact) for one in rounds) for fact in ("answers", "refused", "lost")
        )
        if refused or lost or not answers:
            said.append(f"{TITLES[name]}: {answers} answers, {refused} of them not 2xx, {lost} never came")
    return said


def _line(name: str, rounds: Sequence[Round], ratios: Sequence[float]) -> str:
    return _COLUMNS.format(
        TITLES[name],
        _median(rounds, lambda one: one.heard.rate, ",.0f"),
        _median(rounds, lambda one: one.heard.p50, ",.1f"),
        _median(rounds, lambda one: one.heard.p99, ",.1f"),
        _median(rounds, lambda one: one.cpu, ".3f"),
        _most(rounds),
        sum(one.heard.refused for one in rounds),
        f"{median(ratios):.1f} x" if ratios else "-",
    )


def _median(rounds: Sequence[Round], fact: Callable[[Round], float | None], shape: str) -> str:
    known = [value for one in rounds if (value := fact(one)) is not None]
    return format(median(known), shape) if known else "-"


def _most(rounds: Sequence[Round]) -> str:
    known = [one.peak for one in rounds if one.peak is not None]
    return f"{max(known):.0f}" if known else "-"
