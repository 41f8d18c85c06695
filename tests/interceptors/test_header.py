"""The header step changes the fields it names and no others, and nothing a caller writes breaks a field."""

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.domain.api import Api
from service.domain.chat import Chat
from service.domain.exchange import Answer, Credential, Exchange
from service.domain.headers import UNTOUCHABLE, Field
from service.interceptors import Tools
from service.interceptors.header import Header, Options

API = Api(
    title="Chat",
    version="1",
    lifecycle="AVAILABLE",
    base_path="/v1",
    timeout=60.0,
    max_body=1024,
    upstream="http://models.test",
    authentication="pass-through",
    deprecated=None,
    sunset=None,
    request=(),
    response=(),
    plans={},
    request_schema={},
    revision="0" * 12,
)
TOOLS = Tools(api=API, ledger=None, tokenizer=None, logs=None, metrics=None, digest=str)


def step(**options: Any) -> Header:
    return Header(Options.model_validate(options), TOOLS)


def exchange(*fields: Field, user: str | None = None) -> Exchange:
    return Exchange(
        method="POST",
        path="/v1/chat/completions",
        query=b"",
        headers=list(fields),
        id="req_1",
        chat=Chat(document={}, model="gpt-4o"),
        credential=Credential(id="key_7"),
        user=user,
    )


async def on_request(header: Header, *fields: Field, user: str | None = None) -> list[Field]:
    asked = exchange(*fields, user=user)
    await header.on_request(asked)
    return asked.headers


async def test_a_field_that_is_removed_is_gone_however_often_it_came() -> None:
    fields = [(b"cookie", b"a"), (b"accept", b"*/*"), (b"cookie", b"b")]

    assert await on_request(step(remove=["Cookie"]), *fields) == [(b"accept", b"*/*")]


async def test_a_field_that_is_set_has_exactly_that_value() -> None:
    fields = [(b"x-gateway", b"theirs"), (b"accept", b"*/*"), (b"x-gateway", b"too")]

    changed = await on_request(step(set={"X-Gateway": "weir"}), *fields)

    assert changed == [(b"accept", b"*/*"), (b"x-gateway", b"weir")]


async def test_a_field_is_added_where_there_is_none() -> None:
    add = step(add={"x-team": "none"})

    assert await on_request(add) == [(b"x-team", b"none")]
    assert await on_request(add, (b"x-team", b"blue")) == [(b"x-team", b"blue")]


async def test_a_renamed_field_keeps_its_value_and_takes_the_place_of_what_had_the_name() -> None:
    rename = step(rename={"x-old": "x-new"})

    assert await on_request(rename, (b"x-new", b"forged"), (b"x-old", b"1")) == [(b"x-new", b"1")]
    assert await on_request(rename, (b"x-new", b"kept")) == [(b"x-new", b"kept")]


async def test_fields_are_removed_then_renamed_then_set_then_added() -> None:
    header = step(remove=["a"], rename={"b": "a"}, set={"b": "new"}, add={"a": "unused", "c": "added"})

    changed = await on_request(header, (b"a", b"old"), (b"b", b"moved"))

    assert changed == [(b"a", b"moved"), (b"b", b"new"), (b"c", b"added")]


async def test_without_options_nothing_changes() -> None:
    assert await on_request(step(), (b"a", b"1"), (b"a", b"2")) == [(b"a", b"1"), (b"a", b"2")]


async def test_an_answer_is_changed_on_its_way_back() -> None:
    answered = exchange((b"server", b"theirs"))
    answered.answer = Answer(status=200, headers=[(b"server", b"hidden")], body=b"")

    await step(remove=["server"], add={"x-for": "${user}"}).on_response(answered)

    assert answered.answer.headers == [(b"x-for", b"")]
    assert answered.headers == [(b"server", b"theirs")]


async def test_where_there_is_no_answer_there_is_nothing_to_change() -> None:
    unanswered = exchange()

    await step(add={"a": "1"}).on_response(unanswered)

    assert unanswered.answer is None


