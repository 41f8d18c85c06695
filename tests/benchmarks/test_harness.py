"""Harness: all targets started, asked, measured and ended, in small."""

from pathlib import Path

import pytest
import yaml

from benchmarks import harness, machine
from benchmarks.client import Client
from benchmarks.machine import Cores
from benchmarks.servers import ServerError, python
from benchmarks.table import faults, table
from benchmarks.targets import NAMES, TITLES, generous, targets
from service.app import default_definition

ANYWHERE = Cores(frozenset(), frozenset())


def test_every_target_answers_every_request(tmp_path: Path) -> None:
    load = Client(connections=4, most=20)
    with targets(NAMES, folder=tmp_path, cores=ANYWHERE) as running:
        results = harness.run(running, load, rounds=1, seconds=60)
    assert {name: [one.heard.answers for one in rounds] for name, rounds in results.items()} == {
        name: [20] for name in NAMES
    }
    assert faults(results) == []
    assert all(TITLES[name] in table(results) for name in NAMES)


def test_all_policies_are_kept_and_only_their_limits_are_raised() -> None:
    def policies(definition: str) -> list[dict[str, object]]:
        steps = yaml.safe_load(definition)["x-weir"]["flows"]["request"]
        (found,) = [step["rate-limit-ai-tokens"] for step in steps if "rate-limit-ai-tokens" in step]
        return list(found["policies"])

    before = default_definition().read_text()
    kept, raised = policies(before), policies(generous(before))
    assert len(raised) == 6
    assert [{**policy, "limit": 0} for policy in raised] == [{**policy, "limit": 0} for policy in kept]
    assert all(policy["limit"] == 10**9 for policy in raised)


def test_a_server_that_does_not_start_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match="did not say where it listens"),
        python("benchmarks.request", folder=tmp_path, cores=frozenset()),
    ):
        raise AssertionError


def test_what_is_measured_shares_no_core_with_the_others() -> None:
    cores = machine.cores()
    assert not cores.measured & cores.others
    assert bool(cores.measured) == bool(cores.others)


def test_the_cpu_is_named_as_linux_names_it() -> None:
    assert (
        machine.model_name("processor\t: 0\nmodel name\t: Abacus 7\nmodel name\t: Abacus 7\n") == "Abacus 7"
    )
    assert machine.model_name("") == "an unknown CPU"
