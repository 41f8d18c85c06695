import importlib
import random
from typing import Any

import pytest
import tiktoken

from service.adapters import vocabularies
from service.domain.tokens import Tokenizer, encodings
from service.domain.tokens.encodings import Counter, pieces

GPT_4O, GPT_4 = "gpt-4o", "gpt-4"


@pytest.fixture(scope="session", params=sorted(encodings.PATTERNS))
def encoding(request: pytest.FixtureRequest) -> tiktoken.Encoding:
    return encodings.build(request.param, vocabularies.read(request.param))


@pytest.mark.parametrize("name", sorted(encodings.PATTERNS))
def test_the_patterns_are_tiktokens_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    openai_public: Any = importlib.import_module("tiktoken_ext.openai_public")
    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", lambda *_, **__: {})
    assert encodings.PATTERNS[name] == openai_public.ENCODING_CONSTRUCTORS[name]()["pat_str"]


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


def test_a_lone_surrogate_is_counted(tokenizer: Tokenizer) -> None:
    assert tokenizer.count("\ud83d", GPT_4O) >= 1


WORDS = (
    "weir", "dam", "Überlauf", "поток", "水", "🌊🌊", "don't", "WE'LL", "3.14159", "100000", "{}();", "//\n",
    "\n", "\n\n", "\r\n", "\t", "  ", "    ", "\u00a0", "\u3000", "\x1c", "a\n", "a.\n", "_", "é",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_pieces_have_the_tokens_of_the_whole(encoding: tiktoken.Encoding, seed: int) -> None:
    choice = random.Random(seed)
    text = "".join(choice.choice(WORDS) + choice.choice((" ", "", "\n")) for _ in range(20_000))
    parts = list(pieces(text))
    assert len(parts) > 2
    assert "".join(parts) == text
    tokens = [token for part in parts for token in encoding.encode_ordinary(part)]
    assert tokens == encoding.encode_ordinary(text)


def test_a_run_that_leaves_no_place_to_cut_is_cut_all_the_same(encoding: tiktoken.Encoding) -> None:
    text = "x" * 100_000
    assert max(map(len, pieces(text))) <= 16_384
    assert 0 <= Counter(encoding)(text) - len(encoding.encode_ordinary(text)) <= 7


def test_a_million_spaces_do_not_panic(tokenizer: Tokenizer) -> None:
    """Tiktoken ends in a PanicException, which is no Exception, at 999,999 characters of white space."""
    assert tokenizer.count(" " * 1_000_000, GPT_4O) > 0
    assert tokenizer.count(" " * 1_000_000 + "x", GPT_4) > 0


def test_beyond_a_million_characters_a_byte_counts_as_a_token(encoding: tiktoken.Encoding) -> None:
    million = "flow " * 209_715 + "."
    exact = Counter(encoding)(million)
    assert exact < 250_000
    assert Counter(encoding)(million + "水\ud83d") == exact + 6


def test_the_million_is_that_of_a_request_not_of_each_text(encoding: tiktoken.Encoding) -> None:
    count = Counter(encoding)
    texts = ["flow " * 100_000 for _ in range(4)]
    assert [count(text) for text in texts][2:] == [
        Counter(encoding)(texts[0][:48_576]) + 451_424,
        500_000,
    ]
    assert count("flow") == 4
