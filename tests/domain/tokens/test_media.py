import base64
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.tokens import media
from service.domain.tokens.families import Family, family
from service.domain.tokens.media import framing, spoken
from tests.domain.tokens.files import extended, gif, jpeg, lossless, lossy, mp3, png, url, wav

TILES, PATCHES = family("gpt-4o"), family("gpt-4.1-nano")
SAID = replace(TILES, unknown_image=111, unknown_audio=222, unknown_file=333)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
PICTURES = [make(300, 200) for make in (png, gif, jpeg, lossy, lossless, extended)]


def image(url: object, **more: object) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def audio(file: bytes) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(file).decode(), "format": "wav"}}


def test_an_image_in_the_request_costs_what_its_size_says() -> None:
    assert media.tokens(image(url(png(540, 360))), TILES) == ("images", 425, True)
    assert media.tokens(image(url(png(540, 360)), detail="low"), TILES) == ("images", 85, True)
    assert media.tokens(image(url(png(540, 360))), PATCHES) == ("images", 502, True)


def test_an_image_may_be_its_url_alone() -> None:
    part = {"type": "image_url", "image_url": url(png(540, 360))}
    assert media.tokens(part, TILES) == ("images", 425, True)


def test_an_image_that_lies_elsewhere_costs_the_worst_of_its_detail() -> None:
    assert media.tokens(image("https://a.example/b.png"), TILES) == ("images", 1445, False)
    assert media.tokens(image("https://a.example/b.png", detail="high"), PATCHES) == ("images", 3779, False)


def test_an_image_of_low_detail_is_certain_where_its_size_does_not_matter() -> None:
    assert media.tokens(image("https://a.example/b.png", detail="low"), TILES) == ("images", 85, True)
    assert media.tokens(image("https://a.example/b.png", detail="low"), PATCHES) == ("images", 3779, False)


@pytest.mark.parametrize(
    "said",
    [
        "data:image/png;base64," + "A" * 100_000,
        url(png(540, 360)).replace(",", ",\n"),
        url(png(540, 360))[:40],
        url(png(70_000, 1)),
        "",
        None,
        7,
        ["a"],
    ],
)
def test_an_image_that_cannot_be_read_costs_the_worst(said: object) -> None:
    assert media.tokens(image(said), TILES) == ("images", 1445, False)


def test_the_operators_word_counts_where_nothing_can_be_known() -> None:
    assert media.tokens(image("https://a.example/b.png"), SAID) == ("images", 111, False)
    assert media.tokens(image(url(png(540, 360))), SAID) == ("images", 425, True)
    assert media.tokens(image("https://a.example/b.png", detail="low"), SAID) == ("images", 85, True)
    assert media.tokens(audio(bytes(9999)), SAID) == ("audio", 222, False)
    assert media.tokens(audio(wav(48_000)), SAID) == ("audio", 10, True)
    assert media.tokens({"type": "file", "file": {"file_data": "A" * 9999}}, SAID) == ("files", 333, False)
    assert spoken(SAID) == 222
    assert spoken(TILES) == 1200


def test_a_sound_costs_what_its_length_says() -> None:
    assert media.tokens(audio(wav(48 * 6960)), family("gpt-audio")) == ("audio", 69, True)
    assert media.tokens(audio(mp3(187)), family("gpt-audio")) == ("audio", 44, False)
    assert media.tokens({"type": "input_audio", "input_audio": {}}, TILES) == ("audio", 0, False)


def test_a_sound_does_not_cost_less_for_what_it_claims() -> None:
    assert media.tokens(audio(wav(48_000 * 50, said=1)), family("gpt-audio")) == ("audio", 500, False)
    assert media.tokens(audio(mp3(15_624, stated=1)), family("gpt-audio")) == ("audio", 750, False)


def test_a_file_costs_a_guess_by_its_bytes_as_far_as_they_are_there() -> None:
    def file(**said: object) -> tuple[str, int, bool]:
        return media.tokens({"type": "file", "file": said}, TILES)

    assert file(file_id="file-1") == ("files", 4096, False)
    assert file(file_data="A" * 32_000) == ("files", 3000, False)
    assert file(file_data="A" * 32_000_000) == ("files", 100_000, False)


def test_what_surrounds_a_part_is_of_the_family() -> None:
    assert [framing(kind, TILES) for kind in ("image_url", "input_audio", "file", "text")] == [0, 4, 0, 0]
    assert framing(None, PATCHES) == 0


def worst(part: dict[str, Any], of: Family) -> int:
    detail = part["image_url"].get("detail")
    return of.image.worst(detail if isinstance(detail, str) else "auto")


@given(
    file=st.sampled_from(PICTURES),
    changes=st.lists(st.tuples(st.integers(0, 400), st.characters(max_codepoint=300)), max_size=6),
    detail=st.sampled_from(["low", "high", "original", "auto", None, 7]),
    of=st.sampled_from([family(model) for model in ("gpt-4o", "gpt-4o-mini", "gpt-5.2", "gpt-5.5", "gpt-6")]),
)
def test_an_image_whatever_is_done_to_its_url_costs_at_most_the_worst(
    file: bytes, changes: list[tuple[int, str]], detail: object, of: Family
) -> None:
    said = list(url(file))
    for at, character in changes:
        said[at % len(said)] = character
    part = image("".join(said), detail=detail)
    name, tokens, _ = media.tokens(part, of)
    assert name == "images"
    assert 0 < tokens <= worst(part, of)


@given(
    kind=st.sampled_from(media.KINDS),
    said=JSON | st.dictionaries(st.sampled_from(["url", "detail", "data", "file_data", "file_id"]), JSON),
    of=st.sampled_from([TILES, PATCHES, SAID]),
)
def test_any_part_costs_something_and_none_fails(kind: str, said: object, of: Family) -> None:
    name, tokens, _ = media.tokens({"type": kind, kind: said}, of)
    assert name in ("images", "audio", "files")
    assert tokens >= 0


@pytest.mark.parametrize("kind", media.KINDS)
def test_a_part_that_has_only_a_type_costs_the_worst(kind: str) -> None:
    assert media.tokens({"type": kind}, TILES)[1:] in [(1445, False), (0, False), (4096, False)]
