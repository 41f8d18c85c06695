import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.tokens.encoded import Encoded, of_url
from service.domain.tokens.pictures import LONGEST, Size, size
from tests.domain.tokens.files import extended, gif, jpeg, lossless, lossy, png, segment, url, webp

Make = Callable[[int, int], bytes]
FORMATS: dict[str, tuple[Make, int]] = {
    "png": (png, LONGEST),
    "gif": (gif, LONGEST),
    "jpeg": (jpeg, LONGEST),
    "webp, lossy": (lossy, 16_383),
    "webp, lossless": (lossless, 16_384),
    "webp, extended": (extended, LONGEST),
}


def encoded(file: bytes) -> Encoded:
    return Encoded(base64.b64encode(file).decode())


class Watched(Encoded):
    """Notes how many bytes were read."""

    read_so_far = 0

    def read(self, at: int, count: int) -> bytes:
        found = super().read(at, count)
        type(self).read_so_far += len(found)
        return found


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_the_size_of_a_picture_is_what_its_header_says(name: str, data: st.DataObject) -> None:
    make, longest = FORMATS[name]
    width, height = data.draw(st.integers(1, longest)), data.draw(st.integers(1, longest))
    assert size(encoded(make(width, height))) == (width, height)


@pytest.mark.parametrize("name", FORMATS)
def test_a_picture_cut_short_has_a_size_or_none(name: str) -> None:
    file = FORMATS[name][0](300, 200)
    found = [size(encoded(file[:length])) for length in range(len(file) + 1)]
    assert set(found) == {None, (300, 200)}
    assert found.index(Size(300, 200)) > 8


@pytest.mark.parametrize("frame", sorted({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}))
def test_every_kind_of_jpeg_frame_states_the_size(frame: int) -> None:
    assert size(encoded(jpeg(640, 480, frame=frame))) == (640, 480)


def test_the_thumbnail_in_a_jpeg_is_stepped_over_unread() -> None:
    before = [segment(0xE1, b"Exif\0\0" + jpeg(160, 120) + bytes(40_000)), segment(0xE2, bytes(65_533))] * 9
    file = jpeg(4032, 3024, before=before)
    Watched.read_so_far = 0
    assert size(Watched(base64.b64encode(file).decode())) == (4032, 3024)
    assert Watched.read_so_far < 300


def test_the_tables_of_a_jpeg_are_no_frame() -> None:
    tables = [segment(marker, bytes(40)) for marker in (0xC4, 0xC8, 0xCC, 0xDB, 0xDD)]
    assert size(encoded(jpeg(640, 480, before=tables))) == (640, 480)


def test_how_a_webp_is_to_be_scaled_is_no_part_of_its_size() -> None:
    assert size(encoded(lossy(300 | 0xC000, 200 | 0xC000))) == (300, 200)


def test_a_jpeg_of_nothing_but_segments_is_given_up() -> None:
    many = [segment(0xFE, b"")] * 100_000
    Watched.read_so_far = 0
    assert size(Watched(base64.b64encode(jpeg(640, 480, before=many)).decode())) is None
    assert Watched.read_so_far < 1000


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"GIF89",
        b"\xff\xd8",
        b"BM" + bytes(60),
        b"%PDF-1.7" + bytes(60),
        b"<svg width='1' height='1'/>" + bytes(60),
        png(300, 200).replace(b"IHDR", b"CgBI"),
        png(0, 200),
        png(300, 0),
        png(LONGEST + 1, 1),
        gif(0, 0),
        jpeg(300, 0),  # which says it later (DNL)
        jpeg(300, 200, before=[b"\xff\xda"]),
        jpeg(300, 200, before=[b"\xff\xd8"]),
        jpeg(300, 200, before=[b"\xff\xff"]),
        jpeg(300, 200, before=[b"\xff\xe0\x00\x01"]),
        jpeg(300, 200, before=[b"\x00\x00"]),
        lossy(300, 200).replace(b"\x9d\x01\x2a", b"\x9d\x01\x2b"),
        lossless(300, 200).replace(b"\x2f", b"\x2e", 1),
        extended(LONGEST + 1, 1),
        webp(b"ALPH", bytes(40)),
        lossy(300, 200).replace(b"WEBP", b"AVI "),
    ],
)
def test_what_does_not_state_a_size_that_can_be_has_none(file: bytes) -> None:
    assert size(encoded(file)) is None


@given(
    make=st.sampled_from([make for make, _ in FORMATS.values()]),
    changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6),
    end=st.integers(0, 400),
)
def test_a_damaged_picture_has_a_size_that_can_be_or_none(
    make: Make, changes: list[tuple[int, int]], end: int
) -> None:
    file = bytearray(make(300, 200))
    for at, byte in changes:
        file[at % len(file)] = byte
    found = size(encoded(bytes(file[:end])))
    assert found is None or (0 < found.width <= LONGEST and 0 < found.height <= LONGEST)


@given(file=st.binary(max_size=99), at=st.integers(0, 120), count=st.integers(0, 120))
def test_a_part_of_what_is_encoded_is_read_as_if_all_were_decoded(file: bytes, at: int, count: int) -> None:
    found = encoded(file)
    assert found.read(at, count) == file[at : at + count]
    assert len(found) == len(file)


@pytest.mark.parametrize(
    "text",
    [
        "iVBO\n\n\n\nRw0KGgoAAAAN",
        "iVBORw0K\nGgoAAAAN",
        "iVBORw0K%2BgoAAAAN",
        "iVBORw0K-_oAAAAN",
        "iVBO=w0KGgoAAAAN",
        "äöüß" * 9,
        "A",
        "=",
    ],
)
def test_what_is_no_base64_without_a_break_reads_as_nothing(text: str) -> None:
    assert Encoded(text).read(0, 12) == b""


def test_base64_that_is_cut_short_is_read_as_far_as_it_is_whole() -> None:
    assert Encoded("AAAAAA").read(0, 9) == bytes(3)


@pytest.mark.parametrize(
    "said",
    [
        "data:image/png;base64,AAAA",
        "DATA:IMAGE/PNG;BASE64,AAAA",
        "data:;base64,AAAA",
        "data:image/jpeg;name=a.jpg;base64,AAAA",
    ],
)
def test_a_data_url_holds_what_stands_behind_its_comma(said: str) -> None:
    found = of_url(said)
    assert found is not None
    assert found.read(0, 9) == bytes(3)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "data:",
        "data:image/png;base64",
        "data:image/svg+xml,%3Csvg/%3E",
        "data:" + "x" * 999 + ";base64,AAAA",
        "https://a.example/b;base64,AAAA",
        "AAAA",
    ],
)
def test_no_other_url_holds_anything(said: str) -> None:
    assert of_url(said) is None


def test_the_media_type_of_a_url_is_not_believed() -> None:
    found = of_url(url(jpeg(640, 480), kind="image/png"))
    assert found is not None
    assert size(found) == (640, 480)
