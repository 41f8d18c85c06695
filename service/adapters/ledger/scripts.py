"""Scripts: the Lua of the ledger, found, put together and named by its digest."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_WITHIN_PACKAGE = Path(__file__).parents[2] / "lua"  # in the wheel
_IN_CHECKOUT = Path(__file__).parents[3] / "lua"

NAMES = ("reserve", "settle", "renew", "peek", "reset", "rule", "heartbeat")


@dataclass(frozen=True, slots=True)
class Script:
    """A script as the server gets it."""

    name: str
    text: str
    sha: str


@dataclass(frozen=True, slots=True)
class Scripts:
    """All of them."""

    reserve: Script
    settle: Script
    renew: Script
    peek: Script
    reset: Script
    rule: Script
    heartbeat: Script

    def __iter__(self) -> Iterator[Script]:
        return (getattr(self, name) for name in NAMES)


def folder() -> Path:
    """Where the scripts lie: inside the installed package, or beside it in a checkout."""
    return _WITHIN_PACKAGE if _WITHIN_PACKAGE.is_dir() else _IN_CHECKOUT


def load(lua: Path | None = None) -> Scripts:
    """Read the scripts, what they share in front of each."""
    lua = lua or folder()
    shared = (lua / "account.lua").read_text()
    return Scripts(**{name: _script(name, shared + (lua / f"{name}.lua").read_text()) for name in NAMES})


def _script(name: str, text: str) -> Script:
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
