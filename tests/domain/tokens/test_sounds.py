import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.tokens.encoded import Encoded
from service.domain.tokens.sounds import tokens
from tests.domain.tokens.files import mp3, wav

NOTE = b"LIST" + struct.pack("<I", 5) + b"INFO!\0"  # of an odd length, so with a byte to fill it
EARLY = 0xFFFB_9004  # MPEG-1, 128 kbit/s, 44.1 kHz, stereo: 417 bytes a frame


GUID = bytes.fromhex("000000001000800000aa00389b71")


def form(  # 24 kHz, mono, 16 bits
    kind: int = 1,
    channels: int = 1,
    hertz: int = 24_000,
    rate: int = 48_000,
    block: int = 2,
    bits: int = 16,
    more: bytes = b"",
) -> bytes:
    body = struct.pack("<HHIIHH", kind, channels, hertz, rate, block, bits) + more
    return b"fmt " + struct.pack("<I", len(body)) + body


def formed(*forms: bytes, sound: int = 96_000) -> bytes:
    """A WAV file with these forms instead of its own."""
    return wav(sound).replace(form(), b"".join(forms))


def extended(kind: int, guid: bytes = GUID) -> bytes:
    return form(kind=0xFFFE, more=struct.pack("<HHIH", 22, 16, 4, kind) + guid)


def heard(file: bytes) -> tuple[int, bool]:
    return tokens(Encoded(base64.b64encode(file).decode()))


# Recorded answers of gpt-4o-audio-preview, gpt-4o-mini-audio-preview and gpt-audio-mini.
@pytest.mark.parametrize(("milliseconds", "cost"), [(6960, 69), (1138, 11), (3700, 37), (4488, 44)])
def test_a_wav_file_costs_ten_tokens_a_second(milliseconds: int, cost: int) -> None:
    assert heard(wav(milliseconds * 48)) == (cost, True)


@pytest.mark.parametrize("said", [0, 0xFFFFFFFF, 96_001])
def test_a_wav_file_whose_writer_did_not_know_its_length_lasts_as_long_as_there_is_sound(said: int) -> None:
    assert heard(wav(96_000, said=said)) == (20, True)


def test_a_wav_file_that_says_that_it_ends_early_lasts_as_long_as_there_are_bytes() -> None:
    assert heard(wav(48_000 * 50, said=1)) == (500, False)
    assert heard(wav(96_000, said=48_000)) == (20, False)


def test_what_follows_the_sound_in_a_wav_file_changes_nothing_where_it_is_short() -> None:
    assert heard(wav(50_000) + NOTE * 9) == heard(wav(50_000)) == (10, True)


@pytest.mark.parametrize(
    ("one", "cost"),
    [
        (form(channels=2, rate=96_000, block=4), 10),
        (form(rate=24_000, block=1, bits=8), 40),
        (form(rate=72_000, block=3, bits=24), 13),
        (form(kind=3, rate=96_000, block=4, bits=32), 10),
        (form(kind=6, hertz=8_000, rate=8_000, block=1, bits=8), 120),
        (form(kind=7, hertz=8_000, rate=8_000, block=1, bits=8), 120),
        (form(more=bytes(2)), 20),
        (extended(1), 20),
        (form(channels=8, hertz=192_000, rate=6_144_000, block=32, bits=32), 0),
    ],
)
def test_a_wav_file_is_heard_at_the_rate_of_its_form(one: bytes, cost: int) -> None:
    assert heard(formed(one)) == (cost, True)


