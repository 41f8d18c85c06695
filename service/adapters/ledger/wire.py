"""Wire: what carries scripts to the ledger, whatever REDIS_URL names."""

from service.adapters.ledger import address
from service.adapters.ledger.cluster import Cluster
from service.adapters.ledger.link import Link
from service.adapters.ledger.scripts import Scripts
from service.adapters.ledger.sentinel import Sentinels

Wire = Link | Cluster


def open_wire(url: str, scripts: Scripts, *, connections: int = 2, timeout: float = 1.0) -> Wire:
    """A link to one server, or to the master that sentinels name, or a cluster. Connects when first used.

    `connections` to each server; `timeout` in seconds. Raises ValueError where the URL is none of `Address`.
    """
    place = address.read(url)
    if place.kind == "cluster":
        return Cluster(url, scripts, connections=connections, timeout=timeout)
    if place.kind == "sentinel":
        guide = Sentinels(place, timeout=timeout)
        server = place.server(place.nodes[0])  # but for the host and the port, which the guide says
        return Link(server, scripts, connections=connections, timeout=timeout, guide=guide)
    return Link(url, scripts, connections=connections, timeout=timeout)
