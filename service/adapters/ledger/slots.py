"""Slots: which node of a cluster has which keys, as one of its nodes told."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from service.adapters.ledger.address import Node


def slot_of(keys: Sequence[str]) -> int:
    """The one slot that these keys lie in. Raises ValueError where there is none, or several."""
    found = {key_slot(key.encode()) for key in keys}
    if len(found) != 1:
        raise ValueError("the keys of one slot at a time")
    return found.pop()


@dataclass(frozen=True, slots=True)
class Slots:
    """The master of each slot, None where it has none; and every node that was named, replicas too."""

    masters: list[Node | None]
    nodes: frozenset[Node]

    def owners(self) -> set[Node]:
        """Every master that has a slot."""
        return {master for master in self.masters if master}


def unknown() -> Slots:
    """Before a node has told anything."""
    return Slots([None] * REDIS_CLUSTER_HASH_SLOTS, frozenset())


def told(answer: Any, *, by: Node) -> Slots:
    """Read what a node answered to CLUSTER SLOTS. Raises ValueError where it names no master."""
    masters = unknown().masters
    nodes: set[Node] = set()
    try:
        for first, last, *group in answer:
            named = [_node(member, by) for member in group]
            masters[first : last + 1] = [named[0]] * (last + 1 - first)
            nodes.update(named)
    except (TypeError, LookupError, AttributeError) as error:
        raise ValueError("expected ranges of slots, each with its nodes") from error
    if not nodes:
        raise ValueError("expected a node that has slots")
    return Slots(masters, frozenset(nodes))


def _node(member: Any, by: Node) -> Node:
    """A node as it is announced: by its preferred name; by none, where that is the host that was asked."""
    host = member[0].decode() if member[0] else ""
    return (by[0] if host in ("", "?") else host, int(member[1]))
