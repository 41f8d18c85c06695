"""Chat: what is read of a request, and the one thing that is written into it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.chat import asking_for_usage, capped, parse, refuse_other_media
from service.domain.errors import InvalidRequest, UnsupportedMedia
from service.domain.headers import Field


def body(**members: object) -> bytes:
    return json.dumps({"model": "gpt-4o", "messages": [], **members}).encode()


def test_a_plain_request_declares_nothing() -> None:
    chat = parse(body())
    assert (chat.model, chat.stream, chat.include_usage, chat.user, chat.n, chat.cap) == (
        "gpt-4o",
        False,
        False,
        None,
        1,
        None,
    )
    assert chat.document == {"model": "gpt-4o", "messages": []}


def test_null_is_as_good_as_left_out() -> None:
    names = [
        "stream",
        "stream_options",
        "user",
        "safety_identifier",
        "n",
        "max_tokens",
        "max_completion_tokens",
    ]
    plain, nulls = parse(body()), parse(body(**dict.fromkeys(names)))
    assert (nulls.stream, nulls.user, nulls.n, nulls.cap) == (plain.stream, plain.user, plain.n, plain.cap)


@pytest.mark.parametrize(
    ("members", "cap"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 7}, 7),
        ({"max_tokens": 5, "max_completion_tokens": 7}, 7),
        ({"max_tokens": 9, "max_completion_tokens": 7}, 9),
    ],
)
def test_the_larger_cap_is_the_cap(members: dict[str, int], cap: int) -> None:
    assert parse(body(**members)).cap == cap


def test_the_user_is_user_or_else_the_safety_identifier() -> None:
    assert parse(body(user="u", safety_identifier="s")).user == "u"
    assert parse(body(safety_identifier="s")).user == "s"
    assert parse(body(user="", safety_identifier="s")).user == "s"


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": 1}, "yes"])
def test_usage_is_wanted_only_where_it_says_true(options: object) -> None:
    assert not parse(body(stream=True, stream_options=options)).include_usage
    assert parse(body(stream=True, stream_options={"include_usage": True})).include_usage


@pytest.mark.parametrize(
    ("members", "param", "code"),
    [
        ({"model": 1}, "model", "invalid_type"),
        ({"model": ""}, "model", "invalid_type"),
        ({"model": None}, None, None),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"user": 7}, "user", "invalid_type"),
        ({"n": True}, "n", "invalid_type"),
        ({"n": 1.0}, "n", "invalid_type"),
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"max_tokens": -1}, "max_tokens", "integer_below_min_value"),
        ({"max_completion_tokens": "9"}, "max_completion_tokens", "invalid_type"),
        ({"n": 129}, "n", "integer_above_max_value"),
        ({"max_tokens": 10**9 + 1}, "max_tokens", "integer_above_max_value"),
    ],
)
def test_what_could_not_be_charged_is_refused(
    members: dict[str, object], param: str | None, code: str | None
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(body(**members))
    assert (refused.value.status, refused.value.param, refused.value.code) == (400, param, code)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'"x"', b"null", b'{"model":"a","model":"b"}'])
def test_what_is_not_an_object_is_refused_with_a_hint(text: bytes) -> None:
    with pytest.raises(InvalidRequest, match="We could not parse the JSON body of your request"):
        parse(text)


JSON: Field = (b"content-type", b"application/json")


@pytest.mark.parametrize(
    "fields",
    [
        [JSON],
        [(b"content-type", b"Application/JSON ; charset=utf-8")],
        [JSON, (b"content-encoding", b"Identity")],
    ],
)
def test_plain_json_is_read(fields: list[Field]) -> None:
    refuse_other_media(fields)


@pytest.mark.parametrize(
    "fields",
    [[], [(b"content-type", b"text/plain; a=application/json")], [JSON, (b"content-encoding", b"gzip")]],
)
def test_media_that_could_not_be_counted_are_refused(fields: list[Field]) -> None:
    with pytest.raises(UnsupportedMedia):
        refuse_other_media(fields)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"a":1}', b'{"stream_options":{"include_usage":true},"a":1}'),
        (b' { "a" : 1 } ', b' {"stream_options":{"include_usage":true}, "a" : 1 } '),
        (b'{"stream_options":null}', b'{"stream_options":{"include_usage":true}}'),
        (b'{"stream_options": { }}', b'{"stream_options": {"include_usage":true }}'),
        (
            b'{"stream_options":{"include_obfuscation":false}}',
            b'{"stream_options":{"include_usage":true,"include_obfuscation":false}}',
        ),
        (b'{"stream_options":{"include_usage" : false}}', b'{"stream_options":{"include_usage" : true}}'),
        (
            b'{"messages":[{"stream_options":{}}],"n":1e2}',
            b'{"stream_options":{"include_usage":true},"messages":[{"stream_options":{}}],"n":1e2}',
        ),
    ],
)
def test_asking_for_usage_changes_no_other_byte(before: bytes, after: bytes) -> None:
    assert asking_for_usage(before) == after


READ = (
    "model",
    "stream",
    "stream_options",
    "user",
    "safety_identifier",
    "n",
    "max_tokens",
    "max_completion_tokens",
)
names = st.text().filter(lambda name: name not in READ)
members = st.dictionaries(names, st.none() | st.integers() | st.text() | st.lists(st.text()), max_size=4)


@given(members, st.none() | members, st.sampled_from([None, 1]))
def test_a_request_that_asks_for_usage_is_the_same_request(
    document: dict[str, Any], options: dict[str, Any] | None, indent: int | None
) -> None:
    document = {**document, "model": "m", "stream": True, "stream_options": options}
    asked = asking_for_usage(json.dumps(document, indent=indent, ensure_ascii=False).encode())
    assert json.loads(asked) == {**document, "stream_options": {**(options or {}), "include_usage": True}}
    assert parse(asked).include_usage


def test_options_known_to_be_absent_are_not_looked_for() -> None:
    before = b' { "a" : 1 } '
    assert asking_for_usage(before, has_options=False) == asking_for_usage(before)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"model":"m"}', b'{"max_completion_tokens":9,"model":"m"}'),
        (b' {\n "model": "\xc3\xa9"}', b' {"max_completion_tokens":9,\n "model": "\xc3\xa9"}'),
        (b"{}", b'{"max_completion_tokens":9}'),
        (b'{"max_completion_tokens": null , "a":1.0}', b'{"max_completion_tokens": 9 , "a":1.0}'),
        (
            b'{"a":{"max_completion_tokens":null}}',
            b'{"max_completion_tokens":9,"a":{"max_completion_tokens":null}}',
        ),
        (b'{"max_tokens":null}', b'{"max_completion_tokens":9,"max_tokens":null}'),
    ],
)
def test_a_cap_changes_no_other_byte(before: bytes, after: bytes) -> None:
    assert capped(before, 9) == after


def test_a_cap_that_is_known_not_to_be_there_is_not_looked_for() -> None:
    before = b'{"model":"m","messages":[]}'
    assert capped(before, 9, has_cap=False) == capped(before, 9)
