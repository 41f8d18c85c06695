"""Away: why the ledger did not answer a call, said without addresses, names of keys or credentials."""

import re

from redis.exceptions import AskError, MovedError, ResponseError

from service.adapters.ledger.address import Node

_WORD = re.compile(r"[A-Z]{2,20}\b")
_INSIDE = re.compile(r"-(OOM|READONLY|NOREPLICAS|MISCONF)\b")  # so Redis before 7 says why a script failed


class LedgerAway(Exception):
    """The store did not answer as it should. `unknown`: the call may have been carried out all the same."""

    def __init__(self, reason: str, *, unknown: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.unknown = unknown


class Elsewhere(LedgerAway):
    """Another node of the cluster has the keys: from now on, or, `asking` it, for this call.

    Nothing was carried out. The node's host is empty where it is the host that was asked.
    """

    def __init__(self, node: Node, *, asking: bool) -> None:
        super().__init__("ASK" if asking else "MOVED", unknown=False)
        self.node = node
        self.asking = asking


def refused(error: Exception) -> LedgerAway:
    """An error that a server answered instead of carrying a call out."""
    if isinstance(error, AskError):  # MovedError is one too
        host = "" if error.host == "?" else error.host
        return Elsewhere((host, error.port), asking=not isinstance(error, MovedError))
    return LedgerAway(reason_of(error), unknown=False)


def reason_of(error: BaseException) -> str:
    """The word with which the server refused, such as OOM, or else what kind of error it was."""
    code = getattr(error, "status_code", None)
    said = str(error) if isinstance(error, ResponseError) and code in (None, "ERR") else code or ""
    word = _WORD.match(said) or _INSIDE.search(said)
    return word[word.lastindex or 0] if word else type(error).__name__
