"""Header fields: lists of (lower-case name, value) in bytes, in the order they travel."""

from collections.abc import Iterable

Field = tuple[bytes, bytes]

# RFC 9110 section 7.6.1, and the two that frame a message.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
FRAMING = frozenset({b"content-length", b"host", b"expect"})
UNTOUCHABLE = HOP_BY_HOP | FRAMING


def first(fields: Iterable[Field], name: bytes) -> bytes | None:
    """The value of the first field of that name, None where there is none."""
    for field, value in fields:
        if field == name:
            return value
    return None


def joined(fields: Iterable[Field], name: bytes) -> str:
    """All values of that name as one text, parted by commas (RFC 9110 section 5.2); empty where none is."""
    return b", ".join(value for field, value in fields if field == name).decode("latin-1")


def doubled(fields: Iterable[Field], names: Iterable[bytes]) -> bytes | None:
    """The first of these names that more than one field has: two readers may then take different ones."""
    fields = list(fields)
    return next((name for name in names if sum(field == name for field, _ in fields) > 1), None)


def without(fields: Iterable[Field], names: Iterable[bytes]) -> list[Field]:
    """The fields, less those of the given names."""
    unwanted = frozenset(names)
    return [field for field in fields if field[0] not in unwanted]


def replaced(fields: Iterable[Field], name: bytes, value: bytes) -> list[Field]:
    """The fields with exactly one of that name, at the end."""
    return [*without(fields, (name,)), (name, value)]


def end_to_end(fields: Iterable[Field]) -> list[Field]:
    """The fields that may travel on: not hop-by-hop, not framing, not named by Connection."""
    fields = list(fields)
    named = {
        token.strip().lower()
        for field, value in fields
        if field == b"connection"
        for token in value.split(b",")
    }
    return without(fields, UNTOUCHABLE | named)
