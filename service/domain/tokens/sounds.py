"""Sounds: how long a WAV or MP3 file lasts, by its headers, and what it costs.

Ten tokens are a second, begun tenths left out: OpenAI documents one per 100 ms for the Realtime API's users;
recorded answers of gpt-4o-audio-preview, gpt-4o-mini-audio-preview and gpt-audio-mini agree.
"""

import struct
from struct import unpack_from

from service.domain.tokens.encoded import Encoded

_SECOND = 10  # tokens
_SLOWEST = 1_000  # bytes a second: 8 kbit/s is the least that MPEG audio has
_FASTEST = 192_000 * 8 * 4  # 8 channels of 32 bits
_MOST_CHUNKS = 64  # of a WAV file before its sound

# ISO 11172-3 and 13818-3, Layer III: kbit/s by index, at 32 kHz or more and below; and hertz by index.
_RATES = (
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_HERTZ = (44_100, 48_000, 32_000)
_HALVINGS = {3: 0, 2: 1, 0: 2}  # of the hertz, by version: MPEG-1, 2, 2.5


def tokens(data: Encoded) -> tuple[int, bool]:
    """The tokens of a sound, and whether they are certain.

    Where the bytes do not tell how long it lasts: as if it were as slow as MP3 can be, the worst case.
    """
    worst = len(data) * _SECOND // _SLOWEST
    try:
        head = data.read(0, 12)
        if head.startswith(b"RIFF") and head.endswith(b"WAVE"):
            certain = _wav(data)
            return (worst, False) if certain is None else (certain, True)
        guess = _mp3(data, head)
    except struct.error:
        return worst, False
    return worst if guess is None else min(guess, worst), False


def _wav(data: Encoded) -> int | None:
    """Its length is the bytes of its sound by the bytes of a second (Microsoft RIFF, WAVE form).

    A writer that does not know the former says 0 or the most that fits; then it is all that there is.
    """
    at, rate = 12, 0
    for _ in range(_MOST_CHUNKS):
        chunk = data.read(at, 24)
        name, size = unpack_from("<4sI", chunk)
        at += 8
        if name == b"data":
            there = len(data) - at
            heard = size if 0 < size < there else there
            return heard * _SECOND // rate if _SLOWEST <= rate <= _FASTEST else None
        if name == b"fmt ":
            (rate,) = unpack_from("<I", chunk, 16)
        at += size + size % 2
    return None


def _mp3(data: Encoded, head: bytes) -> int | None:
    """By its number of frames where the first one states it (Xing, LAME), else as if all were like the first.

    The second is a guess: a file may have frames of several rates and not say so.
    """
    at = _after_tag(head)
    frame = data.read(at, 48)
    (bits,) = unpack_from(">I", frame)
    version, layer, rate, hertz = bits >> 19 & 3, bits >> 17 & 3, bits >> 12 & 15, bits >> 10 & 3
    if bits >> 21 != 0x7FF or version not in _HALVINGS or layer != 1 or rate in (0, 15) or hertz == 3:
        return None
    early = version == 3
    frames = _frames(frame, early=early, mono=bits >> 6 & 3 == 3)
    if frames is not None:
        return frames * (1152 if early else 576) * _SECOND // (_HERTZ[hertz] >> _HALVINGS[version])
    return (len(data) - at) * 8 * _SECOND // (_RATES[not early][rate - 1] * 1000)


def _frames(frame: bytes, *, early: bool, mono: bool) -> int | None:
    """The frames of the file, as a first one without sound states them behind its side information."""
    at = 4 + ((17 if mono else 32) if early else (9 if mono else 17))
    name, flags, frames = unpack_from(">4sII", frame, at)
    return int(frames) if name in (b"Xing", b"Info") and flags & 1 else None


def _after_tag(head: bytes) -> int:
    """Where the frames begin: behind an ID3v2 tag (ID3v2.4.0, 3.1), whose length has 7 bits a byte."""
    if not head.startswith(b"ID3"):
        return 0
    *_, flags, a, b, c, d = unpack_from(">3sBBBBBBB", head)
    length: int = a << 21 | b << 14 | c << 7 | d
    return 10 + length + (10 if flags & 0x10 else 0)
