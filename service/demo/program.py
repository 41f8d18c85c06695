"""Program: a command of Weir's in a process of its own, and what it says."""

import json
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from service import settings as configuration
from service.adapters.ledger.embedded import end_with_parent

PATIENCE = 30.0  # s that anything here may take


class Failed(Exception):
    """Something was not as it should be; the message says what."""


class Program:
    """A child process that logs JSON lines, which are read here as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: deque[str] = deque(maxlen=1000)
        self._news = threading.Condition()
        threading.Thread(target=self._read, args=(process.stdout,), daemon=True).start()

    def _read(self, stream: IO[str] | None) -> None:
        for line in stream or ():
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def waiting_for(self, wanted: Callable[[dict[str, object]], bool]) -> dict[str, object]:
        """Take out the first record that is wanted, now or when it comes. Raises Failed."""
        found: dict[str, object] = {}

        def arrived() -> bool:
            for line in self._lines:
                record = json.loads(line) if line.startswith("{") else {"event": line}
                if wanted(record):
                    self._lines.remove(line)
                    found.update(record)
                    return True
            return self.process.poll() is not None

        with self._news:
            if not self._news.wait_for(arrived, PATIENCE) or not found:
                raise Failed("the gateway said: " + "".join([*self._lines][-5:]))
        return found


@contextmanager
def child(*arguments: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """A command of Weir's, which knows no settings but those it is given, ended with the block."""
    unset = {variable: "" for variable, *_ in configuration.described()}
    process = subprocess.Popen(
        [sys.executable, "-m", "service", *arguments],
        env=configuration.inherited(**{**unset, **environment}),
        preexec_fn=end_with_parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
