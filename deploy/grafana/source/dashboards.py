"""Dashboards: all of them, and the files that they become."""

import json

from deploy.grafana.source.gateway import GATEWAY
from deploy.grafana.source.overview import OVERVIEW
from deploy.grafana.source.quotas import QUOTAS
from deploy.grafana.source.rendering import rendered

ALL = (OVERVIEW, QUOTAS, GATEWAY)


def files() -> dict[str, str]:
    """The text of each dashboard by the name of its file, always the same."""
    return {f"{one.uid.removeprefix('weir-')}.json": _text(rendered(one, ALL)) for one in ALL}


def _text(document: object) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
