"""Files: small pictures and sounds as programs write them, made here."""

import base64
import struct
import zlib
from collections.abc import Iterable


def png(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    pixels = zlib.compress(bytes((width + 7) // 8 + 1) * min(height, 64))
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def gif(width: int, height: int) -> bytes:
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(3) + b"\xff" * 3
    image = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\x00"
    return b"GIF89a" + screen + image + b";"


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg(width: int, height: int, *, before: Iterable[bytes] = (), frame: int = 0xC0) -> bytes:
    jfif = segment(0xE0, b"JFIF\0" + struct.pack(">HBHHBB", 0x0101, 0, 1, 1, 0, 0))
    tables = segment(0xDB, bytes([0, *[1] * 64])) + segment(0xC4, bytes([0, 1, *[0] * 15, 0]))
    size = segment(frame, struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00")
    return b"\xff\xd8" + jfif + b"".join(before) + tables + size + segment(0xDA, bytes(6)) + b"\0\xff\xd9"


def webp(kind: bytes, body: bytes) -> bytes:
    chunk = kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


def lossy(width: int, height: int) -> bytes:
    return webp(b"VP8 ", b"\x10\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width, height) + bytes(9))


def lossless(width: int, height: int) -> bytes:
    return webp(b"VP8L", b"\x2f" + struct.pack("<I", width - 1 | height - 1 << 14) + bytes(9))


def extended(width: int, height: int) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return webp(b"VP8X", b"\x10\0\0\0" + sides)


def wav(
    sound: int, *, rate: int = 48_000, said: int | None = None, before: bytes = b"", kind: bytes = b"WAVE"
) -> bytes:
    """`sound` bytes of sound, of which `rate` are a second; `said`: how many the header says there are."""
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, rate // 2, rate, 2, 16)
    data = b"data" + struct.pack("<I", sound if said is None else said) + bytes(sound)
    return b"RIFF" + struct.pack("<I", 0xFFFFFFFF) + kind + form + before + data


def mp3(frames: int, *, stated: int | None = None, tag: bytes = b"", bits: int = 0xFFF3_84C0) -> bytes:
    """Frames of MPEG-2, Layer III, 64 kbit/s, 24 kHz, mono (192 bytes, 24 ms), the first of which may state
    their number."""
    header = struct.pack(">I", bits)
    first = header + bytes(9) + (b"Info" + struct.pack(">II", 1, stated) if stated is not None else b"")
    return (
        tag
        + (first.ljust(192, b"\0") + (header + bytes(188)) * frames)[: 192 * (frames + (stated is not None))]
    )


def url(file: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(file).decode()}"
