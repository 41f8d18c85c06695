"""The scripts, driven at random on a real server, beside two oracles."""

import re

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from service.adapters.ledger import scripts as lua
from service.domain import account as arithmetic
from tests.lua.machine import Machine

FEW = 3


@pytest.fixture
def shortened(monkeypatch: pytest.MonkeyPatch) -> lua.Scripts:
    """The scripts with a list of lows so short that it is cut."""
    monkeypatch.setattr(arithmetic, "MOST_LOWS", FEW)
    texts = {one.name: re.sub(r"local LOWS = \d+", f"local LOWS = {FEW}", one.text) for one in lua.load()}
    return lua.Scripts(**{name: lua._script(name, text) for name, text in texts.items()})


def drive(scripts: lua.Scripts, server: redis.Redis, examples: int) -> None:
    """So many examples, of 50 steps where none is cut short."""
    server.config_set("hash-max-ziplist-value", 100_000)  # so that fields are met in the order they came
    server.config_set("hash-max-ziplist-entries", 100_000)
    machine = type("Driven", (Machine,), {"scripts": scripts, "server": server})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        ),
    )


def test_the_scripts_equal_both_oracles(server: redis.Redis) -> None:
    drive(lua.load(), server, 2 * settings().max_examples)


def test_with_a_list_of_lows_cut_short_an_account_is_never_better(
    server: redis.Redis, shortened: lua.Scripts
) -> None:
    drive(shortened, server, settings().max_examples)
