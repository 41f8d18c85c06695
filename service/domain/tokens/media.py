"""Media: what images, audio and files cost as parts of a message, as far as their first bytes tell."""

from collections.abc import Mapping
from typing import Any

from service.domain.tokens import encoded, pictures, sounds
from service.domain.tokens.encoded import Encoded
from service.domain.tokens.families import Family

KINDS = ("image_url", "input_audio", "file")

# Guesses, all of them: nobody says what these cost.
_ANSWER = 1_200  # what the model said aloud before, a minute at twenty tokens a second
_FILE = 4_096  # a file that lies elsewhere: some pages of text
_FILE_BYTES = 8  # of a PDF file for a token; most have more of them, fonts and layout besides text
_FILE_MOST = 100_000  # 100 pages, the most that OpenAI's documentation allowed (2025), of 1,000 tokens


def tokens(part: Mapping[str, Any], family: Family) -> tuple[str, int, bool]:
    """Of a content part: the part of the prompt it belongs to, its tokens, and whether they are certain."""
    kind = part.get("type")
    said = part.get(kind) if isinstance(kind, str) else None
    if kind == "input_audio":
        return "audio", *_audio(_member(said, "data"), family)
    if kind == "file":
        return "files", _file(_member(said, "file_data"), family), False
    return "images", *_image(said, family)


def framing(kind: object, family: Family) -> int:
    """What surrounds a part of that kind."""
    return family.per_audio if kind == "input_audio" else 0


def spoken(family: Family) -> int:
    """What the assistant said aloud in an earlier message, of which the request has only the id: a guess."""
    return _ANSWER if family.unknown_audio is None else family.unknown_audio


def _image(image: object, family: Family) -> tuple[int, bool]:
    url, detail = _member(image, "url") or image, _member(image, "detail") or "auto"
    data = encoded.of_url(url) if isinstance(url, str) else None
    size = pictures.size(data) if data else None
    if size:
        return family.image.tokens(size, detail), True
    worst, certain = family.image.worst(detail), family.image.certain(detail)
    return worst if certain or family.unknown_image is None else family.unknown_image, certain


def _audio(data: str | None, family: Family) -> tuple[int, bool]:
    found, certain = sounds.tokens(Encoded(data or ""))
    return found if certain or family.unknown_audio is None else family.unknown_audio, certain


def _file(data: str | None, family: Family) -> int:
    if family.unknown_file is not None:
        return family.unknown_file
    return min(len(data) * 3 // 4 // _FILE_BYTES, _FILE_MOST) if data else _FILE


def _member(value: object, name: str) -> str | None:
    """A text that an object has under a name."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else None
