"""The deployment is what it says: its files as data, and as the programs they are made for read them."""

import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service import settings
from service.adapters import metrics
from tests.deploy.published import exported

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROMETHEUS = DEPLOY / "prometheus" / "prometheus.yml"
(QUERIES,) = re.findall(r"```promql\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
EXPRESSIONS: list[str] = QUERIES.splitlines()

PROMTOOL = shutil.which("promtool") or ""
needs_promtool = pytest.mark.skipif(not PROMTOOL, reason="there is no promtool on PATH")


def ran(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """What a program said, in an environment of its own."""
    return subprocess.run(command, env={"HOME": "/"}, capture_output=True, text=True, check=False)


# Compose


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_every_container_is_confined(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert not service.get("privileged")


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_every_container_has_its_share_of_the_machine_and_no_more(service: dict[str, Any]) -> None:
    limits = service["deploy"]["resources"]["limits"]
    assert {*limits} == {"memory", "cpus", "pids"}
    assert float(limits["cpus"]) <= 1  # an engine refuses more than the machine has


def test_the_store_may_fill_its_memory_twice_while_it_rewrites_its_file() -> None:
    (most,) = re.findall(r"--maxmemory (\d+)mb", SERVICES["redis"]["command"])
    (limit,) = re.findall(r"^(\d+)m$", SERVICES["redis"]["deploy"]["resources"]["limits"]["memory"])
    assert int(limit) > 2 * int(most)


def test_three_gateways_serve() -> None:
    assert SERVICES["gateway"]["deploy"]["replicas"] == 3


def test_a_gateway_may_take_as_long_to_end_as_it_needs() -> None:
    (grace,) = re.findall(r"^(\d+)s$", SERVICES["gateway"]["stop_grace_period"])
    said = settings.Settings()
    assert float(grace) > said.drain + said.grace


def test_the_store_is_reached_by_gateways_alone_and_reaches_nobody() -> None:
    members = {
        network: {name for name, service in SERVICES.items() if network in service["networks"]}
        for network in COMPOSE["networks"]
    }
    assert members == {
        "edge": {"balancer", "gateway"},
        "inside": {"gateway", "redis", "model"},
        "watch": {"gateway", "prometheus", "grafana"},
    }
    assert COMPOSE["networks"]["inside"] == {"internal": True}


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


# Prometheus


def test_prometheus_asks_every_gateway_on_its_operations_port() -> None:
    jobs = {job["job_name"]: job for job in yaml.safe_load(PROMETHEUS.read_text())["scrape_configs"]}
    (gateways,) = jobs["weir"]["dns_sd_configs"]
    assert gateways["names"] == ["gateway"]
    assert gateways["port"] == settings.Settings().ops_port


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_readme_asks_for_what_weir_publishes(expression: str) -> None:
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
        for expression in EXPRESSIONS
        for name, bound in re.findall(r'(weir_\w+)_bucket\{[^}]*\ble="([^"]+)"', expression)
    ]
    assert asked
    assert [(name, bound) for name, bound in asked if float(bound) not in (*bounds[name], math.inf)] == []


def test_prometheus_is_given_the_rules_that_it_is_told_to_read() -> None:
    rules = yaml.safe_load(PROMETHEUS.read_text())["rule_files"]
    assert "alerts.yml" in rules
    assert all(PROMETHEUS.with_name(name).exists() for name in rules)
    assert "./deploy/prometheus:/etc/prometheus:ro" in SERVICES["prometheus"]["volumes"]
    assert "--config.file=/etc/prometheus/prometheus.yml" in SERVICES["prometheus"]["command"]


@needs_promtool
def test_prometheus_understands_what_the_readme_asks(tmp_path: Path) -> None:
    rules = [{"record": f"asked:{number}", "expr": text} for number, text in enumerate(EXPRESSIONS)]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}))
    done = ran(PROMTOOL, "check", "rules", path)
    assert done.returncode == 0, done.stderr
