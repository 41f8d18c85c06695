"""Images: what a picture of some size costs by its detail, one rule for each way that models see.

All of it is OpenAI's documentation, guides/images-vision, Calculating costs (September 2026); in integers,
because a float that is a little too large costs a tile or a patch.
"""

from dataclasses import dataclass
from math import isqrt

from service.domain.tokens.pictures import Size

_MOST_TILES = 8  # 2,048 × 768 px
_PATCH = 32  # pixels a side
_MOST_PATCHES = 30_000  # with more a request is refused


@dataclass(frozen=True, slots=True)
class Tiles:
    """An image costs `base`, and `tile` for each 512 px square of it unless its detail is low.

    Before, it is made to fit into 2,048 × 2,048 px, and its shorter side into 768 px.
    """

    base: int
    tile: int

    def tokens(self, size: Size, detail: str) -> int:
        """What an image of that size costs."""
        if detail == "low":
            return self.base
        long, short = max(size), min(size)
        if long > 2048:
            long, short = 2048, short * 2048 // long
        if short > 768:
            long, short = long * 768 // short, 768
        return self.base + self.tile * -(-long // 512) * max(1, -(-short // 512))

    def worst(self, detail: str) -> int:
        """The most that an image of any size costs."""
        return self.base if detail == "low" else self.base + self.tile * _MOST_TILES

    def certain(self, detail: str) -> bool:
        """Whether the size does not matter."""
        return detail == "low"


@dataclass(frozen=True, slots=True)
class Limit:
    """How large a model looks at an image: pixels of the longer `side`, and how many `patches` if not all."""

    side: int
    patches: int | None = None

    def seen(self, size: Size) -> int:
        """The patches of an image once it has been made smaller."""
        width, height = self._fitted(size)
        if self.patches and _patches(width, height) > self.patches:
            width, height = _shrunk(width, height, self.patches)
        return min(_patches(width, height), _MOST_PATCHES)

    def most(self) -> int:
        """The patches of the largest one."""
        return min(_patches(self.side, self.side), self.patches or _MOST_PATCHES)

    def _fitted(self, size: Size) -> tuple[int, int]:
        """Rounded, a half up: nobody says which way, and so it is not too little."""
        longer = max(size)
        if longer <= self.side:
            return size
        width, height = (max(1, (2 * side * self.side + longer) // (2 * longer)) for side in size)
        return width, height


@dataclass(frozen=True, slots=True)
class Patches:
    """An image costs `percent` hundredths of a token for each 32 px square of it, when it is within `high`.

    `low`, `original` and `auto` are the limits of the other details where they differ.
    """

    percent: int
    high: Limit
    low: Limit | None = None
    original: Limit | None = None
    auto: Limit | None = None

    def tokens(self, size: Size, detail: str) -> int:
        """What an image of that size costs."""
        return self._priced(self._limit(detail).seen(size))

    def worst(self, detail: str) -> int:
        """The most that an image of any size costs."""
        return self._priced(self._limit(detail).most())

    def certain(self, detail: str) -> bool:
        """Whether the size does not matter."""
        return False

    def _limit(self, detail: str) -> Limit:
        limits = {"low": self.low, "high": self.high, "original": self.original}
        return limits.get(detail, self.auto) or self.high

    def _priced(self, patches: int) -> int:
        return -(-patches * self.percent // 100)


def _patches(width: int, height: int) -> int:
    return -(-width // _PATCH) * -(-height // _PATCH)


def _shrunk(width: int, height: int, patches: int) -> tuple[int, int]:
    """Scaled by the largest factor that makes one side a whole number of patches, and no more than allowed.

    The two steps of the documentation (by the square root of the allowed area over the area there is, then
    down until a side is whole) come to that.
    """
    columns, rows = isqrt(patches * width // height), isqrt(patches * height // width)
    if columns * height <= rows * width:
        return _PATCH * columns, height * _PATCH * columns // width
    return width * _PATCH * rows // height, _PATCH * rows
