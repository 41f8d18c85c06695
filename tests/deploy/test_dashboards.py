"""The dashboards are what their source says, ask for what there is, and have data where there is traffic."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import yaml

from deploy.grafana.source.dashboards import ALL, files
from service.adapters.ledger.embedded import EmbeddedStore
from service.adapters.metrics import labels
from service.domain.usage import OUTCOMES
from tests.deploy import published, queries
from tests.programs import Gateway, asked, serving, simulating, until

GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"
COMPOSE = yaml.safe_load((GRAFANA.parents[1] / "docker-compose.yml").read_text())
DASHBOARDS = queries.dashboards()
PANELS = [
    pytest.param(panel, id=f"{page['uid']}: {panel['title']}")
    for page in DASHBOARDS
    for panel in queries.panels(page)
]
EXPRESSIONS = sorted({query for page in DASHBOARDS for _, query in queries.queries(page, "5m")})
VALUES = {  # that labels have; a status may be any
    "kind": labels.KINDS,
    "how": labels.HOWS,
    "route": labels.ROUTES,
    "result": labels.RESULTS,
    "outcome": OUTCOMES,
    "enforced": ("true", "false"),
    "part": ("prompt", "completion"),
    "alertstate": ("firing", "pending"),
    "job": ("weir",),
}

PROMTOOL = shutil.which("promtool") or ""
needs_promtool = pytest.mark.skipif(not PROMTOOL, reason="there is no promtool on PATH")

each_dashboard = pytest.mark.parametrize("page", DASHBOARDS, ids=[page["uid"] for page in DASHBOARDS])
each_panel = pytest.mark.parametrize("panel", PANELS)


# Source and files


def test_what_grafana_is_given_is_what_the_source_says() -> None:
    given = {path.name: path.read_text() for path in (GRAFANA / "dashboards").iterdir()}
    assert given == files(), "make dashboards"


def test_no_two_dashboards_are_one() -> None:
    assert (
        len({page["uid"] for page in DASHBOARDS}) == len({page["title"] for page in DASHBOARDS}) == len(ALL)
    )


def test_grafana_opens_on_a_dashboard_that_it_is_given() -> None:
    service = COMPOSE["services"]["grafana"]
    home = Path(service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    provider = yaml.safe_load((GRAFANA / "provisioning/dashboards/weir.yml").read_text())["providers"][0]
    assert str(home.parent) == provider["options"]["path"]
    assert f"./deploy/grafana/dashboards:{home.parent}:ro" in service["volumes"]
    assert home.name in files()


# Dashboards


@each_dashboard
def test_every_panel_has_a_number_of_its_own_and_a_place_that_no_other_has(page: dict[str, Any]) -> None:
    everything = page["panels"]
    taken = [
        (column, line)
        for place in (panel["gridPos"] for panel in everything)
        for column in range(place["x"], place["x"] + place["w"])
        for line in range(place["y"], place["y"] + place["h"])
    ]
    assert [panel["id"] for panel in everything] == list(range(1, len(everything) + 1))
    assert len(taken) == len(set(taken))
    assert max(column for column, _ in taken) == 23


@each_dashboard
def test_a_dashboard_finds_its_data_source_by_itself(page: dict[str, Any]) -> None:
    (variable,) = [one for one in page["templating"]["list"] if one["type"] == "datasource"]
    provisioned = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())
    assert variable["name"] == "datasource"
    assert variable["current"]["value"] == provisioned["datasources"][0]["uid"]


@each_dashboard
def test_what_can_be_chosen_is_used_and_there_and_nothing_else_is_used(page: dict[str, Any]) -> None:
    asking = " ".join(target["expr"] for panel in queries.panels(page) for target in panel["targets"])
    used = {*re.findall(r"\$(\w+)", asking)} - {"__rate_interval"}
    offered = {one["name"]: one for one in page["templating"]["list"] if one["type"] == "query"}
    assert used == set(offered)
    for name, variable in offered.items():
        found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
        assert found
        assert found[2] == name
        assert found[2] in (*published.exported()[found[1]], *published.ADDED)
        assert variable["allValue"] == ".*"  # what has no such label is shown, too


@each_dashboard
def test_every_link_leads_to_one_of_the_dashboards_and_each_to_all(page: dict[str, Any]) -> None:
    others = {f"/d/{one['uid']}" for one in DASHBOARDS}
    leads = [link["url"].partition("?")[0] for panel in queries.panels(page) for link in panel["links"]]
    assert {link["url"] for link in page["links"]} == others
    assert all(link["keepTime"] and link["includeVars"] for link in page["links"])
    assert set(leads) <= others
    assert page["tags"] == ["weir"]


# Panels


@each_panel
def test_a_panel_says_what_it_shows_and_in_which_unit(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
    assert panel["targets"]


@each_panel
def test_colours_begin_at_nothing_and_go_up(panel: dict[str, Any]) -> None:
    first, *others = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
    assert first is None
    assert others == sorted(set(others))


@each_panel
def test_series_of_a_panel_are_told_apart_by_their_names(panel: dict[str, Any]) -> None:
    targets = panel["targets"]
    assert len({target["refId"] for target in targets}) == len(targets)
    assert len({target["legendFormat"] for target in targets}) == len(targets)
    if panel["type"] == "table":
        return  # its columns are the labels
    for target in targets:
        apart = {
            label for by in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in published.groups(by)
        }
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) == apart - {"le"}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_panel_asks_for_what_there_is(expression: str) -> None:
    there = published.exported() | published.OF_PROMETHEUS
    found = published.asked(expression)
    assert found
    assert published.unread(expression) == []
    for name, narrowed in found:
        assert narrowed <= {*there[name], *published.ADDED}
    for label, alternatives in published.matchers(expression):
        assert label == "status" or alternatives == [".*"] or set(alternatives) <= set(VALUES[label])


def test_a_series_that_nobody_publishes_would_be_noticed() -> None:
    with pytest.raises(KeyError, match="weir_request_total"):
        test_a_panel_asks_for_what_there_is("sum by (route) (rate(weir_request_total[1m]))")
    with pytest.raises(AssertionError):
        test_a_panel_asks_for_what_there_is("sum by (user) (rate(weir_requests_total[1m]))")
    with pytest.raises(AssertionError):
        test_a_panel_asks_for_what_there_is('rate(weir_tokens_total{kind="used"}[1m])')


def test_every_number_that_is_published_is_looked_at_somewhere() -> None:
    seen = {name for expression in EXPRESSIONS for name, _ in published.asked(expression)}
    ours = {name for name in published.exported() if re.fullmatch(r"weir_\w+(?<!_sum)(?<!_count)", name)}
    assert ours - seen == set(), "no panel shows it"


# Data


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    """What a gateway publishes to which nothing happened but a few chats."""
    body = {"model": "gpt-4o", "user": "ana", "messages": [{"role": "user", "content": "How deep is it?"}]}
    with (
        EmbeddedStore() as store,
        simulating() as model,
        serving(workers=2, UPSTREAM_URL=model, REDIS_URL=store.url) as gateway,
    ):
        for streamed in (False, True):
            address, key = f"{gateway.url}/v1/chat/completions", {"authorization": "Bearer sk-x"}
            assert httpx.post(address, json={**body, "stream": streamed}, headers=key).status_code == 200
        with redis.Redis.from_url(store.url) as ledger:
            until(lambda: ledger.keys("w1:top:*"))  # before the first look, as a look is good for a while
        until(lambda: 'outcome="complete"' in metrics_of(gateway))
        yield metrics_of(gateway)


def metrics_of(gateway: Gateway) -> str:
    return asked(f"{gateway.operations}/metrics")[1]


def grown(line: str) -> dict[str, str]:
    """A series of the page as it would be scraped for ten minutes, if what it counts went on."""
    name, labels, number = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups()  # type: ignore[union-attr]
    counts = name.endswith(("_total", "_bucket", "_sum", "_count"))
    known = ", ".join(filter(None, ('instance="gateway:9464"', 'job="weir"', labels)))
    values = f"0+{float(number):.9f}x10" if counts else f"{float(number):.9f}+0x10"
    return {"series": f"{name}{{{known}}}", "values": values}


def has_data(expression: str) -> dict[str, Any]:
    """That this finds a number, one that is a number."""
    filled = f"count(({expression}) > -Inf) > bool 0"
    return {"expr": filled, "eval_time": "10m", "exp_samples": [{"labels": "{}", "value": 1}]}


def answered(page: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """What promtool says of every panel's questions to who scraped this page."""
    lines = [line for line in page.splitlines() if not line.startswith("#")]
    test = {
        "interval": "1m",
        "input_series": [grown(line) for line in [*lines, "up 1"]],
        "promql_expr_test": [has_data(expression) for expression in EXPRESSIONS],
    }
    path = directory / "test.yml"
    path.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [test]}))
    command = [PROMTOOL, "test", "rules", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@needs_promtool
def test_no_panel_is_without_data_where_chats_went_well(page: str, tmp_path: Path) -> None:
    done = answered(page, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_a_panel_without_data_would_be_noticed(page: str, tmp_path: Path) -> None:
    done = answered(re.sub(r"^weir_ledger_seconds.*\n", "", page, flags=re.MULTILINE), tmp_path)
    assert done.returncode != 0
    assert "weir_ledger_seconds" in done.stdout + done.stderr


def test_what_is_no_number_is_no_data_and_a_question_not_understood_is_told() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if b"nonsense" in request.content:
            return httpx.Response(400, json={"status": "error"})
        series = [{"metric": {}, "value": [0, number]} for number in ("NaN", "0", "1.5")]
        return httpx.Response(200, json={"data": {"result": series}})

    with httpx.Client(base_url="http://prometheus", transport=httpx.MockTransport(answer)) as prometheus:
        assert queries.numbers(prometheus, "up") == [0, 1.5]
        with pytest.raises(httpx.HTTPStatusError):
            queries.numbers(prometheus, "nonsense")
