"""Whatever a request says, it is counted: to a number within its bound, and to the same one each time."""

import itertools
import json
import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from service.domain import json_text
from service.domain.chat import parse
from service.domain.errors import InvalidRequest
from service.domain.tokens import Tokenizer, chat
from service.domain.tokens.encodings import Encode
from service.domain.tokens.options import ModelOptions
from tests.domain.tokens.bodies import BODIES
from tests.domain.tokens.recorder import Clock
from tests.domain.tokens.schemas import JSON, SCHEMAS, TEXTS, Requests

# Of each family that differs from others, and those that are counted by their bytes.
MODELS = (
    "gpt-4o", "gpt-4", "gpt-3.5-turbo", "gpt-3.5-turbo-0301", "gpt-3.5-turbo-0613", "gpt-5", "o3-mini",
    "gpt-4o-mini", "gpt-4.1-nano", "gpt-6-astra", "ft:gpt-4o-mini:weir::abc", "rough-1", "rough-3",
    "nobody/knows", "",
)  # fmt: skip
ROUGH = {
    f"rough-{bytes_}": ModelOptions.model_validate({"bytes-per-token": bytes_, "image": 0, "file": 0})
    for bytes_ in (1, 3)
}
REQUESTS = Requests()
FREELY = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], deadline=None)


class Laws:
    """What holds of every request."""

    def __init__(self, encodings: Mapping[str, Encode]) -> None:
        self._encodings = encodings
        self._remembering = self._tokenizer(Clock())

    def _tokenizer(self, clock: Any) -> Tokenizer:
        return Tokenizer(self._encodings, ROUGH, clock=clock)

    def hold(self, document: Mapping[str, Any], model: str) -> None:
        """Raises AssertionError where one of them does not."""
        said = json.dumps(document)
        most, true = self._bound(document, model), self._true(document, model)
        fresh = self._tokenizer(Clock()).prompt(document, model)
        first, again = (self._remembering.prompt(document, model) for _ in range(2))
        hurried = self._tokenizer(itertools.count().__next__).prompt(document, model)
        assert 0 <= true <= most
        assert fresh.tokens == true
        assert fresh == first == again
        assert true <= hurried.tokens <= most
        assert fresh.tokens == sum(fresh.parts.values())
        assert json.dumps(document) == said

    def _bound(self, document: Mapping[str, Any], model: str) -> int:
        return chat.read(document, self._remembering.family(model)).bound()

    def _true(self, document: Mapping[str, Any], model: str) -> int:
        """All that is read, each text encoded whole: no pieces, no budget, no memory."""
        family = self._remembering.family(model)
        reading = chat.read(document, family)
        texts = [text for _, text in reading.texts] + [one.render() for _, one in reading.rendered]
        if model.startswith("rough"):
            bytes_per_token = int(model[-1])
            sizes = (len(text.encode("utf-8", "surrogatepass")) for text in texts)
            return sum(reading.fixed.values()) + sum(-(-size // bytes_per_token) for size in sizes)
        return sum(reading.fixed.values()) + sum(map(len, map(self._encodings[family.encoding], texts)))


@pytest.fixture(scope="session")
def laws(encodings: Mapping[str, Encode]) -> Laws:
    return Laws(encodings)


# What the schema accepts ---------------------------------------------------------------------------------


@FREELY
@given(document=REQUESTS.any(), model=st.sampled_from(MODELS))
def test_whatever_the_schema_accepts_is_counted_within_its_bound(
    laws: Laws, document: dict[str, Any], model: str
) -> None:
    assume(REQUESTS.accepts(document))
    laws.hold(document, model)


@FREELY
@given(
    schemas=st.lists(SCHEMAS.filter(lambda one: type(one) is dict), min_size=1, max_size=3),
    model=st.sampled_from(MODELS),
    data=st.data(),
)
def test_whatever_tools_take_is_counted_within_its_bound(
    laws: Laws, schemas: list[Any], model: str, data: st.DataObject
) -> None:
    functions = [
        {"name": data.draw(TEXTS), "description": data.draw(TEXTS), "parameters": schema}
        for schema in schemas
    ]
    tools = [{"type": "function", "function": function} for function in functions]
    shape = {"type": "json_schema", "json_schema": {"name": data.draw(TEXTS), "schema": schemas[0]}}
    document = {
        "model": "m",
        "messages": [{"role": "system", "content": "Hi"}],
        **data.draw(st.sampled_from([{"tools": tools}, {"functions": functions}])),
        **data.draw(st.sampled_from([{}, {"response_format": shape}])),
    }
    assume(REQUESTS.accepts(document))
    laws.hold(document, model)


# What it does not ----------------------------------------------------------------------------------------

PARTS = JSON | st.fixed_dictionaries(
    {"type": st.sampled_from(("text", "refusal", "image_url", "input_audio", "file", "poem")) | JSON},
    optional=dict.fromkeys(("text", "refusal", "image_url", "input_audio", "file"), JSON),
)
CALLS = JSON | st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("id", "function", "custom", "type", "name", "arguments"), JSON)
)
MESSAGES = JSON | st.fixed_dictionaries(
    {"role": st.sampled_from(("system", "developer", "user", "assistant", "tool", "function")) | JSON},
    optional={
        "content": st.lists(PARTS) | JSON,
        "name": JSON,
        "tool_calls": st.lists(CALLS) | JSON,
        "tool_call_id": JSON,
        "function_call": CALLS,
        "audio": JSON,
        "x": JSON,
    },
)
ANYTHING = st.fixed_dictionaries(
    {},
    optional={
        "messages": st.lists(MESSAGES) | JSON,
        "tools": st.lists(CALLS) | JSON,
        "functions": st.lists(CALLS) | JSON,
        "tool_choice": CALLS | st.just("none"),
        "function_call": CALLS,
        "response_format": JSON | st.fixed_dictionaries({"json_schema": JSON | SCHEMAS}),
    },
)


