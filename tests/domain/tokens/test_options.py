"""What a definition says of how models count is what is done, and each option does something."""

from base64 import b64encode
from collections.abc import Callable, Mapping
from itertools import product
from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.globs import Globs
from service.domain.tokens import Tokenizer
from service.domain.tokens.encodings import Encode
from service.domain.tokens.options import ModelOptions, unreached

GREEK = "Ο ποταμός κυλά ήσυχα προς τη θάλασσα."
PICTURE = {"type": "image_url", "image_url": {"url": "https://pictures.test/weir.png"}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA" * 1000, "format": "mp3"}}
FILE = {"type": "file", "file": {"file_id": "file-1"}}

Counting = Callable[[dict[str, Any]], Tokenizer]


@pytest.fixture
def counting(encodings: Mapping[str, Encode]) -> Counting:
    """A tokenizer of what a definition says."""

    def made(said: dict[str, Any]) -> Tokenizer:
        return Tokenizer(encodings, {glob: ModelOptions.model_validate(one) for glob, one in said.items()})

    return made


def asking(*content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(content)}]}


def saying(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


# Which models ------------------------------------------------------------------------------------------


def test_the_first_glob_that_matches_counts(counting: Counting) -> None:
    tokenizer = counting({"acme-large": {"bytes-per-token": 1}, "acme-*": {"bytes-per-token": 2}})

    assert tokenizer.count("aaaa", "acme-large") == 4
    assert tokenizer.count("aaaa", "acme-small") == 2
    assert tokenizer.count("aaaa", "emca") == 1


def test_an_entry_takes_nothing_from_those_behind_it(counting: Counting) -> None:
    tokenizer = counting({"acme-*": {"margin": "10%"}, "*": {"bytes-per-token": 1, "margin": "50%"}})

    assert tokenizer.count("aaaa", "acme-1") == 1
    assert tokenizer.count("aaaa", "emca") == 4


@pytest.mark.parametrize("model", ["ACME-1", "openai/acme-1", "ft:acme-1:weir::abc", " acme-1"])
def test_globs_match_a_models_name_as_the_client_wrote_it(counting: Counting, model: str) -> None:
    tokenizer = counting({"acme-*": {"bytes-per-token": 1}})

    assert tokenizer.count("aaaa", model) == 1
    assert tokenizer.count("aaaa", "acme-1") == 4


def test_of_a_models_name_256_characters_are_looked_at(counting: Counting) -> None:
    name = "acme-" + "x" * 251
    tokenizer = counting({name: {"bytes-per-token": 1}})

    assert tokenizer.count("aaaa", name) == tokenizer.count("aaaa", name + "y" * 10_000) == 4
    assert tokenizer.count("aaaa", name[:-1]) == 1


# What is done ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["gpt-4", "gpt-3.5-turbo-0301", "gpt-4o-mini", "o1"])
def test_like_another_model_is_with_its_encoding_format_and_pictures(counting: Counting, other: str) -> None:
    tokenizer = counting({"acme-*": {"like": other}})
    request = asking({"type": "text", "text": GREEK}, PICTURE)
    request["messages"][0]["name"] = "ann"

    assert tokenizer.family("acme-1") == tokenizer.family(other) != tokenizer.family("emca")
    assert tokenizer.prompt(request, "acme-1") == tokenizer.prompt(request, other)
    assert tokenizer.prompt(request, "acme-1").tokens != tokenizer.prompt(request, "emca").tokens


def test_like_an_older_model_is_with_the_older_encoding(counting: Counting) -> None:
    tokenizer = counting({"acme-*": {"like": "gpt-4"}})

    assert (
        tokenizer.count(GREEK, "acme-1") == tokenizer.count(GREEK, "gpt-4") > tokenizer.count(GREEK, "acme")
    )


def test_like_another_model_is_as_it_is_known_and_not_as_it_is_said_to_be(counting: Counting) -> None:
    tokenizer = counting({"acme-*": {"like": "gpt-4"}, "gpt-4": {"bytes-per-token": 1, "margin": "50%"}})

    assert tokenizer.count(GREEK, "acme-1") < tokenizer.count(GREEK, "gpt-4") == len(GREEK.encode())
    assert "margin" not in tokenizer.prompt(saying(GREEK), "acme-1").parts


@pytest.mark.parametrize(
    ("bytes_per_token", "text", "tokens"),
    [
        (4, "", 0),
        (4, "a", 1),
        (4, "aaaa", 1),
        (4, "aaaaa", 2),
        (3.5, "a" * 7, 2),
        (3.5, "a" * 8, 3),
        (1, "ή", 2),
        (2.5, "🌊🌊", 4),
        (16, "a" * 1_000_001, 62_501),
    ],
)
def test_bytes_per_token_divide_the_bytes_of_utf_8_and_round_up(
    counting: Counting, bytes_per_token: float, text: str, tokens: int
) -> None:
    tokenizer = counting({"llama-*": {"bytes-per-token": bytes_per_token}})

    assert tokenizer.count(text, "llama-3") == tokens
    assert tokenizer.prompt(saying(text), "llama-3").parts["text"] == tokens


def test_bytes_per_token_count_texts_alone_and_the_format_is_that_of_like(counting: Counting) -> None:
    tokenizer = counting({"llama-*": {"bytes-per-token": 4, "like": "gpt-3.5-turbo-0301"}})
    parts = tokenizer.prompt(saying(GREEK), "llama-3").parts

    assert parts["framing"] == tokenizer.prompt(saying(GREEK), "gpt-3.5-turbo-0301").parts["framing"]
    assert parts["text"] == -(-len(GREEK.encode()) // 4)


@pytest.mark.parametrize(("margin", "added"), [("0%", 0), ("1%", 1), ("10%", 1), ("13%", 2), ("1000%", 80)])
def test_a_margin_is_rounded_up_and_part_of_the_prompt(counting: Counting, margin: str, added: int) -> None:
    tokenizer = counting({"gpt-4o*": {"margin": margin}})
    plain, prompt = (tokenizer.prompt(saying("hello"), model) for model in ("gpt-4.1", "gpt-4o"))

    assert plain.tokens == 8
    assert prompt.parts.get("margin", 0) == added
    assert prompt.tokens == sum(prompt.parts.values()) == 8 + added


def test_a_margin_is_not_added_to_texts_by_themselves(counting: Counting) -> None:
    assert counting({"*": {"margin": "100%"}}).count("hello", "gpt-4o") == 1


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4o-mini", "gpt-5.4", "o4-mini", "emca"])
@pytest.mark.parametrize(
    ("option", "content", "part"),
    [("image", PICTURE, "images"), ("audio", SOUND, "audio"), ("file", FILE, "files")],
)
@pytest.mark.parametrize("tokens", [0, 7, 100_000])
def test_what_cannot_be_known_costs_what_is_said(
    counting: Counting, model: str, option: str, content: Any, part: str, tokens: int
) -> None:
    plain = counting({}).prompt(asking(content, content), model)
    prompt = counting({"*": {option: tokens}}).prompt(asking(content, content), model)

    assert prompt.parts[part] == 2 * tokens
    assert prompt.tokens == plain.tokens - plain.parts[part] + 2 * tokens
    assert plain.parts[part] not in (0, 14, 200_000)
    assert not prompt.exact


@pytest.mark.parametrize("size", [(512, 512), (1024, 1024)])
def test_what_can_be_known_costs_what_it_costs(counting: Counting, size: tuple[int, int]) -> None:
    head = b"\x89PNG\r\n\x1a\n" + pack(">I4sII", 13, b"IHDR", *size) + bytes(40)
    url = "data:image/png;base64," + b64encode(head).decode()
    request = asking({"type": "image_url", "image_url": {"url": url}})

    assert counting({"*": {"image": 7}}).prompt(request, "gpt-4o") == counting({}).prompt(request, "gpt-4o")


# What never counts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ("*", "gpt-4o"),
        ("*", "**"),
        ("**", "*"),
        ("gpt-*", "gpt-4o*"),
        ("gpt-*", "gpt-[45]*"),
        ("gpt-?", "gpt-[45]"),
        ("*gpt*", "openai/gpt-?"),
        ("?*", "a*"),
        ("a*", "a?*b"),
        ("*", "[]]"),
        ("*", "["),
    ],
)
def test_a_glob_behind_one_that_matches_all_that_it_does_never_counts(wide: str, narrow: str) -> None:
    assert list(unreached(["emca", wide, narrow])) == [(narrow, wide)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("gpt-4o*", "gpt-*"),
        ("gpt-?", "gpt-*"),
        ("gpt-*", "gpt*"),
        ("?*", "*"),
        ("*a", "[ab]a*"),
        ("[ab]*", "a*"),
        ("*b]", "[ab]"),
        ("a" + "?" * 255, "a*"),
        ("gpt-4o", "GPT-4o"),
    ],
)
def test_a_glob_that_matches_something_else_as_well_may_count(first: str, second: str) -> None:
    assert list(unreached([first, second])) == []


GLOBS = st.text(st.sampled_from("ab*?[]!"), max_size=6)
TEXTS = ["".join(letters) for length in range(6) for letters in product("ab]!", repeat=length)]


@given(wide=GLOBS, narrow=GLOBS)
def test_whatever_is_said_never_to_count_does_not(wide: str, narrow: str) -> None:
    if list(unreached([wide, narrow])):
        first, second = Globs((wide,)), Globs((narrow,))
        assert [text for text in TEXTS if second.match(text) and not first.match(text)] == []
