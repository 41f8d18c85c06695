"""Address: where a request comes from, told by its peer and by proxies that are trusted to say so."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies whose X-Forwarded-For counts, as networks; none by default."""

    networks: tuple[Network, ...] = ()

    def __contains__(self, address: Address) -> bool:
        return any(address in network for network in self.networks)

    def client(self, peer: str, forwarded: str) -> str:
        """The address a request comes from; empty where the peer has none.

        `forwarded` is what X-Forwarded-For says: each proxy adds at the end whom it saw. Whoever is no
        trusted proxy may have written all that stands before, so it is read from the end to the first such
        address. Where an entry is no address, nothing before it is believed, and the last good one counts.
        """
        client = parsed(peer)
        if client is None:
            return ""
        if client in self:
            for entry in reversed(forwarded.split(",")):
                address = parsed(entry.strip(" \t"))
                if address is None:
                    break
                client = address
                if client not in self:
                    break
        return str(client)


def parsed(text: str) -> Address | None:
    """The address in a text, perhaps with a port; None where there is none.

    One host has one address: an IPv4 address written as IPv6 is IPv4, and a zone is left out.
    """
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def proxies(text: str) -> Proxies:
    """The proxies of a text: addresses and networks with commas between. Raises ValueError."""
    words = [word.strip() for word in text.split(",")]
    try:
        return Proxies(tuple(ip_network(word) for word in words if word))
    except ValueError:
        raise ValueError("addresses and networks such as 10.0.0.0/8, with commas between") from None
