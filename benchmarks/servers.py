"""Servers: the children of a benchmark, each with a core to run on, all ended with it."""

import ctypes
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks import machine
from service import settings

PATIENCE = 30.0  # s for a server to say where it is
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_QUIET = 0.1  # s in which a server that is at rest uses no more than one tick of CPU
_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


class ServerError(Exception):
    """A server did not start, or is not what it should be; the message says how."""


class Server:
    """A running server: its address, and what it has used."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process = process
        self._log = log
        self.url = self._address()

    @property
    def pid(self) -> int:
        """The process that the others descend from."""
        return self._process.pid

    def rest(self, patience: float = 5.0) -> None:
        """Wait until it has worked off what was asked of it, and forget its log."""
        until, before = time.monotonic() + patience, machine.cpu_seconds(self.pid)
        while before is not None and time.monotonic() < until:
            time.sleep(_QUIET)
            now = machine.cpu_seconds(self.pid) or 0.0
            if now - before <= 0.01:
                break
            before = now
        self._log.write_bytes(b"")

    def _address(self) -> str:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self._process.poll() is None:
            if found := _ADDRESS.search(self._log.read_text()):
                return found[0]
            time.sleep(0.01)
        raise ServerError(f"{self._process.args!r} did not say where it listens: {self._log.read_text()}")


@contextmanager
def python(
    module: str, *arguments: str, folder: Path, cores: frozenset[int], **environment: str
) -> Iterator[Server]:
    """A module of ours as a server; it writes its log into the folder."""
    log = folder / f"{time.monotonic_ns()}.log"
    command = [sys.executable, "-m", module, *arguments]
    with log.open("ab") as out:
        process = _started(command, out.fileno(), cores, settings.inherited(**environment))
    try:
        yield Server(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _started(
    command: Sequence[str], out: int, cores: frozenset[int], environment: dict[str, str]
) -> "subprocess.Popen[bytes]":
    prepare = partial(_prepare, cores) if sys.platform == "linux" else None
    return subprocess.Popen(command, stdout=out, env=environment, preexec_fn=prepare)


def _prepare(cores: frozenset[int]) -> None:
    """In the child: end with the parent, and stay where the measurement wants it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    machine.pin(0, cores)
