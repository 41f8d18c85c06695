"""Produced: a stream counts what its texts count, each by itself, however it comes."""

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.produced import (
    LONGEST_TAIL,
    MOST_TEXTS,
    Count,
    Piece,
    Place,
    Said,
    answered,
    document_of,
    heard,
    streamed,
    tails,
    tokens,
)
from service.domain.tokens import Tokenizer

MODELS = ("gpt-4o", "gpt-4")


def delta(index: object = 0, **members: object) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": members}]}


def line(document: object) -> bytes:
    return b"data: " + json.dumps(document).encode()


def texts(pieces: Iterable[Piece]) -> dict[Place, str]:
    """The pieces put together, by their places."""
    whole: dict[Place, str] = {}
    for place, piece in pieces:
        whole[place] = whole.get(place, "") + piece
    return whole


def said(pieces: Sequence[str], count: Count, drains: Iterable[int] = ()) -> Said:
    """What is heard of one text that comes in pieces; `drains` are those before which it is asked for."""
    result: Said = {}
    edges = [0, *sorted({drain % (len(pieces) + 1) for drain in drains}), len(pieces)]
    for start, end in pairwise(edges):
        result = heard(result, [((0, "content"), piece) for piece in pieces[start:end]], count)
    return result


def cut(text: str, places: Iterable[int]) -> list[str]:
    """A text in pieces of UTF-16, as escapes in JSON may bring it: halves of characters among them."""
    units = text.encode("utf-16-le")
    edges = [0, *sorted(2 * (place % (len(units) // 2 + 1)) for place in places), len(units)]
    return [units[start:end].decode("utf-16-le", "surrogatepass") for start, end in pairwise(edges)]


# How a stream is read -----------------------------------------------------------------------------


def test_everything_that_a_model_produces_as_text_is_heard_each_text_by_itself() -> None:
    call = {"index": 0, "function": {"name": "look", "arguments": '{"at":'}}
    custom = {"index": 1, "custom": {"name": "sql", "input": "select"}}
    events = [
        delta(role="assistant", content=""),
        delta(reasoning_content="Hm. "),
        delta(reasoning="Well. "),
        delta(content="Hel"),
        delta(1, content="Bye"),
        delta(content="lo"),
        delta(refusal=" no "),
        delta(content=[{"type": "text", "text": "You"}, {"type": "text", "text": "!"}]),
        delta(tool_calls=[call, custom]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": "1}"}}]),
        delta(function_call={"name": "f", "arguments": "{}"}),
        {"choices": [], "usage": None},
    ]
    assert texts(streamed([*map(line, events), b"data: [DONE]"])) == {
        (0, "reasoning"): "Hm. Well. ",
        (0, "content"): "Hello",
        (1, "content"): "Bye",
        (0, "refusal"): " no ",
        (0, "content", 0): "You",
        (0, "content", 1): "!",
        (0, "name", 0): "look",
        (0, "arguments", 0): '{"at":1}',
        (0, "name", 1): "sql",
        (0, "input", 1): "select",
        (0, "name"): "f",
        (0, "arguments"): "{}",
    }


def test_the_texts_of_a_json_answer_are_those_of_its_messages() -> None:
    calls = [{"function": {"name": name, "arguments": "{}"}} for name in "fg"]
    message = {"content": "Hi", "tool_calls": calls}
    parts = {"content": [{"type": "text", "text": "You"}]}
    document = {"choices": [{"index": 0, "message": message}, {"message": parts}]}
    assert texts(answered(document)) == {
        (0, "content"): "Hi",
        (0, "name", 0): "f",
        (0, "arguments", 0): "{}",
        (0, "name", 1): "g",
        (0, "arguments", 1): "{}",
        (1, "content", 0): "You",
    }


@pytest.mark.parametrize(
    "data",
    [
        b"null",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b"1" * 10_000,
        b'{"choices":0}',
        b'{"choices":[0,{"index":[],"delta":0},{"delta":{"content":[0,{"text":0}],"tool_calls":[{"custom":0}]}}]}',
    ],
)
def test_nonsense_says_nothing(data: bytes) -> None:
    assert list(streamed([b"data: " + data])) == []
    assert list(answered(document_of(data))) == []


def test_a_number_that_is_none_is_taken_for_the_place_in_the_list() -> None:
    calls = [{"index": None, "function": {"name": "f"}}, {"index": "1", "function": {"name": "g"}}]
    events = [delta("x", content="a"), delta(None, tool_calls=calls)]
    assert texts(streamed(map(line, events))) == {
        (0, "content"): "a",
        (0, "name", 0): "f",
        (0, "name", 1): "g",
    }


# How it is counted --------------------------------------------------------------------------------

WORDS = (
    "the river",
    " and",
    "\n",
    "\n\n",
    "  ",
    "don't",
    "12345678",
    '{"a":',
    "!?",
    "é",
    "水流经过",
    "👍🏽",
    "\r\n",
    "\x1c ",
    "\u00a0",
)
prose = st.lists(st.sampled_from(WORDS) | st.text(max_size=5), max_size=40).map("".join)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[dict[Place, str], list[list[bytes]]]:
    """Texts by place, and the lines of a stream that says them piece by piece, in parts."""
    places = draw(st.lists(st.sampled_from(list(_SAYING)), max_size=4, unique=True))
    whole = {place: draw(prose) for place in places}
    rest = {
        place: cut(text, draw(st.lists(st.integers(0, 500), max_size=5))) for place, text in whole.items()
    }
    lines = []
    while rest:
        place = draw(st.sampled_from(list(rest)))
        lines.append(line(_SAYING[place](rest[place].pop(0))))
        if not rest[place]:
            del rest[place]
    edges = [0, *sorted(draw(st.lists(st.integers(0, len(lines)), max_size=4))), len(lines)]
    return whole, [lines[start:end] for start, end in pairwise(edges)]


def _calling(piece: str, *, index: int, name: str) -> dict[str, Any]:
    return delta(1, tool_calls=[{"index": index, "function": {name: piece}}])


_SAYING: dict[Place, Callable[[str], dict[str, Any]]] = {
    (0, "content"): lambda piece: delta(0, content=piece),
    (1, "content"): lambda piece: delta(1, content=piece),
    (0, "reasoning"): lambda piece: delta(0, reasoning_content=piece),
    (0, "refusal"): lambda piece: delta(0, refusal=piece),
    (1, "name", 0): partial(_calling, index=0, name="name"),
    (1, "arguments", 0): partial(_calling, index=0, name="arguments"),
    (1, "arguments", 7): partial(_calling, index=7, name="arguments"),
}


@pytest.mark.parametrize("model", MODELS)
@given(conversations())
def test_a_stream_counts_what_each_of_its_texts_counts_as_a_whole(
    tokenizer: Tokenizer, model: str, conversation: tuple[dict[Place, str], list[list[bytes]]]
) -> None:
    whole, parts = conversation
    count = partial(tokenizer.count, model=model)
    result: Said = {}
    for lines in parts:
        result = heard(result, streamed(lines), count)
    assert tokens(result) == sum(map(count, whole.values()))


@pytest.mark.parametrize("model", MODELS)
@given(prose, st.lists(st.integers(0, 500)), st.lists(st.integers(0, 50)))
def test_at_every_moment_it_counts_what_is_there(
    tokenizer: Tokenizer, model: str, text: str, places: list[int], drains: list[int]
) -> None:
    count, pieces = partial(tokenizer.count, model=model), cut(text, places)
    for end in range(len(pieces) + 1):
        there = "".join(pieces[:end]).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        assert tokens(said(pieces[:end], count, drains)) == count(there)


def long_texts() -> Iterator[Any]:
    rng = random.Random(7)
    kinds = {
        "prose": "the river comes down from the hills. ",
        "lines": "one\ntwo\n",
        "chinese": "水流经过河坝的每一天，我们都在计数。",
        "letters": "abcdefghijklm",
        "digits": "0123456789",
        "base64": "ABCDEFabcdef0123456789+/",
        "emoji": "😀👍🏽🎉",
        "a": "a",
        "spaces": " ",
    }
    for name, alphabet in kinds.items():
        free = name not in ("prose", "lines", "a", "spaces")
        text = (
            "".join(rng.choice(alphabet) for _ in range(15_000))
            if free
            else alphabet * (15_000 // len(alphabet))
        )
        yield pytest.param(text, name in ("prose", "lines"), id=name)


@pytest.mark.parametrize(("text", "exact"), list(long_texts()))
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("size", [3, 700, 5000])
def test_where_there_is_no_safe_place_to_cut_a_forced_cut_costs_a_token_or_two(
    text: str, exact: bool, model: str, size: int, tokenizer: Tokenizer
) -> None:
    count = partial(tokenizer.count, model=model)
    pieces = cut(text, range(size, len(text.encode("utf-16-le")) // 2, size))
    result = said(pieces, count, range(0, len(pieces), max(1, 600 // size)))
    forced = 0 if exact else len(text) // LONGEST_TAIL
    assert abs(tokens(result) - count(text)) <= 2 * forced
    assert tails(result) <= LONGEST_TAIL


@pytest.mark.parametrize("back", [1, 2_046, 2_047, 2_048, 2_049, 4_000])
def test_a_safe_place_to_cut_is_found_wherever_a_tail_may_begin(back: int) -> None:
    text = "word " * 1_000 + "x" * (back - 1)
    assert tails(said([text], len)) == back


def test_a_character_that_came_in_two_halves_is_put_together(tokenizer: Tokenizer) -> None:
    count = partial(tokenizer.count, model="gpt-4o")
    assert tokens(said(["\ud83d"], count)) == count("�")
    assert tokens(said(["\ud83d", "\ude00"], count, [1])) == count("😀") == 1
    assert tokens(said(["\ud83d", "x", "\ude00"], count, [1, 2])) == count("�x�")


def test_a_half_is_not_parted_from_its_other_where_a_cut_is_forced(tokenizer: Tokenizer) -> None:
    count = partial(tokenizer.count, model="gpt-4o")
    before = said(["水" * (LONGEST_TAIL + 1) + "\ud83d"], count)
    assert tails(before) == 1
    after = heard(before, [((0, "content"), "\ude00")], count)
    assert tokens(after) == count("水" * (LONGEST_TAIL + 1)) + count("😀")


def test_each_character_is_counted_once_and_only_the_tail_again() -> None:
    asked: list[str] = []

    def count(text: str) -> int:
        asked.append(text)
        return len(text.split())

    before = heard({}, [((0, "content"), "one two th"), ((1, "content"), "ten")], count)
    assert (tokens(before), tails(before)) == (4, 6)
    assert asked == ["one two", " th", "", "ten"]
    after = heard(before, [((0, "content"), "ree")], count)
    assert (tokens(after), tails(after)) == (4, 9)
    assert asked[4:] == ["", " three"]
    assert tokens(before) == 4


def test_an_upstream_that_numbers_its_texts_without_end_is_told_apart_only_so_far() -> None:
    def count(text: str) -> int:
        return len(text)

    pieces: list[Piece] = [((number, "content"), "ab") for number in range(3 * MOST_TEXTS)]
    result = heard(heard({}, pieces, count), pieces, count)
    assert len(result) == MOST_TEXTS + 1
    assert tokens(result) == 2 * 2 * 3 * MOST_TEXTS
