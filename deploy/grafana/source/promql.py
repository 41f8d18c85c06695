"""PromQL: the few shapes of question that the panels ask, always of the chosen instances alone."""

from dataclasses import dataclass

# What the variables of a dashboard choose.
_INSTANCE = 'instance=~"$instance"'
MODEL = 'model=~"$model"'
POLICY = 'policy=~"$policy"'
CHAT = 'route="chat"'
USED = 'kind=~"prompt|completion"'


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked, in PromQL, and what its series are called: `{{label}}` stands for a label's value."""

    expr: str
    legend: str = ""


def series(name: str, *where: str) -> str:
    """A metric's series; `where` are matchers."""
    return f"{name}{{{', '.join((_INSTANCE, *where))}}}"


def total(how: str, what: str, by: str = "") -> str:
    """Series taken together by an aggregation, apart by the labels of `by`, `a, b`."""
    return f"{how} by ({by}) ({what})" if by else f"{how}({what})"


def gauge(how: str, name: str, by: str = "") -> str:
    """The gauges of all instances together: sum, min, max or count."""
    return total(how, series(name), by)


def rate(name: str, *where: str, by: str = "") -> str:
    """How much a counter grows in a second."""
    return total("sum", f"rate({series(name, *where)}[$__rate_interval])", by)


def increase(name: str, *where: str, by: str = "") -> str:
    """How much a counter grew in the interval of a point."""
    return total("sum", f"increase({series(name, *where)}[$__rate_interval])", by)


def or_zero(expr: str, label: str = "") -> str:
    """0 where there is nothing, for what is absent until it first happens; `label` is then `none`."""
    if not label:
        return f"({expr} or vector(0))"
    return f'{expr} or on() label_replace(vector(0), "{label}", "none", "", "")'


def share(part: str, whole: str) -> str:
    """A part of a whole, 0 where there is none of it."""
    return f"{or_zero(part)} / {whole}"


def quantile(percent: int, name: str, *where: str, by: str = "") -> str:
    """The value that this percentage of a histogram's observations is not above."""
    buckets = rate(f"{name}_bucket", *where, by=f"{by}, le" if by else "le")
    return f"histogram_quantile({percent / 100}, {buckets})"


def quantiles(name: str, *where: str, of: tuple[int, ...] = (50, 95, 99)) -> tuple[Query, ...]:
    """Some percentiles of a histogram, each a line."""
    return tuple(Query(quantile(percent, name, *where), f"p{percent}") for percent in of)
