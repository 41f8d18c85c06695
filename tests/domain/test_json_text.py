"""JSON as text: what is refused, and editing that leaves every other byte alone."""

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service.domain.json_text import MAX_DEPTH, Malformed, decode, find, members, with_member, without_member

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
objects = st.dictionaries(st.sampled_from(["a", "b", "usage", 'q"', "é"]) | st.text(), values, max_size=5)
layouts = st.sampled_from([(None, (",", ":")), (None, (", ", ": ")), (2, (" ,", " : "))])


@st.composite
def texts(draw: st.DrawFn) -> str:
    indent, separators = draw(layouts)
    return json.dumps(draw(objects), indent=indent, separators=separators, ensure_ascii=draw(st.booleans()))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"a":1,"a":1}', "duplicate member 'a'"),
        (b'[{"b":{"a":1,"b":2,"a":3}}]', "duplicate member 'a'"),
        (b'{"a":1,"\\u0061":2}', "duplicate member 'a'"),
        (b"[NaN]", "NaN is not JSON"),
        (b"-Infinity", "-Infinity is not JSON"),
        (b'{"a":\n tru}', "at line 2, column 2"),
        (b"", "at line 1, column 1"),
        (b'{"a":1}{', "Extra data"),
        (b'"\xff"', "not UTF-8 at byte 1"),
        (b'\xef\xbb\xbf"a"', "BOM"),
        (b'"\\ud83d"', "lone surrogate"),
        (b'{"\\uDE00":1}', "lone surrogate"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        (b"1" * 5000, "4300"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested deeper than 64 levels"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "nested deeper than 64 levels"),
        (b"[" * 200_000, "nested deeper than 64 levels"),
    ],
)
def test_what_two_parsers_might_understand_differently_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        decode(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
        b"[" + b"[[]]," * 100 + b"[]]",
        b'"\\ud83d\\ude00"',
        b' {"a" : [ 1e3 , -0, "\\u0000" ] } \n',
        b"1" * 4000,
        b'{"a":{"a":1}}',
    ],
)
def test_what_is_json_is_read(body: bytes) -> None:
    assert decode(body) == json.loads(body)


def test_a_duplicate_among_very_many_members_is_found_in_one_pass() -> None:
    """Counting each name in the list of all names took time by the square of their number."""
    names = ",".join(f'"{number}":0' for number in range(200_000))
    with pytest.raises(Malformed, match="duplicate member '199999'"):
        decode(f'{{{names},"199999":0}}'.encode())


@given(texts())
def test_members_are_found_where_they_lie(text: str) -> None:
    assert {
        member.name: json.loads(text[member.value : member.end]) for member in members(text)
    } == json.loads(text)


@given(texts(), values)
def test_a_member_is_set_and_the_others_keep_their_bytes(text: str, value: Any) -> None:
    edited = with_member(text, "a", json.dumps(value))
    assert json.loads(edited) == {**json.loads(text), "a": value}
    others = [text[member.start : member.end] for member in members(text) if member.name != "a"]
    assert [edited[member.start : member.end] for member in members(edited) if member.name != "a"] == others


@given(texts(), st.integers(0, 9))
def test_a_member_is_taken_out_and_the_others_keep_their_bytes(text: str, which: int) -> None:
    there = list(members(text))
    assume(there)
    gone = there[which % len(there)]
    edited = without_member(text, gone.name)
    expected = json.loads(text)
    del expected[gone.name]
    assert json.loads(edited) == expected
    kept = [text[member.start : member.end] for member in there if member is not gone]
    assert [edited[member.start : member.end] for member in members(edited)] == kept


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a":1}', "{}"),
        ('{ "a" : 1 }', "{ }"),
        ('{"a":1,"b":2}', '{"b":2}'),
        ('{"b":2, "a":1}', '{"b":2}'),
        ('{"b":2, "a":1, "c":3}', '{"b":2, "c":3}'),
        ('{"b":{"a":1},"c":"\\"a\\":1"}', '{"b":{"a":1},"c":"\\"a\\":1"}'),
    ],
)
def test_the_comma_goes_with_the_member(text: str, expected: str) -> None:
    assert without_member(text, "a") == expected


def test_a_member_of_an_inner_object_is_set_in_place() -> None:
    text = '{"o": {"x" : 1}, "z":0}'
    inner = find(text, "o")
    assert inner is not None
    assert with_member(text, "x", "2", at=inner.value) == '{"o": {"x" : 2}, "z":0}'
    assert with_member(text, "y", "2", at=inner.value) == '{"o": {"y":2,"x" : 1}, "z":0}'


def test_many_containers_side_by_side_are_not_deep() -> None:
    assert decode(b'[{"a":1}' + b',{"a":[]}' * 100 + b"]")[0] == {"a": 1}
