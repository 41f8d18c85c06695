import importlib
import lzma
from pathlib import Path

import pytest

from service.adapters import vocabularies
from service.adapters.vocabularies import SHA256, VocabularyError


@pytest.mark.parametrize(("name", "tokens"), [("o200k_base", 199_998), ("cl100k_base", 100_256)])
def test_the_package_carries_every_token_of_the_vocabulary(name: str, tokens: int) -> None:
    assert len(vocabularies.read(name).splitlines()) == tokens


@pytest.mark.parametrize("name", SHA256)
def test_the_checksums_are_those_that_tiktoken_expects(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    openai_public = importlib.import_module("tiktoken_ext.openai_public")
    expected = []
    monkeypatch.setattr(
        openai_public, "load_tiktoken_bpe", lambda _url, expected_hash: expected.append(expected_hash)
    )
    openai_public.ENCODING_CONSTRUCTORS[name]()
    assert expected == [SHA256[name]]


def test_the_notice_names_the_author_the_license_and_both_checksums() -> None:
    notice = Path(vocabularies.__file__).parent.parent.joinpath("vocabularies", "NOTICE").read_text()
    assert all(word in notice for word in ("OpenAI", "MIT License", *SHA256.values()))


def test_a_changed_vocabulary_is_refused_with_what_was_found_and_expected(tmp_path: Path) -> None:
    (tmp_path / "o200k_base.tiktoken.xz").write_bytes(lzma.compress(b"IQ== 0\n"))
    with pytest.raises(VocabularyError) as refusal:
        vocabularies.read("o200k_base", tmp_path)
    assert str(refusal.value).endswith(
        "o200k_base.tiktoken.xz: "
        "found sha256 6835144307f0676d6abbe57e06e604d8b5d10ebf0da0e54e62d205358324d140, "
        f"expected {SHA256['o200k_base']}"
    )


def test_a_file_that_is_not_xz_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "o200k_base.tiktoken.xz").write_bytes(b"not xz")
    with pytest.raises(VocabularyError, match=r"o200k_base\.tiktoken\.xz: found .*, expected a vocabulary"):
        vocabularies.read("o200k_base", tmp_path)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"cl100k_base\.tiktoken\.xz: cannot be read"):
        vocabularies.read("cl100k_base", tmp_path)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(VocabularyError, match="'gpt2'; expected one of o200k_base, cl100k_base"):
        vocabularies.read("gpt2")
