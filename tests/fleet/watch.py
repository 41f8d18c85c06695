"""Watch: what a Prometheus says, and waiting until it does."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx

PATIENCE = 40.0  # s


async def becomes(true: Callable[[], object], *, within: float = PATIENCE) -> None:
    """Wait until something is so. Raises TimeoutError."""
    async with asyncio.timeout(within):
        while not true():  # noqa: ASYNC110 - it happens in other programs
            await asyncio.sleep(0.05)


class Watch:
    """A Prometheus that is asked."""

    def __init__(self, port: int) -> None:
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10.0)

    def close(self) -> None:
        """Ask no more."""
        self.client.close()

    def series(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series that an expression finds now. Raises httpx.HTTPStatusError."""
        answer = self.client.post("/api/v1/query", data={"query": expression})
        answer.raise_for_status()
        result = answer.json()["data"]["result"]
        return [(one["metric"], float(one["value"][1])) for one in result]

    def last(self, metric: str, *labels: str, instance: str) -> dict[tuple[str, ...], int]:
        """The last sums of a counter of one instance, by these labels, be it gone by now."""
        by = ", ".join(labels)
        name, _, where = metric.partition("{")
        chosen = f'{name}{{instance="{instance}", {where or "}"}'
        found = self.series(f"sum by ({by}) (last_over_time({chosen}[1h]))")
        return {tuple(said[label] for label in labels): round(value) for said, value in found if value}

    def states(self, alert: str) -> set[str]:
        """In what states an alert is now, wherever it is."""
        alerts = self._said("/api/v1/alerts")["alerts"]
        return {one["state"] for one in alerts if one["labels"]["alertname"] == alert}

    def rules(self) -> list[dict[str, Any]]:
        """Every rule, and how it fares."""
        return [rule for group in self._said("/api/v1/rules")["groups"] for rule in group["rules"]]

    def _said(self, path: str) -> Any:
        answer = self.client.get(path)
        answer.raise_for_status()
        return json.loads(answer.content)["data"]
