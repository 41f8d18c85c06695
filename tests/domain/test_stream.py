"""EventStream: what is relayed of a stream, and what is learned from it."""

import json
import sys
import tracemalloc
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.produced import Piece, streamed
from service.domain.stream import MAX_FIELDS, MAX_LINE, EventStream
from service.domain.usage import Usage

USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
DONE = b"data: [DONE]\n\n"


def event(document: object, *, end: str = "\n", spaced: bool = False) -> bytes:
    separators = (", ", ": ") if spaced else (",", ":")
    text = json.dumps(document, ensure_ascii=False, separators=separators)
    return f"data: {text}{end}{end}".encode()


def delta(index: int = 0, **members: object) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": index, "delta": members, "finish_reason": None}]}


def relayed(stream: EventStream, *chunks: bytes) -> bytes:
    return b"".join(map(stream.feed, chunks)) + stream.finish()


def hiding(*chunks: bytes) -> bytes:
    return relayed(EventStream(hide_usage=True), *chunks)


def read(*chunks: bytes, keep: int = MAX_LINE) -> EventStream:
    stream = EventStream(hide_usage=False, keep=keep)
    assert relayed(stream, *chunks) == b"".join(chunks)
    return stream


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def texts(stream: EventStream) -> list[Piece]:
    """What the lines say that wait."""
    return list(streamed(stream.waiting))


# A server that can be asked for usage or not: the same stream, said in both ways.

