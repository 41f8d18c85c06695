"""Wire: what carries scripts to the ledger, whatever REDIS_URL names."""

import asyncio

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


async def master_of(wire: Wire, key: str, *, anew: bool = False) -> Link:
    """The link to the server that has a key; `anew` where the last one failed. Raises LedgerAway."""
    return await wire.master_of(key, anew=anew) if isinstance(wire, Cluster) else wire


async def maxmemory_policy(wire: Wire) -> str:
    """What the masters do when memory is full, the worst where they differ; quotas need `noeviction`.

    Raises LedgerAway.
    """
    found = await asyncio.gather(*(_maxmemory_policy(link) for link in await wire.masters()))
    return max(found, key=lambda policy: (policy != "noeviction", policy != "unknown"))


async def _maxmemory_policy(link: Link) -> str:
    answer = await link.ask("CONFIG", "GET", "maxmemory-policy")
    if isinstance(answer, dict):
        answer = [item for pair in answer.items() for item in pair]
    value = answer[1] if isinstance(answer, list) and len(answer) == 2 else b"unknown"
    return value.decode() if isinstance(value, bytes) else str(value)