@FREELY
@given(document=ANYTHING | st.dictionaries(TEXTS, JSON), model=st.sampled_from(MODELS) | TEXTS)
def test_whatever_json_says_is_counted_within_its_bound(
    laws: Laws, document: dict[str, Any], model: str
) -> None:
    laws.hold(document, model)


NO_TEXT: tuple[Any, ...] = ([], {}, [[]], {"a": []}, 0, 1.5, True, None, 10**400)
# Where a value may stand, at each `?`.
PLACES = (
    '{"messages": ?}',
    '{"messages": [?]}',
    '{"messages": [{"role": ?, "content": ?, "name": ?}]}',
    '{"messages": [{"role": "user", "content": [?, {"type": ?}, {"type": "text", "text": ?}]}]}',
    '{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": ?}]}]}',
    '{"messages": [{"content": [{"type": "image_url", "image_url": {"url": ?, "detail": ?}}]}]}',
    '{"messages": [{"role": "user", "content": [{"type": "file", "file": ?}]}]}',
    '{"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": ?}}]}]}',
    '{"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": ?}}]}]}',
    '{"messages": [{"role": "assistant", "tool_calls": ?, "function_call": ?, "audio": ?}]}',
    '{"messages": [{"role": "assistant", "tool_calls": [?, ?]}]}',
    '{"messages": [{"role": "assistant", "tool_calls": [{"id": ?, "function": ?}, {"id": ?}]}, '
    '{"role": "tool", "tool_call_id": ?, "content": ?}]}',
    '{"messages": [{"role": "assistant", "tool_calls": [{"id": ?, "function": {"arguments": ?}}]}]}',
    '{"messages": [{"role": "assistant", "function_call": ?}, {"role": "function", "name": ?}]}',
    '{"messages": [{"role": "assistant", "function_call": {"name": ?, "arguments": ?}}]}',
    '{"tools": ?, "functions": ?, "tool_choice": ?, "response_format": ?}',
    '{"tools": [?], "functions": [?], "tool_choice": {"type": ?, "function": ?}}',
    '{"tools": [{"type": ?, "function": ?, "custom": ?}], "tool_choice": {"function": {"name": ?}}}',
    '{"tools": [{"type": "custom", "custom": {"name": ?, "format": ?}}]}',
    '{"tools": [{"type": "function", "function": {"name": ?, "description": ?, "parameters": ?}}]}',
    '{"functions": [{"name": "f", "parameters": {"properties": ?, "type": ?, "required": ?}}]}',
    '{"functions": [{"parameters": {"properties": {"a": {"type": ?, "enum": ?, "title": ?}}}}]}',
    '{"functions": [{"parameters": {"properties": {"a": {"anyOf": ?, "default": ?}, "c": {"$ref": ?}}}}]}',
    '{"functions": [{"parameters": {"properties": {"a": {"type": [?, "array"], "items": ?}}}}]}',
    '{"response_format": {"type": "json_schema", "json_schema": ?}}',
    '{"response_format": {"json_schema": {"name": ?, "schema": ?, "description": ?}}}',
)


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4", "gpt-5"])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_text_where_one_belongs_is_counted(laws: Laws, place: str, model: str) -> None:
    for value in (*NO_TEXT, "text", ["text"], {"text": "text"}):
        laws.hold(json.loads(place.replace("?", json.dumps(value))), model)


