"""Media: what images, audio and files cost as parts of a message."""

from collections.abc import Mapping
from typing import Any

from service.domain.tokens.families import Family

KINDS = ("image_url", "input_audio", "file")


def tokens(part: Mapping[str, Any], family: Family) -> tuple[str, int, bool]:
    """Of a content part: the part of the prompt it belongs to, its tokens, and whether they are certain."""
    kind = part["type"]
    if kind == "input_audio":
        return "audio", family.audio, False
    if kind == "file":
        return "files", family.file, False
    image = part.get("image_url")
    low = isinstance(image, dict) and image.get("detail") == "low"
    return "images", family.image_low if low else family.image_high, low
