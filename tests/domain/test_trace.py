"""Trace: what a caller says of its trace is taken up where it is valid, and only then."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.headers import Field
from service.domain.trace import PARENT, STATE, Trace, begun, taken_up, traced

ID, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TOLD = f"00-{ID}-{SPAN}-01".encode()
OTHER: Field = (b"accept", b"*/*")


def digits(count: int) -> st.SearchStrategy[str]:
    return st.text("0123456789abcdef", min_size=count, max_size=count)


traces = st.builds(
    Trace,
    id=digits(32).filter(lambda text: text.strip("0")),
    span=digits(16).filter(lambda text: text.strip("0")),
    flags=st.sampled_from(["00", "01", "02", "03"]),
)


@given(traces)
def test_what_one_tells_another_takes_up(trace: Trace) -> None:
    taken = taken_up(trace.told())
    assert taken is not None
    assert (taken.id, taken.parent, taken.flags) == (trace.id, trace.span, trace.flags)
    assert taken.span not in (trace.span, "0" * 16)
    assert taken_up(taken.told()) is not None


@given(st.binary() | st.text(string.hexdigits + "-", max_size=60).map(str.encode))
def test_whatever_is_said_is_taken_up_or_not_and_nothing_is_raised(told: bytes) -> None:
    trace, fields = traced([(PARENT, told), (STATE, told), OTHER])
    assert taken_up(trace.told()) is not None
    assert [value for name, value in fields if name == PARENT] == [trace.told()]
    assert OTHER in fields


@given(st.integers(0, len(TOLD) - 1), st.integers(0, 255))
def test_one_byte_makes_it_another_or_none(at: int, byte: int) -> None:
    """Nothing but lower-case digits is a digit, and nothing but a dash a dash."""
    told = TOLD[:at] + bytes([byte]) + TOLD[at + 1 :]
    taken = taken_up(told)
    if taken is not None:
        allowed = b"-" if TOLD[at : at + 1] == b"-" else b"0123456789abcdef"
        assert byte in allowed
        assert told[3:52] == f"{taken.id}-{taken.parent}".encode()


@pytest.mark.parametrize(
    "told",
    [
        b"",
        TOLD.upper(),
        TOLD[:-1],
        TOLD + b"0",
        TOLD + b"-",
        TOLD + b"-more",
        b" " + TOLD,
        TOLD + b"\n",
        b"ff" + TOLD[2:],
        b"0" + TOLD,
        f"00-{'0' * 32}-{SPAN}-01".encode(),
        f"00-{ID}-{'0' * 16}-01".encode(),
        f"00-{ID}-{SPAN}-0x".encode(),
        f"00-{ID}{SPAN}-01".encode(),
        f"00-{ID[:-1]}\xb2-{SPAN}-01".encode("latin-1"),
        f"cc-{ID}-{SPAN}-01.more".encode(),
        f"cc-{ID}-{SPAN}-1".encode(),
        f"cc-{ID}-{SPAN}".encode(),
    ],
)
def test_what_is_not_valid_begins_a_new_trace(told: bytes) -> None:
    assert taken_up(told) is None
    trace, fields = traced([(PARENT, told), (STATE, b"a=1"), OTHER])
    assert trace.parent is None
    assert trace.id != ID
    assert fields == [OTHER, (PARENT, trace.told())]


@pytest.mark.parametrize("more", [b"", b"-", b"-what-is-to-come", b"-\x00\n"])
def test_of_a_version_to_come_what_is_known_is_read(more: bytes) -> None:
    taken = taken_up(b"cc" + TOLD[2:] + more)
    assert taken is not None
    assert (taken.id, taken.parent, taken.flags) == (ID, SPAN, "01")
    assert taken.told().startswith(b"00-")


@pytest.mark.parametrize(("said", "passed"), [("00", "00"), ("01", "01"), ("fe", "02"), ("ff", "03")])
def test_flags_that_mean_something_are_passed_on_and_no_others(said: str, passed: str) -> None:
    taken = taken_up(f"00-{ID}-{SPAN}-{said}".encode())
    assert taken is not None
    assert taken.flags == passed


def test_a_trace_that_begins_here_is_nobody_else_s_and_is_not_sampled() -> None:
    one, another = begun(), begun()
    assert len({one.id, another.id}) == len({one.span, another.span}) == 2
    assert (len(one.id), len(one.span), one.parent, one.flags) == (32, 16, None, "00")


def test_our_span_takes_the_place_of_the_caller_s_and_nothing_else_changes() -> None:
    trace, fields = traced([(PARENT, TOLD), OTHER, (STATE, b"a=1")])
    assert fields == [OTHER, (STATE, b"a=1"), (PARENT, f"00-{ID}-{trace.span}-01".encode())]
    assert (trace.parent, trace.span != SPAN) == (SPAN, True)


def test_who_is_told_of_nothing_begins_one() -> None:
    trace, fields = traced([OTHER])
    assert trace.parent is None
    assert fields == [OTHER, (PARENT, trace.told())]


def test_who_is_told_twice_is_told_nothing() -> None:
    trace, fields = traced([(PARENT, TOLD), OTHER, (PARENT, TOLD), (STATE, b"a=1")])
    assert trace.parent is None
    assert fields == [OTHER, (PARENT, trace.told())]


def state(*values: bytes) -> list[bytes]:
    """What is passed on of these fields."""
    _, fields = traced([(STATE, value) for value in values] + [(PARENT, TOLD)])
    return [value for name, value in fields if name == STATE]


@pytest.mark.parametrize(
    "values",
    [
        [b"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"],
        [b"rojo=1", b"congo=2"],
        [b"a=1 ,\t b=2", b"", b" ,,c=3"],
        [b"0tenant@system=!-~ x", b"a_-*/=:;<>"],
        [b"k" * 256 + b"=" + b"v" * 255],
        [b",".join(b"k%d=1" % at for at in range(32))],
        [b""],
    ],
)
def test_a_state_travels_as_it_is(values: list[bytes]) -> None:
    assert state(*values) == values


@pytest.mark.parametrize(
    "values",
    [
        [b"a"],
        [b"=1"],
        [b"a="],
        [b"A=1"],
        [b"a=1=2"],
        [b"a =1"],
        [b"a=\xc3\xa9"],
        [b"a=1\tb"],
        [b"a=1\n"],
        [b"a=1;b", b"B=2"],
        [b"k" * 257 + b"=1"],
        [b"a=" + b"v" * 257],
        [b"k" * 256 + b"=" + b"v" * 256],
        [b"k" * 250 + b"=1", b"k" * 250 + b"=1", b"a=45678"],
        [b",".join(b"k%d=1" % at for at in range(33))],
    ],
)
def test_a_state_that_is_malformed_or_too_long_goes_and_the_trace_goes_on(values: list[bytes]) -> None:
    assert state(*values) == []
    trace, _ = traced([(STATE, value) for value in values] + [(PARENT, TOLD)])
    assert (trace.id, trace.parent) == (ID, SPAN)


def test_a_state_of_no_trace_goes() -> None:
    _, fields = traced([(STATE, b"a=1")])
    assert [name for name, _ in fields] == [PARENT]
