"""Globs: as fnmatch reads them, and compiled once."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.globs import Globs

TEXT = st.text("ab*?[]!-\n.", max_size=8)


@given(patterns=st.lists(TEXT, min_size=1, max_size=4), text=TEXT)
def test_they_match_what_fnmatchcase_matches(patterns: list[str], text: str) -> None:
    assert Globs(tuple(patterns)).match(text) is any(fnmatchcase(text, pattern) for pattern in patterns)


@pytest.mark.parametrize(
    ("patterns", "texts", "matches"),
    [
        (("gpt-4o*", "o3"), ["o3"], True),
        (("gpt-4o*", "o3"), ["o3-mini", "GPT-4o"], False),
        (("",), ["", "a"], True),
        (("*",), [], False),
    ],
)
def test_one_of_some_is_enough(patterns: tuple[str, ...], texts: list[str], matches: bool) -> None:
    assert Globs(patterns).any_of(texts) is matches


def test_the_same_patterns_are_the_same_globs() -> None:
    assert Globs(("a*", "b")) == Globs(("a*", "b"))
    assert Globs(("a*",)) != Globs(("a?",))


def test_many_stars_take_no_time_to_speak_of() -> None:
    """Each star that has to try every length in turn would need more steps than there are seconds."""
    assert not Globs(("*a" * 100 + "b",)).match("a" * 5_000)