@pytest.mark.parametrize(
    "forms",
    [
        [form(rate=6_144_000)],
        [form(rate=48_001)],
        [form(channels=8)],
        [form(hertz=192_000)],
        [form(block=256, rate=24_000 * 256)],
        [form(bits=32)],
        [form(bits=12, block=1, rate=24_000)],
        [form(hertz=499, rate=998)],
        [form(hertz=3_072_001, rate=6_144_002)],
        [form(channels=0, rate=0, block=0)],
        [form(kind=0x55)],  # MP3 within
        [form(kind=2)],  # ADPCM
        [form(kind=0xFFFE)],
        [extended(0x55)],
        [extended(1, guid=bytes(14))],
        [form(), form(hertz=192_000, rate=384_000)],
        [form(hertz=499, rate=998), form()],
        [b"fmt " + struct.pack("<I", 4) + bytes(4)],
        [],
    ],
)
def test_a_wav_file_whose_form_contradicts_itself_costs_the_worst(forms: list[bytes]) -> None:
    file = formed(*forms)
    assert heard(file) == (len(file) * 10 // 1000, False)


@given(
    at=st.sampled_from([("<I", 28), ("<H", 32), ("<I", 40), ("<I", 4)]),  # rate, block, sound, all
    claim=st.integers(0, 0xFFFF) | st.integers(0, 0xFFFFFFFF),
)
def test_no_single_claim_makes_a_wav_file_cost_less(at: tuple[str, int], claim: int) -> None:
    file = bytearray(wav(96_000))
    struct.pack_into(at[0], file, at[1], claim % (1 << 8 * struct.calcsize(at[0])))
    assert heard(bytes(file))[0] >= 20


def test_other_chunks_of_a_wav_file_are_stepped_over() -> None:
    assert heard(wav(48_000, before=NOTE * 9)) == (10, True)


@pytest.mark.parametrize(
    "file",
    [
        wav(48_000, rate=0),
        wav(48_000, rate=999),
        wav(48_000, rate=0xFFFFFFFF),
        wav(48_000, before=NOTE * 100),
        wav(48_000)[:40],
        wav(48_000).replace(b"fmt ", b"junk"),
        wav(48_000, kind=b"WEBP"),
        b"OggS" + bytes(9999),
        bytes(9999),
        mp3(40, bits=0xFFF3_F4C0),  # no such rate
        mp3(40, bits=0xFFF3_04C0),  # of any rate
        mp3(40, bits=0xFFF3_8CC0),  # no such hertz
        mp3(40, bits=0xFFF5_84C0),  # layer II
        mp3(40, bits=0xFFEB_84C0),  # no such version
        mp3(40, tag=b"ID3\x04\0\0\x7f\x7f\x7f\x7f"),
        b"",
        b"ID3",
    ],
)
def test_a_sound_that_does_not_tell_its_length_costs_as_if_it_were_the_slowest(file: bytes) -> None:
    assert heard(file) == (len(file) * 10 // 1000, False)


def test_an_mp3_file_that_states_its_frames_lasts_as_long_as_they_do() -> None:
    assert heard(mp3(187, stated=187)) == (44, False)
    assert heard(mp3(20, stated=187)) == (21 * 192 * 10 // 1000, False)  # no more than there can be


@pytest.mark.parametrize("stated", [0, 1, 4000])
def test_an_mp3_file_lasts_no_shorter_than_at_its_highest_rate(stated: int) -> None:
    assert heard(mp3(15_624, stated=stated)) == (max(750, stated * 24 // 100), False)  # 3,000,000 bytes
    assert heard(struct.pack(">I", 0xFFFB_E004) + bytes(3_000_000)) == (750, False)


def test_an_mp3_file_that_does_not_is_taken_to_be_of_one_rate() -> None:
    assert heard(mp3(187)) == (44, False)


@pytest.mark.parametrize("flags", [0, 0x10])
def test_the_tag_before_an_mp3_file_is_stepped_over(flags: int) -> None:
    footer = bytes(10) if flags else b""
    tag = b"ID3\x04\0" + bytes([flags, 0, 0, 2, 1]) + b"\xff" * 257 + footer
    assert heard(mp3(187, tag=tag)) == (44, False)


@pytest.mark.parametrize(
    ("bits", "at"), [(EARLY, 36), (EARLY | 0xC0, 21), (0xFFF3_8400, 21), (0xFFF3_84C0, 13)]
)
def test_the_number_of_frames_stands_behind_what_describes_the_first(bits: int, at: int) -> None:
    first = struct.pack(">I", bits).ljust(at, b"\0") + b"Xing" + struct.pack(">II", 1, 100)
    samples, hertz = (1152, 44_100) if bits & 0x80000 else (576, 24_000)
    assert heard(first + bytes(90_000)) == (100 * samples * 10 // hertz, False)


def test_a_file_of_mpeg_1_is_heard_at_its_own_rate() -> None:
    assert heard(struct.pack(">I", EARLY) + bytes(15_996)) == (10, False)


@given(
    file=st.sampled_from([wav(4800), wav(4800, said=0, before=NOTE), mp3(20), mp3(20, stated=20)])
    | st.binary(),
    changes=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=6),
    end=st.integers(0, 5000),
)
def test_no_sound_costs_more_than_the_slowest(file: bytes, changes: list[tuple[int, int]], end: int) -> None:
    damaged = bytearray(file)
    for at, byte in changes:
        damaged[at : at + 1] = bytes([byte])
    damaged = damaged[:end]
    cost, _ = heard(bytes(damaged))
    assert 0 <= cost <= len(damaged) * 10 // 1000
