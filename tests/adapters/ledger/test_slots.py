"""Slots: a map of a cluster, read from what any of its nodes told."""

from typing import Any

import pytest

from service.adapters.ledger.slots import slot_of, told

ASKED = ("seed", 7000)


def test_a_map_names_the_master_of_each_slot_and_every_node() -> None:
    one = [b"10.0.0.1", 7001, b"id1", []]
    replica = [b"host.example", 7002, b"id2", [b"ip", b"10.0.0.2"]]
    slots = told([[0, 5, one, replica], [7, 16383, replica]], by=ASKED)
    assert slots.masters[:8] == [("10.0.0.1", 7001)] * 6 + [None, ("host.example", 7002)]
    assert len(slots.masters) == 16384
    assert slots.nodes == slots.owners() == {("10.0.0.1", 7001), ("host.example", 7002)}


@pytest.mark.parametrize("host", [None, b"", b"?"])
def test_a_node_without_a_name_is_on_the_host_that_was_asked(host: bytes | None) -> None:
    assert told([[0, 16383, [host, 7001, b"id"]]], by=ASKED).masters[0] == ("seed", 7001)


@pytest.mark.parametrize("answer", [None, [], b"OK", [[0, 5]], [[0, 5, None]], [["a", 5, [b"h", 1]]], [7]])
def test_what_names_no_master_is_no_map(answer: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        told(answer, by=ASKED)


def test_keys_of_one_hash_tag_lie_in_one_slot() -> None:
    assert slot_of(["foo"]) == 12182  # of the cluster specification
    assert slot_of(["w1:{foo}:a", "w1:{foo}:b"]) == 12182
    for keys in (["foo", "bar"], []):
        with pytest.raises(ValueError, match="one slot"):
            slot_of(keys)