async def test_values_may_name_who_calls_and_what_for() -> None:
    header = step(set={"x-who": "${credential}/${user} ${request.id} ${model}"})

    assert await on_request(header, user="ada") == [(b"x-who", b"key_7/ada req_1 gpt-4o")]


async def test_values_may_name_the_trace() -> None:
    asked = exchange()

    await step(set={"x-trace": "${trace.id}/${trace.span}"}).on_request(asked)

    assert asked.headers == [(b"x-trace", f"{asked.trace.id}/{asked.trace.span}".encode())]


@pytest.mark.parametrize(
    ("user", "field"),
    [
        ("ada\r\nx-admin: yes", b"ada%0D%0Ax-admin:%20yes"),
        ("ada\x00\x7f", b"ada%00%7F"),
        ("Ådå", b"%C3%85d%C3%A5"),
        ("漢", b"%E6%BC%A2"),
        (" ada ", b"%20ada%20"),
        ("100%", b"100%25"),
        ("100%25", b"100%2525"),
        ("${model}", b"${model}"),
        ("\udc80", b"?"),
        ("a" * 300, b"a" * 256),
    ],
)
async def test_a_user_cannot_write_anything_but_a_value(user: str, field: bytes) -> None:
    assert await on_request(step(set={"x-user": "${user}"}), user=user) == [(b"x-user", field)]


@given(st.text())
async def test_whatever_a_user_is_called_the_field_is_visible_ascii(user: str) -> None:
    [(_, value)] = await on_request(step(set={"x-user": "<${user}>"}), user=user)

    assert set(value.decode()) <= set(string.ascii_letters + string.digits + string.punctuation)
    assert len(value) <= 2 + 256 * 4 * 3


@pytest.mark.parametrize("name", sorted(UNTOUCHABLE))
@pytest.mark.parametrize("operation", ["remove", "rename", "renamed", "set", "add"])
def test_hop_by_hop_and_framing_fields_are_never_touched(name: bytes, operation: str) -> None:
    text = name.decode().title()
    options: dict[str, Any] = {
        "remove": {"remove": [text]},
        "rename": {"rename": {text: "x-a"}},
        "renamed": {"rename": {"x-a": text}},
        "set": {"set": {text: "1"}},
        "add": {"add": {text: "1"}},
    }
    with pytest.raises(ValidationError, match="travels end to end"):
        Options.model_validate(options[operation])


@pytest.mark.parametrize("name", ["", "x y", "x:y", "x\r\ny", "ä", "x\n"])
def test_a_name_is_a_token(name: str) -> None:
    with pytest.raises(ValidationError, match="expected the name of a header field"):
        Options.model_validate({"remove": [name]})


@pytest.mark.parametrize("value", ["a\r\nb", "a\n", " a", "a ", "ä", "\t", "\x7f"])
def test_a_value_is_printable_ascii(value: str) -> None:
    with pytest.raises(ValidationError, match="expected a header value"):
        Options.model_validate({"set": {"x-a": value}})


@pytest.mark.parametrize("value", ["", "a", "a b", "text/html; q=1"])
async def test_a_value_is_sent_as_it_is_written(value: str) -> None:
    assert await on_request(step(set={"x-a": value})) == [(b"x-a", value.encode())]


def test_an_unknown_variable_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"\$\{credential\}, \$\{user\}.*did you mean \"user\""):
        Options.model_validate({"set": {"x-a": "${usr}"}})


@pytest.mark.parametrize("operation", ["set", "add"])
def test_a_field_named_twice_in_one_operation_is_refused(operation: str) -> None:
    with pytest.raises(ValidationError, match="each header field once"):
        Options.model_validate({operation: {"x-a": "1", "X-A": "2"}})


def test_a_field_renamed_to_itself_is_refused() -> None:
    with pytest.raises(ValidationError, match="a new name that is not the old one"):
        Options.model_validate({"rename": {"x-a": "X-A"}})


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        Options.model_validate({"append": {"x-a": "1"}})
