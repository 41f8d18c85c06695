"""Header fields: which travel on, and how they are exchanged."""

from service.domain.headers import end_to_end, first, replaced, without

FIELDS = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]


def test_the_first_field_of_a_name_is_found() -> None:
    assert first(FIELDS, b"a") == b"1"
    assert first(FIELDS, b"c") is None


def test_all_fields_of_a_name_are_left_out() -> None:
    assert without(FIELDS, [b"a", b"c"]) == [(b"b", b"2")]


def test_a_replaced_field_is_there_once() -> None:
    assert replaced(FIELDS, b"a", b"4") == [(b"b", b"2"), (b"a", b"4")]
    assert replaced(FIELDS, b"c", b"4") == [*FIELDS, (b"c", b"4")]


def test_hop_by_hop_and_framing_fields_do_not_travel_on() -> None:
    fields = [
        (b"connection", b"close"),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-authorization", b"Basic x"),
        (b"te", b"trailers"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"content-length", b"2"),
        (b"host", b"weir"),
        (b"expect", b"100-continue"),
        (b"content-type", b"application/json"),
    ]
    assert end_to_end(fields) == [(b"content-type", b"application/json")]


def test_what_connection_names_does_not_travel_on() -> None:
    fields = [(b"connection", b"close, X-Hop"), (b"x-hop", b"1"), (b"connection", b"x-two"), (b"x-two", b"2")]
    assert end_to_end([*fields, (b"x-end", b"3")]) == [(b"x-end", b"3")]


def test_fields_that_travel_on_keep_their_order_and_their_repetitions() -> None:
    assert end_to_end(iter(FIELDS)) == FIELDS