contents = st.text() | st.sampled_from(['"usage":null', ',"usage":null}', '{"usage":null}', "\\", "[DONE]"])
flat = st.none() | st.booleans() | st.integers() | contents
members = st.dictionaries(
    st.sampled_from(
        ["id", "model", "obfuscation", "logprobs", "system_fingerprint", "error_code", 'a"usage']
    ),
    flat | st.fixed_dictionaries({"usage": st.none()}) | st.lists(contents, max_size=2),
)
choices = st.lists(st.fixed_dictionaries({"delta": st.fixed_dictionaries({"content": contents})}), min_size=1)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A stream with include_usage, and the same without."""
    end, spaced = draw(st.sampled_from(["\n", "\r\n", "\r"])), draw(st.booleans())
    asked, plain = b"", b""
    for _ in range(draw(st.integers(0, 4))):
        others = [*draw(members).items(), ("choices", draw(choices))]
        place = draw(st.integers(0, len(others)))
        usage = draw(st.none() | st.just(USAGE))
        extra = draw(st.sampled_from(["", ": ping", f": ping{end}", f"id: 7{end}event: x"]))
        before = (extra + end if extra else "").encode()
        asked += before + event(
            dict([*others[:place], ("usage", usage), *others[place:]]), end=end, spaced=spaced
        )
        plain += before + event(dict(others), end=end, spaced=spaced)
    before = draw(st.sampled_from(["", f"id: 8{end}"])).encode()
    asked += before + event({"id": "c", "choices": [], "usage": USAGE}, end=end, spaced=spaced)
    ending = f"data: [DONE]{end}{end}".encode() * draw(st.integers(0, 1))
    return asked + ending, plain + ending


@given(streams(), st.lists(st.integers(0, 10_000), max_size=8))
def test_hiding_usage_gives_the_stream_that_would_have_come_without_it(
    both: tuple[bytes, bytes], places: list[int]
) -> None:
    asked, plain = both
    stream = EventStream(hide_usage=True)
    assert relayed(stream, *cut(asked, places)) == plain
    assert stream.usage == Usage(prompt=9, completion=3, source="provider")


@given(st.lists(st.sampled_from([b"data: {}", b"data:", b"\r", b"\n", b":", b"x", b'"usage"', b"{"])))
def test_however_odd_a_stream_is_it_is_read_and_relayed_the_same_in_any_chunks(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    assert hiding(*pieces) == hiding(data) == hiding(*[bytes([byte]) for byte in data])


@given(streams(), st.lists(st.integers(0, 10_000), max_size=8))
def test_what_is_learned_does_not_depend_on_the_chunks(both: tuple[bytes, bytes], places: list[int]) -> None:
    whole, parts = EventStream(hide_usage=False), EventStream(hide_usage=True)
    relayed(whole, both[0])
    relayed(parts, *cut(both[0], places))
    assert texts(whole) == texts(parts)
    assert (whole.usage, whole.done, whole.kept) == (parts.usage, parts.done, parts.kept)


@given(st.lists(st.binary()))
def test_without_hiding_every_chunk_goes_out_as_it_came(chunks: list[bytes]) -> None:
    stream = EventStream(hide_usage=False)
    assert all(stream.feed(chunk) is chunk for chunk in chunks)
    assert stream.finish() == b""


def test_bytes_that_are_not_utf_8_pass() -> None:
    data = b'data: {"usage":null,"a":"\xff"}\n\n: \xff\n\xff\n\n'
    assert hiding(data) == data


def test_a_line_that_is_not_finished_is_given_out_at_the_end() -> None:
    stream = EventStream(hide_usage=True)
    assert stream.feed(b"event: x\n: ping\ndata: {") == b""
    assert stream.finish() == b"event: x\n: ping\ndata: {"
    assert stream.finish() == b""


def test_a_usage_event_without_its_blank_line_is_taken_out_too() -> None:
    assert hiding(event(delta(content="a")), event({"choices": [], "usage": USAGE})[:-2]) == event(
        delta(content="a")
    )


@pytest.mark.parametrize(
    "text",
    [
        b'{"x":{"a":1,"usage":null},"choices":[]}',
        b'{"choices":[{"a":1,"usage":null}]}',
        b'{"choices":[{"a":1,"usage":null,"b":"}"}],"c":{}}',
        b'{"a":"usage","b":null}',
        b'{"a":"\\"usage","b":null}',
        b'["usage",null]',
        b'{"a":1,"usage":null',
    ],
)
def test_a_usage_that_is_not_the_chunk_s_own_stays(text: bytes) -> None:
    assert hiding(b"data: " + text + b"\n\n") == b"data: " + text + b"\n\n"


def test_an_event_with_more_data_than_usage_loses_only_that_line() -> None:
    usage = b'data: {"choices":[],"usage":{}}\n'
    assert hiding(b"data: a\nid: 1\n" + usage + b"\n") == b"data: a\nid: 1\n\n"
    assert hiding(b"id: 1\n" + usage + b"data: a\n\n") == b"id: 1\ndata: a\n\n"


def test_a_line_that_ends_in_a_carriage_return_waits_for_one_byte_more() -> None:
    stream = EventStream(hide_usage=True)
    assert stream.feed(b"data: a\r") == b""
    assert stream.feed(b"d") == b"data: a\r"


def test_a_comment_is_not_held_back() -> None:
    assert EventStream(hide_usage=True).feed(b": ping\n") == b": ping\n"


def test_a_null_usage_without_choices_keeps_its_event() -> None:
    assert hiding(event({"prompt_filter_results": [], "choices": [], "usage": None})) == event(
        {"prompt_filter_results": [], "choices": []}
    )


def test_an_invalid_usage_is_hidden_and_not_believed() -> None:
    stream = EventStream(hide_usage=True)
    assert relayed(stream, event({"choices": [], "usage": {"prompt_tokens": -1}})) == b""
    assert stream.usage is None


@pytest.mark.parametrize("size", [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_line_that_is_too_long_passes_unread(size: int, end: bytes) -> None:
    frame = b'data: {"usage":null,"a":""}'
    line = frame.replace(b'""', b'"' + b"x" * (size - len(frame)) + b'"')
    data = b": a" + end + line + end + b'data: {"usage":null}' + end
    expected = data if size > MAX_LINE else data.replace(b'"usage":null,', b"")
    expected = expected.replace(b'{"usage":null}', b"{}")
    behind = data.index(b'"}') + 2 + 1  # one byte into the end of the line
    assert hiding(data) == expected
    assert hiding(data[:behind], data[behind:]) == expected
    assert hiding(*cut(data, list(range(0, len(data), 65_537)))) == expected


def test_a_line_without_an_end_is_not_collected_for_ever() -> None:
    stream = EventStream(hide_usage=True)
    piece = b"x" * 65_536
    given_out = sum(len(stream.feed(piece)) for _ in range(64))
    assert 64 * len(piece) - given_out <= MAX_LINE


def test_fields_without_data_are_not_collected_for_ever() -> None:
    stream = EventStream(hide_usage=True)
    given_out = sum(len(stream.feed(b"id: 1\n")) for _ in range(10_000))
    assert 60_000 - given_out <= MAX_FIELDS


def calls(stream: EventStream, chunk: bytes) -> int:
    """How many functions it takes to feed a chunk."""
    count = 0

    def counted(_: FrameType, kind: str, __: object) -> None:
        nonlocal count
        count += kind in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        stream.feed(chunk)
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("hide_usage", [True, False])
def test_the_thousandth_chunk_takes_no_more_steps_than_the_second(hide_usage: bool) -> None:
    stream = EventStream(hide_usage=hide_usage)
    counts = [calls(stream, event({**delta(content="a"), "usage": None})) for _ in range(1000)]
    assert len(set(counts[1:])) == 1


def test_a_long_line_in_small_chunks_is_not_copied_at_every_chunk() -> None:
    stream = EventStream(hide_usage=True)
    for _ in range(500):
        stream.feed(b"x" * 1000)
    tracemalloc.start()
    stream.feed(b"x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000


# Usage, and how a stream ended


def test_a_running_total_is_believed_at_its_largest() -> None:
    totals = [{"prompt_tokens": 9, "completion_tokens": count} for count in (1, 2, 3, 2)]
    stream = read(*[event({**delta(content="a"), "usage": usage}) for usage in totals])
    assert stream.usage == Usage(prompt=9, completion=3, source="provider")


def test_usage_behind_done_counts() -> None:
    stream = read(DONE, event({"choices": [], "usage": USAGE}))
    assert stream.done
    assert stream.usage is not None


@pytest.mark.parametrize("line", [b"data: [DONE]\n", b"data:[DONE]\r\n", b"data: [DONE]"])
def test_done_is_noticed(line: bytes) -> None:
    assert read(line).done


def test_text_that_says_done_is_not_the_end() -> None:
    assert not read(event(delta(content="[DONE]"))).done


def test_an_error_event_is_noticed_and_nothing_has_started() -> None:
    stream = read(event({"error": {"message": "overloaded"}}), DONE)
    assert (stream.failed, stream.started) == (True, False)


def test_a_null_error_is_none() -> None:
    stream = read(event({**delta(content="a"), "error": None}))
    assert (stream.failed, stream.started) == (False, True)


def test_comments_and_usage_start_nothing() -> None:
    assert not read(b": ping\n\n", event({"choices": [], "usage": USAGE}), DONE).started


# What waits to be read


def test_the_lines_that_say_what_was_produced_wait_to_be_read() -> None:
    lines = [event(delta(content=text)).rstrip() for text in "ab"]
    empty = event({"choices": [], "usage": USAGE}, spaced=True)
    stream = read(lines[0] + b"\n\n", b": ping\n\n", empty, lines[1] + b"\n\n", DONE)
    assert stream.waiting == lines
    assert stream.waiting_size == stream.kept == len(lines[0] + lines[1])


def test_what_comes_while_lines_are_read_waits_behind_them() -> None:
    stream = EventStream(hide_usage=False)
    lines = [event(delta(content=text)).rstrip() for text in ("a", "bc", "d")]
    stream.feed(lines[0] + b"\n\n" + lines[1] + b"\n\n")
    stream.feed(lines[2] + b"\n\n")
    stream.drained(2)
    assert (stream.waiting, stream.waiting_size) == ([lines[2]], len(lines[2]))
    stream.drained(1)
    assert (stream.waiting, stream.waiting_size) == ([], 0)
    assert stream.kept == sum(map(len, lines))


def test_what_nobody_read_in_time_is_counted() -> None:
    line = event(delta(content="a")).rstrip()
    stream = read(*[line + b"\n\n"] * 5, keep=2 * len(line))
    assert (stream.kept, stream.dropped) == (2 * len(line), 3 * len(line))
    assert stream.waiting == [line, line]
    stream.drained(2)
    stream.feed(line + b"\n\n")
    assert stream.waiting == [line]
