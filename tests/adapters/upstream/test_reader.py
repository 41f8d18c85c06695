"""Reading answers: every framing, cut at every byte, and what is no answer."""

import pytest

from service.adapters.upstream.reader import MAX_HEAD, Reader
from service.domain.errors import UpstreamFailed

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = OK + b"content-length: 5\r\n\r\nhello"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\nx-trailer: 1\r\n\r\n"
CONTINUED = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n" + LENGTH


def asked() -> Reader:
    reader = Reader()
    reader.begin()
    return reader


@pytest.mark.parametrize("answer", [LENGTH, CHUNKED, CONTINUED], ids=["by length", "by chunks", "after 1xx"])
def test_an_answer_is_the_same_wherever_it_is_cut(answer: bytes) -> None:
    for at in range(1, len(answer)):
        reader = asked()
        reader.feed(answer[:at])
        assert not reader.done
        reader.feed(answer[at:])
        assert (reader.done, reader.kept, reader.status, reader.take()) == (True, True, 200, b"hello")


@pytest.mark.parametrize("answer", [LENGTH, CHUNKED, CONTINUED], ids=["by length", "by chunks", "after 1xx"])
def test_an_answer_may_come_byte_by_byte_and_the_next_one_after_it(answer: bytes) -> None:
    reader = asked()
    for _ in range(2):
        reader.begin()
        for byte in answer:
            assert not reader.done
            reader.feed(bytes([byte]))
        assert (reader.done, reader.take()) == (True, b"hello")
        assert len(reader.headers) == 1  # neither an interim answer's fields nor trailers


@pytest.mark.parametrize("answer", [LENGTH, CHUNKED, CONTINUED], ids=["by length", "by chunks", "after 1xx"])
def test_an_end_before_the_end_is_a_failure_wherever_it_comes(answer: bytes) -> None:
    for at in range(len(answer)):
        reader = asked()
        reader.feed(answer[:at])
        with pytest.raises(UpstreamFailed):
            reader.end()


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_an_answer_without_a_length_ends_with_its_connection(version: bytes) -> None:
    reader = asked()
    reader.feed(b"HTTP/%b 200 OK\r\n\r\nhel" % version)
    reader.feed(b"lo")
    assert not reader.done
    reader.end()
    assert (reader.done, reader.kept, reader.take()) == (True, False, b"hello")


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", True),
    ],
)
def test_a_connection_is_kept_if_the_server_means_to(head: bytes, kept: bool) -> None:
    reader = asked()
    reader.feed(head + b"content-length: 2\r\n\r\n{}")
    assert (reader.done, reader.kept) == (True, kept)


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_what_has_no_content_is_whole_with_its_head(status: bytes) -> None:
    reader = asked()
    reader.feed(b"HTTP/1.1 " + status + b"\r\netag: a\r\n\r\n")
    assert (reader.done, reader.kept, reader.take()) == (True, True, b"")


@pytest.mark.parametrize("more", [b"x", LENGTH, b"\0"], ids=["a letter", "an answer", "nothing"])
@pytest.mark.parametrize("answer", [LENGTH, CHUNKED], ids=["by length", "by chunks"])
def test_what_follows_an_answer_costs_the_connection_and_not_the_answer(answer: bytes, more: bytes) -> None:
    reader = asked()
    reader.feed(answer + more)
    assert (reader.done, reader.kept, reader.status, reader.take()) == (True, False, 200, b"hello")


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\n",
        OK + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\nz\r\n",
        OK + b"a: " + b"b" * MAX_HEAD,
        OK + b"a: b\r\n" * MAX_HEAD,
        b"HTTP/1.1 100 Continue\r\n\r\n" * MAX_HEAD,
        CHUNKED.removesuffix(b"\r\n") + b"a: b\r\n" * MAX_HEAD,
    ],
    ids=[
        "another protocol",
        "an upgrade",
        "an upgrade to nothing",
        "two lengths",
        "two framings",
        "no chunk",
        "an endless field",
        "endless fields",
        "endless interim answers",
        "endless trailers",
    ],
)
def test_what_is_no_answer_is_a_failure(said: bytes) -> None:
    with pytest.raises(UpstreamFailed):
        asked().feed(said)


def test_a_stream_is_known_by_its_kind_and_taken_piece_by_piece() -> None:
    reader = asked()
    reader.feed(OK + b"Content-Type: Text/Event-Stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n")
    assert (reader.streams, reader.size) == (True, 0)
    reader.feed(b"1\r\na\r\n1\r\nb\r\n")
    assert (reader.size, reader.take(), reader.size) == (2, b"ab", 0)
