"""A prompt is read once: what is remembered is free, what is not is made and counted when it is finished."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.tokens.counters import Exact, Rough
from service.domain.tokens.memory import Memory
from service.domain.tokens.prompt import PARTS, Reading, Tally
from service.domain.tokens.work import Work
from tests.domain.tokens.recorder import Clock, Recorder

TEXT = "water under the weir"


class Renderer:
    """Makes a text, and knows how often."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        return self._text


def reading(*texts: str, rendered: dict[str, Callable[[], str]] | None = None, **fixed: int) -> Reading:
    made = Reading()
    made.fixed.update(fixed)
    for text in texts:
        made.text("text", text)
    for source, render in (rendered or {}).items():
        made.render("tools", source, render)
    return made


@pytest.fixture
def exact() -> Exact:
    return Exact(Recorder())


def tally(read: Reading, counter: Exact | Rough, *, margin: int = 0, pieces: int = 100) -> Tally:
    return Tally(read, counter, Work(Clock(), pieces=pieces), margin=margin)


def test_what_remains_is_what_nobody_remembers(exact: Exact) -> None:
    first = tally(reading(TEXT, "hi"), exact)
    assert first.remaining == len(TEXT) + 2
    assert first.finish().tokens == 6
    again = tally(reading(TEXT, "hi", TEXT + "!"), exact)
    assert again.remaining == 2 + len(TEXT) + 1
    assert again.work.cached == len(TEXT)
    assert again.finish().tokens == 12


@pytest.mark.parametrize("source", ["a source", "a long source" * 1_000], ids=["short", "long"])
def test_nothing_is_rendered_twice_nor_once_it_is_remembered(exact: Exact, source: str) -> None:
    render = Renderer(TEXT)
    first = tally(reading(rendered={source: render}), exact)
    assert first.finish().parts["tools"] == 5
    assert render.calls == 1
    again = tally(reading(rendered={source: render}), exact)
    assert again.remaining == 0
    assert again.finish().parts["tools"] == 5
    assert render.calls == 1


def test_what_is_rendered_from_little_is_rendered_at_once_so_that_it_is_known_how_much_remains(
    exact: Exact,
) -> None:
    little = tally(reading(rendered={"a source": Renderer(TEXT * 100)}), exact)
    assert little.remaining == len(TEXT) * 100
    assert little.finish().tokens == 500


def test_what_is_rendered_from_much_is_left_to_a_thread(exact: Exact) -> None:
    render, source = Renderer(TEXT), "a long source" * 1_000
    much = tally(reading(rendered={source: render}), exact)
    assert (render.calls, much.remaining) == (0, len(source))


def test_a_text_that_says_what_a_source_says_is_another(exact: Exact) -> None:
    tally(reading(rendered={TEXT: Renderer("other " * 50)}), exact).finish()
    assert tally(reading(TEXT), exact).finish().tokens == 5
    assert tally(reading(rendered={TEXT: Renderer("")}), exact).finish().tokens == 75


def test_what_was_rendered_and_not_counted_whole_is_rendered_again(exact: Exact) -> None:
    render = Renderer(TEXT)
    assert tally(reading(rendered={"a source": render}), exact, pieces=0).finish().tokens == len(TEXT)
    assert tally(reading(rendered={"a source": render}), exact).finish().tokens == 5
    assert render.calls == 2


def test_tokens_are_those_of_the_parts(exact: Exact) -> None:
    read = reading(TEXT, rendered={"a source": Renderer("weir")}, framing=7, images=85)
    prompt = tally(read, exact).finish()
    assert prompt.parts == {"framing": 7, "images": 85, "text": 5, "tools": 1}
    assert prompt.tokens == 98
    assert set(prompt.parts) <= set(PARTS)


@pytest.mark.parametrize(("margin", "more"), [(0, 0), (1, 1), (10, 2), (50, 6), (100, 12)])
def test_a_margin_is_added_and_rounded_up(exact: Exact, margin: int, more: int) -> None:
    prompt = tally(reading(TEXT, framing=7), exact, margin=margin).finish()
    assert prompt.parts["margin"] == more
    assert prompt.tokens == 12 + more


def test_only_what_was_counted_whole_and_not_guessed_is_exact(exact: Exact) -> None:
    assert tally(reading(TEXT), exact).finish().exact
    assert tally(reading(TEXT), exact).finish().exact
    assert not tally(reading(TEXT + "!"), exact, pieces=0).finish().exact
    assert not tally(reading(TEXT), exact, margin=1).finish().exact
    guessed = reading(TEXT)
    guessed.guessed = True
    assert not tally(guessed, exact).finish().exact


def test_a_bound_is_a_token_for_each_byte_of_what_is_said_and_rendered() -> None:
    read = reading("Überlauf", rendered={"not this": Renderer("水")}, framing=7)
    assert read.bound() == 7 + 9 + 3


def test_what_is_no_text_is_not_counted() -> None:
    read = Reading()
    for value in (None, 0, 1, True, [], ["a"], {"a": "b"}, ""):
        read.text("other", value)
    assert read.texts == []


@given(st.lists(st.text(st.characters(codec=None))), st.integers(0, 5))
def test_memory_changes_no_count(texts: list[str], pieces: int) -> None:
    remembering, forgetful = Exact(Recorder()), [Exact(Recorder(), Memory()) for _ in range(2)]
    tokens = [tally(reading(*texts), counter).finish().tokens for counter in (*forgetful, remembering)]
    assert tokens == [tally(reading(*texts), remembering).finish().tokens] * 3
    bounded = tally(reading(*texts), Exact(Recorder()), pieces=pieces).finish().tokens
    assert tokens[0] <= bounded <= reading(*texts).bound()
