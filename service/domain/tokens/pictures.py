"""Pictures: the width and height that the first bytes of a PNG, JPEG, GIF or WebP file state."""

import struct
from struct import unpack_from
from typing import NamedTuple

from service.domain.tokens.encoded import Encoded

LONGEST = 65_535  # pixels a side; what is longer is not believed
_HEAD = 30  # bytes that state the size, in all formats but JPEG
_MOST_SEGMENTS = 64  # of a JPEG file before the one that states the size; a camera writes ten
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the segments that do (ITU-T T.81, table B.1)
_ENDS = frozenset({0x01, *range(0xD0, 0xDB), 0xFF})  # what has no length, or comes too late


class Size(NamedTuple):
    """Of a picture, in pixels."""

    width: int
    height: int


def size(data: Encoded) -> Size | None:
    """The size of a picture, by its bytes and not by what it is said to be; None where they do not tell.

    No pixel is decoded. A JPEG that is to be shown turned (EXIF) has its sides swapped, which costs the same.
    """
    head = data.read(0, _HEAD)
    try:
        found = _jpeg(data) if head.startswith(b"\xff\xd8") else _png(head) or _gif(head) or _webp(head)
    except struct.error:  # too short
        return None
    return found if found and all(0 < side <= LONGEST for side in found) else None


def _png(head: bytes) -> Size | None:
    """W3C PNG, 11.2.1: the first chunk is IHDR."""
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
        return Size(*unpack_from(">II", head, 16))
    return None


def _gif(head: bytes) -> Size | None:
    """GIF89a, 18: the logical screen."""
    return Size(*unpack_from("<HH", head, 6)) if head.startswith((b"GIF87a", b"GIF89a")) else None


def _webp(head: bytes) -> Size | None:
    """RFC 9649, 2.5 to 2.7: lossy, lossless, extended."""
    if not (head.startswith(b"RIFF") and head[8:12] == b"WEBP"):
        return None
    kind = head[12:16]
    if kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = unpack_from("<HH", head, 26)
        return Size(width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L" and head[20:21] == b"\x2f":
        (bits,) = unpack_from("<I", head, 21)
        return Size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8X":
        width, more_width, height, more_height = unpack_from("<HBHB", head, 24)
        return Size((more_width << 16 | width) + 1, (more_height << 16 | height) + 1)
    return None


def _jpeg(data: Encoded) -> Size | None:
    """ITU-T T.81, B.2.2: the frame header. What lies before it is stepped over unread."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        start, marker, length, _, height, width = unpack_from(">BBHBHH", data.read(at, 9))
        if start != 0xFF or marker in _ENDS:
            return None
        if marker in _FRAMES:
            return Size(width, height)
        at += 2 + length
    return None
