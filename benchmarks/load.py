"""Load: as many requests at a time as there are connections, each sent when the last was answered."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Heard:
    """What a load heard: answers, those of them that were no success, requests never answered; ms."""

    answers: int
    seconds: float
    p50: float
    p99: float
    refused: int
    lost: int

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds if self.seconds else 0.0


class Load(Protocol):
    """What puts a server at `url` under load for some seconds."""

    def __call__(self, url: str, seconds: float) -> Heard: ...


class LoadError(Exception):
    """The load itself did not work; the message says how."""


def percentile(ordered: Sequence[float], share: float) -> float:
    """The least value that `share` (0 to 1) of all values do not exceed (nearest rank); 0 without values."""
    if not ordered:
        return 0.0
    return ordered[max(1, math.ceil(share * len(ordered))) - 1]


def wrk_program() -> str | None:
    """Where wrk is, if it is here."""
    return shutil.which("wrk")
