"""Vocabularies: tiktoken's own files, carried in the package and checked before anybody counts with them."""

import hashlib
import lzma
from importlib import resources
from importlib.resources.abc import Traversable

# sha256 of the unpacked file, the same that tiktoken expects (tiktoken_ext/openai_public.py).
SHA256 = {
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}


class VocabularyError(Exception):
    """A vocabulary that is not there, or is not what tiktoken counts with."""


def read(name: str, folder: Traversable | None = None) -> bytes:
    """The unpacked .tiktoken text of that name: a line per token, base64 and rank.

    `folder` holds the packed files; by default it is the package's own. Raises VocabularyError.
    """
    if name not in SHA256:
        raise VocabularyError(f"no vocabulary is called {name!r}; expected one of {', '.join(SHA256)}")
    folder = folder or resources.files("service") / "vocabularies"
    file = folder / f"{name}.tiktoken.xz"
    try:
        text = lzma.decompress(file.read_bytes())
    except OSError as error:
        raise VocabularyError(f"{file}: cannot be read: {error}") from error
    except lzma.LZMAError as error:
        raise VocabularyError(f"{file}: found {error}, expected a vocabulary packed by xz") from error
    found = hashlib.sha256(text).hexdigest()
    if found != SHA256[name]:
        raise VocabularyError(f"{file}: found sha256 {found}, expected {SHA256[name]}")
    return text
