"""Work has an end: so many pieces, so many seconds from the first one on; what is beyond is bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.tokens.work import PIECES, SECONDS, Work, bound
from tests.domain.tokens.recorder import Clock


def test_so_many_pieces_may_be_counted_and_no_more() -> None:
    work = Work(Clock())
    assert [work.may_count() for _ in range(PIECES + 3)] == [True] * PIECES + [False] * 3


def test_once_the_time_is_over_nothing_more_may_be_counted() -> None:
    clock = Clock()
    work = Work(clock)
    assert work.may_count()
    clock.now = SECONDS - 0.001
    assert work.may_count()
    clock.now = SECONDS
    assert not work.may_count()
    clock.now = 0.0
    assert not work.may_count()


def test_time_that_is_waited_for_a_thread_is_none_of_counting() -> None:
    clock = Clock()
    work = Work(clock)
    clock.now = 3600.0
    assert work.may_count()


@given(st.text(st.characters(codec=None)))
def test_a_bound_is_the_bytes_of_a_text(text: str) -> None:
    assert bound(text) == len(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    ("text", "bytes_"), [("", 0), ("a", 1), ("é", 2), ("水", 3), ("🌊", 4), ("\ud83d", 3)]
)
def test_a_character_counts_one_to_four_at_most(text: str, bytes_: int) -> None:
    assert bound(text) == bytes_
