"""Subject: whose account is charged, which no name a client can write decides for another."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.chat import Chat
from service.domain.errors import InvalidRequest
from service.domain.exchange import Credential, Exchange
from service.domain.subject import LONGEST_USER, PREFIX, subject_key, subject_keys, user_of, values_of

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


def test_the_keys_of_a_request_are_made_once_for_each_dimension() -> None:
    keys = subject_keys([("user",), (), ("user",)], {"user": "alice"}, digest)
    assert set(keys) == {("user",), ()}
    assert keys[("user",)] == subject_key(("user",), {"user": "alice"}, digest)


def test_the_values_are_the_exchanges() -> None:
    exchange = Exchange("POST", "/v1/chat/completions", b"", [])
    assert values_of(exchange, chat(None)) == {"credential": "", "user": "", "model": "gpt-4o"}
    exchange.credential, exchange.user = Credential("k1"), "alice"
    assert values_of(exchange, chat("ignored")) == {"credential": "k1", "user": "alice", "model": "gpt-4o"}


@pytest.mark.parametrize("user", [None, ""])
def test_those_who_give_no_name_share_one_account(user: str | None) -> None:
    assert user_of(chat(user), required=False) == ""


@pytest.mark.parametrize("user", ["alice", "a" * LONGEST_USER, "søren 😀", "{x}"])
def test_a_name_is_taken_as_it_is(user: str) -> None:
    assert user_of(chat(user), required=True) == user


@pytest.mark.parametrize(
    ("user", "required", "code", "says"),
    [
        (
            "a" * (LONGEST_USER + 1),
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
