"""Encodings are tiktoken's own, keep no second vocabulary, and break on no text of a piece's length."""

import importlib
import random
import re
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.tokens import Tokenizer
from service.domain.tokens.encodings import PATTERNS, Encode, build
from service.domain.tokens.pieces import LONGEST
from service.domain.tokens.work import bound

GPT_4O, GPT_4 = "gpt-4o", "gpt-4"


@pytest.fixture(params=sorted(PATTERNS))
def encode(request: pytest.FixtureRequest, encodings: Mapping[str, Encode]) -> Encode:
    return encodings[request.param]


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_the_patterns_are_tiktokens_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    openai_public: Any = importlib.import_module("tiktoken_ext.openai_public")
    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", lambda *_, **__: {})
    assert PATTERNS[name] == openai_public.ENCODING_CONSTRUCTORS[name]()["pat_str"]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", [0, 0]),
        ("hello world", [2, 2]),
        ("tiktoken is great!", [6, 6]),  # openai-cookbook, How_to_count_tokens_with_tiktoken.ipynb
        ("antidisestablishmentarianism", [6, 6]),  # the same
        ("2 + 2 = 4", [7, 7]),  # the same
        ("お誕生日おめでとう", [8, 9]),  # the same
    ],
)
def test_a_text_has_the_tokens_that_openai_publishes(
    tokenizer: Tokenizer, text: str, tokens: list[int]
) -> None:
    assert [tokenizer.count(text, GPT_4O), tokenizer.count(text, GPT_4)] == tokens


@pytest.mark.parametrize("text", ["<|endoftext|>", "<|endofprompt|>", "<|im_start|>system", "<|start|>"])
def test_the_text_of_a_special_token_is_plain_text(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.count(text, GPT_4O) > 3
    assert tokenizer.count(text, GPT_4) > 3


def test_the_vocabulary_it_was_built_from_is_let_go() -> None:
    tokens = {bytes([byte]): byte for byte in range(256)} | {b"we": 256, b"ir": 257, b"weir": 258}
    lines = (f"{b64encode(token).decode()} {rank}\n".encode() for token, rank in tokens.items())
    encode: Any = build("o200k_base", b"".join(lines))
    assert encode.__self__._mergeable_ranks == {}
    assert encode("weir we") == [258, ord(" "), 256]


def test_each_byte_is_a_token_so_that_a_bound_is_one(encode: Encode) -> None:
    """The bound of a text, a token for each byte of UTF-8, rests on this."""
    texts = [chr(code) for code in (*range(0x800), 0xFFFF, 0x10FFFF, *range(0xD800, 0xE000, 0x100))]
    assert all(0 < len(encode(text)) <= bound(text) for text in texts)


def test_a_bound_can_be_met(encode: Encode) -> None:
    assert len(encode("\x00\x01" * 100)) == bound("\x00\x01" * 100)


@given(st.text(st.characters(codec=None), max_size=200))
def test_a_text_never_has_more_tokens_than_its_bound(encodings: Mapping[str, Encode], text: str) -> None:
    assert all(len(encode(text)) <= bound(text) for encode in encodings.values())


def test_a_million_spaces_do_not_panic(tokenizer: Tokenizer) -> None:
    """Tiktoken ends in a PanicException, which is no Exception, at 999,999 characters of white space."""
    assert tokenizer.count(" " * 1_000_000, GPT_4O) > 0
    assert tokenizer.count(" " * 1_000_000 + "x", GPT_4) > 0


# One character for each kind that the patterns tell apart, which is all that they can go wrong by.
KINDS = {
    "space": " ", "tab": "\t", "line": "\n", "return": "\r", "odd space": "\u00a0", "wide space": "\u3000",
    "separator": "\x1c", "line of its own": "\u2028", "upper": "A", "lower": "a", "title": "ǅ",
    "modifier": "ʰ", "ideograph": "水", "mark": "\u0301", "digit": "1", "Roman": "Ⅷ", "sign": "!",
    "slash": "/", "apostrophe": "'", "surrogate": "\ud83d", "emoji": "🌊", "long s": "ſ",
}  # fmt: skip
# What the backtracking of a pattern may be made to do: runs, runs that end otherwise, and those in turn.
SHAPES = ("{a}*", "{b}{a}*", "{a}*{b}", "{a}*{b}*", "({a}{b})*", "({a}{a}{a}{b})*")


@pytest.mark.parametrize("shape", SHAPES)
def test_no_run_within_a_piece_breaks_an_encoding(encode: Encode, shape: str) -> None:
    """What the patterns' engine cannot match within a million steps back is a panic."""
    pairs = [(a, b) for a in KINDS.values() for b in KINDS.values() if a != b]
    for a, b in random.Random(shape).sample(pairs, 24) if "b" in shape else [(a, "") for a in KINDS.values()]:
        text = _spelled(shape, a, b)
        assert len(text) == LONGEST
        assert 0 < len(encode(text)) <= bound(text)


def _spelled(shape: str, a: str, b: str) -> str:
    """A text of LONGEST characters: each star shares what room there is."""
    parts = re.findall(r"\(([^)]*)\)\*|(\{.\})\*|(\{.\})", shape)
    words = [("".join(part).format(a=a, b=b), bool(part[0] or part[1])) for part in parts]
    room = LONGEST - sum(len(word) for word, star in words if not star)
    share = room // sum(star for _, star in words)
    return "".join(word * (share // len(word) + 1) if star else word for word, star in words)[:LONGEST]


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(KINDS.values())), st.integers(1, LONGEST)), min_size=1, max_size=6
    )
)
def test_no_mixture_of_runs_within_a_piece_breaks_an_encoding(
    encodings: Mapping[str, Encode], runs: list[tuple[str, int]]
) -> None:
    text = "".join(character * count for character, count in runs)[:LONGEST]
    assert all(0 < len(encode(text)) <= bound(text) for encode in encodings.values())
