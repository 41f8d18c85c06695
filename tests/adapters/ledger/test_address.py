"""Address: what REDIS_URL may be, and what is said of one that it may not be."""

import pytest

from service.adapters.ledger.address import read


@pytest.mark.parametrize(
    "url",
    [
        "redis://redis.example:6379/2",
        "redis:///1",
        "redis://[::1]:6379",
        "rediss://me:secret@redis?ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=no&ssl_cert_reqs=required",
        "redis://redis?protocol=2&client_name=weir-1&socket_timeout=0.5&username=me&password=secret",
        "unix:///run/redis.sock?db=1",
        "unix://me:secret@/run/redis.sock",
    ],
)
def test_one_server_is_named_as_redis_py_names_it(url: str) -> None:
    address = read(url)
    assert (address.kind, address.url, address.nodes) == ("server", url, ())


def test_a_cluster_is_named_by_some_of_its_nodes() -> None:
    address = read("rediss+cluster://me:s%40cret@one:7001,two,[::1]:7003/?ssl_ca_path=/etc/ca&protocol=3")
    assert (address.kind, address.nodes) == ("cluster", (("one", 7001), ("two", 6379), ("::1", 7003)))
    options = "?ssl_ca_path=%2Fetc%2Fca&protocol=3"
    assert address.server(("10.0.0.1", 6380)) == f"rediss://me:s%40cret@10.0.0.1:6380/{options}"
    assert address.server(("fd00::1", 6380)) == f"rediss://me:s%40cret@[fd00::1]:6380/{options}"
    assert read("redis+cluster://one").server(("two", 1)) == "redis://two:1/"


def test_sentinels_have_a_password_of_their_own() -> None:
    url = "redis+sentinel://:m%2Fine@s1,s2:5000/the-master/3?sentinel_password=the%20irs&client_name=weir"
    address = read(url)
    assert (address.kind, address.master) == ("sentinel", "the-master")
    assert address.nodes == (("s1", 26379), ("s2", 5000))
    assert address.server(("10.0.0.1", 6379)) == "redis://:m%2Fine@10.0.0.1:6379/3?client_name=weir"
    assert address.sentinel(("s1", 26379)) == "redis://:the%20irs@s1:26379/?client_name=weir"
    user = read("rediss+sentinel://s1/the-master?sentinel_username=me&sentinel_password=it")
    assert user.sentinel(("s1", 26379)) == "rediss://me:it@s1:26379/"
    assert user.server(("m", 1)) == "rediss://m:1/"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://secret", "an address beginning redis:// or rediss:// or unix:// or redis+cluster:// or "),
        ("redis+clutser://secret", "an address beginning "),
        ("redis", "an address beginning "),
        ("redis://", "redis://host:port/db"),
        ("redis://:pass#secret@redis", "redis://host:port/db; what is special in a password is written %XX"),
        ("redis://redis:99999", "redis://host:port/db"),
        ("redis://redis:0", "redis://host:port/db"),
        ("rediss://[::1", "rediss://host:port/db"),
        ("redis://redis/secret", "redis://host:port/db, where db is a number"),
        ("unix://secret", "unix:///path"),
        ("unix:///", "unix:///path"),
        ("redis://redis?secret=1", "after `?` only protocol, client_name, "),
        ("redis://redis?ssl_keyfile=secret", "after `?` only protocol, client_name, "),
        ("redis://redis?secret", "after `?` only protocol, client_name, "),
        ("redis://redis?protocol=secret", "protocol= 2 or 3 after `?`"),
        ("redis://redis?db=secret", "db= a number after `?`"),
        ("redis://redis?socket_timeout=secret", "socket_timeout= seconds after `?`"),
        ("rediss://redis?ssl_cert_reqs=secret", "ssl_cert_reqs= none or optional or required after `?`"),
        ("redis+cluster://", "an address beginning "),
        ("redis+cluster://secret:@:7001", "redis+cluster://host:port, or several with a comma between them"),
        ("redis+cluster://one,,two", "redis+cluster://host:port, or several with a comma between them"),
        ("redis+cluster://one:0", "redis+cluster://host:port, or several with a comma between them"),
        ("redis+cluster://a:b:secret", "redis+cluster://host:port, or several with a comma between them"),
        ("redis+cluster://:pass/secret@one", "redis+cluster://host:port, or several with a comma"),
        (
            "redis+cluster://:sec@ret@one",
            "redis+cluster://host:port, or several with a comma between them, and",
        ),
        ("redis+cluster://one/1", "no database: a cluster has only the first"),
        ("redis+cluster://one?db=1", "after `?` only protocol, client_name, "),
        ("redis+cluster://one?sentinel_password=secret", "after `?` only protocol, client_name, "),
        ("redis+sentinel://s1,s2", "the name of the master after the sentinels: redis+sentinel://host:port/"),
        ("rediss+sentinel://s1/", "the name of the master after the sentinels: rediss+sentinel://host:port/"),
        ("redis+sentinel://s1/secret/x", "the name of the master after the sentinels"),
    ],
)
def test_what_an_address_should_have_been_is_told_and_nothing_of_what_it_is(url: str, expected: str) -> None:
    with pytest.raises(ValueError) as wrong:  # noqa: PT011 - its text is looked at below
        read(url)
    assert str(wrong.value).startswith(expected)
    for secret in ("secret", "sec@ret", "pass/", "pass#"):
        assert secret not in str(wrong.value)


def test_an_address_does_not_show_itself() -> None:
    for url in ("redis://:secret@one", "redis+sentinel://:secret@s1/m?sentinel_password=secret"):
        assert "secret" not in repr(read(url))
