"""Wire: every form of REDIS_URL leads to something that carries calls."""

import pytest

from service.adapters.ledger.cluster import Cluster
from service.adapters.ledger.link import Link
from service.adapters.ledger.wire import open_wire
from tests.adapters.ledger.servers import COUNTING


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://one", Link),
        ("unix:///run/redis.sock", Link),
        ("redis+sentinel://one/ledger", Link),
        ("redis+cluster://one", Cluster),
    ],
)
def test_the_address_says_what_carries_the_calls(url: str, kind: type) -> None:
    wire = open_wire(url, COUNTING)
    assert isinstance(wire, kind)
    assert wire.splits is (kind is Cluster)
    assert wire.scripts is COUNTING


def test_an_address_that_is_none_carries_nothing() -> None:
    with pytest.raises(ValueError, match="an address beginning redis://"):
        open_wire("http://one", COUNTING)
    with pytest.raises(ValueError, match=r"redis\+cluster://"):
        Cluster("redis://one", COUNTING)
