"""Address: who is trusted to say where a request comes from, and what is believed of it."""

import pytest

from service.domain.address import Proxies, parsed, proxies

TRUSTED = proxies("10.0.0.0/8, 2001:db8::/32,192.0.2.1,")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.1,203.0.113.9 ,\t192.0.2.1,10.9.9.9", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "198.51.100.1, unknown, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "198.51.100.1, unknown", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, , 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "[2001:DB9:0:0::7]:4711", "2001:db9::7"),
        ("::ffff:10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
        ("2001:db8::1", "2001:0DB9:0000::0001", "2001:db9::1"),
        ("fe80::1%eth0", "198.51.100.1", "fe80::1"),
        ("", "198.51.100.1", ""),
        ("/run/weir.sock", "198.51.100.1", ""),
    ],
)
def test_the_last_address_that_no_trusted_proxy_has_is_where_a_request_comes_from(
    peer: str, forwarded: str, client: str
) -> None:
    assert TRUSTED.client(peer, forwarded) == client


def test_nobody_is_trusted_unless_named() -> None:
    assert Proxies().client("10.0.0.1", "198.51.100.1") == "10.0.0.1"


@pytest.mark.parametrize("text", ["", "a", "1.2.3", "1.2.3.4.5", "[]", "٣.0.0.1", "::1::", "1.2.3.4/8", "]"])
def test_what_is_no_address_is_none(text: str) -> None:
    assert parsed(text) is None


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "proxy.example", "10.0.0.1;10.0.0.2"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"addresses and networks such as 10\.0\.0\.0/8"):
        proxies(text)
