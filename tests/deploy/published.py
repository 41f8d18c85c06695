"""Published: the series that Weir publishes, and what an expression asks of them."""

import re

from service.adapters import metrics

# What Prometheus adds to every series, and what it publishes itself.
ADDED = ("instance", "job")
OF_PROMETHEUS = {"up": (), "ALERTS": ("alertname", "alertstate")}

_SERIES = re.compile(
    r"(?:by \((?P<by>[^)]*)\) \((?:rate\(|increase\()?)?"
    r"\b(?P<name>weir_\w+|up|ALERTS)\b(?:\{(?P<where>[^}]*)\})?"
)


def exported() -> dict[str, tuple[str, ...]]:
    """Every series that Weir publishes, and its labels."""
    plain = {family.name: family.labels for family in (*metrics.COUNTERS, *metrics.GAUGES, metrics.TOP)}
    for family in metrics.HISTOGRAMS:
        if not family.is_signed():
            plain |= {f"{family.name}_{suffix}": family.labels for suffix in ("count", "sum")}
        plain[f"{family.name}_bucket"] = (*family.labels, "le")
    return plain


def asked(expression: str) -> list[tuple[str, set[str]]]:
    """The series of an expression, each with the labels that it is narrowed or grouped by."""
    return [
        (found["name"], {label for label, _ in matchers(found["where"] or "")} | {*groups(found["by"] or "")})
        for found in _SERIES.finditer(expression)
    ]


def matchers(text: str) -> list[tuple[str, list[str]]]:
    """The labels that are matched, each with the alternatives that are written out."""
    found = re.findall(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"', text)
    return [(label, value.split("|")) for label, value in found]


def groups(by: str) -> list[str]:
    """The labels that stand between the brackets of a `by`."""
    return [label for label in by.split(", ") if label]


def unread(expression: str) -> list[str]:
    """The groups of an expression that `asked` did not find a series for."""
    read = [found["by"] for found in _SERIES.finditer(expression) if found["by"]]
    return [by for by in re.findall(r"by \(([^)]*)\)", expression) if by not in read]
