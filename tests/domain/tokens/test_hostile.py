"""What is made to hurt: long runs, floods of small things, and definitions that would grow without end.

Counts are asserted and never times: how many calls of what length, in which threads, how much is rendered.
"""

import base64
import json
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from service.adapters.threads import INLINE
from service.domain.tokens import Tokenizer, chat
from service.domain.tokens.pieces import LONGEST
from service.domain.tokens.work import PIECES, SECONDS, bound
from tests.domain.tokens.recorder import Clock, Recorder, encodings
from tests.world import TOKENS, Model, World, whole

MB = 1_000_000
_CHOICE = random.Random("hostile")


def _letters(size: int) -> str:
    return base64.b32encode(_CHOICE.randbytes(size)).decode()[:size].lower()


def _mixed(size: int) -> str:
    runs = ("a" * 999, " " * 5_000, "\n" * 400, "🌊" * 3_000, "水" * 20_000, "weir, ", _letters(7_000))
    return (("".join(runs)) * (size // sum(map(len, runs)) + 1))[:size]


TEXTS: dict[str, Callable[[int], str]] = {
    "a": lambda size: "a" * size,
    "spaces": lambda size: " " * size,
    "newlines": lambda size: "\n" * size,
    "one emoji": lambda size: "🌊" * size,
    "CJK": lambda size: ("水流不息" * size)[:size],
    "base64": lambda size: base64.b64encode(_CHOICE.randbytes(size)).decode()[:size],
    "letters": _letters,
    "mixed": _mixed,
}
SIZES = {"1 MB": MB, "3 MB": 3 * MB}
NARROW = [
    pytest.param(TEXTS[kind](size), id=f"{kind}, {name}") for kind in TEXTS for name, size in SIZES.items()
]


def saying(*texts: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text} for text in texts]}


# Long texts and many of them -----------------------------------------------------------------------------


@pytest.mark.parametrize("text", NARROW)
def test_no_call_into_tiktoken_sees_more_than_its_cap(text: str) -> None:
    recorder = Recorder()
    prompt = Tokenizer(encodings(recorder), clock=Clock()).prompt(saying(text), "gpt-4o")
    assert "".join(recorder.texts) == text
    assert recorder.longest <= LONGEST
    assert len(recorder.texts) <= 1 + len(text) // (LONGEST - 2_048)
    assert prompt.exact


