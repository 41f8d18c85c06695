"""Trace: where an exchange stands in the work of which it is a part, as W3C Trace Context has it.

https://www.w3.org/TR/trace-context-2/, sections 3.2 (traceparent) and 3.3 (tracestate).
"""

import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from service.domain.headers import Field, without

PARENT, STATE = b"traceparent", b"tracestate"

_PARENT = re.compile(
    r"(?P<version>(?!ff)[0-9a-f]{2})-(?P<id>(?!0{32})[0-9a-f]{32})-(?P<span>(?!0{16})[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?",
    re.DOTALL,
)
_KNOWN = 0x03  # the flags that have a meaning: sampled, and that the id is random
_MEMBER = re.compile(rb"[ \t]*(?:[a-z0-9][a-z0-9_*/@-]{0,255}=[ -+\--<>-~]{0,255}[!-+\--<>-~][ \t]*)?")
_MOST_STATE = 512  # bytes, and
_MOST_MEMBERS = 32


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace of an exchange and the exchange's own span in it, in lower-case hexadecimal digits.

    `id` has 32 of them; `span` and `parent`, the caller's span, 16; `flags` 2. Where there is no parent,
    the trace begins here.
    """

    id: str
    span: str
    parent: str | None = None
    flags: str = "00"

    def told(self) -> bytes:
        """The value of a `traceparent` that makes this span the parent of what is asked for in it."""
        return f"00-{self.id}-{self.span}-{self.flags}".encode()


def begun() -> Trace:
    """A new trace. Weir samples nothing, so it does not say that it did."""
    digits = secrets.token_hex(24)
    return Trace(digits[:32], digits[32:])


def taken_up(told: bytes) -> Trace | None:
    """A span of our own in the trace that a `traceparent` tells of; None where it is not a valid one.

    Of a version to come, what version 00 has is read, and what follows is left out. Flags without a meaning
    are not passed on.
    """
    match = _PARENT.fullmatch(told.decode("latin-1"))
    if not match or (match["version"] == "00" and match["more"]):
        return None
    flags = f"{int(match['flags'], 16) & _KNOWN:02x}"
    return Trace(match["id"], secrets.token_hex(8), match["span"], flags)


def traced(fields: Iterable[Field]) -> tuple[Trace, list[Field]]:
    """The trace of a request, and the request's fields as they tell of it to whom it is passed on.

    What is invalid, or there twice, is as if it were not there. `tracestate` stays as it is, in however
    many fields; without a valid `traceparent` it means nothing, and goes.
    """
    fields = list(fields)
    parents = [value for name, value in fields if name == PARENT]
    trace = taken_up(parents[0]) if len(parents) == 1 else None
    states = [value for name, value in fields if name == STATE]
    if parents or states:
        keep = trace is not None and _well_formed(states)
        fields = without(fields, (PARENT,) if keep else (PARENT, STATE))
    trace = trace or begun()
    return trace, [*fields, (PARENT, trace.told())]


def _well_formed(states: Sequence[bytes]) -> bool:
    """Whether these values are, together, a list that may travel on."""
    joined = b",".join(states)
    members = joined.split(b",")
    named = sum(b"=" in member for member in members)
    return len(joined) <= _MOST_STATE and named <= _MOST_MEMBERS and all(map(_MEMBER.fullmatch, members))
