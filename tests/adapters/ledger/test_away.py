"""Away: the word of a refusal, from any server, and nothing that stands behind the word."""

import pytest
from redis._parsers.base import BaseParser
from redis.exceptions import ConnectionError as NotConnected

from service.adapters.ledger.away import Elsewhere, reason_of, refused

SAID = {
    "OOM command not allowed when used memory > 'maxmemory'.": "OOM",
    "MISCONF Redis is configured to save RDB snapshots, but it's unable to persist to disk": "MISCONF",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.": "BUSY",
    "NOREPLICAS Not enough good replicas to write.": "NOREPLICAS",
    "READONLY You can't write against a read only replica. script: 1f, on @user_script:1.": "READONLY",
    "ERR Error running script (call to f_1f): @user_script:1: @user_script: 1: -READONLY You": "READONLY",
    "ERR Error running script (call to f_1f): @user_script:1: @user_script: 1: -OOM command not": "OOM",
    "ERR Error compiling script (new function): user_script:1: 'w1:{SECRET}'": "ResponseError",
    "LOADING Redis is loading the dataset in memory": "LOADING",
    "MASTERDOWN Link with MASTER is down": "MASTERDOWN",
    "CLUSTERDOWN Hash slot not served": "CLUSTERDOWN",
    "TRYAGAIN Multiple keys request during rehashing of slot": "TRYAGAIN",
    "WRONGPASS invalid username-password pair or user is disabled.": "WRONGPASS",
    "something else": "ResponseError",
}


def answered(said: str) -> Exception:
    """What redis-py makes of an error."""
    error: Exception = BaseParser.parse_error(said)  # type: ignore[no-untyped-call]
    return error


@pytest.mark.parametrize("said", SAID)
def test_a_refusal_is_known_by_its_word(said: str) -> None:
    error = answered(said)
    assert reason_of(error) == SAID[said]
    away = refused(error)
    assert (str(away), away.reason, away.unknown) == (SAID[said], SAID[said], False)


def test_what_is_no_refusal_is_known_by_its_kind_and_not_by_its_address() -> None:
    assert reason_of(NotConnected("Error 111 connecting to SECRET:6379")) == "ConnectionError"
    assert reason_of(OSError("SECRET")) == "OSError"


@pytest.mark.parametrize(
    ("said", "node", "asking"),
    [
        ("MOVED 3999 10.0.0.1:6381", ("10.0.0.1", 6381), False),
        ("ASK 3999 fd00::1:6381", ("fd00::1", 6381), True),
        ("MOVED 3999 :6381", ("", 6381), False),
        ("MOVED 3999 ?:6381", ("", 6381), False),
    ],
)
def test_another_node_may_be_named(said: str, node: tuple[str, int], asking: bool) -> None:
    away = refused(answered(said))
    assert isinstance(away, Elsewhere)
    assert (away.node, away.asking, away.unknown) == (node, asking, False)
    assert str(away) == said.split()[0]
