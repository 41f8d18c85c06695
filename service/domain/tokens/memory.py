"""Memory: what texts counted, by a digest of each, so that a conversation's past is counted once."""

SHORTEST = 16  # characters; what is shorter is counted as fast as it is found

Key = tuple[int, int]


def key_of(text: str) -> Key:
    """A text's digest and its length.

    The digest is Python's own: SipHash, 64 bits, with a secret of this process unless PYTHONHASHSEED gives it
    away. So nobody can make two texts that count as one, and no text is kept. Of two texts of one length, one
    in 2^64 is taken for the other.
    """
    return hash(text), len(text)


class Memory:
    """Numbers by key; the last `size` ones at least, and twice as many at most.

    There are two generations. What is new or found goes into the young one; when that is full it becomes the
    old one, which is forgotten. Several threads may use it: at worst one of them counts again.
    An entry takes about 160 bytes.
    """

    def __init__(self, size: int = 16_384) -> None:
        self._size = size
        self._young: dict[Key, int] = {}
        self._old: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: Key) -> int | None:
        """What was put under that key."""
        tokens = self._young.get(key)
        if tokens is None:
            tokens = self._old.get(key)
            if tokens is not None:
                self.put(key, tokens)
        return tokens

    def put(self, key: Key, tokens: int) -> None:
        """Remember."""
        if len(self._young) >= self._size:
            self._old, self._young = self._young, {}
        self._young[key] = tokens
