"""What calls cost the store: what can be counted is promised, what is timed is only held against its bars."""

from dataclasses import replace

import pytest

from benchmarks.engine import CALLS, Engine
from benchmarks.ledger import SETS, Costs, faults, measured, table
from service.adapters.ledger.embedded import EmbeddedStore


@pytest.fixture
def costs(engine: EmbeddedStore) -> Costs:
    client = Engine(engine)
    client.client.flushall()
    return measured(client, rounds=1, users=16)


def test_no_call_carries_out_more_than_five_commands(costs: Costs) -> None:
    assert max(len(made.split()) for made in costs.commands.values()) <= 5


def test_commands_do_not_grow_with_the_policies(costs: Costs) -> None:
    four, one = ([costs.commands[of, call] for call in CALLS] for of in SETS)
    assert four == one


def test_an_idle_user_with_four_policies_takes_about_four_hundred_bytes_where_hashes_are_compact(
    costs: Costs,
) -> None:
    assert costs.memory["4 policies", True].idle <= 420


def test_the_table_has_a_line_for_each_call(costs: Costs) -> None:
    assert all(f"{of}  " in table(costs) and call in table(costs) for of in SETS for call in CALLS)


def test_what_is_above_its_bar_is_said(costs: Costs) -> None:
    def at(reserve: float, settle: float) -> Costs:
        times = {key: [1.0] for key in costs.times}
        times |= {("4 policies", "reserve"): [reserve], ("4 policies", "settle"): [settle]}
        return replace(costs, one=[1.0], times=times)

    assert faults(at(12.0, 12.0)) == []
    assert len(faults(at(12.1, 12.0))) == 1
    assert faults(at(11.0, 11.1)) == []  # within what medians of one run differ by
    assert len(faults(at(11.0, 11.3))) == 1
