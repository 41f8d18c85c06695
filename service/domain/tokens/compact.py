"""Compact: values as JSON in as few characters as it takes."""

import json
from collections.abc import Iterator


def compact(value: object, *, ascii: bool = False) -> str:
    """The value as JSON without white space; where it nests too deep for that, its strings alone."""
    try:
        return json.dumps(value, ensure_ascii=ascii, separators=(",", ":"))
    except (RecursionError, ValueError):
        return " ".join(strings(value))


def strings(value: object) -> Iterator[str]:
    """Every string in a value, names of members included."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, dict):
            waiting.extend(item)
            waiting.extend(item.values())
