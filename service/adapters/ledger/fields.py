"""Fields: what the scripts have packed into the fields of a subject, for who reads many without a script."""

import math
import struct
from dataclasses import dataclass

from service.domain.account import KINDS, Account

_ACCOUNT = struct.Struct(">Bdddddd")  # these as in lua/account.lua
_RULE = struct.Struct(">ddd")


@dataclass(frozen=True, slots=True)
class Rule:
    """An operator's: until then, ms of the ledger's clock, in place of an account's own limit and capacity.

    Both are in the ledger's units; of a block they are 0.
    """

    until: int
    limit: int
    capacity: int


def account(value: object) -> Account | None:
    """The account that is written in a field, as of when it was; None where there is none to be read.

    Its lows are left out: nobody gives anything back here.
    """
    if not isinstance(value, bytes) or len(value) < _ACCOUNT.size:
        return None
    kind, *numbers = _ACCOUNT.unpack_from(value)
    if kind not in KINDS or not all(map(math.isfinite, numbers)):
        return None
    charged, time, limit, window, start, before = map(int, numbers)
    return Account(KINDS[kind][0], limit, window, time, start, charged, before)


def rule(value: object) -> Rule | None:
    """The rule that is written in a field; None where there is none to be read."""
    if not isinstance(value, bytes) or len(value) != _RULE.size:
        return None
    until, limit, capacity = _RULE.unpack(value)
    return Rule(int(until), int(limit), int(capacity))
