"""Measures: the numbers of a definition that are written with their unit, and how members are spelled."""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field


def kebab(name: str) -> str:
    """A member's name in the definition: `on_lost` is `on-lost`."""
    return name.replace("_", "-")


def _measure(units: Mapping[str, int], expected: str) -> BeforeValidator:
    """Reads a whole number and its unit: the number times what the unit stands for."""

    def read(value: object) -> int:
        match = re.fullmatch(r"([0-9]{1,12})([A-Za-z%]+)", value) if isinstance(value, str) else None
        if match is None or match[2] not in units:
            raise ValueError(f"expected {expected}")
        return int(match[1]) * units[match[2]]

    return BeforeValidator(read)


def _seconds(milliseconds: int) -> float:
    return milliseconds / 1000


_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}

# `500ms`, `60s`, `2m`, `1h`: seconds, more than 0.
Duration = Annotated[
    float,
    AfterValidator(_seconds),
    Field(gt=0),
    _measure(_MILLISECONDS, "a duration such as 500ms, 60s or 2m"),
]
# `512KB`, `32MB`, `1GB`, `100B`: bytes, more than 0; 1 KB = 1024 B, 1 MB = 1024 KB, 1 GB = 1024 MB.
Size = Annotated[
    int,
    Field(gt=0),
    _measure({"B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}, "a size such as 512KB or 32MB"),
]
# `10%`: the whole number 10, from 0 to 1000. Whole, because what is multiplied with it stays exact.
Percent = Annotated[int, Field(ge=0, le=1000), _measure({"%": 1}, "a whole percentage such as 10%")]
