"""Encoded: bytes behind base64, of which a few are looked at and the rest are only measured."""

from binascii import a2b_base64
from dataclasses import dataclass

_LONGEST_HEAD = 256  # characters of a data: URL before its comma


@dataclass(frozen=True, slots=True)
class Encoded:
    """The bytes that `text` encodes from `start` on, in base64 without a break (RFC 4648, section 4).

    Nothing is decoded but what is read. What is not such base64 reads as no bytes.
    """

    text: str
    start: int = 0

    def __len__(self) -> int:
        """How many bytes these are, by the length of their text."""
        return (len(self.text) - self.start) // 4 * 3 - (self.text.endswith("=") + self.text.endswith("=="))

    def read(self, at: int, count: int) -> bytes:
        """The bytes from `at` on, at most `count`; fewer where the text ends or breaks."""
        first, last = at // 3, -(-(at + count) // 3)
        text = self.text[self.start + 4 * first : self.start + 4 * last]
        try:
            found = a2b_base64(text[: len(text) // 4 * 4], strict_mode=True)
        except ValueError:
            return b""
        return found[at - 3 * first :][:count]


def of_url(url: str) -> Encoded | None:
    """What a `data:` URL (RFC 2397) holds in base64; None for any other. Its media type is not believed."""
    head, comma, _ = url[:_LONGEST_HEAD].partition(",")
    said = head.lower()
    if comma and said.startswith("data:") and said.endswith(";base64"):
        return Encoded(url, len(head) + 1)
    return None
