"""Pieces are never too long, leave nothing out, and have the tokens of the whole where that can be."""

import random
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.tokens.encodings import PATTERNS, Encode
from service.domain.tokens.pieces import LONGEST, last_cut, pieces

WORDS = (
    "weir", "dam", "Überlauf", "поток", "水", "🌊🌊", "don't", "WE'LL", "3.14159", "100000", "{}();", "//\n",
    "\n", "\n\n", "\r\n", "\t", "  ", "    ", "\u00a0", "\u3000", "\x1c", "a\n", "a.\n", "_", "é", "!\n/",
    "\u2028", "\u0085", "\ud83d", "'", "'S", "ſ", "e\u0301",
)  # fmt: skip


@pytest.mark.parametrize("name", sorted(PATTERNS))
@pytest.mark.parametrize("seed", range(6))
def test_pieces_have_the_tokens_of_the_whole(encodings: Mapping[str, Encode], name: str, seed: int) -> None:
    choice, encode = random.Random(seed), encodings[name]
    text = "".join(choice.choice(WORDS) + choice.choice((" ", "", "\n")) for _ in range(20_000))
    parts = list(pieces(text))
    assert len(parts) > 2
    assert "".join(parts) == text
    assert [token for part in parts for token in encode(part)] == list(encode(text))


@given(st.lists(st.sampled_from(WORDS), min_size=2, max_size=12).map("".join), st.data())
def test_a_safe_cut_parts_no_token(encodings: Mapping[str, Encode], text: str, data: st.DataObject) -> None:
    end = data.draw(st.integers(0, len(text)))
    cut = last_cut(text, 0, end)
    if cut is not None:
        assert 0 < cut < end
        for encode in encodings.values():
            assert [*encode(text[:cut]), *encode(text[cut:])] == list(encode(text))


@given(
    st.lists(st.tuples(st.text(max_size=4), st.integers(0, 3 * LONGEST)), max_size=4),
)
def test_any_text_is_cut_into_pieces_that_are_not_too_long_and_leave_nothing_out(
    runs: list[tuple[str, int]],
) -> None:
    text = "".join(word * (count // max(1, len(word))) for word, count in runs)
    parts = list(pieces(text))
    assert "".join(parts) == text
    assert max(map(len, parts)) <= LONGEST
    assert len(parts) <= 1 + len(text) // (LONGEST - 2048)


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_a_run_that_leaves_no_place_to_cut_is_cut_all_the_same(
    encodings: Mapping[str, Encode], name: str
) -> None:
    text, encode = "x" * 100_000, encodings[name]
    parts = list(pieces(text))
    assert [len(part) for part in parts] == [LONGEST] * 6 + [100_000 - 6 * LONGEST]
    assert 0 <= sum(len(encode(part)) for part in parts) - len(encode(text)) <= 7


def test_the_last_safe_place_is_taken_and_none_beyond_what_is_looked_back() -> None:
    assert last_cut("one two three", 0, 13) == 7
    assert last_cut("one\ntwo", 0, 7) == 3
    assert last_cut("one", 0, 3) is None
    assert last_cut(" one", 0, 4) is None
    assert last_cut("a b" + "x" * 2_048, 0, 2_051) is None