# Bytes ---------------------------------------------------------------------------------------------------

WORDS = (
    b"null", b"true", b"0", b"-1", b"1e999", b"[]", b"{}", b'""', b'"\\u0000"', b'"\\ud83d\\ude00"',
    b"[[[[]]]]", b'"$ref"', b'"#/$defs/d"', b'"object"', b'"enum"', b'"text"', b'"tool"', b'"assistant"',
    b'"type"', "水".encode(), b" ", b",", b":", b"\\n", b"\x7f", b"\xff", b'{"a":', b"}", b"]",
)  # fmt: skip


def mutated(body: bytes, choice: random.Random) -> bytes:
    """A body with some of its bytes other ones: flipped, left out, repeated, spliced in from elsewhere."""
    for _ in range(choice.choice((1, 1, 2, 3))):
        start = choice.randrange(len(body) + 1)
        end = min(len(body), start + choice.choice((0, 1, 1, 2, 5, 20, 100)))
        match choice.randrange(6):
            case 0:
                body = body[:start] + bytes([choice.randrange(256)]) + body[start + 1 :]
            case 1:
                body = body[:start] + body[end:]
            case 2:
                body = body[:end] + body[start:end] * choice.choice((1, 2, 30)) + body[end:]
            case 3:
                body = body[:start] + choice.choice(WORDS) + body[end:]
            case 4:
                body = _exchanged(body, choice)
            case _:
                other = choice.choice(BODIES)
                at = choice.randrange(len(other))
                body = body[:start] + other[at : at + choice.randrange(80)] + body[end:]
    return body


def _exchanged(body: bytes, choice: random.Random) -> bytes:
    """One value put where another was, so that what comes is JSON."""
    try:
        document = json_text.decode(body)
    except json_text.Malformed:
        return body
    places: list[Any] = [document] if document and isinstance(document, dict) else []
    for place in places:
        places += [one for _, one in _members(place) if one and isinstance(one, dict | list)]
    if places:
        there, (_, value) = choice.choice(places), choice.choice(_members(choice.choice(places)))
        there[choice.choice(_members(there))[0]] = json.loads(json.dumps(value))
    return json.dumps(document).encode()


def _members(place: Any) -> list[tuple[Any, Any]]:
    return list(place.items() if isinstance(place, dict) else enumerate(place))


@pytest.mark.parametrize("seed", range(4))
def test_bodies_with_bytes_changed_are_counted_within_their_bounds(laws: Laws, seed: int) -> None:
    choice, read, accepted = random.Random(seed), 0, 0
    for _ in range(1_000):
        try:
            asked = parse(mutated(choice.choice(BODIES), choice))
        except InvalidRequest:
            continue
        read += 1
        accepted += REQUESTS.accepts(asked.document)
        laws.hold(asked.document, choice.choice(MODELS))
    assert read > 200
    assert accepted > 100


def test_the_bodies_that_are_changed_are_accepted_as_they_stand(laws: Laws) -> None:
    for body in BODIES:
        document = parse(body).document
        assert REQUESTS.accepts(document)
        for model in MODELS:
            laws.hold(document, model)
