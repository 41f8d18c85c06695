"""Rendering: dashboards as the JSON that it reads."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from deploy.grafana.source.panels import Dashboard, Panel, Row, Variable
from deploy.grafana.source.promql import Query

Json = dict[str, Any]

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS = 24  # of the grid
_HEIGHTS = {"stat": 4, "timeseries": 8, "table": 12}
_SCHEMA = 39  # the version of the JSON; Grafana itself brings it to a later one
_PLAIN = (("green", None),)


def rendered(dashboard: Dashboard, others: Sequence[Dashboard]) -> Json:
    """The JSON of a dashboard, with links to the others."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["weir"],
        "schemaVersion": _SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,  # one crosshair for all panels
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_DATASOURCE, *(_variable(one) for one in dashboard.variables)]},
        "annotations": {"list": []},
        "links": [_link(other) for other in others],
        "panels": list(_panels(dashboard.rows)),
    }


_DATASOURCE: Json = {
    "name": "datasource",
    "label": "Data source",
    "type": "datasource",
    "query": "prometheus",
    "refresh": 1,
    "current": {"text": "Prometheus", "value": "prometheus"},
}


def _variable(variable: Variable) -> Json:
    """A choice of some or all values; all is `.*`, so that nothing is missed that has no such label yet."""
    return {
        "name": variable.name,
        "label": variable.title,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": f"label_values({variable.metric}, {variable.name})", "refId": variable.name},
        "refresh": 2,  # with the time range
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _link(other: Dashboard) -> Json:
    return {
        "type": "link",
        "title": other.title,
        "tooltip": other.description,
        "url": f"/d/{other.uid}",
        "icon": "dashboard",
        "keepTime": True,
        "includeVars": True,
    }


def _panels(rows: Sequence[Row]) -> Iterator[Json]:
    """Headings and what is under them, numbered from 1, each at its place."""
    numbers, top = count(1), 0
    for row in rows:
        heading = {"type": "row", "title": row.title, "collapsed": False, "panels": []}
        yield {"id": next(numbers), **heading, "gridPos": _place(0, top, _COLUMNS, 1)}
        width, height = _COLUMNS // row.across, _HEIGHTS[row.kind]
        for index, panel in enumerate(row.panels):
            line, column = divmod(index, row.across)
            place = _place(column * width, top + 1 + line * height, width, height)
            yield {"id": next(numbers), **_panel(panel, row.kind), "gridPos": place}
        top += 1 + height * -(-len(row.panels) // row.across)


def _place(left: int, top: int, width: int, height: int) -> Json:
    return {"x": left, "y": top, "w": width, "h": height}


def _panel(panel: Panel, kind: str) -> Json:
    draw = {"stat": _stat, "timeseries": _lines, "table": _table}[kind]
    leads = {"title": "More of this", "url": f"/d/{panel.leads}?${{__url_time_range}}&${{__all_variables}}"}
    return {
        "type": kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "links": [leads] if panel.leads else [],
        "targets": [_target(query, place, kind) for place, query in enumerate(panel.queries)],
        **draw(panel),
    }


def _target(query: Query, place: int, kind: str) -> Json:
    asked = {"instant": True, "range": False, "format": "table"} if kind == "table" else {}
    named = {"refId": "ABCDEFGH"[place], "datasource": _SOURCE}
    return {**named, "expr": query.expr, "legendFormat": query.legend, **asked}


def _stat(panel: Panel) -> Json:
    return {
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": {
            "reduceOptions": {"calcs": ["lastNotNull"]},
            "colorMode": "background" if panel.colours else "none",
            "graphMode": "none" if panel.words or panel.named else "area",
            "textMode": "value_and_name" if panel.named else "auto",
        },
    }


def _lines(panel: Panel) -> Json:
    custom = {
        "lineWidth": 1,
        "fillOpacity": 20 if panel.stacked else 0,
        "showPoints": "never",
        **({} if panel.logarithmic else {"axisSoftMin": 0}),  # below 0 only what is
        "stacking": {"mode": "normal" if panel.stacked else "none"},
        "scaleDistribution": {"type": "log", "log": 10} if panel.logarithmic else {"type": "linear"},
        "thresholdsStyle": {"mode": "dashed" if panel.colours else "off"},
    }
    return {
        "fieldConfig": {"defaults": {**_defaults(panel), "custom": custom}, "overrides": []},
        "options": {
            "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def _table(panel: Panel) -> Json:
    """A table of what its one query answers now, the most first, without the time of it."""
    return {
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": {"showHeader": True, "sortBy": [{"displayName": panel.title, "desc": True}]},
        "transformations": [
            {
                "id": "organize",
                "options": {"excludeByName": {"Time": True}, "renameByName": {"Value": panel.title}},
            }
        ],
    }


def _defaults(panel: Panel) -> Json:
    """Unit, colours and words of a panel's values."""
    steps = [{"color": color, "value": bound} for color, bound in panel.colours or _PLAIN]
    words = {value: {"text": text, "index": index} for index, (value, text) in enumerate(panel.words.items())}
    return {
        "unit": panel.unit,
        "mappings": [{"type": "value", "options": words}] if words else [],
        "thresholds": {"mode": "absolute", "steps": steps},
    }
