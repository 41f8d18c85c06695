"""Sockets: which process of a gateway's a connection or a port belongs to, as Linux tells it."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from tests.programs import Gateway


def _sockets(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed just now
            link = os.readlink(descriptor)
            inodes.add(link[8:-1] if link.startswith("socket:[") else "")
    return inodes - {""}


def _table() -> Iterator[tuple[int, int, str]]:
    """The local port, remote port and inode of every TCP socket there is."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        yield int(words[1].partition(":")[2], 16), int(words[2].partition(":")[2], 16), words[9]


def owner(gateway: Gateway, client: int) -> int:
    """The worker that serves the client with that port."""
    here = urlsplit(gateway.url).port
    inode = next(inode for local, remote, inode in _table() if (local, remote) == (here, client))
    return next(pid for pid in gateway.children() if inode in _sockets(pid))


def listens(pid: int, port: int | None) -> bool:
    """Whether a process listens on that port, and on no other."""
    mine = _sockets(pid)
    return {local for local, remote, inode in _table() if inode in mine and not remote} == {port}
