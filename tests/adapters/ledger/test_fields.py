"""What the scripts have packed is read back, or is not there: never a guess, never a crash."""

import math
import struct

import pytest

from service.adapters.ledger import fields
from service.domain.account import Algorithm


def packed(kind: int = 2, *numbers: float) -> bytes:
    return struct.pack(">Bdddddd", kind, *(numbers or (5000.0, 70.0, 9000.0, 60.0, 60.0, 100.0)))


def test_an_account_is_read_as_it_was_written() -> None:
    account = fields.account(packed() + struct.pack(">dd", 65.0, 10.0))
    assert account is not None
    assert account.algorithm is Algorithm.SLIDING_WINDOW
    assert (account.charged, account.time, account.limit, account.window) == (5000, 70, 9000, 60)
    assert (account.start, account.before) == (60, 100)


@pytest.mark.parametrize(
    "text",
    [None, "words", b"", packed()[:-1], packed(0), packed(9), packed(1, math.nan, 1, 1, 1, 1, 1)],
)
def test_what_is_no_account_is_not_read(text: object) -> None:
    assert fields.account(text) is None


def test_a_rule_is_read_as_it_was_written() -> None:
    assert fields.rule(struct.pack(">ddd", 70, 9000, 9900)) == fields.Rule(70, 9000, 9900)


@pytest.mark.parametrize("text", [None, b"", b"rule", struct.pack(">dd", 1, 2)])
def test_what_is_no_rule_is_not_read(text: object) -> None:
    assert fields.rule(text) is None
