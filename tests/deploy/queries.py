"""Queries: what the dashboards ask, as a Prometheus can be asked it; and which of it finds nothing.

python -m tests.deploy.queries http://127.0.0.1:9090
"""

import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

DIRECTORY = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards"


def dashboards() -> list[dict[str, Any]]:
    """The dashboards as Grafana is given them, in the order of their files' names."""
    return [json.loads(path.read_text()) for path in sorted(DIRECTORY.glob("*.json"))]


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What is drawn: the panels, those within rows too, without the rows."""
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            yield panel
        yield from panel.get("panels", ())


def queries(dashboard: dict[str, Any], window: str = "1m") -> list[tuple[str, str]]:
    """The title of a panel, and what it asks with every variable set to all: (title, PromQL) each.

    `window` is what rates are taken over, a Prometheus duration: four times the scrape interval at least.
    """
    return [
        (panel["title"], filled(target["expr"], window))
        for panel in panels(dashboard)
        for target in panel.get("targets", ())
    ]


def filled(expression: str, window: str = "1m") -> str:
    """An expression with the variables of Grafana filled in: all instances, all models, all policies."""
    return re.sub(r"\$(\w+)", lambda found: window if found[1] == "__rate_interval" else ".*", expression)


def numbers(prometheus: httpx.Client, expression: str) -> list[float]:
    """What a Prometheus answers now: the numbers, less those that are none.

    Raises httpx.HTTPStatusError where it does not understand.
    """
    answer = prometheus.post("/api/v1/query", data={"query": expression})
    answer.raise_for_status()
    found = [float(series["value"][1]) for series in answer.json()["data"]["result"]]
    return [number for number in found if not math.isnan(number)]


def silent(prometheus: httpx.Client, window: str = "1m") -> list[tuple[str, str, str]]:
    """What has no data: (dashboard, panel, PromQL) each."""
    return [
        (dashboard["title"], title, expression)
        for dashboard in dashboards()
        for title, expression in queries(dashboard, window)
        if not numbers(prometheus, expression)
    ]


def main(address: str, window: str = "1m") -> int:
    """Print what has no data in the Prometheus at this address; 1 where there is any."""
    with httpx.Client(base_url=address) as prometheus:
        found = silent(prometheus, window)
    for line in found:
        print(*line, sep="\t")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
