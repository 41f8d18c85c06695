"""Prometheus' rules: they ask for what is there, fire when they should and only then, and say what to do."""

import re
import shutil
import subprocess
from math import inf
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.adapters import metrics
from tests.deploy import published

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
TESTS = Path(__file__).with_name("alerts.yml")
PROMTOOL = shutil.which("promtool") or ""
needs_promtool = pytest.mark.skipif(not PROMTOOL, reason="there is no promtool on PATH")


def rules(name: str) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load((FOLDER / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


RECORDS, ALERTS = rules("rules.yml"), rules("alerts.yml")
EVERY = [*RECORDS, *ALERTS]
NAMES = sorted({rule["alert"] for rule in ALERTS})
CASES: list[dict[str, Any]] = yaml.safe_load(TESTS.read_text())["tests"]
HISTOGRAMS = {family.name: family.options["buckets"] for family in metrics.HISTOGRAMS}

# What is neither Weir's nor Prometheus' own: of the Redis exporter that the alerts name.
EXPORTED = ("redis_memory_used_bytes", "redis_memory_max_bytes", "redis_evicted_keys_total")
OF_REDIS = dict.fromkeys(EXPORTED, published.ADDED)

# A fault planted in each alert, of which its test cases are to know.
FAULTS = [
    *(("ErrorBudgetBurn", said, other) for said, other in (("14.4 *", "10 *"), ("14.4 *", "20 *"))),
    *(("ErrorBudgetBurn", said, other) for said, other in ((" 6 *", " 8 *"), (" 6 *", " 1.9 *"))),
    *(("ErrorBudgetBurn", said, other) for said, other in ((" 1 *", " 2.1 *"), (" 1 *", " 0.4 *"))),
    ("ErrorBudgetBurn", "and weir:errors:ratio_rate5m", "and weir:errors:ratio_rate1h"),
    ("ErrorBudgetBurn", "and weir:errors:ratio_rate30m", "and weir:errors:ratio_rate6h"),
    ("ErrorBudgetBurn", "for: 2m", "for: 20m"),
    *(("OverheadBudgetBurn", said, other) for said, other in (("14.4 *", "10 *"), ("14.4 *", "20 *"))),
    *(("OverheadBudgetBurn", said, other) for said, other in ((" 6 *", " 8 *"), (" 1 *", " 0.8 *"))),
    *(("GatewayDown", said, other) for said, other in (("== 0", "== 1"), ('{job="weir"}', ""))),
    *(("NoGateway", said, other) for said, other in (("absent(", "max("), ("for: 1m", "for: 5m"))),
    *(("LoopLag", said, other) for said, other in (("0.99", "0.9999"), ("0.99", "0.5"), ("10m", "5m"))),
    *(("ClockSkew", said, other) for said, other in (("> 2", "> 1"), ("> 2", "> 4"), ("for: 5m", "for: 3m"))),
    *(("RefusalSpike", said, other) for said, other in (("> 1\n", "> 0.1\n"), ("5 * sum", "0.5 * sum"))),
    *(("RefusalSpike", said, other) for said, other in (("5 * sum", "50 * sum"), (', reason!="ledger"', ""))),
    ("RefusalSpike", 'enforced="true", ', ""),
    *(("WeirEstimateDrift", said, other) for said, other in (("< 0.5 *", "< 0.3 *"), ("< 0.5 *", "< 0.9 *"))),
    *(("WeirEstimateDrift", said, other) for said, other in (('le="-0.05"', 'le="-0.5"'), ("30m", "3m"))),
    *(("LedgerAway", said, other) for said, other in (("== 0", "== 1"), ("for: 30s", "for: 9m"))),
    *(("LedgerErrors", said, other) for said, other in (("0.01 *", "0.004 *"), ("error|late", "late"))),
    *(("DecidedWithoutLedger", said, other) for said, other in (("> 0", "> 1"), ("[1m]", "[15m]"))),
    *(("SettlesWaiting", said, other) for said, other in (("delta", "-delta"), ("and sum", "or sum"))),
    *(("SettlesDropped", said, other) for said, other in (("> 0", "> 5"), ("[10m]", "[1h]"))),
    *(("ReservationsLost", said, other) for said, other in (("> 0", "> 5"), ("[10m]", "[1h]"))),
    *(("StoreFillsUp", said, other) for said, other in (("> 0.8", "> 0.7"), ("> 0.8", "> 0.9"))),
    ("StoreFillsUp", "(redis_memory_max_bytes > 0)", "redis_memory_max_bytes"),
    *(("StoreEvicts", said, other) for said, other in (("> 0", "> 5"), ("[10m]", "[1h]"))),
]


def ran(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """What a program said, in an environment of its own."""
    return subprocess.run(command, env={"HOME": "/"}, capture_output=True, text=True, check=False)


def parts(rule: dict[str, Any]) -> dict[str, str]:
    """What decides when a rule fires."""
    return {"expr": rule["expr"], "for": "for: " + rule.get("for", "0s")}


def planted(rule: dict[str, Any], said: str, other: str) -> dict[str, Any]:
    """A rule that says something else."""
    changed = {name: text.replace(said, other).removeprefix("for: ") for name, text in parts(rule).items()}
    return rule | changed


def tried(name: str, folder: Path, said: str, other: str) -> subprocess.CompletedProcess[str]:
    """What promtool says of one alert's test cases, where its rules say something else than they do."""
    mine = [rule for rule in ALERTS if rule["alert"] == name]
    text = {"groups": [{"name": name, "rules": [planted(rule, said, other) for rule in mine]}]}
    checks = [
        case | {"alert_rule_test": [one for one in case["alert_rule_test"] if one["alertname"] == name]}
        for case in CASES
    ]
    needed = [str(FOLDER / "rules.yml")] if any("weir:" in rule["expr"] for rule in mine) else []
    test = {
        "rule_files": [*needed, "rules.yml"],
        "evaluation_interval": "1m",
        "tests": [case for case in checks if case["alert_rule_test"]],
    }
    (folder / "rules.yml").write_text(yaml.safe_dump(text))
    (folder / "test.yml").write_text(yaml.safe_dump(test))
    return ran(PROMTOOL, "test", "rules", folder / "test.yml")


@needs_promtool
def test_prometheus_accepts_its_configuration_and_finds_nothing_to_lint() -> None:
    done = ran(PROMTOOL, "check", "config", "--lint=all", "--lint-fatal", FOLDER / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("rules.yml", "alerts.yml"):
        done = ran(PROMTOOL, "check", "rules", "--lint=all", "--lint-fatal", FOLDER / name)
        assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_would_notice_a_slip_in_a_rule(tmp_path: Path) -> None:
    path = tmp_path / "rules.yml"
    path.write_text((FOLDER / "rules.yml").read_text().replace("sum by (route) (", "sum by (route) ((", 1))
    assert ran(PROMTOOL, "check", "rules", "--lint=all", path).returncode != 0


@needs_promtool
def test_every_alert_fires_when_it_should_and_only_then() -> None:
    done = ran(PROMTOOL, "test", "rules", TESTS)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize(("name", "said", "other"), FAULTS)
def test_promtool_would_notice_another_rule(name: str, said: str, other: str, tmp_path: Path) -> None:
    assert any(said in text for rule in ALERTS if rule["alert"] == name for text in parts(rule).values())
    done = tried(name, tmp_path, said, other)
    assert done.returncode != 0
    assert name in done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_has_cases_where_it_fires_and_where_it_does_not_and_a_fault_that_they_find(
    name: str,
) -> None:
    checks = [one for case in CASES for one in case["alert_rule_test"] if one["alertname"] == name]
    assert {bool(one.get("exp_alerts")) for one in checks} == {True, False}
    assert name in {fault[0] for fault in FAULTS}


@pytest.mark.parametrize("rule", EVERY, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_asks_for_what_is_there(rule: dict[str, Any]) -> None:
    expression = rule["expr"]
    there = published.exported() | published.OF_PROMETHEUS | OF_REDIS
    asked = set(re.findall(r"\b(?:weir_\w+|redis_\w+|gen_ai_\w+|up)\b", expression))
    recorded = set(re.findall(r"\bweir:[\w:]+", expression))
    assert asked | recorded
    assert asked <= set(there)
    assert recorded <= {record["record"] for record in RECORDS}
    labels = {*published.ADDED, *(label for name in asked for label in there[name])}
    for by in re.findall(r"by \(([^)]*)\)", expression):
        assert set(published.groups(by)) <= labels
    for where in re.findall(r"\{([^}]*)\}", expression):
        assert {label for label, _ in published.matchers(where)} <= labels


@pytest.mark.parametrize("rule", EVERY, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_asks_for_buckets_that_there_are(rule: dict[str, Any]) -> None:
    for name, bound in re.findall(r'(weir_\w+)_bucket\{[^}]*\ble="([^"]+)"', rule["expr"]):
        assert float(bound) in (*HISTOGRAMS[name], inf)


def test_no_two_records_have_one_name() -> None:
    names = [rule["record"] for rule in RECORDS]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_urgent_it_is_what_it_is_and_where_to_read_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    grouped = re.findall(r"by \(([^)]*)\)", rule["expr"])
    kept = {label for group in grouped for label in published.groups(group)} or {"instance", "job"}
    assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= kept
    path, _, anchor = rule["annotations"]["runbook"].partition("#")
    on_call = (ROOT / path).read_text().partition("\n## On call\n")[2].partition("\n## ")[0]
    sections = re.findall(r"^### (\w+)\n\n(\S.*)", on_call, re.MULTILINE)
    assert anchor in [title.lower() for title, _ in sections]


def test_the_runbook_has_no_alert_that_is_not_there() -> None:
    on_call = (ROOT / "deploy" / "README.md").read_text().partition("\n## On call\n")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^### (\w+)", on_call, re.MULTILINE)) == NAMES
