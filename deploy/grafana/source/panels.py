"""Panels: what a dashboard is made of, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from deploy.grafana.source.promql import Query

Colours = tuple[tuple[str, float | None], ...]


def worse_above(yellow: float, red: float) -> Colours:
    """Green below both."""
    return (("green", None), ("yellow", yellow), ("red", red))


def worse_below(green: float) -> Colours:
    """Red below it."""
    return (("red", None), ("green", green))


@dataclass(frozen=True, slots=True)
class Panel:
    """What is drawn: a title, what it means, its unit as Grafana names it, and what is asked.

    `colours` are of the values from a bound on, `words` say what values mean, and `leads` is the uid of the
    dashboard that tells more.
    """

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    colours: Colours = ()
    words: Mapping[str, str] = field(default_factory=dict)
    stacked: bool = False
    logarithmic: bool = False
    named: bool = False  # a stat that shows the names of its series
    leads: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels of one kind under one heading; so many stand beside each other."""

    title: str
    panels: tuple[Panel, ...]
    kind: Literal["stat", "timeseries", "table"] = "timeseries"
    across: int = 3


@dataclass(frozen=True, slots=True)
class Variable:
    """What can be chosen: the values that a label of a metric has."""

    name: str
    title: str
    metric: str


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A page of Grafana; `uid` stands in its address and never changes."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()


INSTANCE = Variable("instance", "Gateway", "weir_build_info")
MODEL = Variable("model", "Model", "weir_tokens_total")
POLICY = Variable("policy", "Policy", "weir_refusals_total")
