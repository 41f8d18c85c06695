"""Subject: whose account is charged, which no name a client can write decides for another."""

import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.address import proxies
from service.domain.chat import Chat, parse
from service.domain.errors import InvalidRequest
from service.domain.exchange import Credential, Exchange
from service.domain.subject import LONGEST, PREFIX, SubjectKeys, subject_key, user_of

DIMENSIONS = ("credential", "model", "user")


def digest(text: str) -> str:
    return hmac.digest(b"a key", text.encode(), hashlib.sha256).hex()[:32]


def as_it_is(text: str) -> str:
    """No digest at all: what it is told must tell subjects apart already."""
    return text


def chat(user: str | None) -> Chat:
    return Chat(document={}, model="gpt-4o", user=user)


VALUES = st.fixed_dictionaries(dict.fromkeys(DIMENSIONS, st.text(max_size=20)))
PER = st.sets(st.sampled_from(DIMENSIONS)).map(lambda chosen: tuple(sorted(chosen)))


@given(one=VALUES, other=VALUES, per=PER, other_per=PER)
def test_two_subjects_never_share_a_key(
    one: dict[str, str], other: dict[str, str], per: tuple[str, ...], other_per: tuple[str, ...]
) -> None:
    same = per == other_per and all(one[name] == other[name] for name in per)
    for how in (digest, as_it_is):
        assert (subject_key(per, one, how) == subject_key(other_per, other, how)) is same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "bc"), ("ab", "c")),
        (("a", ""), ("", "a")),
        (('a", "user', "b"), ("a", 'user", "b')),
        (("a\x00", "b"), ("a", "\x00b")),
        (("é", "x"), ("e\u0301", "x")),
    ],
)
def test_no_name_can_be_written_so_that_it_is_another(one: tuple[str, str], other: tuple[str, str]) -> None:
    per = ("credential", "user")
    keys = {
        subject_key(per, dict(zip(per, values, strict=True)), as_it_is) for values in (one, other, ("z", "z"))
    }
    assert len(keys) == 3


@given(values=VALUES, per=PER)
def test_what_is_digested_is_json(values: dict[str, str], per: tuple[str, ...]) -> None:
    key = subject_key(per, values, as_it_is)
    assert key[len(PREFIX) + 1 : -1] == json.dumps([[name, values[name]] for name in per])


@given(values=VALUES, per=PER)
def test_a_key_is_a_prefix_and_a_hash_tag_of_the_digest_and_nothing_else(
    values: dict[str, str], per: tuple[str, ...]
) -> None:
    key = subject_key(per, values, digest)
    assert key.startswith(f"{PREFIX}{{")
    assert key.endswith("}")
    assert set(key[len(PREFIX) + 1 : -1]) <= set("0123456789abcdef")
    assert len(key) == len(PREFIX) + 34


@pytest.mark.parametrize("hostile", ["}", "{x}", "w1:{other}", "a\r\nFLUSHALL\r\n", "\ud800", "*", "x" * 256])
def test_a_hostile_name_does_not_reach_the_key(hostile: str) -> None:
    key = subject_key(("user",), {"user": hostile}, digest)
    assert hostile not in key[len(PREFIX) + 1 : -1]
    assert key != subject_key(("user",), {"user": "other"}, digest)


def test_everyone_together_is_one_subject_and_not_nobody() -> None:
    everyone = subject_key((), {"user": "a"}, digest)
    assert everyone == subject_key((), {"user": "b"}, digest)
    assert everyone != subject_key(("user",), {"user": ""}, digest)


HEADERS = [(b"x-team", b"red"), (b"x-forwarded-for", b"198.51.100.1"), (b"x-team", b"\xe9")]
CALL = Exchange(
    *("POST", "/v1/chat/completions", b"", HEADERS),
    credential=Credential("k1"),
    user="alice",
    peer="10.0.0.1",
)
NOBODY = Exchange("POST", "/v1/chat/completions", b"", [])


def keys(exchange: Exchange, *dimensions: tuple[str, ...]) -> dict[tuple[str, ...], str]:
    made = SubjectKeys(api="Chat", proxies=proxies("10.0.0.1"), digest=as_it_is)
    return made.of(dimensions, exchange, chat("ignored"))


@pytest.mark.parametrize(
    ("dimension", "value", "nothing"),
    [
        ("credential", "k1", ""),
        ("user", "alice", ""),
        ("model", "gpt-4o", "gpt-4o"),
        ("api", "Chat", "Chat"),
        ("ip", "198.51.100.1", ""),
        ("header:x-team", "red, \xe9", ""),
        ("header:x-none", "", ""),
    ],
)
def test_a_request_has_a_value_for_each_dimension(dimension: str, value: str, nothing: str) -> None:
    per = (dimension,)
    assert keys(CALL, per) == {per: subject_key(per, {dimension: value}, as_it_is)}
    assert keys(NOBODY, per) == {per: subject_key(per, {dimension: nothing}, as_it_is)}


def test_there_is_a_key_for_each_tuple_of_dimensions() -> None:
    found = keys(CALL, ("user", "ip"), (), ("user", "ip"))
    values = {"user": "alice", "ip": "198.51.100.1"}
    assert found == {per: subject_key(per, values, as_it_is) for per in (("user", "ip"), ())}


def test_a_header_is_no_longer_than_a_user() -> None:
    longest = Exchange("POST", "/", b"", [(b"x-team", b"a" * LONGEST)])
    assert keys(longest, ("header:x-team",))
    longer = Exchange("POST", "/", b"", [(b"x-team", b"a" * LONGEST), (b"x-team", b"")])
    assert keys(longer, ("user",))
    with pytest.raises(
        InvalidRequest, match=r"Invalid header 'x-team': string too long.*length 258"
    ) as refused:
        keys(longer, ("header:x-team",))
    assert (refused.value.param, refused.value.code) == ("x-team", "string_above_max_length")


def test_a_user_is_user_or_the_safety_identifier_and_neither_is_touched() -> None:
    spellings = ["\u00e9", "e\u0301", "E\u0301", " \u00e9", "\u00e9 ", "\ufb01", "fi", "K", "\u212a"]
    bodies = [
        json.dumps({"model": "m", name: spelling}).encode()
        for name in ("user", "safety_identifier")
        for spelling in spellings
    ]
    assert [user_of(parse(body), required=True) for body in bodies] == spellings * 2


@pytest.mark.parametrize("user", [None, ""])
def test_those_who_give_no_name_share_one_account(user: str | None) -> None:
    assert user_of(chat(user), required=False) == ""


@pytest.mark.parametrize("user", ["alice", "a" * LONGEST, "søren 😀", "{x}"])
def test_a_name_is_taken_as_it_is(user: str) -> None:
    assert user_of(chat(user), required=True) == user


@pytest.mark.parametrize(
    ("user", "required", "code", "says"),
    [
        (
            "a" * (LONGEST + 1),
            False,
            "string_above_max_length",
            "maximum length 256, but got a string with",
        ),
        ("a\nb", False, "invalid_value", "control characters"),
        ("a\x7f", False, "invalid_value", "control characters"),
        (None, True, "missing_required_parameter", "Missing required parameter: 'user'"),
        ("", True, "missing_required_parameter", "Missing required parameter: 'user'"),
    ],
)
def test_a_name_that_cannot_be_taken(user: str | None, required: bool, code: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as refused:
        user_of(chat(user), required=required)
    assert (refused.value.status, refused.value.param, refused.value.code) == (400, "user", code)