@pytest.mark.parametrize("text", NARROW)
def test_once_the_time_is_over_no_further_call_happens_and_the_rest_is_at_its_bound(text: str) -> None:
    recorder, calls = Recorder(), 5
    tokenizer = Tokenizer(encodings(recorder), clock=Clock(SECONDS / (calls - 0.5)))
    tally = tokenizer.tally(saying(text), "gpt-4o")
    prompt = tally.finish()
    counted = "".join(recorder.texts)
    assert len(recorder.texts) == calls
    assert text.startswith(counted)
    assert prompt.parts["text"] == sum(-(-len(piece) // 4) for piece in recorder.texts) + bound(
        text[len(counted) :]
    )
    assert (tally.work.counted, tally.work.bounded) == (len(counted), len(text) - len(counted))
    assert not prompt.exact


@pytest.mark.parametrize(
    "text", ["Hi", "the weir, number {}, is open"], ids=["short", "long enough to remember"]
)
def test_of_a_hundred_thousand_messages_so_many_are_counted_and_the_rest_is_at_its_bound(text: str) -> None:
    recorder = Recorder()
    texts = [text.format(serial) for serial in range(100_000)]
    prompt = Tokenizer(encodings(recorder), clock=Clock()).prompt(saying(*texts), "gpt-4o")
    assert recorder.texts == texts[:PIECES]
    counted = sum(-(-len(text) // 4) for text in texts[:PIECES])
    assert prompt.parts["text"] == counted + sum(map(len, texts[PIECES:]))
    assert prompt.parts["framing"] == 3 + 4 * 100_000
    assert not prompt.exact


def test_a_budget_that_is_used_up_for_one_request_is_whole_for_the_next() -> None:
    recorder = Recorder()
    tokenizer = Tokenizer(encodings(recorder), clock=Clock())
    tokenizer.prompt(saying(*["Hi"] * (PIECES + 1)), "gpt-4o")
    assert tokenizer.prompt(saying("Hi"), "gpt-4o").exact


@pytest.mark.parametrize("kind", TEXTS)
def test_what_is_longest_breaks_neither_encoding_and_stays_within_its_bound(
    tokenizer: Tokenizer, kind: str
) -> None:
    text = TEXTS[kind](LONGEST * 3)
    for model in ("gpt-4o", "gpt-4"):
        assert 0 < tokenizer.count(text, model) <= bound(text)


# The event loop ------------------------------------------------------------------------------------------


class House:
    """A gateway whose encodings are recorded."""

    def __init__(self, store_url: str, model_url: str) -> None:
        self.recorder = Recorder()
        tokenizer = Tokenizer(encodings(self.recorder), clock=Clock())
        step = {"rate-limit-ai-tokens": {"policies": [TOKENS | {"limit": 10**9}]}}
        self.world = World(store_url, tokenizer, model_url, request=[step], max_body="32MB")

    async def ask(self, document: dict[str, Any]) -> None:
        """Send a request to its end; what was recorded is of this one."""
        self.recorder.heard()
        self.recorder.threads.clear()
        client = await self.world.client(json.dumps({"model": "gpt-4o", **document}).encode()).ask()
        await self.world.quiet()
        assert client.status == 200


USED = whole(b'{"usage":{"prompt_tokens":9,"completion_tokens":7}}')


@pytest.mark.parametrize("kind", TEXTS)
async def test_nothing_long_is_counted_on_the_event_loop(store_url: str, kind: str) -> None:
    async with Model([USED]) as model:
        house = House(store_url, model.url)
        async with house.world:
            await house.ask(saying(TEXTS[kind](MB)))
    assert house.recorder.longest <= LONGEST
    assert len(house.recorder.texts) > MB // LONGEST
    assert threading.get_ident() not in house.recorder.threads


async def test_a_request_is_counted_inline_up_to_the_limit_and_not_beyond(store_url: str) -> None:
    loop = threading.get_ident()
    async with Model([USED]) as model:
        house = House(store_url, model.url)
        async with house.world:
            await house.ask(saying("a" * INLINE))
            assert house.recorder.threads == {loop}
            await house.ask(saying("b" * (INLINE + 1)))
            assert loop not in house.recorder.threads
            await house.ask(saying(*(f"{serial:08}" for serial in range(INLINE // 8 + 1))))
            assert loop not in house.recorder.threads
            await house.ask(saying("b" * (INLINE + 1), "and a little more"))
            assert house.recorder.threads == {loop}
            assert house.recorder.texts == ["and a little more"]


# Definitions that would grow without end -----------------------------------------------------------------


def _tool(parameters: dict[str, Any]) -> dict[str, Any]:
    functions = [{"name": "f", "parameters": {"type": "object", **parameters}}]
    return {"messages": [], "tools": [{"type": "function", "function": one} for one in functions]}


def _repeated(target: dict[str, Any], times: int) -> dict[str, Any]:
    """A definition that refers to another one that often."""
    members = {f"a{serial}": {"$ref": "#/$defs/d"} for serial in range(times)}
    return _tool({"properties": members, "$defs": {"d": target}})


def _chosen(target: dict[str, Any], times: int) -> dict[str, Any]:
    """A definition that may be another one, said that often."""
    choices = [{"$ref": "#/$defs/d"}] * times
    return _tool({"properties": {"a": {"anyOf": choices}}, "$defs": {"d": target}})


def _doubled(size: int) -> dict[str, Any]:
    """Each definition refers twice to the next: a tree of two to the power of their number."""
    numbers = range(size // 80)
    defs = {
        f"d{number}": {"properties": {side: {"$ref": f"#/$defs/d{number + 1}"} for side in "ab"}}
        for number in numbers
    }
    return _tool({"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": defs})


def _circle(size: int) -> dict[str, Any]:
    wide = {
        "type": "object",
        "properties": {f"a{serial}": {"$ref": "#/$defs/d"} for serial in range(size // 30)},
    }
    return _tool({"properties": {"a": {"$ref": "#/$defs/d"}}, "$defs": {"d": wide}})


def _rings(size: int) -> dict[str, Any]:
    """Many definitions, each of which refers to all others."""
    numbers = range(int((size / 28) ** 0.5))
    members = {f"a{number}": {"$ref": f"#/$defs/d{number}"} for number in numbers}
    return _tool(
        {"properties": members, "$defs": {f"d{number}": {"properties": members} for number in numbers}}
    )


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def _kinds(size: int) -> dict[str, Any]:
    return {"type": [f"t{serial}" for serial in range(size // 10)]}


def _wide(size: int) -> dict[str, Any]:
    return {f"k{serial}": 0 for serial in range(size // 12)}


def _calls(size: int) -> dict[str, Any]:
    """Many messages of several calls that all have the same id, and answers to it."""
    call = {"id": "", "type": "custom", "custom": {"name": "", "input": ""}}
    count = size // 300
    answer = {"role": "tool", "tool_call_id": "", "content": "x" * 100}
    asking = [{"role": "assistant", "tool_calls": [call, call]} for _ in range(count)]
    return {"messages": [*asking, *(dict(answer) for _ in range(count)), *(dict(one) for one in asking)]}


BOMBS: dict[str, Callable[[int], dict[str, Any]]] = {
    "a circle": _circle,
    "a circle of one": lambda size: _repeated({"$ref": "#/$defs/d"}, size // 30),
    "twice the next": _doubled,
    "all to all": _rings,
    "an enum": lambda size: _repeated({"enum": ["x" * (size // 2)]}, size // 60),
    "an enum of many": lambda size: _repeated({"enum": ["x"] * (size // 8)}, size // 60),
    "a default": lambda size: _repeated({"default": ["x" * (size // 2)]}, size // 60),
    "an example": lambda size: _repeated({"examples": ["x" * (size // 2)]}, size // 60),
    "an example of a choice": lambda size: _chosen({"examples": ["x" * (size // 2)]}, size // 60),
    "a description": lambda size: _repeated({"title": "", "description": "x\n" * (size // 6)}, size // 60),
    "deep ones": lambda size: _tool(
        {"properties": {f"a{serial}": _nested(28) for serial in range(size // 1_200)}}
    ),
    "a name": lambda size: _tool({"properties": {"\x01\x7f\u2028🌊" * (size // 20): {"type": "string"}}}),
    "a path": lambda size: _repeated({"$ref": "#/" + "/" * (size // 2)}, size // 60),
    "required ones": lambda size: _repeated(
        {"required": ["a"] * (size // 8), "properties": {"a": 0}}, size // 60
    ),
    "kinds": lambda size: _tool(
        {"properties": {"a": _kinds(size // 2) | {"description": "x" * (size // 2)}}}
    ),
    "kinds of something wide": lambda size: _repeated(_wide(size // 2) | _kinds(20), size // 60),
    "choices": lambda size: _tool({"properties": {"a": {"anyOf": [{} for _ in range(size // 4)]}}}),
    "many tools": lambda size: {"messages": [], "tools": _tool({})["tools"] * (size // 90)},
    "one huge enum": lambda size: _tool({"properties": {"a": {"enum": list(range(size // 7))}}}),
    "numbers": lambda size: saying_calls("[" + "1e15," * (size // 15) + "1]"),
    "brackets": lambda size: saying_calls("[" * (size // 3)),
    "calls": _calls,
}


def saying_calls(arguments: str) -> dict[str, Any]:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"messages": [{"role": "assistant", "tool_calls": [call] * count} for count in (1, 2)]}


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-3.5-turbo-0613"])
@pytest.mark.parametrize("size", [8_000, MB], ids=["8 KB", "1 MB"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_what_is_rendered_is_not_much_more_than_what_was_said(bomb: str, size: int, model: str) -> None:
    recorder, document = Recorder(), BOMBS[bomb](size)
    said = len(json.dumps(document, ensure_ascii=False))
    assert size / 4 < said < 4 * size
    tokenizer = Tokenizer(encodings(recorder), clock=Clock())
    reading = chat.read(document, tokenizer.family(model))
    assert sum(len(one.source) for _, one in reading.rendered) <= said
    rendered = sum(len(one.render()) for _, one in reading.rendered)
    assert rendered <= 8 * said + 200_000
    tokenizer.prompt(document, model)
    assert recorder.longest <= LONGEST
    assert len(recorder.texts) <= PIECES


@pytest.mark.parametrize("bomb", BOMBS)
async def test_what_is_rendered_from_little_is_not_counted_on_the_event_loop_when_it_is_much(
    store_url: str, bomb: str
) -> None:
    async with Model([USED]) as model:
        house = House(store_url, model.url)
        async with house.world:
            await house.ask(BOMBS[bomb](6_000))
            await house.ask(BOMBS[bomb](6_000))
    if threading.get_ident() in house.recorder.threads:
        assert sum(map(len, house.recorder.texts)) <= INLINE


class Watched(list[Any]):
    """A list that counts how often something of it is looked at."""

    looks = 0

    def __getitem__(self, place: Any) -> Any:
        self.looks += 1
        return super().__getitem__(place)

    def __iter__(self) -> Any:
        for item in super().__iter__():
            self.looks += 1
            yield item


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-3.5-turbo-0613", "gpt-5"])
def test_no_message_is_looked_at_again_and_again(model: str) -> None:
    messages = Watched(_calls(300_000)["messages"])
    Tokenizer(encodings(Recorder()), clock=Clock()).prompt({"messages": messages}, model)
    assert messages.looks <= 4 * len(messages)
