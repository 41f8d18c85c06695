"""Counters count each text once while it is remembered, in pieces, and at the bound when nothing is left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.tokens.counters import Exact, Rough
from service.domain.tokens.memory import SHORTEST, Memory, key_of
from service.domain.tokens.pieces import LONGEST
from service.domain.tokens.work import Work, bound
from tests.domain.tokens.recorder import Clock, Recorder

PROSE = "water under the weir " * 4


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def work(*, seconds: float = 1.0, step: float = 0.0, pieces: int = 100) -> Work:
    return Work(Clock(step), seconds=seconds, pieces=pieces)


# What is remembered --------------------------------------------------------------------------------------


def test_a_text_is_encoded_once(recorder: Recorder) -> None:
    exact, spent = Exact(recorder), work()
    assert exact.count(PROSE, spent) == exact.count("".join(list(PROSE)), spent) == 21
    assert recorder.texts == [PROSE]
    assert (spent.counted, spent.cached, spent.bounded) == (84, 84, 0)


def test_a_short_text_is_encoded_each_time_and_takes_no_room(recorder: Recorder) -> None:
    memory = Memory()
    exact, text = Exact(recorder, memory), "x" * (SHORTEST - 1)
    assert exact.count(text, work()) == exact.count(text, work())
    assert len(recorder.texts) == 2
    assert len(memory) == 0


def test_an_empty_text_is_not_encoded(recorder: Recorder) -> None:
    assert Exact(recorder).count("", work()) == 0
    assert recorder.texts == []


def test_a_text_is_remembered_under_the_key_it_came_with(recorder: Recorder) -> None:
    exact, key = Exact(recorder), key_of("source")
    exact.count(PROSE, work(), key)
    assert exact.known(key) == 21
    assert exact.known(key_of(PROSE)) is None


@pytest.mark.parametrize("text", ["{}", "x", PROSE])
def test_what_came_with_a_key_is_remembered_however_short_it_is(recorder: Recorder, text: str) -> None:
    """What it was made from may be long."""
    exact, key = Exact(recorder), key_of("source")
    tokens = exact.count(text, work(), key)
    assert exact.known(key) == tokens


def test_no_text_is_kept(recorder: Recorder) -> None:
    memory = Memory()
    Exact(recorder, memory).count(PROSE, work())
    Exact(recorder, memory).count(PROSE * 1000, work())
    entries = [*memory._young.items(), *memory._old.items()]
    assert len(entries) == 2
    assert all(
        type(number) is int for (digest, length), tokens in entries for number in (digest, length, tokens)
    )


# What is bounded -----------------------------------------------------------------------------------------


def test_a_long_text_is_encoded_in_pieces_that_are_not_too_long(recorder: Recorder) -> None:
    spent = work()
    assert Exact(recorder).count("a" * 100_000, spent) == 25_000
    assert recorder.longest == LONGEST
    assert len(recorder.texts) == 7
    assert (spent.counted, spent.bounded) == (100_000, 0)


def test_when_the_time_is_over_the_rest_is_at_its_bound(recorder: Recorder) -> None:
    spent = work(seconds=2.5, step=1.0)
    tokens = Exact(recorder).count("é" * 100_000, spent)
    assert len(recorder.texts) == 3
    assert tokens == 3 * LONGEST // 4 + 2 * (100_000 - 3 * LONGEST)
    assert (spent.counted, spent.bounded) == (3 * LONGEST, 100_000 - 3 * LONGEST)


def test_when_the_pieces_are_used_up_the_rest_is_at_its_bound(recorder: Recorder) -> None:
    spent, exact = work(pieces=2), Exact(recorder)
    assert [exact.count("weir", spent) for _ in range(4)] == [1, 1, 4, 4]
    assert len(recorder.texts) == 2


def test_a_text_that_was_counted_in_part_is_not_remembered(recorder: Recorder) -> None:
    exact, text = Exact(recorder), "a" * 3 * LONGEST
    assert exact.count(text, work(pieces=1)) > exact.count(text, work()) == 3 * LONGEST // 4
    assert exact.known(key_of(text)) == 3 * LONGEST // 4


def test_a_text_that_was_counted_whole_is_remembered_though_one_before_it_was_bounded(
    recorder: Recorder,
) -> None:
    exact, spent = Exact(recorder), work()
    exact.count(PROSE, spent)
    spent.bounded += 1
    exact.count(PROSE + "!", spent)
    assert exact.known(key_of(PROSE + "!")) == 22


@given(st.text(st.characters(codec=None)), st.integers(0, 3))
def test_no_count_is_above_the_bound_nor_below_the_truth(text: str, pieces: int) -> None:
    true = Exact(Recorder()).count(text * 200, work())
    assert true <= Exact(Recorder()).count(text * 200, work(pieces=pieces)) <= bound(text * 200)


# What is rough -------------------------------------------------------------------------------------------


@given(st.text(st.characters(codec=None)), st.floats(1, 16))
def test_a_rough_count_is_bytes_over_bytes_per_token_rounded_up(text: str, bytes_per_token: float) -> None:
    tokens = Rough(bytes_per_token).count(text, work())
    assert type(tokens) is int
    assert tokens <= bound(text)
    assert (tokens - 1) * bytes_per_token <= bound(text) * (1 + 1e-9)
    assert bound(text) <= tokens * bytes_per_token * (1 + 1e-9)
