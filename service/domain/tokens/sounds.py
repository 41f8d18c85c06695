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
_FASTEST_MP3 = 40_000  # 320 kbit/s
_MOST_CHUNKS = 64  # of a WAV file before its sound

# Microsoft RIFF, WAVE form (mmreg.h): the bits of a sample by format, of those whose samples are all alike:
# PCM, float, A-law, mu-law. The format of the last kind is the beginning of a GUID.
_BITS = {1: (8, 16, 24, 32), 3: (32, 64), 6: (8,), 7: (8,)}
_EXTENSIBLE, _GUID = 0xFFFE, bytes.fromhex("000000001000800000aa00389b71")

# ISO 11172-3 and 13818-3, Layer III: kbit/s by index, at 32 kHz or more and below; and hertz by index.
_RATES = (
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_HERTZ = (44_100, 48_000, 32_000)
_HALVINGS = {3: 0, 2: 1, 0: 2}  # of the hertz, by version: MPEG-1, 2, 2.5


def tokens(data: Encoded) -> tuple[int, bool]:
    """The tokens of a sound, and whether they are certain.

    Where the bytes do not tell how long it lasts, or contradict themselves: as if it were as slow as MP3 can
    be, the worst case. No length that a header claims makes it shorter than its bytes last at their rate.
    """
    worst = len(data) * _SECOND // _SLOWEST
    try:
        head = data.read(0, 12)
        if head.startswith(b"RIFF") and head.endswith(b"WAVE"):
            return _wav(data) or (worst, False)
        guess = _mp3(data, head)
    except struct.error:
        return worst, False
    least = len(data) * _SECOND // _FASTEST_MP3
    return worst if guess is None else min(max(guess, least), worst), False


def _wav(data: Encoded) -> tuple[int, bool] | None:
    """By the bytes from its sound on and those of a second, if they are told once and credibly."""
    at, rate = 12, None
    for _ in range(_MOST_CHUNKS):
        chunk = data.read(at, 48)
        name, size = unpack_from("<4sI", chunk)
        at += 8
        if name == b"data":
            return _lasting(len(data) - at, size, rate) if rate else None
        if name == b"fmt ":
            rate = _rate(chunk[8:][:size]) if rate is None else 0
        at += size + size % 2
    return None


def _lasting(there: int, said: int, rate: int) -> tuple[int, bool]:
    """All that there is, which is certain unless the sound is said to end so early that it would cost less.

    A writer that does not know its length says 0 or the most that fits.
    """
    most = there * _SECOND // rate
    return most, not 0 < said < there or said * _SECOND // rate == most


def _rate(form: bytes) -> int:
    """The bytes of a second; 0 where what the form says does not agree, or the format may be of any rate."""
    kind, channels, hertz, rate, block, bits = unpack_from("<HHIIHH", form)
    if kind == _EXTENSIBLE:
        kind, rest = unpack_from("<H14s", form, 24)
        kind = kind if rest == _GUID else None
    agreed = block == channels * bits // 8 and rate == hertz * block
    return rate if agreed and bits in _BITS.get(kind, ()) and _SLOWEST <= rate <= _FASTEST else 0


def _mp3(data: Encoded, head: bytes) -> int | None:
    """By its number of frames where the first one states it (Xing, LAME), else as if all were like the first.

    Both are guesses: that number may be wrong, and a file may have frames of several rates and not say so.
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
